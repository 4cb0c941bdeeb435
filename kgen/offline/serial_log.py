"""Clean a captured serial log: remove text in front of the guest's lines, and separate its runs.

A wrong repair cannot make a log whole: the guest prints only printable ASCII, tabs and line ends, and its closing line
has a checksum over all of it.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from itertools import pairwise

from kgen.kernel.protocol import LINE_PREFIX, TABLE_HEADER, is_guest_line, parse_line, parse_row
from kgen.offline import containers, repair
from kgen.offline.progress import Tell, untold

#: More foreign characters than this after a closing line are reported.
_MUCH = 1024
_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))
_BEGINNINGS = re.compile(rb"kgen:[0-9]")

#: Terminal control (ECMA-48): control sequences, commands with a string, and short escapes. A sequence that was cut off
#: must not extend into the guest's next line.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*(?!kgen:|counts:)[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)"
    r"|[()*+#%][0-9A-Za-z]|[78=>cDEHMNOZ])"
)
#: No search begins inside a sequence of carriage returns, which could be a whole file.
_LINE_ENDS = re.compile(r"(?:(?<!\r)\r+)?\n\r*")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_START = re.compile(LINE_PREFIX + "0 boot ")
_END = re.compile(rf"^{LINE_PREFIX}[0-9]+ end [^\n]*\n?", re.MULTILINE)
#: Text that looks like the guest's, whole or cut.
_OURS = re.compile(LINE_PREFIX + r"[0-9]|^counts:", re.MULTILINE | re.IGNORECASE)
_BLANKED_ROW = re.compile(r"counts:[ \t]+([0-9]+)[ \t]+([0-9]+)[ \t]+([0-9]+)[ \t]+(-?[0-9]+)")


@dataclass(frozen=True)
class Capture:
    """A serial log as kgen reads it."""

    #: The guest's lines as it printed them, and the other lines of the file; one character a byte, line ends LF.
    text: str
    #: What was undone, one sentence each.
    notes: tuple[str, ...]


def clean(data: bytes, tell: Tell = untold) -> Capture:
    """Undo what terminals and capture tools do to a log. Never raises.

    Undone are UTF-16 and a byte order mark, escape sequences, other control characters, line ends of every kind, blank
    lines, tabs that became blanks, lines broken at the terminal's width, and prefixes of one kind (a time, a name) in
    front of every line.
    """
    notes: list[str] = []
    text, packed = containers.unpacked(_decoded(data, notes))
    notes += [packed] if packed else []
    text = _ESCAPES.sub("", text)
    text = _CONTROLS.sub("", text)
    text = _LINE_ENDS.sub("\n", text) if "\n" in text else text.replace("\r", "\n")
    lines = [line for line in (each.rstrip(" \t") for each in text.split("\n")) if line]
    if LINE_PREFIX in text or "counts:" in text:
        lines = [_tabbed(line) for line in repair.restored(lines, notes, tell)]
    cleaned = "\n".join(lines)
    end = max((match.end() for match in _END.finditer(cleaned)), default=len(cleaned))
    behind = len(cleaned) - end
    if behind > _MUCH and not _OURS.search(cleaned, end):
        notes.append(f"{behind} characters follow the closing line that are not the guest's as far as one can tell")
    # a line counts as whole only with its end
    whole = text.rstrip(" \t").endswith("\n")
    return Capture(cleaned + ("\n" if whole and lines else ""), tuple(notes))


def split(text: str) -> tuple[str, ...]:
    """Return the runs in a cleaned log, in order. A run goes from one first line to the next. Text that looks like the
    guest's after a closing line, or before the first run, is a run too. () where nothing looks like the guest's."""
    starts = [match.start() for match in _START.finditer(text)]
    edges = sorted({0, *starts, len(text)})
    pieces = [part for begin, end in pairwise(edges) for part in _after_ends(text[begin:end])]
    return tuple(piece for piece in pieces if _OURS.search(piece))


def without_others(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a run without the whole lines that no guest prints, and those of these lines that precede the guest's last
    line."""
    lines = text.split("\n")
    mine = [bool(line) and is_guest_line(line) for line in lines]
    last = max((at for at, ours in enumerate(mine) if ours), default=-1)
    kept = "".join(f"{line}\n" for line, ours in zip(lines[:-1], mine[:-1], strict=True) if ours)
    return kept, tuple(line for line, ours in zip(lines[:last], mine[:last], strict=True) if not ours)


def _after_ends(piece: str) -> list[str]:
    """Split a piece into parts. The last line of each part except the last is a closing line."""
    cuts = [
        match.end()
        for match in _END.finditer(piece)
        if parse_line(match[0].rstrip("\n")) is not None and _OURS.search(piece, match.end())
    ]
    return [piece[begin:end] for begin, end in pairwise([0, *cuts, len(piece)])]


def _decoded(data: bytes, notes: list[str]) -> str:
    """Return the bytes as characters.

    The guest prints only ASCII, and UTF-16 of that is the same bytes with zeros between them. A file may hold both, one
    after the other, and change from one to the other in the middle of a character.
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


def _tabbed(line: str) -> str:
    """Restore a line of the table whose tabs became blanks."""
    if not line.startswith("counts:") or parse_row(line) is not None:
        return line
    if line.split() == TABLE_HEADER.split():
        return TABLE_HEADER
    match = _BLANKED_ROW.fullmatch(line)
    return "counts:\t" + "\t".join(match.groups()) if match else line
