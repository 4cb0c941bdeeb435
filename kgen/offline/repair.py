"""Recover the guest's lines from what tools have made of them: text in front and after, escapes, broken and joined
lines.

Each repair is a guess, and a native line's own checksum decides whether it is right. Lines without a checksum (the
table's rows, the Test Anything lines) are repaired only in a run whose native lines show that tools have changed it,
and the closing line's checksum decides over all of them. Text that looks like the guest's is never left out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

from kgen.kernel.protocol import LINE_PREFIX, TABLE_HEADER, is_guest_line, parse_line, parse_row
from kgen.offline.escapes import DECODERS, Decoder
from kgen.offline.progress import Tell, untold
from kgen.wording import quoted

#: The most pieces into which a terminal or a mailer may have broken a line of the guest.
MAX_PIECES = 16
#: The longest line that a repair makes, in characters.
MAX_LINE = 4096
#: After this many broken lines without a repair, only the last repair that worked is tried.
MAX_FAILURES = 500
#: The most whole lines that may have come into the middle of one of the guest's.
MAX_INSERTED = 3
_SHOWN = 40
#: After so many lines it is reported how far the reading has come.
_TOLD_EVERY = 1000

_BEGUN = re.compile(LINE_PREFIX + r"(?:0|[1-9][0-9]{0,9})(?: [a-z]+(?:[ =]|$)|[ =]?$)")
_BEGINS = re.compile(LINE_PREFIX + r"[0-9]")
_SUM = re.compile(r" crc=[0-9a-f]{8}")
#: What looks like the guest's, whole or not.
_OURS = re.compile(LINE_PREFIX + r"[0-9]|counts:", re.IGNORECASE)
_HEADER = re.compile(r"counts:\s+" + r"\s+".join(map(re.escape, TABLE_HEADER.split()[1:])))
_ROW = re.compile(r"counts:\s+([0-9]{1,20})\s+([0-9]{1,20})\s+([0-9]{1,20})\s+(-?[0-9]{1,20})(?![0-9])")
_TAP = re.compile(
    r"(?<![0-9A-Za-z])(?:TAP version 14|1\.\.[0-9]+|(?:not )?ok [0-9]+ - [a-z0-9.+_-]+(?: # SKIP)?)(?![0-9A-Za-z])"
)
_TEST = re.compile(r"(?:not )?ok [0-9]+ - ")
_BLANKS = r"[ \t]+"
#: GitLab's sign for a line that continues takes the place of a blank.
_GOES_ON = r"(?:[ \t]+|\+)"
_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+|\s+|.", re.DOTALL)
#: Prompts of emulators and debuggers.
_PROMPT = re.compile(r"\((?:qemu|gdb|monitor)\) ?")


@dataclass(frozen=True)
class _Native:
    """A native line that was found, the text in front of it, and whether it was changed."""

    line: str
    prefix: str = ""
    changed: bool = False
    broken: bool = False


@dataclass
class _Counts:
    """What had to be undone."""

    prefixed: int = 0
    natives: int = 0
    prefix: str = ""
    suffixed: int = 0
    suffix: str = ""
    broken: int = 0
    inserted: int = 0
    joined: int = 0
    decoded: dict[str, int] = field(default_factory=dict)


def restored(lines: Sequence[str], notes: list[str], tell: Tell = untold) -> list[str]:
    """Return the lines, the guest's as it printed them as far as checksums prove it. Each kind of repair adds a
    sentence to ``notes``. Lines that need no repair are returned as they are."""
    counts = _Counts()
    items = list(_items(lines, counts, tell))
    if not counts.natives:
        return _without_front(lines, notes)
    made = [line for region in _regions(items) for line in _settled(region)]
    notes += _sentences(counts)
    return made


def _sentences(counts: _Counts) -> Iterator[str]:
    if counts.prefixed:
        shown = quoted(counts.prefix, _SHOWN)
        where = "every line" if counts.prefixed == counts.natives else f"{counts.prefixed} of {counts.natives} lines"
        yield f"something stands in front of {where}, such as {shown!r}: it was left out"
    if counts.suffixed:
        shown = quoted(counts.suffix, _SHOWN)
        yield f"something follows {counts.suffixed} lines, such as {shown!r}: it was left out"
    for name, number in counts.decoded.items():
        yield f"{number} lines had characters written {name}: they were decoded"
    if counts.broken:
        yield f"{counts.broken} lines were broken by a terminal or a mailer and were put together again"
    if counts.inserted:
        yield f"{counts.inserted} lines had other text in them, which was taken out"
    if counts.joined:
        yield f"{counts.joined} lines stood after another one and were separated"


# --- native lines, which their own checksums prove ------------------------------------------------------------------


def _items(lines: Sequence[str], counts: _Counts, tell: Tell) -> Iterator[_Native | str]:
    """Yield the native lines that were found and all other lines as they are, in order."""
    search = _Search(counts)
    at = due = 0
    while at < len(lines):
        if at >= due:
            tell("reading lines", at, len(lines))
            due = at + _TOLD_EVERY
        line = lines[at]
        if LINE_PREFIX not in line:
            yield line
            at += 1
            continue
        taken, found = search.at(lines, at)
        yield from found
        at += taken


class _Search:
    """Finds native lines. It remembers which repairs worked, because most lines of one log need the same."""

    def __init__(self, counts: _Counts) -> None:
        self._counts = counts
        self._failures = 0
        self._decoder: Decoder | None = None
        self._join: Callable[[Sequence[str]], str] | None = None

    def at(self, lines: Sequence[str], at: int) -> tuple[int, list[_Native | str]]:
        """Return how many lines from that one on were used, and what they became."""
        line = lines[at]
        if parse_line(line) is not None:
            self._counts.natives += 1
            return 1, [_Native(line)]
        for text, decoder in self._readings(line):
            found = self._split(text, decoder)
            if found:
                return 1, found
        if len(line) <= MAX_LINE and _BEGINS.search(line):
            for attempt in (self._joined, self._spliced):
                made = attempt(lines, at)
                if made is not None:
                    return made
            self._failures += 1
        return 1, [line]

    def _readings(self, text: str) -> Iterator[tuple[str, Decoder | None]]:
        """Yield a text as it is and as each decoder reads it, beginning with what has worked."""
        yield text, None
        if self._decoder is not None and self._decoder.sign.search(text):
            yield self._decoder.undo(text), self._decoder
        if self._failures < MAX_FAILURES:
            for decoder in DECODERS:
                if decoder is not self._decoder and decoder.sign.search(text):
                    yield decoder.undo(text), decoder

    def _split(self, text: str, decoder: Decoder | None) -> list[_Native | str]:
        """Return the native lines in a text, and the text around them that looks like the guest's; [] where there is no
        native line."""
        spans = _natives(text)
        if not spans:
            return []
        if decoder is None and len(spans) > 1 and "\\n" in text:
            # line ends that are written as escapes
            text, decoder = DECODERS[0].undo(text), DECODERS[0]
            spans = _natives(text)
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        between = [text[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        found: list[_Native | str] = []
        several = len(spans) > 1
        for number, (begin, end) in enumerate(spans):
            found += self._around(between[number])
            front = "" if several or _OURS.search(between[number]) else between[number]
            changed = several or bool(front or between[number + 1] or decoder)
            found.append(_Native(text[begin:end], front, changed))
        found += self._around(between[-1])
        self._count(between, spans, decoder)
        return found

    def _around(self, text: str) -> list[str]:
        """Return the text beside a native line that looks like the guest's: it is kept even where it cannot be read."""
        found = _others(text)
        return [text] if found is None else found

    def _count(self, between: Sequence[str], spans: Sequence[tuple[int, int]], decoder: Decoder | None) -> None:
        counts = self._counts
        counts.natives += len(spans)
        if len(spans) > 1:
            counts.joined += len(spans) - 1
        else:
            counts.prefixed += bool(between[0])
            counts.prefix = counts.prefix or between[0]
            after = between[1].rstrip()
            counts.suffixed += bool(after)
            counts.suffix = counts.suffix or after
        if decoder is not None:
            self._decoder = decoder
            counts.decoded[decoder.name] = counts.decoded.get(decoder.name, 0) + 1

    def _joined(self, lines: Sequence[str], at: int) -> tuple[int, list[_Native | str]] | None:
        """Return the native line that was broken into these, None where they make none."""
        start = _BEGINS.search(lines[at])
        front = lines[at][: start.start()] if start else ""
        pieces = [lines[at]]
        for count in range(2, MAX_PIECES + 1):
            nearby = lines[at + count - 1 : at + count]
            if not nearby or _BEGINS.search(nearby[0]) or "counts:" in nearby[0]:
                return None
            pieces += nearby
            for variant in _unstamped(pieces, front):
                for join in self._joins():
                    joined = join(variant)
                    if "crc" not in joined or len(joined) > MAX_LINE:
                        continue
                    for text, decoder in self._readings(joined):
                        if len(_natives(text)) == 1:
                            self._join = join
                            self._counts.broken += 1
                            return count, [_marked(each, broken=True) for each in self._split(text, decoder)]
        return None

    def _joins(self) -> Iterator[Callable[[Sequence[str]], str]]:
        if self._join is not None:
            yield self._join
        if self._failures < MAX_FAILURES:
            yield from (join for join in _JOINS if join is not self._join)

    def _spliced(self, lines: Sequence[str], at: int) -> tuple[int, list[_Native | str]] | None:
        """Return a native line into whose middle other text came: a prompt, or whole lines."""
        if self._failures >= MAX_FAILURES:
            return None
        line = lines[at]
        plain = _PROMPT.sub("", line)
        if plain != line and _natives(plain):
            self._counts.inserted += 1
            return 1, [_marked(each) for each in self._split(plain, None)]
        start = _BEGINS.search(line)
        if start is None:
            return None
        for count in range(1, MAX_INSERTED + 2):
            rest = lines[at + count : at + count + 1]
            if not rest or (_BEGINS.search(rest[0]) or "counts:" in rest[0]):
                return None
            tail = _PROMPT.sub("", rest[0])
            cut = _cut(line, start.start(), tail)
            if cut is not None:
                junk = [line[cut:], *lines[at + 1 : at + count]]
                if any(_OURS.search(each) for each in junk):
                    return None
                whole = line[start.start() : cut] + tail
                self._counts.inserted += 1
                self._counts.natives += 1
                return count + 1, [_Native(whole, "", True), *junk]
        return None


