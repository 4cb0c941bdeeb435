"""A machine stopped at its first violation, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kgen.evidence.records import Witness


@dataclass(frozen=True)
class SceneLine:
    """One instruction as memory held it."""

    address: int
    #: Its bytes, in hex.
    data: str
    #: What a decoder reads in them.
    text: str
    #: Where the listing has it, the line counted from 1; "", 0 and "" where it is none of the kernel's.
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class SceneCpu:
    """A CPU at the scene."""

    #: The guest's number, None for a CPU that the guest does not know.
    cpu: int | None
    #: 32 bits wide.
    registers: Mapping[str, int]
    #: What the CPU does, in words.
    place: str
    #: Where it stands: a symbol and the distance from it.
    routine: str
    #: The instructions around its EIP. The one at EIP is the next that it executes.
    code: tuple[SceneLine, ...]


@dataclass(frozen=True)
class SceneCell:
    """The cell of the witness."""

    #: Physical.
    address: int
    #: In bits.
    width: int
    #: The token that was put there or, where there are no tokens, what the cell held when the batch began; None where
    #: that is not kept.
    before: int | None
    #: What the cell holds now that all CPUs are parked, as the debugger reads it; None where it cannot be read.
    after: int | None
    #: The physical address of the first byte of ``around``.
    start: int
    #: The cell's bytes and its neighbours', in hex.
    around: str

    def __post_init__(self) -> None:
        # a result that is read back may say anything
        if self.width not in (8, 16, 32, 64):
            raise ValueError(f"a cell of {self.width} bits")
        bytes.fromhex(self.around)


@dataclass(frozen=True)
class SceneEvent:
    """Something that happened on the way to the scene."""

    #: Orders events. Of the events of one step, only those of the same CPU are known to be in their order.
    step: int
    cpu: int | None
    #: "witness": an entry of the witness ring; the last one is the scene's own. Between them are the events of its
    #: cell. "batch": it was opened. "put": the token, or the value in question of a chain, was exchanged into the cell.
    #: "take": an exchange got ``value``. "empty": the CPU's exchanges got nothing. "work": the CPU's operations on the
    #: batch's cells. "parked": the CPU has acknowledged the batch and touches no cell any more. "read": what CPU 0 then
    #: found in the cell.
    kind: Literal["witness", "batch", "put", "take", "empty", "work", "parked", "read"]
    phase: int
    #: None where it is not kept.
    batch: int | None
    cell: int | None
    value: int | None
    #: In ticks of CPU 0, None where the time was not taken.
    tsc: int | None
    #: The event in words.
    text: str


@dataclass(frozen=True)
class Scene:
    """The machine at the moment after the first violation had been recorded, and before anything else was done.

    It is the first violation of the case, or of a phase that the verdict rests on as well.
    """

    witness: Witness
    cpus: tuple[SceneCpu, ...]
    cell: SceneCell
    #: In order of time: the witnesses before this one, the history of its cell in its batch, itself.
    timeline: tuple[SceneEvent, ...]
