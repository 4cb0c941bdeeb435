"""The instruction catalogue: one file an instruction, each exposing ``INSTRUCTION = Instruction(...)``.

Everything an experiment needs to know about an instruction is here: how to perform one exchange with the
cell, with LOCK and without, and the encodings against which the assembler is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """One way to exchange a register with the cell, at one operand width.

    ``exchange`` is assembly: on entry EDI is the cell's address and EAX the new value, on exit EAX is the value
    that the cell held before. It may change EDX and flags, nothing else. ``{L}`` stands for a label prefix unique
    to each use. ``encoding`` is a statement of the form and the bytes that the SDM gives for it.
    """

    name: str
    width: int
    atomic: bool
    exchange: tuple[str, ...]
    encoding: tuple[str, bytes]


@dataclass(frozen=True)
class Instruction:
    """A lockable instruction.

    ``locked`` maps an operand width in bits to the form under test, ``unlocked`` to the forms without LOCK that
    serve as power controls, the one that stands for ``--no-lock`` first.
    """

    name: str
    summary: str
    sdm: str
    locked: Mapping[int, Form]
    unlocked: Mapping[int, tuple[Form, ...]]

    @property
    def widths(self) -> tuple[int, ...]:
        """Operand widths in bits, ascending."""
        return tuple(sorted(self.locked))
