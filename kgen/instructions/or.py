"""OR: sets the bits of memory that register or immediate has."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, widths
from kgen.instructions._lanes import REPEATS
from kgen.instructions._semantics import or_
from kgen.instructions._unseen import LEAVES_NO_TRACE

INSTRUCTION = Instruction(
    name="or",
    summary="bitwise OR with memory",
    sdm="Intel SDM volume 2B, OR",
    opcodes={
        Source.REGISTER: widths("08 /r", "09 /r"),
        Source.IMMEDIATE: widths("80 /1 ib", "81 /1 iz", "83 /1 ib"),
    },
    semantics=or_,
    experiment="own-bits",
    code={Use.LANE: ("{lock}or {ptr}, {operand}",)},
    lane=lambda width, mask: Lane(operand=mask, initial=0, repeats=REPEATS),
    unseen=LEAVES_NO_TRACE,
)
