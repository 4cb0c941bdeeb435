"""A serial log as it was captured: text in front of the guest's lines is removed, and its runs are separated.

Nothing here is taken on trust. The guest prints only printable ASCII, tabs and line ends, and its closing line carries
a checksum over all of it: what is taken off wrongly does not become a whole log by that.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from itertools import pairwise

from kgen.kernel.protocol import LINE_PREFIX, TABLE_HEADER, is_guest_line, parse_line, parse_row
from kgen.wording import quoted

#: A line of the guest that a terminal has broken is made of at most so many pieces.
MAX_PIECES = 16
_SHOWN = 40
#: No line of the guest is as long, whatever stands in front of it, in characters.
MAX_LINE = 4096
#: More foreign characters than these after a closing line are reported.
_MUCH = 1024
_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))
_BEGINNINGS = re.compile(rb"kgen:[0-9]")

#: Terminal control (ECMA-48): control sequences, commands that a string follows, and the short ones. A sequence that
#: was cut off must not swallow the beginning of the guest's next line.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*(?!kgen:|counts:)[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"
    r"|[()*+#%][0-9A-Za-z]|[78=>cDEHMNOZ])"
)
#: No search begins inside a sequence of carriage returns, which could be a whole file.
_LINE_ENDS = re.compile(r"(?:(?<!\r)\r+)?\n\r*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_START = re.compile(LINE_PREFIX + "0 boot ")
_END = re.compile(rf"^{LINE_PREFIX}[0-9]+ end [^\n]*\n?", re.MULTILINE)
#: What looks like the guest's, whole or not.
_OURS = re.compile(LINE_PREFIX + r"[0-9]|^counts:", re.MULTILINE | re.IGNORECASE)
_NATIVE = re.compile(LINE_PREFIX + r"[0-9]+ [a-z]+ .* crc=[0-9a-f]{8}$")
_BEGUN = re.compile(LINE_PREFIX + r"[0-9]+ [a-z]+ ")
#: What else a line of the guest may begin with, after what a capture tool has put in front.
_FIRST_WORDS = r"(?=kgen:[0-9]|counts:|TAP version |1\.\.[0-9]|ok [0-9]|not ok [0-9])"
_BLANKED_ROW = re.compile(r"counts:[ \t]+([0-9]+)[ \t]+([0-9]+)[ \t]+([0-9]+)[ \t]+(-?[0-9]+)")
_BLANKS = r"[ \t]+"
_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class Capture:
    """A serial log as kgen reads it."""

    #: The guest's lines as it printed them, one character a byte, line ends LF, and what else was in the file.
    text: str
    #: What had to be undone, one sentence each.
    notes: tuple[str, ...]


def clean(data: bytes) -> Capture:
    """Undo what terminals and capture tools do to a log. Never raises.

    UTF-16 and a byte order mark, escape sequences, other control characters, line ends of every kind, blank lines, tabs
    that became blanks, lines broken at the terminal's width, and one and the same prefix (a time, a name) in front of
    every line.
    """
    notes: list[str] = []
    text = _ESCAPES.sub("", _decoded(data, notes))
    text = _CONTROLS.sub("", text)
    text = _LINE_ENDS.sub("\n", text) if "\n" in text else text.replace("\r", "\n")
    lines = [line for line in (each.rstrip(" \t") for each in text.split("\n")) if line]
    if LINE_PREFIX in text or "counts:" in text:
        lines = [_tabbed(line) for line in _unwrapped(_bare(lines, notes), notes)]
    cleaned = "\n".join(lines)
    end = max((match.end() for match in _END.finditer(cleaned)), default=len(cleaned))
    behind = len(cleaned) - end
    if behind > _MUCH and not _OURS.search(cleaned, end):
        notes.append(f"{behind} characters follow the closing line that are not the guest's as far as one can tell")
    # a line counts as whole only with its end
    whole = text.rstrip(" \t").endswith("\n")
    return Capture(cleaned + ("\n" if whole and lines else ""), tuple(notes))


def split(text: str) -> tuple[str, ...]:
    """Return the runs in a cleaned log, in order: from one first line to the next, and what looks like the guest's
    behind a closing line or before the first first line. () where nothing looks like the guest's.
    """
    starts = [match.start() for match in _START.finditer(text)]
    edges = sorted({0, *starts, len(text)})
    pieces = [part for begin, end in pairwise(edges) for part in _after_ends(text[begin:end])]
    return tuple(piece for piece in pieces if _OURS.search(piece))


def without_others(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a run without the whole lines in it that no guest prints, and those lines up to the guest's last one."""
    lines = text.split("\n")
    mine = [bool(line) and is_guest_line(line) for line in lines]
    last = max((at for at, ours in enumerate(mine) if ours), default=-1)
    kept = "".join(f"{line}\n" for line, ours in zip(lines[:-1], mine[:-1], strict=True) if ours)
    return kept, tuple(line for line, ours in zip(lines[:last], mine[:last], strict=True) if not ours)


