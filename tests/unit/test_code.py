"""The result code: it survives being copied, and a wrong copy does not survive."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from random import Random

import counted
import pytest
from _changes import Change, both, chain, fault, phase
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, load
from test_verdict import CASE, OLD, OLD_CASE, POWER, SEEN, died, ended_by, faulted, never_failed, violated

from kgen.errors import ProtocolError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.evidence.records import ABRIDGED, Count, Record
from kgen.kernel.code_alphabet import (
    ALPHABET,
    DIGITS,
    GROUP,
    HIGHEST,
    MOST_SHOWN,
    STATES,
    WORD_SYMBOLS,
    Reader,
    checksum,
    from_text,
    heading,
    names,
    number,
    order,
    read_heading,
    short,
    to_text,
)
from kgen.kernel.live import MOST, MOST_VIOLATED, Live, needed
from kgen.kernel.plan import phases
from kgen.kernel.results_block import Decode, KernelState, PhaseStatus, Role
from kgen.offline.result_code import Code, decode, encode, rebuild
from kgen.spec import Case
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import OLD_PROOF, ControlResult, Verdict, VerdictKind

SPEC = load("tcg-atomic").spec
EMPTY = {"rounds": 0, "judged": 0, "events": 0, "counts": tuple(Count(cpu, 0, 0, 0) for cpu in range(3))}
#: The longest that a line of the screen can hold.
COLUMNS = 80


def log_alone(seen: Observation) -> Observation:
    """The same where the log is all there is: a code is the shorter form of that."""
    return replace(seen, platform=SERIAL_ONLY, memory=None, path=NOT_ASKED, paths={}, cells=())


def serial_of(seen: Observation) -> Record:
    assert seen.serial is not None
    return seen.serial


def idle(record: Record) -> Record:
    """CPU 2 took no part in the case: all its takes are CPU 1's. (A whole record of tokens would contradict itself.)"""
    counts = record.phases[CASE].counts
    taken = counts[1].takes + counts[2].takes
    new = (counts[0], replace(counts[1], takes=taken, tries=taken), Count(2, 0, 0, 0))
    return replace(
        record, phases=(*record.phases[:CASE], replace(record.phases[CASE], counts=new), *record.phases[CASE + 1 :])
    )


def absent(status: PhaseStatus) -> Change:
    return phase(CASE, status=status, decode=Decode.UNKNOWN, **EMPTY)


#: What each verdict looks like, and by what change of a good run one comes to it.
CASES: dict[str, tuple[VerdictKind, Change]] = {
    "atomic": (VerdictKind.ATOMIC, lambda seen: seen),
    "lost tokens": (VerdictKind.NOT_ATOMIC, violated(CASE, 3)),
    "a silent control": (VerdictKind.INCONCLUSIVE, never_failed(POWER)),
    "a control of one instruction that is silent": (VerdictKind.ATOMIC, never_failed(POWER + 1)),
    "a control of one instruction that hardly ran": (VerdictKind.INCONCLUSIVE, never_failed(POWER + 1, 99)),
    "stopped": (VerdictKind.ATOMIC, both(lambda record: replace(record, state=KernelState.STOPPED))),
    "RAM": (VerdictKind.RAM_BACKED, phase(CASE, decode=Decode.RAM)),
    "unattested": (VerdictKind.INCONCLUSIVE, phase(CASE, decode=Decode.UNKNOWN)),
    "no such target": (VerdictKind.SKIP, absent(PhaseStatus.ABSENT)),
    "no storage": (VerdictKind.NO_STORAGE, absent(PhaseStatus.NO_STORAGE)),
    "unstable": (VerdictKind.NO_STORAGE, phase(CASE, status=PhaseStatus.UNSTABLE)),
    "#UD in the case": (VerdictKind.UNSUPPORTED, ended_by(CASE, 1, 6)),
    "#DE in the case": (VerdictKind.CRASH, ended_by(CASE, 2, 0)),
    "#UD outside": (VerdictKind.CRASH, faulted(fault(1, 6))),
    "#UD outside, in a control": (VerdictKind.CRASH, faulted(fault(254, 6), running=1)),
    "the emulator died": (VerdictKind.CRASH, died("killed", running=CASE)),
    "the sanity control": (VerdictKind.ERROR, violated(0, 2)),
    "not parked": (
        VerdictKind.ERROR,
        chain(
            phase(CASE, status=PhaseStatus.NOT_PARKED),
            both(lambda record: replace(record, state=KernelState.NOT_PARKED)),
        ),
    ),
    "too few CPUs": (
        VerdictKind.ERROR,
        both(
            lambda record: replace(
                record, state=KernelState.TOO_FEW_CPUS, cpus_found=2, phases=(), witnesses=(), phase=-1
            )
        ),
    ),
}


