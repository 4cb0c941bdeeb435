"""AND: clears the bits of memory that register or immediate lacks."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, widths
from kgen.instructions._lanes import REPEATS
from kgen.instructions._semantics import and_
from kgen.instructions._unseen import LEAVES_NO_TRACE

INSTRUCTION = Instruction(
    name="and",
    summary="bitwise AND with memory",
    sdm="Intel SDM volume 2A, AND",
    opcodes={
        Source.REGISTER: widths("20 /r", "21 /r"),
        Source.IMMEDIATE: widths("80 /4 ib", "81 /4 iz", "83 /4 ib"),
    },
    semantics=and_,
    experiment="own-bits",
    code={Use.LANE: ("{lock}and {ptr}, {operand}",)},
    lane=lambda width, mask: Lane(operand=mask ^ ((1 << width) - 1), initial=mask, repeats=REPEATS),
    unseen=LEAVES_NO_TRACE,
)
