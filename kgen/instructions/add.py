"""ADD: adds register or immediate to memory."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._lanes import counting_up
from kgen.instructions._semantics import add
from kgen.instructions._unseen import NO_OLD_VALUE

_ADD = ("{lock}add {ptr}, {operand}",)

INSTRUCTION = Instruction(
    name="add",
    summary="add to memory",
    sdm="Intel SDM volume 2A, ADD",
    opcodes={
        Source.REGISTER: widths("00 /r", "01 /r"),
        Source.IMMEDIATE: widths("80 /0 ib", "81 /0 iz", "83 /0 ib"),
    },
    semantics=add,
    experiment="counter",
    code={Use.STEP: _ADD, Use.LANE: _ADD},
    lane=counting_up,
    unseen=NO_OLD_VALUE,
)
