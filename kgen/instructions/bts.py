"""BTS: sets one bit of memory and gives what it was in the carry flag."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, wide
from kgen.instructions._lanes import REPEATS, bit_number
from kgen.instructions._semantics import bts

# A flag to take and give back needs both: BTS takes it, BTR gives it back. EAX is the bit number 0 where the form has
# a register, and the rest of the answer where it has not.
BITS = {
    Use.SET: ("xor eax, eax", "{lock}bts {ptr}, {operand}", "setc al"),
    Use.CLEAR: ("xor eax, eax", "{lock}btr {ptr}, {operand}", "setc al"),
}

INSTRUCTION = Instruction(
    name="bts",
    summary="test and set a bit of memory",
    sdm="Intel SDM volume 2A, BTS",
    opcodes={Source.REGISTER: wide("0F AB /r"), Source.IMMEDIATE: wide("0F BA /5 ib")},
    semantics=bts,
    experiment="own-bits",
    code={Use.LANE: ("{lock}bts {ptr}, {operand}",), **BITS},
    returns=frozenset(BITS),
    lane=lambda width, mask: Lane(operand=bit_number(mask), initial=0, repeats=REPEATS),
)
