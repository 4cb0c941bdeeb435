"""ADC: adds register or immediate and the carry flag to memory."""

from __future__ import annotations

from kgen.instructions import STEP, Instruction, Source, Use, widths
from kgen.instructions._lanes import counting_up
from kgen.instructions._semantics import adc
from kgen.instructions._unseen import NO_OLD_VALUE

# Counting starts with the carry set, so that an emulation which forgets it is found out; the operand is one less
# therefore. Lanes start with it clear, and never carry: KVM's instruction emulator was seen to begin an attempt that it
# repeats with the flags that the one before had left. That is a defect of its own, on RAM too, and hides no other here.
_STEP = ("stc", "{lock}adc {ptr}, {operand}")
_LANE = ("clc", "{lock}adc {ptr}, {operand}")

INSTRUCTION = Instruction(
    name="adc",
    summary="add with carry to memory",
    sdm="Intel SDM volume 2A, ADC",
    opcodes={
        Source.REGISTER: widths("10 /r", "11 /r"),
        Source.IMMEDIATE: widths("80 /2 ib", "81 /2 iz", "83 /2 ib"),
    },
    semantics=adc,
    experiment="own-bits",
    code={Use.STEP: _STEP, Use.LANE: _LANE},
    step=lambda width: (STEP - 1) % (1 << width),
    lane=counting_up,
    unseen=NO_OLD_VALUE,
)
