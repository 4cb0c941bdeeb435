"""XCHG: exchanges register and memory; with a memory operand it locks whether or not LOCK is written."""

from __future__ import annotations

from kgen.instructions import Instruction, Source, StandIn, Use, widths
from kgen.instructions._semantics import xchg
from kgen.instructions.cmpxchg import ATTEMPT, EXCHANGE

# XCHG cannot be had without its lock, so two others stand in for it. The first is what it would be if the lock
# were ignored: a read and a write. The jump between them matters: QEMU's TCG never leaves a translation block in
# the middle, a pair in one block would be atomic there by accident and a control that cannot fail proves nothing.
_MOV_MOV = StandIn(
    name="mov-mov",
    mnemonic="mov",
    opcodes={8: "88 /r", 16: "89 /r", 32: "89 /r"},
    register="a",
    code={
        Use.EXCHANGE: ("mov {d}, {ptr}", "jmp {L}split", "{L}split:", "mov {ptr}, {a}", "mov {a}, {d}"),
    },
)
_CMPXCHG = StandIn(
    name="cmpxchg",
    mnemonic="cmpxchg",
    opcodes={8: "0F B0 /r", 16: "0F B1 /r", 32: "0F B1 /r"},
    register="d",
    code={Use.EXCHANGE: EXCHANGE, Use.ATTEMPT: ATTEMPT},
)

INSTRUCTION = Instruction(
    name="xchg",
    summary="exchange register with memory (always locked on memory)",
    sdm="Intel SDM volume 2D, XCHG",
    opcodes={Source.REGISTER: widths("86 /r", "87 /r")},
    semantics=xchg,
    experiment="token",
    code={Use.EXCHANGE: ("xchg {ptr}, {a}",)},
    returns=frozenset({Use.EXCHANGE, Use.ATTEMPT}),
    implicit_lock=True,
    stand_ins=(_MOV_MOV, _CMPXCHG),
)
