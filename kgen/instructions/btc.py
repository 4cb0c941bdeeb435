"""BTC: inverts one bit of memory and gives what it was in the carry flag."""

from __future__ import annotations

from kgen.instructions import Instruction, Lane, Source, Use, wide
from kgen.instructions._lanes import REPEATS, bit_number
from kgen.instructions._semantics import btc
from kgen.instructions._unseen import UNDOES_ITSELF

_BTC = ("{lock}btc {ptr}, {operand}",)

INSTRUCTION = Instruction(
    name="btc",
    summary="test and invert a bit of memory",
    sdm="Intel SDM volume 2A, BTC",
    opcodes={Source.REGISTER: wide("0F BB /r"), Source.IMMEDIATE: wide("0F BA /7 ib")},
    semantics=btc,
    experiment="own-bits",
    code={Use.LANE: _BTC, Use.FLIP: _BTC},
    lane=lambda width, mask: Lane(operand=bit_number(mask), initial=0, repeats=REPEATS),
    unseen=UNDOES_ITSELF,
)
