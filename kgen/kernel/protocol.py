"""The guest's report lines: one definition that the guest prints from and the host parses with.

A native line is ``kgen:SEQ KIND key=value ... crc=XXXXXXXX``: SEQ counts from 0 and the CRC-32 (ISO-HDLC, as in zlib)
covers the line up to the blank before ``crc=``. The closing ``end`` line also carries ``log=``, the CRC-32 of every
byte from the first native line to the end line's first byte, without carriage returns. It also covers the table rows,
which are for people and keep the original program's exact form.
"""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from kgen.errors import ProtocolError

TABLE_HEADER = "counts:\tcount0\tcount1\tcount2\tcount0-count1+count2"
LINE_PREFIX = "kgen:"

#: The conversions of the guest's printer: %u 32-bit decimal, %q 64-bit decimal through a pointer, %x eight hex digits,
#: %s text through a pointer.
RECORDS: Mapping[str, str] = {
    "boot": "version=%s case=%s digest=%s build=%x%x%x%x%x path=%u phases=%u",
    "spec": "text=%s",
    "cpus": "found=%u needed=%u x2apic=%u clock=%u khz=%u",
    "phase": "index=%u label=%s address=%x cells=%u rounds=%u",
    "probe": "phase=%u decode=%u latency=%u",
    "witness": "index=%u phase=%u kind=%u round=%q cell=%u token=%x value=%x cpu=%u other=%u tsc=%q",
    "count": "phase=%u cpu=%u puts=%q takes=%q tries=%q",
    "live": ("phase=%u style=%u batches=%u live=%u violated=%u switches=%u blind=%u blind_violated=%u struck=%u"),
    "result": (
        "phase=%u status=%u rounds=%q lost=%q duplicate=%q torn=%q stale=%q left=%q foreign=%q events=%q judged=%q "
        "ticks=%q"
    ),
    "progress": "phase=%u rounds=%q",
    "fault": "cpu=%u vector=%u error=%x eip=%x eflags=%x cr2=%x phase=%u",
    "code": "text=%s",
    "done": "case=%u log=%x",
    "end": "state=%u cpus=%u log=%x",
}


#: Sentences for people about a failed run. The checksum of the log covers them, but no verdict rests on them.
SENTENCES: Mapping[str, str] = {
    "too_few": "only %u of %u CPUs started: give the machine %u CPUs",
    "silent": "only %u of %u CPUs started: firmware lists %u, and the others do not answer",
    "no_apic": "only %u of %u CPUs started: this one has no local APIC to call the others with",
    "fault": "CPU %u stopped with exception %u at %x",
}


#: The magic before the specification's text in memory. The text is stored in the parts that the ``spec`` lines print,
#: with a zero after each and another one after the last.
SPEC_MAGIC = b"KGENSPEC"
#: How many characters of the specification one ``spec`` line has.
SPEC_PART = 256


def spec_parts(text: str) -> tuple[str, ...]:
    """Return the specification's text in the pieces that the kernel prints, one in each line."""
    return tuple(text[at : at + SPEC_PART] for at in range(0, len(text), SPEC_PART))


def guest_format(kind: str) -> str:
    """Return the format string as the guest holds it."""
    return f"{kind} {RECORDS[kind]}"


@dataclass(frozen=True)
class Line:
    """One native line that passed its CRC."""

    sequence: int
    kind: str
    fields: Mapping[str, str]
    #: Its offset in the normalised log.
    offset: int

    def number(self, name: str) -> int:
        """Return a decimal field. Raises ProtocolError."""
        return self._int(name, 10)

    def hexadecimal(self, name: str) -> int:
        """Return a hexadecimal field. Raises ProtocolError."""
        return self._int(name, 16)

    def text(self, name: str) -> str:
        """Return a field as it is. Raises ProtocolError."""
        if name not in self.fields:
            raise ProtocolError(f"a {self.kind} line has no {name}", where=f"serial line {self.sequence}")
        return self.fields[name]

    def _int(self, name: str, base: int) -> int:
        try:
            return int(self.fields[name] if name in self.fields else self.text(name), base)
        except ValueError as error:
            raise ProtocolError(f"{name} is not a number", where=f"serial line {self.sequence}") from error


@dataclass(frozen=True)
class Log:
    """A parsed serial log."""

    lines: tuple[Line, ...]
    rows: tuple[tuple[int, int, int, int], ...]
    #: Whether the log has its closing line, and everything from the first line to it is as it was printed: consecutive
    #: numbers, right CRCs, a right CRC of the whole.
    intact: bool
    #: Why it is not intact.
    fault: str
    #: How many of a suite's cases have a closing line up to which the log is as it was printed.
    closed: int = 0
    #: The guest's last sentence for people (SENTENCES), "" where there is none: no verdict rests on it.
    said: str = ""