def _marked(item: _Native | str, *, broken: bool = False) -> _Native | str:
    return item if isinstance(item, str) else _Native(item.line, item.prefix, True, broken)


def _natives(text: str) -> list[tuple[int, int]]:
    """Return the places of native lines with right checksums in a text, in order."""
    if LINE_PREFIX not in text:
        return []
    found = []
    begin: int | None = None
    position = 0
    # a line's checksum is the first one after its beginning, and its beginning is the last one before the checksum
    for end in _SUM.finditer(text):
        starts = [match.start() for match in _BEGUN.finditer(text, position, end.start())]
        begin = starts[-1] if starts else None
        position = end.end()
        if begin is not None and parse_line(text[begin : end.end()]) is not None:
            found.append((begin, end.end()))
    return found


def _cut(line: str, start: int, tail: str) -> int | None:
    """Return where to cut a line so that the part before the cut and the tail make a native line, None for no such
    place."""
    ending = _SUM.search(tail)
    if ending is None or ending.end() != len(tail):
        return None
    body, wanted = tail[: ending.start()].encode("latin-1", "replace"), int(tail[-8:], 16)
    made = 0
    for cut in range(start, len(line)):
        if cut > start and zlib.crc32(body, made) == wanted and parse_line(line[start:cut] + tail) is not None:
            return cut
        made = zlib.crc32(line[cut].encode("latin-1", "replace"), made)
    return None