def _after_ends(piece: str) -> list[str]:
    """Return a piece in parts, each but the last with a closing line as its last line."""
    cuts = [
        match.end()
        for match in _END.finditer(piece)
        if parse_line(match[0].rstrip("\n")) is not None and _OURS.search(piece, match.end())
    ]
    return [piece[begin:end] for begin, end in pairwise([0, *cuts, len(piece)])]


def _decoded(data: bytes, notes: list[str]) -> str:
    """Return the bytes as characters.

    The guest prints only ASCII, of which UTF-16 is the same bytes with zeros between: a file may hold both, one behind
    the other, and begin a new one in the middle of a character.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        notes.append("the log is stored as UTF-16, as PowerShell's > does")
    for mark in (b"\x00", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8):
        data = data.replace(mark, b"")
    seven = data.translate(_SEVEN_BITS)
    if len(_BEGINNINGS.findall(seven)) > len(_BEGINNINGS.findall(data)):
        notes.append("characters had their eighth bit set (7 data bits and parity?): it was left out")
        data = seven
    return data.decode("latin-1")


def _bare(lines: list[str], notes: list[str]) -> list[str]:
    """Return the lines without what stands in front of every line of the guest, if the same kind of thing does."""
    prefixes = []
    for line in lines:
        at = _native_at(line)
        if at is not None:
            if at == 0:
                return lines
            prefixes.append(line[:at])
    prefixes = prefixes or _before_rows(lines)
    if not prefixes:
        return lines
    shape = "".join(_kind(token) for token in _TOKEN.findall(prefixes[0]))
    if not all(re.fullmatch(shape, prefix) for prefix in prefixes):
        return lines
    # a prefix that ends in a word or a number must not take the line's first one with it
    front = re.compile(shape + (_FIRST_WORDS if prefixes[0][-1].isalnum() else ""))
    alone = re.compile(rf"{shape}\s*|{shape.removesuffix(_BLANKS)}")
    shown = quoted(prefixes[0], _SHOWN)
    notes.append(f"something stands in front of every line, such as {shown!r}: it was left out")
    kept = (line for line in lines if not alone.fullmatch(line))
    return [line[match.end() :] if (match := front.match(line)) else line for line in kept]


def _native_at(line: str) -> int | None:
    """Return where in a line a native one begins that reaches to its end, None where there is none."""
    skipped = max(0, len(line) - MAX_LINE)
    if not _NATIVE.search(line, skipped):
        return None
    found = (match.start() for match in re.compile(LINE_PREFIX).finditer(line, skipped))
    return next((at for at in found if parse_line(line[at:]) is not None), None)


def _before_rows(lines: list[str]) -> list[str]:
    """Return what stands in front of the rows of a table, [] where one has nothing in front."""
    found = [line[: line.index("counts:")] for line in lines if "counts:" in line]
    return found if all(found) else []


def _kind(token: str) -> str:
    """Return a pattern for tokens of this kind: numbers and words change from line to line, the rest does not."""
    if token.isascii() and token.isalnum():
        return "[0-9]+" if token.isdigit() else "[A-Za-z]+"
    return _BLANKS if token.isascii() and token.isspace() else re.escape(token)


def _unwrapped(lines: list[str], notes: list[str]) -> list[str]:
    """Return the lines, those put together that a terminal has broken: their checksums tell."""
    made: list[str] = []
    at = 0
    broken = 0
    while at < len(lines):
        taken, line = 1, lines[at]
        if _BEGUN.match(line) and not _NATIVE.fullmatch(line):
            taken, line = _joined(lines, at)
            broken += taken > 1
        made.append(line)
        at += taken
    if broken:
        notes.append(f"{broken} lines were broken by a terminal and were put together again")
    return made


def _joined(lines: list[str], at: int) -> tuple[int, str]:
    """Return how many lines from there make one of the guest's, and that line; one where they do not."""
    for count in range(2, MAX_PIECES + 1):
        pieces = lines[at : at + count]
        if len(pieces) < count or LINE_PREFIX in pieces[-1] or pieces[-1].startswith("counts:"):
            break
        width = max(map(len, pieces[:-1]))
        # a blank at the edge of the terminal is gone
        for columns in (width, width + 1):
            line = "".join(piece.ljust(columns) for piece in pieces[:-1]) + pieces[-1]
            if parse_line(line) is not None:
                return count, line
    return 1, lines[at]


def _tabbed(line: str) -> str:
    """Return a line of the table whose tabs became blanks, as it was."""
    if not line.startswith("counts:") or parse_row(line) is not None:
        return line
    if line.split() == TABLE_HEADER.split():
        return TABLE_HEADER
    match = _BLANKED_ROW.fullmatch(line)
    return "counts:\t" + "\t".join(match.groups()) if match else line