#: The exact form of what each conversion prints: a number has no sign and no leading zero, and fits its width in bits.
_CONVERSIONS: Mapping[str, tuple[str, int]] = {
    "u": (r"(?:0|[1-9][0-9]{0,9})", 32),
    "q": (r"(?:0|[1-9][0-9]{0,19})", 64),
    "x": (r"[0-9a-f]{8}", 0),
    "s": (r"[^ ]+", 0),
}


def _sentence_pattern(text: str) -> str:
    """Return a pattern for a sentence as it is printed."""
    return re.sub(r"%([ux])", lambda match: _CONVERSIONS[match[1]][0], text)


_FIELD = re.compile(r"([a-z0-9_]+)=((?:%[uqxs])+)")
_LINE = re.compile(LINE_PREFIX + r"(0|[1-9][0-9]{0,9}) ([a-z]+) (.*) crc=([0-9a-f]{8})")
_ROW = re.compile(r"counts:\t([0-9]{1,20})\t([0-9]{1,20})\t([0-9]{1,20})\t(-?[0-9]{1,20})")
#: The lines of the Test Anything Protocol among the native lines of a suite. They are for other tools; no verdict rests
#: on them.
_TAP = re.compile(r"TAP version 14|1\.\.[0-9]+|(?:not )?ok [0-9]+ - [^ ]+(?: # SKIP)?")
_SENTENCE = re.compile("|".join(_sentence_pattern(text) for text in SENTENCES.values()))
#: The beginning of a kernel's log. Firmware may have left the cursor in the middle of a line.
_START = re.compile(LINE_PREFIX + "0 boot ")
#: Line ends with carriage returns. No search begins inside a sequence of them, which could be a whole file.
_LINE_ENDS = re.compile(r"(?<!\r)\r+\n")
#: Text that looks like a line of the guest's, whole or cut.
_OURS = re.compile(LINE_PREFIX + r"[0-9]|^counts:", re.MULTILINE)


def _pattern(kind: str) -> re.Pattern[str]:
    """Return a pattern for lines of that kind between the kind and the checksum, made from the format that the guest
    prints with."""

    def convert(match: re.Match[str]) -> str:
        conversions = match[2].split("%")[1:]
        return f"{match[1]}=(?P<{match[1]}>" + "".join(_CONVERSIONS[letter][0] for letter in conversions) + ")"

    return re.compile(_FIELD.sub(convert, RECORDS[kind]))


def _widths(kind: str) -> Mapping[str, int]:
    """Return the decimal fields of a kind, with their widths in bits."""
    return {name: _CONVERSIONS[letters[1]][1] for name, letters in _FIELD.findall(RECORDS[kind]) if letters[1] in "uq"}


_PATTERNS: Mapping[str, re.Pattern[str]] = {kind: _pattern(kind) for kind in RECORDS}
_WIDTHS: Mapping[str, Mapping[str, int]] = {kind: _widths(kind) for kind in RECORDS}


def parse_line(text: str, offset: int = 0) -> Line | None:
    """Return a native line with a right CRC that the guest's printer can make exactly like this, otherwise None."""
    read = _kept(text) if len(text) <= _KEPT_LENGTH else _read(text)
    return None if read is None else Line(*read, offset)


def _read(text: str) -> tuple[int, str, Mapping[str, str]] | None:
    """Return the number, the kind and the fields of a native line."""
    match = _LINE.fullmatch(text)
    if match is None or match[2] not in RECORDS:
        return None
    if zlib.crc32(text[: match.end(3)].encode("latin-1", "replace")) != int(match[4], 16):
        return None
    fields = _PATTERNS[match[2]].fullmatch(match[3])
    if fields is None or any(int(fields[name]) >> bits for name, bits in _WIDTHS[match[2]].items()):
        return None
    return int(match[1]), match[2], MappingProxyType(fields.groupdict())


#: A log is parsed several times before there is a verdict: as captured, without what a terminal added, and case by
#: case. So the results for lines are cached, except for lines longer than the guest's usual ones.
_kept = functools.lru_cache(maxsize=2048)(_read)
_KEPT_LENGTH = 1024


def is_foreign(text: str) -> bool:
    """Return whether this is a native line of another kgen's: its CRC is right, but this version's printer cannot make
    it."""
    match = _LINE.fullmatch(text)
    right = match is not None and zlib.crc32(text[: match.end(3)].encode("latin-1", "replace")) == int(match[4], 16)
    return right and parse_line(text) is None


def is_guest_line(text: str) -> bool:
    """Return whether this is exactly a line that a guest of this version prints."""
    other = text == TABLE_HEADER or _ROW.fullmatch(text) or _TAP.fullmatch(text)
    return bool(other) or parse_line(text) is not None


def parse_row(text: str) -> tuple[int, int, int, int] | None:
    """Return a row of the table for people: count0, count1, count2 and the difference."""
    match = _ROW.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]), int(match[4]))