# --- broken lines --------------------------------------------------------------------------------------------------


def _hard(extra: int) -> Callable[[Sequence[str]], str]:
    """Return a function that joins pieces that a terminal has cut. Of the blanks at its edge, ``extra`` may be gone."""

    def join(pieces: Sequence[str]) -> str:
        width = max(map(len, pieces[:-1])) + extra
        return "".join(piece.ljust(width) for piece in pieces[:-1]) + pieces[-1]

    return join


def _words(pieces: Sequence[str]) -> str:
    return " ".join(pieces)


def _filled(pieces: Sequence[str]) -> str:
    """Join pieces that were broken at blanks, or inside words that are longer than a line."""
    width = max(map(len, pieces[:-1]))
    return "".join(piece + ("" if len(piece) == width else " ") for piece in pieces[:-1]) + pieces[-1]


def _soft(pieces: Sequence[str]) -> str:
    """Join pieces whose ends are marked: by = in a mail, by a backslash in a shell."""
    return "".join(piece[:-1] if piece[-1:] in "=\\" else f"{piece} " for piece in pieces[:-1]) + pieces[-1]


def _indented(pieces: Sequence[str]) -> str:
    """Join pieces of which all but the first were indented."""
    return "".join([pieces[0], *(piece.lstrip() for piece in pieces[1:])])