def same(told: Verdict, again: Verdict, *, old: bool = False, rounded: bool = False) -> None:
    """What a code keeps of a verdict; one of an older kernel has all. ``rounded``: its counts of live batches had no
    room."""
    assert again.kind is told.kind, (told.reason, again.reason)
    for name in ("rounds", "violations") if rounded else ("rounds", "judged", "bound", "violations", "chance"):
        assert getattr(again, name) == getattr(told, name), name
    assert again.judged <= told.judged
    for control, kept in zip(told.controls, again.controls, strict=True):
        if old or "/" not in control.label:
            assert kept == control
        else:
            check_control(control, kept, decided=told.kind is VerdictKind.NOT_ATOMIC, rounded=rounded)
    assert any("result code" in note for note in again.notes)


def is_rounded(text: str, record: Record) -> bool:
    """Whether a code had no room for the counts of live batches as they are."""
    digits = digits_of(text)
    return any(Reader(short(count, digits, up=False)).short(digits) != count for count in lives(record))


def check_control(told: ControlResult, kept: ControlResult, *, decided: bool, rounded: bool) -> None:
    """What a code keeps of a walk's control: the orders of its numbers, and how often it failed in live batches where
    that may decide."""
    assert (kept.label, kept.role, kept.ended) == (told.label, told.role, told.ended)
    assert 0 < kept.rounds <= told.rounds or kept.rounds == told.rounds
    for kind, count in told.violations.items():
        order = 1 << count.bit_length() >> 1
        assert kept.violations[kind] in ((order, bool(count)) if rounded else (order,)), kind
    if not rounded and (not decided or kept.power):
        assert (kept.power, kept.enough) == (told.power, told.enough)


@pytest.mark.parametrize("name", CASES)
def test_every_verdict_survives(name: str) -> None:
    kind, change = CASES[name]
    seen = log_alone(change(SEEN))
    told = judge(SPEC, seen)
    assert told.kind is kind, told.reason
    text = encode(SPEC, serial_of(seen))
    code = decode(text)
    spec, observation = rebuild(code)
    assert spec == SPEC
    same(told, judge(spec, observation), rounded=is_rounded(text, serial_of(seen)))
    last = {entry.index: entry for entry in serial_of(seen).phases}.get(CASE)
    if last is not None and code.phases[CASE].rounds:
        takes = [count.takes for count in last.counts]
        assert (code.count0, code.count1, code.count2) == (last.counts[0].puts, takes[1], sum(takes[2:]))
        assert observation.rows == ((code.count0, code.count1, code.count2, code.difference),)


def test_that_is_every_verdict_there_is() -> None:
    assert {kind for kind, _ in CASES.values()} == set(VerdictKind)


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_run_survives(name: str) -> None:
    """From the log and from memory alike, the cases of suites too."""
    recording = load(name)
    seen = recording.alone()
    for number_, case in enumerate(recording.spec.cases):
        text = encode(recording.spec, serial_of(seen), number_)
        memory = recording.observed().memory
        assert memory is not None
        assert encode(recording.spec, memory, number_) == text
        spec, observation = rebuild(decode(text))
        assert spec.case == case
        old = recording.spec.rules == OLD_RULES
        same(judge(recording.spec, seen, number_), judge(spec, observation), old=old)


def test_a_cpu_that_took_no_part_is_told() -> None:
    code = decode(encode(SPEC, serial_of(both(idle)(SEEN))))
    assert code.idle == 2
    verdict = judge(*rebuild(code))
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "CPU 2 never tried" in verdict.reason


def test_a_good_run_is_a_short_line() -> None:
    text = encode(SPEC, serial_of(SEEN))
    assert len(text.replace("-", "")) <= MOST_SHOWN
    assert all(len(group) == GROUP for group in text.split("-")[:-1])
    long = encode(load("kvm-lost").spec, serial_of(load("kvm-lost").observed()))
    assert len(long.replace("-", "")) <= MOST_SHOWN
    assert len(f"kgen judge --code {long}") <= 2 * COLUMNS


