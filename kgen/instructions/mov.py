"""MOV: stores a register in memory. It takes no LOCK: aligned stores are whole without one (SDM volume 3A, "Guaranteed
Atomic Operations"), which is a question of its own on memory-mapped I/O."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, StandIn, Use, widths
from kgen.instructions._semantics import mov

# A store that is not whole: between the two, the cell holds the old value's upper half and the new one's lower half.
# The jump is there as in XCHG's stand-in: nothing looks between two statements of one translation block where QEMU's
# TCG runs its CPUs by turns.
_PARTS = StandIn(
    name="mov-parts",
    mnemonic="mov",
    opcodes={8: "88 /r", 16: "89 /r", 32: "89 /r"},
    register="a",
    code={
        Use.STORE: (
            "mov {d}, {ptr}",
            "xor {d}, {a}",
            "and {d}, {high}",
            "xor {d}, {a}",
            "mov {ptr}, {d}",
            "jmp {L}split",
            "{L}split:",
            "mov {ptr}, {a}",
        ),
    },
)

INSTRUCTION = Instruction(
    name="mov",
    summary="store a register in memory (never locked)",
    sdm="Intel SDM volume 2B, MOV",
    opcodes={Source.REGISTER: widths("88 /r", "89 /r")},
    semantics=mov,
    experiment="torn",
    code={Use.STORE: ("mov {ptr}, {a}",)},
    lockable=False,
    stand_ins=(_PARTS,),
    unseen="a store that is lost: another CPU's may have followed it",
)