def _indented_words(pieces: Sequence[str]) -> str:
    return " ".join([pieces[0], *(piece.lstrip() for piece in pieces[1:])])


_JOINS = (_hard(0), _hard(1), _words, _filled, _soft, _indented_words, _indented)


def _unstamped(pieces: Sequence[str], front: str) -> Iterator[Sequence[str]]:
    """Yield the pieces without the prefix of each, then without the prefix of the first alone. Blanks may belong to a
    piece."""
    first = pieces[0][len(front) :]
    last = re.compile(r"[ \t]*$").search(front)
    blanks = last[0] if last else ""
    if front:
        for shape in (_shape(front.removesuffix(blanks)) + re.escape(blanks), _shape(front)):
            ends = [match.end() if (match := re.match(shape, piece)) else None for piece in pieces[1:]]
            if all(end is not None for end in ends):
                yield [first, *(piece[end:] for piece, end in zip(pieces[1:], ends, strict=True))]
    yield pieces


# --- lines without a checksum of their own -------------------------------------------------------------------------


def _regions(items: Iterable[_Native | str]) -> Iterator[list[_Native | str]]:
    """Yield the lines of each run: from one first line to the next. Lines before the first such line are firmware's, or
    of a run whose first line is lost."""
    region: list[_Native | str] = []
    for item in items:
        first = isinstance(item, _Native) and item.line.startswith(f"{LINE_PREFIX}0 boot ")
        if first and any(isinstance(each, _Native) for each in region):
            yield region
            region = []
        region.append(item)
    yield region


def _settled(region: Sequence[_Native | str]) -> Iterator[str]:
    """Yield the lines of a run. Where its native lines had to be changed, the others are repaired too."""
    natives = [item for item in region if isinstance(item, _Native)]
    # firmware may have left the cursor in the middle of a line
    if not any(native.changed for native in natives if not native.line.startswith(f"{LINE_PREFIX}0 boot ")):
        yield from (item.line if isinstance(item, _Native) else item for item in region)
        return
    shapes = [re.compile(shape) for shape in dict.fromkeys(_shape(each.prefix) for each in natives if each.prefix)]
    alone = [re.compile(rf"(?:{shape.pattern})\s*|(?:{shape.pattern.removesuffix(_GOES_ON)})") for shape in shapes]
    pieces = MAX_PIECES if any(native.broken for native in natives) else 1
    at = 0
    while at < len(region):
        item = region[at]
        taken = 1
        if isinstance(item, _Native):
            yield item.line
        elif not any(each.fullmatch(item) for each in alone):
            texts = takewhile(lambda each: isinstance(each, str), region[at : at + pieces])
            found, taken = _without_sum([str(each) for each in texts], shapes)
            yield from found
        at += taken


def _without_sum(lines: Sequence[str], shapes: Sequence[re.Pattern[str]]) -> tuple[list[str], int]:
    """Return the guest's lines that begin in the first of these lines, or that line itself where there are none, and
    how many lines were used. More than one is passed where lines may be broken."""
    line = lines[0]
    bare = [line[match.end() :] for shape in shapes if (match := shape.match(line))]
    whole = next((made for text in (*bare, line) if (made := _alone(text))), "")
    if not whole or _TEST.match(whole) or not _adds_up(whole):
        text = bare[0] if bare else line
        for count, each in enumerate(lines[1:], 2):
            piece = next((each[match.end() :] for shape in shapes if (match := shape.match(each))), each)
            if _alone(piece) or _OURS.search(piece):
                break
            for glue in ("", " "):
                made = _alone(text + glue + piece)
                if made and _adds_up(made):
                    return [made], count
            text += piece
    if whole:
        return [whole], 1
    for text in _read(line):
        found = _others(text)
        if found:
            return found, 1
    return [min((*bare, line), key=len)], 1


