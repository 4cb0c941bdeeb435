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
    #: What they decode to.
    text: str
    #: Its place in the listing, lines counted from 1; "", 0 and "" where it is not the kernel's.
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
    #: What the CPU was doing, in words.
    place: str
    #: Where its EIP is: a symbol and the distance from it.
    routine: str
    #: The instructions around its EIP. It executes the one at EIP next.
    code: tuple[SceneLine, ...]


@dataclass(frozen=True)
class SceneCell:
    """The cell of the witness."""

    #: Physical.
    address: int
    #: In bits.
    width: int
    #: The token that was put there or, where there are no tokens, what the cell held when the batch began; None where
    #: that is unknown.
    before: int | None
    #: What the debugger reads in the cell while all CPUs are parked; None where it cannot be read.
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
    """Something that happened before the scene."""

    #: Numbers the order of events. Within one step, only the order of the same CPU's events is known.
    step: int
    cpu: int | None
    #: "witness" is an entry of the witness ring; the last one is the scene's own. The other kinds are events of its
    #: cell: "batch": the batch was opened. "put": the token, or the chain's value in question, was exchanged into the
    #: cell. "take": an exchange got ``value``. "empty": the CPU's exchanges got nothing. "work": the CPU's operations
    #: on the batch's cells. "parked": the CPU has acknowledged the batch and accesses no cell any more. "read": what
    #: CPU 0 then found in the cell.
    kind: Literal["witness", "batch", "put", "take", "empty", "work", "parked", "read"]
    phase: int
    #: None where it is unknown.
    batch: int | None
    cell: int | None
    value: int | None
    #: In ticks of CPU 0, None where the time was not taken.
    tsc: int | None
    #: The event in words.
    text: str


@dataclass(frozen=True)
class Scene:
    """The machine right after the first violation was recorded. It is the first violation of the case, or of another
    phase that the verdict rests on."""

    witness: Witness
    cpus: tuple[SceneCpu, ...]
    cell: SceneCell
    #: In order of time: the earlier witnesses, the history of this one's cell in its batch, this witness.
    timeline: tuple[SceneEvent, ...]
