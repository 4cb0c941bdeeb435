"""SBB: subtracts register or immediate and the carry flag, the borrow, from memory."""

from __future__ import annotations

from kgen.instructions import STEP, Instruction, Source, Use, widths
from kgen.instructions._lanes import counting_down
from kgen.instructions._semantics import sbb
from kgen.instructions._unseen import NO_OLD_VALUE

# Counting starts with the borrow set, so that an emulation which forgets it is found out; the operand is one less
# therefore. Lanes start with it clear, and never carry: KVM's instruction emulator was seen to begin an attempt that it
# repeats with the flags that the one before had left. That is a defect of its own, on RAM too, and hides no other here.
_STEP = ("stc", "{lock}sbb {ptr}, {operand}")
_LANE = ("clc", "{lock}sbb {ptr}, {operand}")

INSTRUCTION = Instruction(
    name="sbb",
    summary="subtract with borrow from memory",
    sdm="Intel SDM volume 2B, SBB",
    opcodes={
        Source.REGISTER: widths("18 /r", "19 /r"),
        Source.IMMEDIATE: widths("80 /3 ib", "81 /3 iz", "83 /3 ib"),
    },
    semantics=sbb,
    experiment="own-bits",
    code={Use.STEP: _STEP, Use.LANE: _LANE},
    step=lambda width: (-STEP - 1) % (1 << width),
    lane=counting_down,
    unseen=NO_OLD_VALUE,
)
