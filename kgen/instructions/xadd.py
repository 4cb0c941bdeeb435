"""XADD: adds a register to memory and gives in it what was there."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._lanes import counting_up
from kgen.instructions._semantics import xadd

_XADD = ("{lock}xadd {ptr}, {a}",)

INSTRUCTION = Instruction(
    name="xadd",
    summary="exchange and add to memory",
    sdm="Intel SDM volume 2D, XADD",
    opcodes={Source.REGISTER: widths("0F C0 /r", "0F C1 /r")},
    semantics=xadd,
    experiment="counter",
    code={Use.STEP: _XADD, Use.LANE: _XADD},
    returns=frozenset({Use.STEP, Use.LANE}),
    lane=counting_up,
)
