"""CMPXCHG8B: compares EDX:EAX with memory and, where they are equal, stores ECX:EBX."""

from __future__ import annotations

from kgen.instructions import TORN, Instruction, Source, Use
from kgen.instructions._semantics import cmpxchg8b

# A cell holds one value twice, once in each half; halves that differ were never written together.
# As with CMPXCHG the comparison that fails writes too, and the first one expects an empty cell.
_EXCHANGE = (
    "push ebx",
    "push ecx",
    "mov ebx, eax",
    "mov ecx, eax",
    "xor eax, eax",
    "xor edx, edx",
    "{L}again:",
    "{lock}cmpxchg8b {ptr}",
    "je {L}done",
    "pause",
    "jmp {L}again",
    "{L}done:",
    "pop ecx",
    "pop ebx",
    "cmp eax, edx",
    "je {L}whole",
    f"mov eax, {TORN:#x}",
    "{L}whole:",
)
_ATTEMPT = (
    "push ebx",
    "push ecx",
    "mov ebx, edx",
    "mov ecx, edx",
    "mov edx, eax",
    "{lock}cmpxchg8b {ptr}",
    "pop ecx",
    "pop ebx",
    "cmp eax, edx",
    "je {L}whole",
    f"mov eax, {TORN:#x}",
    "{L}whole:",
)
# The plain read is a hint. The new halves are both made of the old low one, so what was torn is whole again and does
# not count once more with every step.
_STEP = (
    "push ebx",
    "push ecx",
    "push esi",
    "mov esi, eax",
    "mov eax, dword ptr [edi]",
    "mov edx, eax",
    "{L}again:",
    "lea ebx, [eax + esi]",
    "mov ecx, ebx",
    "{lock}cmpxchg8b {ptr}",
    "je {L}done",
    "pause",
    "jmp {L}again",
    "{L}done:",
    "pop esi",
    "pop ecx",
    "pop ebx",
    "cmp eax, edx",
    "je {L}whole",
    f"mov eax, {TORN:#x}",
    "{L}whole:",
)

INSTRUCTION = Instruction(
    name="cmpxchg8b",
    summary="compare EDX:EAX with memory and exchange 64 bits",
    sdm="Intel SDM volume 2A, CMPXCHG8B",
    opcodes={Source.NONE: {64: ("0F C7 /1",)}},
    semantics=cmpxchg8b,
    experiment="token",
    code={Use.EXCHANGE: _EXCHANGE, Use.ATTEMPT: _ATTEMPT, Use.STEP: _STEP},
    returns=frozenset({Use.EXCHANGE, Use.ATTEMPT, Use.STEP}),
)
