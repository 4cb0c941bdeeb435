"""NOT: inverts every bit of memory and changes no flag."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._semantics import not_
from kgen.instructions._unseen import UNDOES_ITSELF

INSTRUCTION = Instruction(
    name="not",
    summary="invert memory",
    sdm="Intel SDM volume 2B, NOT",
    opcodes={Source.NONE: widths("F6 /2", "F7 /2")},
    semantics=not_,
    experiment="parity",
    code={Use.FLIP: ("{lock}not {ptr}",)},
    unseen=UNDOES_ITSELF,
)
