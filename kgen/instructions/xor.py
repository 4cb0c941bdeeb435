"""XOR: inverts the bits of memory that register or immediate has."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, widths
from kgen.instructions._lanes import REPEATS
from kgen.instructions._semantics import xor
from kgen.instructions._unseen import UNDOES_ITSELF

_XOR = ("{lock}xor {ptr}, {operand}",)

INSTRUCTION = Instruction(
    name="xor",
    summary="bitwise exclusive OR with memory",
    sdm="Intel SDM volume 2D, XOR",
    opcodes={
        Source.REGISTER: widths("30 /r", "31 /r"),
        Source.IMMEDIATE: widths("80 /6 ib", "81 /6 iz", "83 /6 ib"),
    },
    semantics=xor,
    experiment="own-bits",
    code={Use.LANE: _XOR, Use.FLIP: _XOR},
    flip=lambda width: (1 << width) - 1,
    lane=lambda width, mask: Lane(operand=mask, initial=0, repeats=REPEATS),
    unseen=UNDOES_ITSELF,
)
