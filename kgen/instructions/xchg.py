"""XCHG: exchanges register and memory; with a memory operand it locks whether or not LOCK is written."""

from __future__ import annotations

from kgen.instructions import Form, Instruction

XCHG32 = Form(
    name="xchg.32",
    width=32,
    atomic=True,
    exchange=("xchg dword ptr [edi], eax",),
    encoding=("xchg dword ptr [edi], eax", bytes.fromhex("8707")),
)

# XCHG cannot be had without its lock, so two others stand in for it. The first is what it would be if the lock
# were ignored: a read and a write. The jump between them matters: QEMU's TCG never leaves a translation block in
# the middle, a pair in one block would be atomic there by accident and a control that cannot fail proves nothing.
MOV_MOV32 = Form(
    name="mov-mov.32",
    width=32,
    atomic=False,
    exchange=(
        "mov edx, dword ptr [edi]",
        "jmp {L}split",
        "{L}split:",
        "mov dword ptr [edi], eax",
        "mov eax, edx",
    ),
    encoding=("mov dword ptr [edi], eax", bytes.fromhex("8907")),
)

# CMPXCHG writes the destination even when the comparison fails (it writes back what it read), so without LOCK
# it has the same window. It starts by expecting an empty cell, which makes the empty poll one instruction long.
CMPXCHG32_NOLOCK = Form(
    name="cmpxchg.32.nolock",
    width=32,
    atomic=False,
    exchange=(
        "mov edx, eax",
        "xor eax, eax",
        "{L}again:",
        "cmpxchg dword ptr [edi], edx",
        "je {L}done",
        "pause",
        "jmp {L}again",
        "{L}done:",
    ),
    encoding=("cmpxchg dword ptr [edi], edx", bytes.fromhex("0fb117")),
)

INSTRUCTION = Instruction(
    name="xchg",
    summary="exchange register with memory (always locked on memory)",
    sdm="Intel SDM volume 2, XCHG, opcode 87 /r",
    locked={32: XCHG32},
    unlocked={32: (MOV_MOV32, CMPXCHG32_NOLOCK)},
)
