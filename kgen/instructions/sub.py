"""SUB: subtracts register or immediate from memory."""

from __future__ import annotations

from kgen.instructions import STEP, Instruction, Source, Use, widths
from kgen.instructions._lanes import counting_down
from kgen.instructions._semantics import sub
from kgen.instructions._unseen import NO_OLD_VALUE

_SUB = ("{lock}sub {ptr}, {operand}",)

INSTRUCTION = Instruction(
    name="sub",
    summary="subtract from memory",
    sdm="Intel SDM volume 2B, SUB",
    opcodes={
        Source.REGISTER: widths("28 /r", "29 /r"),
        Source.IMMEDIATE: widths("80 /5 ib", "81 /5 iz", "83 /5 ib"),
    },
    semantics=sub,
    experiment="counter",
    code={Use.STEP: _SUB, Use.LANE: _SUB},
    step=lambda width: -STEP % (1 << width),
    lane=counting_down,
    unseen=NO_OLD_VALUE,
)