def test_totals_that_do_not_fit_are_an_error() -> None:
    """Each CPU's counters are not in a code; that its totals fit its violations is checked all the same."""
    code = decode(encode(SPEC, serial_of(SEEN)))
    wrong = replace(code, count1=code.count1 - 1)
    verdict = judge(*rebuild(wrong))
    assert verdict.kind is VerdictKind.ERROR
    assert "do not fit" in verdict.reason


def test_without_controls_it_is_never_atomic() -> None:
    spec = replace(SPEC, controls=False)
    record = serial_of(SEEN)
    alone = replace(record, phases=(replace(record.phases[CASE], index=0),), phase=0)
    verdict = judge(*rebuild(decode(encode(spec, alone))))
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "no controls were run" in verdict.reason


def test_a_rebuilt_record_has_no_code() -> None:
    spec, observation = rebuild(decode(encode(SPEC, serial_of(SEEN))))
    with pytest.raises(ProtocolError, match="abridged"):
        encode(spec, serial_of(observation))


def test_a_record_that_has_lost_a_cpu_has_no_code() -> None:
    """As a log is read whose lines of counters are damaged."""
    record = serial_of(SEEN)
    phase = replace(record.phases[CASE], counts=record.phases[CASE].counts[:1])
    with pytest.raises(ProtocolError, match="lost counters of a CPU"):
        encode(SPEC, replace(record, phases=(*record.phases[:CASE], phase)))


def test_a_record_that_does_not_say_what_ended_it_has_no_code() -> None:
    with pytest.raises(ProtocolError, match="what exception"):
        encode(SPEC, serial_of(faulted()(SEEN)))


# --- rounding ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1 << 40), st.integers(1, 3), st.booleans())
def test_a_short_number_is_near(value: int, digits: int, up: bool) -> None:
    made = short(value, digits, up=up)
    assert len(made) <= digits + 1
    reader = Reader(made)
    again = reader.short(digits)
    assert reader.is_over
    assert 0 <= (again - value if up else value - again) <= value >> 4 * digits
    if value < 2 << 4 * digits:
        assert again == value


@given(st.integers(0, 1 << 40))
def test_an_order_is_a_lower_limit(value: int) -> None:
    again = Reader((order(value),)).order()
    assert again <= value < 2 * again or value == again == 0 or again == 1 << HIGHEST - 1


_VIOLATED = st.integers(0, MOST_VIOLATED)


@given(_VIOLATED, st.integers(0, MOST - MOST_VIOLATED), st.integers(0, 2 * MOST_VIOLATED + 1), st.sampled_from(DIGITS))
def test_rounding_never_makes_a_control_stronger(violated: int, rest: int, switches: int, digits: int) -> None:
    """Of what the code says at least as many live batches follow as of what was counted."""
    most = max(1, digits)

    def kept(value: int, up: bool) -> int:
        return Reader(short(value, most, up=up)).short(most)

    told = Live(live=violated + rest, violated=violated, switches=min(switches, 2 * min(violated, rest) + 1))
    again = replace(told, live=violated + kept(rest, violated > 0), switches=kept(told.switches, False))
    asked, asked_again = needed(told), needed(again)
    assert (asked is None) == (asked_again is None)
    assert asked is None or asked_again is None or asked_again >= asked


#: A case on each kind of place, in each way to run; the last ones are of suites.
REQUESTS = (
    KernelSpec(Case("xchg"), proof_seconds=60),
    KernelSpec(Case("xchg"), rounds=300),
    KernelSpec(Case("xchg", target="ram"), proof_seconds=60),
    KernelSpec(Case("xchg", experiment="mutex"), proof_seconds=9),
    KernelSpec(Case("add"), proof_seconds=60),
    KernelSpec(Case("cmpxchg8b", cpus=5), rounds=0),
    KernelSpec(Case("xchg", experiment="chain"), suite="x", budget=9),
    KernelSpec(Case("or"), suite="x", budget=9),
)


