"""Guest and host share one definition of a line: what the guest's printer makes, the host's parser takes, no more."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, load

from kgen.kernel.protocol import RECORDS, SENTENCES, TABLE_HEADER, Log, guest_format, parse_line, parse_log, parse_row
from kgen.kernel.render import render
from kgen.resources import data_dir
from kgen.spec import Case, KernelSpec

_CONVERSION = re.compile(r"%(.)")
VALUES = {
    "u": st.integers(0, 2**32 - 1).map(str),
    "q": st.integers(0, 2**64 - 1).map(str),
    "x": st.integers(0, 2**32 - 1).map("{:08x}".format),
    "s": st.from_regex(r"[a-z0-9.:@-]{1,20}", fullmatch=True),
}


_BOOT = f"version=1 case=c digest=d build={'0' * 40} path=1 phases=1"


def checked(body: str) -> str:
    return f"{body} crc={zlib.crc32(body.encode()):08x}"


@st.composite
def printed(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """A line as put_format of record.asm would print it: the format with its conversions replaced."""
    kind = draw(st.sampled_from(sorted(RECORDS)))
    values: list[str] = []

    def convert(match: re.Match[str]) -> str:
        values.append(draw(VALUES[match[1]]))
        return values[-1]

    body = _CONVERSION.sub(convert, guest_format(kind))
    return kind, checked(f"kgen:{draw(st.integers(0, 2**32 - 1))} {body}"), values


@settings(max_examples=draws(300))
@given(printed())
def test_what_the_guest_prints_is_parsed(line: tuple[str, str, list[str]]) -> None:
    kind, text, values = line
    parsed = parse_line(text)
    assert parsed is not None
    assert parsed.kind == kind
    assert "".join(parsed.fields.values()) == "".join(values)
    assert list(parsed.fields) == re.findall(r"([a-z0-9_]+)=%", RECORDS[kind])


@pytest.mark.parametrize("name", NAMES)
def test_recorded_lines_are_printed_back(name: str) -> None:
    """Filling the format with the parsed fields gives the recorded line: nothing is lost on the way."""
    log = parse_log(load(name).log)
    assert log.intact
    native = [line for line in load(name).lines if line.startswith("kgen:")]
    for line, text in zip(log.lines, native, strict=True):
        body = " ".join(f"{key}={value}" for key, value in line.fields.items())
        assert checked(f"kgen:{line.sequence} {line.kind} {body}") == text


def test_every_kind_has_been_printed_by_a_real_guest() -> None:
    """All but the fault line, which takes a broken guest, and the sign of life, which takes a slow one (see the boot
    tests)."""
    seen = {line.kind for name in NAMES for line in parse_log(load(name).log).lines}
    assert seen | {"fault", "progress"} == set(RECORDS)


@pytest.mark.parametrize(
    "body",
    [
        "kgen:5 cpus found=3 needed=3 x2apic=0 clock=1",
        "kgen:5 cpus found=3 needed=3 x2apic=0 clock=1 khz=2 more=1",
        "kgen:5 cpus needed=3 found=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found=03 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found=+3 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found=-3 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found=1_0 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found= needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus found=4294967296 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 cpus  found=3 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:05 cpus found=3 needed=3 x2apic=0 clock=1 khz=2",
        "kgen: cpus found=3 needed=3 x2apic=0 clock=1 khz=2",
        "kgen:5 count phase=0 cpu=0 puts=18446744073709551616 takes=0 tries=0",
        "kgen:5 end state=3 cpus=3 log=0000000",
        "kgen:5 end state=3 cpus=3 log=0000000G",
        "kgen:5 end state=3 cpus=3 log=0000000A",
        "kgen:5 hello state=3",
        "gen:5 end state=3 cpus=3 log=00000000",
    ],
)
def test_what_the_printer_cannot_make_is_no_line(body: str) -> None:
    assert parse_line(checked(body)) is None


def test_the_checksum_decides() -> None:
    text = checked("kgen:5 end state=3 cpus=3 log=00000000")
    assert parse_line(text) is not None
    for other in (text[:-1] + "x", text.upper(), f" {text}", f"{text} ", text.replace("state=3", "state=4")):
        assert parse_line(other) is None


@settings(max_examples=draws(300))
@given(st.text(max_size=80))
def test_any_text_can_be_looked_at(text: str) -> None:
    assert parse_line(text) is None
    parse_row(text)


def test_rows() -> None:
    assert parse_row("counts:\t1\t0\t1\t0") == (1, 0, 1, 0)
    assert parse_row("counts:\t18446744073709551615\t0\t0\t-1") == (2**64 - 1, 0, 0, -1)
    for text in (TABLE_HEADER, "counts: 1 0 1 0", "counts:\t1\t0\t1", "counts:\t1\t0\t1\t0\t", "counts:\t-1\t0\t1\t0"):
        assert parse_row(text) is None
    assert TABLE_HEADER.split("\t") == ["counts:", "count0", "count1", "count2", "count0-count1+count2"]


def test_the_kernel_holds_the_formats_the_host_parses() -> None:
    text = render(KernelSpec(Case("xchg"))).text
    for kind in RECORDS:
        assert f'.asciz "{guest_format(kind)}"' in text
    assert '.asciz "counts:\\tcount0\\tcount1\\tcount2\\tcount0-count1+count2"' in text


def test_each_conversion_is_one_the_printer_knows() -> None:
    used = {letter for text in RECORDS.values() for letter in _CONVERSION.findall(text)}
    printer = (data_dir("kernel_templates") / "record.asm").read_text()
    assert used == set(VALUES)
    # %u is what is left when the others do not match
    assert {letter for letter in used if f"cmp al, '{letter}'" in printer} == used - {"u"}


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_each_report_pushes_what_its_format_takes(kind: str) -> None:
    """record pops nothing: the caller takes four bytes a conversion off the stack, and four for the format."""
    text = render(KernelSpec(Case("xchg"), suite="one", budget=1)).text
    expected = 4 + 4 * len(_CONVERSION.findall(RECORDS[kind]))
    calls = re.findall(rf"push format_{kind}\s+call record\s+add esp, (\d+)", text)
    assert calls
    assert {int(amount) for amount in calls} == {expected}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_for_people_belong_to_the_log(name: str) -> None:
    """They are understood, count into the checksum, and stand in the way of nothing; another text does."""
    assert SENTENCES[name] in render(KernelSpec(Case("xchg"))).text
    sentence = SENTENCES[name].replace("%u", "12").replace("%x", "0010a0ff")
    boot = checked(f"kgen:0 boot {_BOOT}")
    for text, fault in ((sentence, ""), (f"{sentence} or so", "unreadable after line 0")):
        body = f"{boot}\n{text}\n"
        end = checked(f"kgen:1 end state=5 cpus=1 log={zlib.crc32(body.encode()):08x}")
        log = parse_log(f"{body}{end}\n".encode())
        assert log.intact == (not fault)
        assert log.fault.startswith(fault)
        assert log.said == ("" if fault else sentence)
    other = body.replace("12", "13").replace(" or so", "").replace("10a0ff", "10a0fe")
    assert "checksum over the whole log" in parse_log(f"{other}{end}\n".encode()).fault


def test_a_line_that_was_read_before_is_read_the_same() -> None:
    """What a line says is kept: it cannot be changed, is of this text alone, and holds for lines of any length."""
    text = checked(f"kgen:0 boot {_BOOT}")
    first, second = parse_line(text), parse_line(text, 7)
    assert first is not None
    assert second == replace(first, offset=7)
    with pytest.raises(TypeError):
        first.fields["case"] = "other"  # type: ignore[index]
    for damaged in (text.replace("case=c", "case=d"), text[:-1], f" {text}"):
        assert parse_line(damaged) is None
    long = checked(f"kgen:0 boot {_BOOT.replace('case=c', 'case=' + 'c' * 5000)}")
    for _ in range(2):
        line = parse_line(long)
        assert line is not None
        assert line.text("case") == "c" * 5000
        assert parse_line(long.replace("c" * 5000, "c" * 4999)) is None


def test_an_empty_log() -> None:
    assert parse_log(b"") == Log((), (), False, "the first line is missing")
