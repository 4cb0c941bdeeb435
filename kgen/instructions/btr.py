"""BTR: clears one bit of memory and gives what it was in the carry flag."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, wide
from kgen.instructions._lanes import REPEATS, bit_number, lowest_bit
from kgen.instructions._semantics import btr
from kgen.instructions.bts import BITS

INSTRUCTION = Instruction(
    name="btr",
    summary="test and clear a bit of memory",
    sdm="Intel SDM volume 2A, BTR",
    opcodes={Source.REGISTER: wide("0F B3 /r"), Source.IMMEDIATE: wide("0F BA /6 ib")},
    semantics=btr,
    experiment="own-bits",
    code={Use.LANE: ("{lock}btr {ptr}, {operand}",), **BITS},
    returns=frozenset(BITS),
    lane=lambda width, mask: Lane(operand=bit_number(mask), initial=lowest_bit(mask), repeats=REPEATS),
)