@settings(max_examples=draws(400))
@given(st.sampled_from(REQUESTS), st.randoms(use_true_random=False))
def test_a_code_never_claims_more_than_was_recorded(spec: KernelSpec, random: Random) -> None:
    """The same verdict, but where a number had to be rounded INCONCLUSIVE for ATOMIC."""
    made = counted.record(spec, random)
    text = encode(spec, made)
    code = decode(text)
    tabled = spec.case.experiment == "token"
    seen = Observation(SERIAL_ONLY, replace(made, channel=ABRIDGED), None, NOT_ASKED)
    told = judge(spec, replace(seen, rows=(made.phases[-1].row,) if tabled else ()))
    again = judge(*rebuild(code))
    if told.kind is VerdictKind.ATOMIC and is_rounded(text, made):
        assert again.kind in (VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE)
    else:
        assert again.kind is told.kind, (told.reason, again.reason)
    assert (again.rounds, again.violations) == (told.rounds, told.violations)
    assert again.judged <= told.judged
    for ran, entry in zip(made.phases, code.phases, strict=True):
        for counts, kept in zip(ran.live, entry.live, strict=False):
            assert kept.violated == (counts.violated if ran.role is Role.POWER else 0)
            assert kept.live >= counts.live if counts.violated else kept.live <= counts.live
            assert kept.switches <= counts.switches
    assert again.kind is not VerdictKind.ERROR, again.reason
    if spec is REQUESTS[0]:
        assert len(text.replace("-", "")) <= MOST_SHOWN


def lives(record: Record) -> list[int]:
    """The counts of live batches that a code rounds."""
    found = [live for phase in record.phases for live in phase.live]
    return [count for live in found for count in (live.live, live.live - live.violated, live.switches)]


def digits_of(text: str) -> int:
    """How many digits of them a code has."""
    symbols = from_text(text)
    reader = Reader(symbols)
    read_heading(reader)
    return reader.symbol() // STATES


def test_all_of_that_happens() -> None:
    """The random records are of every verdict that matters, and some of their codes are rounded."""
    random = Random(15)
    kinds: Counter[VerdictKind] = Counter()
    digits: Counter[int] = Counter()
    for _ in range(300):
        made = counted.record(REQUESTS[0], random)
        text = encode(REQUESTS[0], made)
        kinds[judge(*rebuild(decode(text))).kind] += 1
        digits[digits_of(text)] += 1
    assert set(kinds) == {VerdictKind.ATOMIC, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE}
    assert min(kinds.values()) > 20
    assert set(digits) == set(DIGITS)


# --- older kernels -----------------------------------------------------------------------------------------------


def test_the_code_of_an_older_kernel_is_still_read() -> None:
    """As its screen showed it. Its own rules said ATOMIC, and it did not count whether operations met."""
    (text,) = (line.split("text=")[1].split()[0] for line in OLD.lines if " code text=" in line)
    spec, observation = rebuild(decode(text))
    assert spec.rules == OLD_RULES
    assert encode(OLD.spec, serial_of(OLD.observed())) == text
    verdict = judge(spec, observation)
    assert (verdict.kind, verdict.reason) == (VerdictKind.INCONCLUSIVE, OLD_PROOF)
    assert verdict.rounds == serial_of(OLD.observed()).phases[OLD_CASE].rounds


# --- copying -----------------------------------------------------------------------------------------------------

TEXT = encode(SPEC, serial_of(SEEN))


@pytest.mark.parametrize(
    "copied",
    [
        TEXT.lower(),
        TEXT.replace("-", ""),
        TEXT.replace("-", " "),
        f"  {TEXT}\r\n",
        TEXT.replace("0", "O"),
        TEXT.replace("0", "o").replace("1", "l"),
        TEXT.replace("1", "I"),
    ],
)
def test_how_it_is_written_down_does_not_matter(copied: str) -> None:
    assert decode(copied) == decode(TEXT)


def test_one_wrong_character_is_detected() -> None:
    """Whichever it is, and whatever stands in its place."""
    for at, right in enumerate(TEXT):
        for wrong in ALPHABET if right != "-" else "":
            if wrong != right:
                with pytest.raises(ProtocolError, match="not copied as it was printed"):
                    from_text(TEXT[:at] + wrong + TEXT[at + 1 :])