def _alone(text: str) -> str:
    """Return a text as the line of a table or a test that the guest printed, "" where it is none."""
    for pattern, line in ((_HEADER, _header), (_ROW, _row), (_TAP, _itself)):
        match = pattern.fullmatch(text)
        if match is not None:
            return line(match)
    return text if is_guest_line(text) and not _TEST.match(text) else ""


def _adds_up(line: str) -> bool:
    """Return whether the last column of a row follows from the others; True for all other lines."""
    row = parse_row(line)
    return row is None or row[0] - row[1] - row[2] == row[3]


def _read(line: str) -> Iterator[str]:
    yield line
    yield from (decoder.undo(line) for decoder in DECODERS if decoder.sign.search(line))


def _others(text: str) -> list[str] | None:
    """Return the table's and the tests' lines in a text, in order; None where other text in it looks like the
    guest's."""
    found: list[tuple[int, str]] = []
    rest = text
    for pattern, line in ((_HEADER, _header), (_ROW, _row), (_TAP, _itself)):
        found += [(match.start(), line(match)) for match in pattern.finditer(rest)]
        rest = pattern.sub(lambda match: " " * len(match[0]), rest)
    if _OURS.search(rest):
        return None
    return [line for _, line in sorted(found)]


def _header(match: re.Match[str]) -> str:
    return TABLE_HEADER


def _row(match: re.Match[str]) -> str:
    return "counts:\t" + "\t".join(match.groups())


def _itself(match: re.Match[str]) -> str:
    return match[0]


# --- text in front of lines ------------------------------------------------------------------------------------------


def _shape(prefix: str) -> str:
    """Return a pattern for prefixes of one kind: numbers and words change from line to line, the rest does not. A
    prefix that ends in a word or a number must not extend into the line's first one."""
    tokens = [_kind(token) for token in _TOKEN.findall(prefix)]
    if tokens and tokens[-1] in (_BLANKS, r"\+"):
        tokens[-1] = _GOES_ON
    return "".join(tokens)


def _kind(token: str) -> str:
    if token.isascii() and token.isalnum():
        return "[0-9]+" if token.isdigit() else "[A-Za-z]+"
    return _BLANKS if token.isascii() and token.isspace() else re.escape(token)


def _without_front(lines: Sequence[str], notes: list[str]) -> list[str]:
    """Return the lines of a log that is only a table, without the prefixes of its rows. Nothing in it has a checksum,
    so the prefixes must be of one kind from one header to the next."""
    heads = [at for at, line in enumerate(lines) if _HEADER.search(line)]
    edges = sorted({0, *heads, len(lines)})
    made: list[str] = []
    first = ""
    for begin, end in pairwise(edges):
        part, front = _bare(lines[begin:end])
        made += part
        first = first or front
    if first:
        shown = quoted(first, _SHOWN)
        notes.append(f"something stands in front of every line, such as {shown!r}: it was left out")
    return made


def _bare(lines: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the lines without the prefix of each row, and the first prefix."""
    prefixes = [line[: line.index("counts:")] for line in lines if "counts:" in line]
    if not prefixes or not all(prefixes):
        return lines, ""
    shape = _shape(prefixes[0])
    if not all(re.fullmatch(shape, prefix) for prefix in prefixes):
        return lines, ""
    front = re.compile(shape + (r"(?=counts:)" if prefixes[0][-1].isalnum() else ""))
    alone = re.compile(rf"{shape}\s*|{shape.removesuffix(_GOES_ON)}")
    kept = (line for line in lines if not alone.fullmatch(line))
    return [line[match.end() :] if (match := front.match(line)) else line for line in kept], prefixes[0]
