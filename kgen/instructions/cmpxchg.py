"""CMPXCHG: compares the accumulator with memory and, where they are equal, stores a register."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, Use, widths
from kgen.instructions._semantics import cmpxchg

# CMPXCHG writes the destination even when the comparison fails (it writes back what it read), so without LOCK it has
# the same window. It starts by expecting an empty cell, which makes the empty poll one instruction long.
EXCHANGE = (
    "mov edx, eax",
    "xor eax, eax",
    "{L}again:",
    "{lock}cmpxchg {ptr}, {d}",
    "je {L}done",
    "pause",
    "jmp {L}again",
    "{L}done:",
)
ATTEMPT = ("{lock}cmpxchg {ptr}, {d}",)
# The plain read is a hint: where it is wrong the comparison fails and brings the right value.
_STEP = (
    "push ecx",
    "mov ecx, eax",
    "mov {a}, {ptr}",
    "{L}again:",
    "lea edx, [eax + ecx]",
    "{lock}cmpxchg {ptr}, {d}",
    "je {L}done",
    "pause",
    "jmp {L}again",
    "{L}done:",
    "pop ecx",
)

INSTRUCTION = Instruction(
    name="cmpxchg",
    summary="compare the accumulator with memory and exchange",
    sdm="Intel SDM volume 2A, CMPXCHG",
    opcodes={Source.REGISTER: widths("0F B0 /r", "0F B1 /r")},
    semantics=cmpxchg,
    experiment="token",
    code={Use.EXCHANGE: EXCHANGE, Use.ATTEMPT: ATTEMPT, Use.STEP: _STEP},
    returns=frozenset({Use.EXCHANGE, Use.ATTEMPT, Use.STEP}),
    register="d",
)
