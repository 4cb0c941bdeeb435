"""Which access came between the halves of which exchange, on records as short as they can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kgen.evidence.kvm_trace import TraceEvent, remarks, surroundings

CELL = 0xB8000
TOKEN = 0xDAA66D13


def trace(text: str) -> tuple[TraceEvent, ...]:
    """Events in words: ``1ask 0read:5 0write:7``, one ms apart."""
    events = []
    for at, word in enumerate(text.split()):
        name, _, value = word.partition(":")
        kind = name.lstrip("0123456789")
        assert kind in ("ask", "read", "write")
        cpu = int(name.removesuffix(kind))
        events.append(TraceEvent(at / 1000, cpu, kind, CELL, 32, int(value or "0", 16), at))  # type: ignore[arg-type]
    return tuple(events)


def test_a_write_between_the_halves_of_an_exchange_is_remarked_on() -> None:
    found = remarks(trace("1ask 1read:0 0ask 0read:0 0write:daa66d13 1write:0"))
    assert found[:-1] == [""] * 5
    assert found[-1] == "the other half of the exchange begun 5.000 ms before: daa66d13 came between"


def test_the_read_begins_when_it_is_asked_for() -> None:
    assert "daa66d13 came between" in remarks(trace("1ask 0write:daa66d13 1read:0 1write:0"))[-1]


def test_a_write_that_was_not_seen_although_it_was_begun_before() -> None:
    text = "0ask 0read:0 0write:daa66d13 1ask 1read:0 1write:0"
    assert remarks(trace(text))[-1].endswith("it had not seen daa66d13, which was under way")
    # it has been carried out before its CPU does anything else
    assert remarks(trace(text.replace("1ask", "0ask 1ask")))[-1] == ""
    assert remarks(trace(text.replace("1read:0", "1read:daa66d13")))[-1] == ""


def test_exchanges_one_after_the_other_deserve_no_remark() -> None:
    assert not any(remarks(trace("0ask 0read:0 0write:5 0ask 1ask 1read:5 1write:0 1ask 1read:0 0read:0")))


def test_a_write_that_ends_no_exchange_deserves_no_remark() -> None:
    assert not any(remarks(trace("1read:0 1ask 0write:5 1write:0")))


def test_the_surroundings_reach_back_to_what_was_under_way() -> None:
    spin = " 2ask 2read:0" * 30
    events = trace(f"1ask 1read:0 1write:0 1ask{spin} 0ask 0read:0 0write:daa66d13 1read:0 1write:0 1ask")
    found = surroundings(events, CELL, TOKEN)
    assert [(event.cpu, event.kind) for event in found[:2]] == [(1, "ask"), (2, "ask")]
    assert [event.index for event in found][:3] == [3, 62, 63]
    assert "daa66d13 came between" in remarks(found)[found.index(found[-2])]


def test_the_surroundings_reach_to_the_end_of_what_was_under_way() -> None:
    spin = " 2ask 2read:0" * 30
    late = trace(f"0ask 0read:0 0write:daa66d13 1ask 1read:daa66d13{spin} 1write:7 1ask")
    found = surroundings(late, CELL, TOKEN)
    assert [(event.cpu, event.kind, event.index) for event in found[-2:]] == [(2, "read", 14), (1, "write", 65)]
    lost = trace(f"1ask 1read:0 0ask 0read:0 0write:daa66d13{spin} 1write:7")
    assert "daa66d13 came between" in remarks(surroundings(lost, CELL, TOKEN))[-1]


def test_a_gap_hides_whether_a_write_was_under_way() -> None:
    whole = trace("0write:7 2ask 2read:0 1ask 1read:0 1write:0")
    assert remarks(whole)[-1]
    assert remarks([whole[0], *whole[2:]])[-1] == ""


def test_a_token_that_nobody_put_has_no_surroundings() -> None:
    assert surroundings(trace("0ask 0read:0 0write:5"), CELL, TOKEN) == ()
    assert surroundings(trace("0write:daa66d13"), CELL + 4, TOKEN) == ()


EVENTS = st.lists(
    st.builds(
        TraceEvent,
        seconds=st.just(0.0),
        cpu=st.integers(0, 3),
        kind=st.sampled_from(["ask", "read", "write"]),
        address=st.sampled_from([CELL, CELL + 4]),
        width=st.just(32),
        value=st.sampled_from([0, TOKEN, 5]),
    ),
    max_size=60,
)


@given(EVENTS)
def test_any_record_has_surroundings_in_its_own_order(events: list[TraceEvent]) -> None:
    found = surroundings(events, CELL, TOKEN)
    here = [event for event in events if event.address == CELL]
    assert bool(found) == any(event.kind == "write" and event.value == TOKEN for event in here)
    assert [event.index for event in found] == sorted({event.index for event in found})
    assert all(here[event.index] == TraceEvent(**{**vars(event), "index": 0}) for event in found)
    assert len(remarks(found)) == len(found)
