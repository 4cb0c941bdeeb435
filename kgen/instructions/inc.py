"""INC: adds 1 to memory and leaves the carry flag alone."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._semantics import inc
from kgen.instructions._unseen import NO_OLD_VALUE

INSTRUCTION = Instruction(
    name="inc",
    summary="increment memory",
    sdm="Intel SDM volume 2A, INC",
    opcodes={Source.NONE: widths("FE /0", "FF /0")},
    semantics=inc,
    experiment="counter",
    code={Use.STEP: ("{lock}inc {ptr}",)},
    unseen=NO_OLD_VALUE,
)
