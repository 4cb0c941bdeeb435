"""The scene of a violation as text: what each CPU was doing, the cell, and the events before."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from kgen.evidence.scene import Scene, SceneCell, SceneCpu, SceneEvent, SceneLine
from kgen.kernel.results_block import ViolationKind
from kgen.wording import plural

_REGISTER_ROWS = (("eax", "ebx", "ecx", "edx", "esi"), ("edi", "ebp", "esp", "eip", "eflags"))
#: How many of the earlier witnesses are shown, the last of them; --json has all.
_EARLIER = 2
_BYTES_A_LINE = 16
#: The columns of a narrow terminal. Lines that may be broken are not wider.
_COLUMNS = 79
_DEEPER = 20
#: No CPU can record the write that lost the token.
_WIPED_OUT = (
    "  So an earlier exchange must have written its 0 over the token without having",
    "  found it there: as a rule one that had read the cell before the put.",
)


def scene_lines(scene: Scene, khz: int) -> Iterator[str]:
    """Yield the scene, line by line.

    ``khz`` is CPU 0's clock in ticks a millisecond, 0 where it is unknown.
    """
    yield "the scene of the first violation: all CPUs are parked, and nothing has been"
    yield "done to the cell since"
    yield from cell_lines(scene.cell)
    yield ""
    for cpu in scene.cpus:
        yield from cpu_lines(cpu)
    yield ""
    yield "how it came about (where there is a *, the order between CPUs is open):"
    yield from timeline_lines(scene, khz)


def cell_lines(cell: SceneCell) -> Iterator[str]:
    """Yield the cell before and after, and its neighbours around it; the cell is in brackets."""
    digits = cell.width // 4
    before = "not kept" if cell.before is None else f"{cell.before:0{digits}x}"
    after = "cannot be read" if cell.after is None else f"{cell.after:0{digits}x}"
    yield f"  cell at {cell.address:#x}, {cell.width} bits: before {before}, after {after}"
    data = bytes.fromhex(cell.around)
    size = cell.width // 8
    # cells that overlap cannot be shown one by one
    if len(data) <= size or len(data) % size or (cell.address - cell.start) % size:
        return
    for at in range(0, len(data), _BYTES_A_LINE):
        shown = []
        for place in range(at, min(at + _BYTES_A_LINE, len(data)), size):
            value = f"{int.from_bytes(data[place : place + size], 'little'):0{digits}x}"
            shown.append(f"[{value}]" if cell.start + place == cell.address else f" {value} ")
        yield f"    {cell.start + at:08x} {''.join(shown)}".rstrip()


def cpu_lines(cpu: SceneCpu) -> Iterator[str]:
    """Yield one CPU: what it is doing, its registers, the instructions around its EIP, which is marked with ``>``."""
    name = "a CPU" if cpu.cpu is None else f"CPU {cpu.cpu}"
    where = f"at {cpu.routine}" if cpu.routine else "outside the kernel"
    yield from _wrapped("  ", f"{name} {cpu.place}; it is {where}", "    ")
    for row in _REGISTER_ROWS:
        yield "    " + " ".join(f"{name}={cpu.registers[name]:08x}" for name in row if name in cpu.registers)
    size = max((len(line.data) for line in cpu.code), default=0)
    room = _COLUMNS - len(_front(cpu.code[0], False, size)) if cpu.code else 0
    # one long instruction does not widen the column for all
    width = max((len(line.text) for line in cpu.code if len(line.text) + 2 + len(_source(line)) <= room), default=0)
    for line in cpu.code:
        yield from code_lines(line, line.address == cpu.registers.get("eip"), size, width)


def code_lines(line: SceneLine, current: bool, size: int, width: int) -> Iterator[str]:
    """Yield one instruction: address, bytes in ``size`` columns, their decoding in ``width`` columns, and the line of
    the listing that they come from. That line goes below where it does not fit."""
    front, source = _front(line, current, size), _source(line)
    whole = f"{front}{line.text:<{width}}  {source}"
    if len(whole) <= _COLUMNS:
        yield whole
    else:
        yield f"{front}{line.text}"
        yield f"{'':{len(front)}}{source}"


def _front(line: SceneLine, current: bool, size: int) -> str:
    return f"    {'>' if current else ' '} {line.address:08x}  {line.data:<{size}}  "


def _source(line: SceneLine) -> str:
    return f"{line.file}:{line.line}  {line.source}" if line.line else "not of the kernel"


def timeline_lines(scene: Scene, khz: int) -> Iterator[str]:
    """Yield the events in order, with the time before the scene where it is known."""
    # those of the controls
    earlier = [event for event in scene.timeline[:-1] if event.kind == "witness"]
    left_out = earlier[:-_EARLIER]
    if left_out:
        yield f"  {'':>13}   {plural(len(left_out), 'earlier witness')} (--json)"
    shown = [event for event in scene.timeline if event not in left_out]
    steps = [event.step for event in shown]
    for event in shown:
        mark = "*" if steps.count(event.step) > 1 else " "
        yield from _wrapped(f"  {_when(event, scene.timeline[-1], khz):>13} {mark} ", event.text, " " * _DEEPER)
    if _was_wiped_out(scene):
        yield from _WIPED_OUT


def _wrapped(first: str, text: str, rest: str) -> Iterator[str]:
    """Yield a text in lines without breaking words. The first line has one prefix, all others have another."""
    yield from textwrap.wrap(
        text, _COLUMNS, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]


def _was_wiped_out(scene: Scene) -> bool:
    """Return whether a token was lost and no consumer found anything but 0 in its cell."""
    kinds = {event.kind for event in scene.timeline if event.cell == scene.witness.cell}
    return scene.witness.kind is ViolationKind.LOST and {"put", "empty"} <= kinds and "take" not in kinds


def _when(event: SceneEvent, last: SceneEvent, khz: int) -> str:
    if event.tsc is None or last.tsc is None or not khz:
        return ""
    return f"{(event.tsc - last.tsc) / khz:.3f} ms"
