"""A machine stopped at its first violation, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kgen.evidence.records import Witness


@dataclass(frozen=True)
class SceneLine:
    """One instruction as memory held it: its address, its bytes in hex, and its text as a decoder reads them.

    ``file``, ``line`` (from 1) and ``source`` say where the listing has it; "", 0 and "" where it is none of the
    kernel's.
    """

    address: int
    data: str
    text: str
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class SceneCpu:
    """A CPU at the scene. ``cpu`` is the guest's number, None for one that the guest does not know; ``registers`` are
    32 bits wide. ``place`` says in words what it does, ``routine`` where it stands: a symbol and the distance from it.
    ``code`` are the instructions around its EIP; that one is the next that it executes.
    """

    cpu: int | None
    registers: Mapping[str, int]
    place: str
    routine: str
    code: tuple[SceneLine, ...]


@dataclass(frozen=True)
class SceneCell:
    """The cell of the witness: physical address, width in bits, and its value ``before`` and ``after``.

    ``before`` is the token that was put there or, where there are no tokens, what it held when the batch began; None
    where that is not kept. ``after`` is what it holds now that all CPUs are parked, as the debugger reads it; None
    where it cannot be read. ``around`` are its bytes and its neighbours', in hex, the first of them at ``start``.
    """

    address: int
    width: int
    before: int | None
    after: int | None
    start: int
    around: str

    def __post_init__(self) -> None:
        # a result that is read back may say anything
        if self.width not in (8, 16, 32, 64):
            raise ValueError(f"a cell of {self.width} bits")
        bytes.fromhex(self.around)


@dataclass(frozen=True)
class SceneEvent:
    """Something that happened on the way to the scene. ``step`` orders events; of those of one step only each CPU's own
    are known to be in their order.

    "witness" is an entry of the witness ring, and the last one is the scene's own. In between stands what happened to
    its cell: "batch" (it was opened), "put" (the token, or the value in question of a chain, was exchanged into the
    cell; it is ``value``), "take" (an exchange got ``value``), "empty" (its exchanges got nothing), "work" (its
    operations on the batch's cells), "parked" (the CPU has acknowledged the batch: it touches no cell any more) and
    "read" (what CPU 0 then found in the cell). ``phase`` and ``batch`` number what it belongs to, ``batch`` is None
    where that is not kept; ``tsc`` is in ticks of CPU 0, None where the time was not taken.
    """

    step: int
    cpu: int | None
    kind: Literal["witness", "batch", "put", "take", "empty", "work", "parked", "read"]
    phase: int
    batch: int | None
    cell: int | None
    value: int | None
    tsc: int | None
    text: str


@dataclass(frozen=True)
class Scene:
    """The machine at the moment at which the first violation of the case, or of what its verdict rests on as well, had
    been recorded, and nothing done since.

    ``timeline`` is in order of time: the witnesses before this one, the history of its cell in its batch, itself.
    """

    witness: Witness
    cpus: tuple[SceneCpu, ...]
    cell: SceneCell
    timeline: tuple[SceneEvent, ...]
