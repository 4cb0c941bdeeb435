"""NEG: replaces memory with its two's complement."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._semantics import neg
from kgen.instructions._unseen import UNDOES_ITSELF

INSTRUCTION = Instruction(
    name="neg",
    summary="negate memory",
    sdm="Intel SDM volume 2B, NEG",
    opcodes={Source.NONE: widths("F6 /3", "F7 /3")},
    semantics=neg,
    experiment="parity",
    code={Use.FLIP: ("{lock}neg {ptr}",)},
    unseen=UNDOES_ITSELF,
)