def parse_log(data: bytes) -> Log:
    """Parse a log. Never raises: a line that cannot be parsed makes the log not intact.

    Bytes before the first native line (of firmware, boot loaders) are ignored, and so is text after the closing line
    that does not look like the guest's. A log may hold several whole runs, of which the last counts. An earlier start
    that did not reach its end, or that shows violations, makes the log not intact. Line ends are LF or CR LF.
    """
    text = _LINE_ENDS.sub("\n", data.decode("latin-1"))
    starts = [match.start() for match in _START.finditer(text)] or [max(text.find(LINE_PREFIX), 0)]
    earlier = "the log begins in the middle" if _OURS.search(text, 0, starts[0]) else ""
    for start, end in itertools.pairwise(starts):
        before = _parse_run(text[start:end], start)
        if not before.intact:
            earlier = earlier or "an earlier start did not reach its end"
        elif _shows_violations(before):
            earlier = earlier or "an earlier run in the same log shows violations"
    log = _parse_run(text[starts[-1] :], starts[-1])
    return replace(
        log, intact=log.intact and not earlier, fault=log.fault or earlier, closed=0 if earlier else log.closed
    )


def _shows_violations(log: Log) -> bool:
    """Return whether a run has violations in any phase except a power control."""
    powers = {
        line.text("index") for line in log.lines if line.kind == "phase" and line.text("label").startswith("power:")
    }
    return any(line.kind == "witness" and line.text("phase") not in powers for line in log.lines)


Row = tuple[int, int, int, int]


class Rows:
    """The rows of a table. A log of one day has a million.

    After the first ``ALL`` rows, a row is left out where it is ``plain`` and its counters are between those of the rows
    before and after it. So the kept rows are plain and count forwards if and only if all rows do.
    """

    ALL = 1000

    def __init__(self, plain: Callable[[Row], bool]) -> None:
        self.kept: list[Row] = []
        self._plain = plain

    def add(self, row: Row) -> None:
        """Take the next row."""
        if len(self.kept) > self.ALL:
            before, last = self.kept[-2:]
            if self._plain(last) and forwards(before, last) and forwards(last, row):
                self.kept.pop()
        self.kept.append(row)


def forwards(earlier: Row, later: Row) -> bool:
    """Return whether no counter goes back from one row to another."""
    return earlier[0] <= later[0] and earlier[1] <= later[1] and earlier[2] <= later[2]


def _adds_up(row: Row) -> bool:
    return row[3] == row[0] - row[1] - row[2]


class _Checksum:
    """The CRC-32 of the beginning of a text. The end of that part only moves forwards, so that no character is read
    twice."""

    def __init__(self, text: str) -> None:
        self._text, self._value, self._end = text, 0, 0

    def up_to(self, end: int) -> str:
        """Return the CRC as the guest prints it."""
        self._value = zlib.crc32(self._text[self._end : end].encode("latin-1"), self._value)
        self._end = end
        return f"{self._value:08x}"


def lines_of(text: str) -> Iterator[str]:
    """Yield what ``text.split("\\n")`` returns, without making a list, which for short lines is five times as large as
    the text."""
    at = 0
    while (end := text.find("\n", at)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


def _parse_run(text: str, base: int) -> Log:
    """Parse one run, from the first byte of its first line. ``base`` is the offset of that byte in the whole log."""
    lines: list[Line] = []
    rows, checksum = Rows(_adds_up), _Checksum(text)
    fault = said = ""
    offset = closed = 0
    header = False
    for raw in lines_of(text):
        line = parse_line(raw, base + offset)
        row = None if line is not None else parse_row(raw)
        whole = offset + len(raw) < len(text)
        if line is not None and whole:
            if line.sequence != len(lines):
                fault = fault or f"line {len(lines)} is missing"
            lines.append(line)
            if line.kind == "end":
                break
            if line.kind == "done":
                if line.fields["log"] != checksum.up_to(offset):
                    fault = fault or f"the checksum in line {line.sequence} does not match"
                elif not fault and lines[0].kind == "boot" and line.fields["case"] == str(closed):
                    closed += 1
        elif row is not None and header:
            rows.add(row)
        elif raw == TABLE_HEADER:
            header = True
        elif _TAP.fullmatch(raw) and whole:
            pass
        elif _SENTENCE.fullmatch(raw) and whole:
            said = raw
        elif raw:
            where = f"unreadable after line {len(lines) - 1}" if lines else "the first line is unreadable"
            fault = fault or f"{where}: {raw[:40]!r}"
        offset += len(raw) + 1
    if not lines or lines[0].kind != "boot":
        fault = fault or "the first line is missing"
    elif lines[-1].kind != "end":
        fault = fault or "the closing line is missing"
    elif lines[-1].fields["log"] != checksum.up_to(offset):
        fault = fault or "the checksum over the whole log does not match"
    elif _OURS.search(text, offset + len(raw) + 1):
        fault = fault or "there is more after the closing line"
    return Log(tuple(lines), tuple(rows.kept), not fault, fault, closed, said)
