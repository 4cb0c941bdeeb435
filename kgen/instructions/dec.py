"""DEC: subtracts 1 from memory and leaves the carry flag alone."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._semantics import dec
from kgen.instructions._unseen import NO_OLD_VALUE

INSTRUCTION = Instruction(
    name="dec",
    summary="decrement memory",
    sdm="Intel SDM volume 2A, DEC",
    opcodes={Source.NONE: widths("FE /1", "FF /1")},
    semantics=dec,
    experiment="counter",
    code={Use.STEP: ("{lock}dec {ptr}",)},
    unseen=NO_OLD_VALUE,
)