def test_swapped_neighbours_are_detected() -> None:
    """In every text of two characters at the place where data and checksum meet, as elsewhere."""
    letters = TEXT.replace("-", "")
    for at in range(len(letters) - 1):
        swapped = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
        if swapped != letters:
            with pytest.raises(ProtocolError):
                from_text(swapped)
    edge = -WORD_SYMBOLS
    for last in itertools.product(range(32), repeat=2):
        whole = [*last, *checksum(last)]
        whole[edge - 1], whole[edge] = whole[edge], whole[edge - 1]
        if whole[edge - 1] != whole[edge]:
            assert tuple(whole[edge:]) != checksum(whole[:edge])


def test_a_missing_or_doubled_character_is_detected() -> None:
    letters = TEXT.replace("-", "")
    for at in range(len(letters)):
        for wrong in (letters[:at] + letters[at + 1 :], letters[:at] + letters[at] + letters[at:]):
            with pytest.raises(ProtocolError):
                from_text(wrong)


@given(st.text(max_size=120) | st.text(ALPHABET + "-", max_size=120))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode(text)
    assert "\n" not in raised.value.line


_SYMBOL = st.integers(0, 31)


@given(st.lists(_SYMBOL, max_size=80), st.integers(0, 40))
def test_no_symbols_with_a_good_checksum_raise_anything_else(symbols: list[int], kept: int) -> None:
    """What no kernel printed is refused, or is judged like anything that a kernel says."""
    good = from_text(TEXT)
    for made in (symbols, [*good[:kept], *symbols]):
        if made:
            try:
                code = decode(to_text(made))
            except ProtocolError:
                continue
            assert isinstance(code, Code)
            judge(*rebuild(code))


@given(st.integers(0, 2**64 - 1))
def test_numbers_come_back(value: int) -> None:
    reader = Reader(number(value))
    assert reader.number() == value
    assert reader.is_over


def test_a_number_that_is_too_wide_is_refused() -> None:
    with pytest.raises(ProtocolError, match="64 bits"):
        Reader([31] * 17 + [1]).number()


# --- the heading -------------------------------------------------------------------------------------------------


def test_no_two_cases_share_what_stands_for_their_names() -> None:
    shared = [name for name, count in Counter(name for name, _ in names()).items() if count > 1]
    assert shared == []


@pytest.mark.parametrize(
    "spec",
    [
        KernelSpec(Case("xchg")),
        KernelSpec(Case("xchg", lock=False), rounds=0),
        KernelSpec(Case("add", 8, target="ram", source="imm", offset=63, cpus=255), rounds=1, controls=False),
        KernelSpec(Case("xadd", target="0xfed00108", offset=4), rounds=0xFFFFFFFF),
        KernelSpec(Case("cmpxchg8b", cpus=4), suite="x", budget=9),
        KernelSpec(Case("xchg"), proof_seconds=60),
        KernelSpec(Case("xchg"), rules=OLD_RULES),
        KernelSpec(Case("add"), suite="x", budget=9, rules=OLD_RULES),
    ],
)
def test_a_heading_says_what_the_verdict_depends_on(spec: KernelSpec) -> None:
    reader = Reader(heading(spec, spec.case))
    again = read_heading(reader)
    assert reader.is_over
    assert (again.case, again.rounds, again.controls) == (spec.case, spec.rounds, spec.controls)
    assert (again.proof_seconds, again.rules) == (spec.proof_seconds, spec.rules)
    assert bool(again.suite) == bool(spec.suite)
    kept = [(each.role, each.label, each.rounds, each.enough, each.adaptive) for each in phases(spec)]
    assert [(each.role, each.label, each.rounds, each.enough, each.adaptive) for each in phases(again)] == kept
    assert phases(again)[-1].role is Role.CASE


@pytest.mark.parametrize(
    ("symbols", "reason"),
    [
        ((3, 0), "version 3"),
        ((1, 1, 0, 0, 0, 0, 0), "does not know"),
        (heading(SPEC, SPEC.case), "too early"),
        ((*from_text(TEXT), 0), "more in the result code"),
        ((2, 3, *heading(SPEC, SPEC.case)[2:]), "contradicts itself"),
        ((*heading(OLD.spec, OLD.spec.case), 31), "counts live batches"),
        ((2, 5, *heading(SPEC, SPEC.case)[2:7], *number(0x9000), *number(9)), "makes no sense"),
        ((*heading(SPEC, SPEC.case)[:-1], *number(1 << 40)), "makes no sense"),
    ],
)
def test_what_no_kernel_makes_is_refused(symbols: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode(to_text(symbols))
