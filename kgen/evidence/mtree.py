"""What backs an address right now, according to QEMU's ``info mtree -f``: pure text in, evidence out.

The text is a list of flat views. A view names the address spaces that share it, then the regions they see, in address
order and without overlap; a blank line ends it:

    FlatView #1
     AS "cpu-memory-0", root: system
     Root memory region: system
      00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem

Only a CPU's own space (``cpu-memory-N``) counts: ``cpu-smm-N`` shows RAM where the CPU sees VGA, and ``I/O`` is ports.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kgen.wording import one_line, quoted

Kind = Literal["io", "ram", "rom", "hole", "unknown"]

#: The command for QEMU's monitor.
COMMAND = "info mtree -f"

_HEADER = re.compile(r"FlatView #\d+")
_SPACE = re.compile(r' AS "(?P<name>[^"]+)", root: .+')
_CPU_SPACE = re.compile(r"cpu-memory-(?P<cpu>\d+)")
# Names hold blanks; what follows them is an offset and the accelerator that knows the region.
_REGION = re.compile(
    r"  (?P<first>[0-9a-f]{16})-(?P<last>[0-9a-f]{16}) \(prio -?\d+, (?P<type>[^)]+)\): "
    r"(?P<name>.+?)(?: @[0-9a-f]{16})?(?: (?:KVM|kvm[:\w]*))?"
)
#: The types that QEMU's memory_region_type() returns. "ramd" is a device's own memory mapped into the guest (vfio):
#: neither emulated i/o nor RAM, so it stays unknown. "romd" is read as ROM, and writes to it are commands.
_KINDS: dict[str, Kind] = {
    "i/o": "io",
    "ram": "ram",
    "nv-ram": "ram",
    "rom": "rom",
    "nv-rom": "rom",
    "romd": "rom",
    "nv-romd": "rom",
}


@dataclass(frozen=True)
class PathEvidence:
    """What backs an access, in QEMU's own words."""

    kind: Kind
    #: QEMU's name for the memory region.
    region: str
    #: QEMU's line about the region. Where ``kind`` is "unknown", the reason.
    line: str
    #: The title of the flat view that has the line.
    view: str


#: There was no QEMU to ask. This differs from an unclear answer, which no other source may replace.
NOT_ASKED = PathEvidence("unknown", "", "not asked", "")


@dataclass(frozen=True)
class _Region:
    first: int
    last: int
    kind: Kind
    name: str
    line: str


@dataclass(frozen=True)
class _View:
    """One address space as ``info mtree`` prints it."""

    title: str
    cpus: frozenset[int]
    regions: tuple[_Region, ...]
    #: Whether its end was seen. Only then is an absent region a hole.
    complete: bool
    #: The first line that is not understood, or where the order is not, "" where there is none.
    strange: str

    @property
    def garbled(self) -> bool:
        """Return whether a line is not understood."""
        return bool(self.strange)


def ask(monitor: Callable[[str], str], start: int, length: int, *, cpus: int) -> PathEvidence:
    """Ask QEMU's monitor what backs a range, and return it as ``attest`` does. Raises what ``monitor`` raises."""
    return attest(monitor(COMMAND), start, length, cpus=cpus)


def is_answer(text: str) -> bool:
    """Return whether a monitor, which may not be QEMU's, has answered with flat views."""
    return "FlatView" in text


def attest(text: str, start: int, length: int, *, cpus: int | None = None) -> PathEvidence:
    """Return what backs the ``length`` bytes at physical address ``start`` for every CPU.

    With ``cpus``, the views of CPU 0 to ``cpus`` - 1 must be present, so that a text that was cut between two views is
    noticed. Anything doubtful is "unknown": CPUs that disagree, a range that spans regions of different kinds, lines
    that cannot be parsed, a text that ends early. Raises ValueError for an empty range, and no other exception.
    """
    if start < 0 or length < 1:
        raise ValueError(f"no such range: {length} bytes at {start:#x}")
    views = [view for view in _views(text) if view.cpus]
    seen = [cpu for view in views for cpu in view.cpus]
    if not views:
        return _unknown(_unread(text))
    if len(seen) != len(set(seen)):
        return _unknown("a CPU has two views")
    # The machine may have more CPUs than the case, but a missing number means that text is missing.
    if set(seen) != set(range(max(max(seen) + 1, cpus or 0))):
        return _unknown(f"views of CPUs {sorted(seen)} only")
    answers = [_look_up(view, start, start + length - 1) for view in views]
    if any(answer.kind != answers[0].kind for answer in answers):
        return _unknown("the CPUs' views differ")
    return answers[0]


def _look_up(view: _View, first: int, last: int) -> PathEvidence:
    """Return what one view has in first..last."""
    if view.garbled:
        return _unknown(f"a line of the view is not understood: {one_line(quoted(view.strange.strip()))!r}", view.title)
    if not view.complete and not any(region.first > last for region in view.regions):
        # Regions are in address order: once one lies beyond the range, nothing about the range is missing.
        return _unknown("the view ends early", view.title)
    hits = [region for region in view.regions if region.first <= last and region.last >= first]
    if not hits:
        return PathEvidence("hole", "", "no region", view.title)
    covered = sum(min(region.last, last) - max(region.first, first) + 1 for region in hits)
    kinds = {region.kind for region in hits}
    region = ", ".join(dict.fromkeys(hit.name for hit in hits))
    line = " / ".join(hit.line for hit in hits)
    if covered != last - first + 1 or len(kinds) != 1:
        return PathEvidence("unknown", region, line, view.title)
    return PathEvidence(kinds.pop(), region, line, view.title)


def _unread(text: str) -> str:
    """Return why no view of a CPU is in a text: this QEMU writes them in another form, or prints none."""
    views = _views(text)
    strange = [view.strange for view in views if view.garbled] if views else text.split("\n")[:1]
    if strange and strange[0].strip():
        return f"QEMU's answer to '{COMMAND}' has an unknown form: {one_line(quoted(strange[0].strip()))!r}"
    return "no view of a CPU's own memory"


def _unknown(why: str, view: str = "") -> PathEvidence:
    return PathEvidence("unknown", "", why, view)


def _views(text: str) -> list[_View]:
    """Return every flat view. A last line without its line feed may have been cut, so it is left out."""
    lines = [line.removesuffix("\r") for line in text.split("\n")[:-1]]
    starts = [number for number, line in enumerate(lines) if _HEADER.fullmatch(line)]
    return [_view(lines[start:end]) for start, end in itertools.pairwise([*starts, len(lines)])]


def _view(lines: list[str]) -> _View:
    """Return one view from its header line up to the next one's."""
    complete = "" in lines
    body = lines[1 : lines.index("")] if complete else lines[1:]
    spaces: list[str] = []
    regions: list[_Region] = []
    strange = ""
    for line in body:
        space = _SPACE.fullmatch(line)
        region = _REGION.fullmatch(line)
        if space:
            spaces.append(space["name"])
        elif region:
            kind = _KINDS.get(region["type"], "unknown")
            first, last = int(region["first"], 16), int(region["last"], 16)
            if last < first or (regions and regions[-1].last >= first):
                strange = strange or line
            regions.append(_Region(first, last, kind, region["name"], line.strip()))
        elif not line.startswith(" Root memory region: ") and line != "  No rendered FlatView":
            # a blank line has ended the body
            strange = strange or line
    numbers = [int(match["cpu"]) for match in map(_CPU_SPACE.fullmatch, spaces) if match]
    return _View(f"{lines[0]}: {', '.join(spaces)}", frozenset(numbers), tuple(regions), complete, strange)
