"""A description of a 64-bit machine's registers for gdb, for stubs that have none and send more than gdb expects.

gdb takes only as many bytes of registers as it has a description for, and refuses a longer answer to ``g``. The
registers that kgen reads stand at its beginning, the same in every 64-bit stub; what follows is given other names.
"""

from __future__ import annotations

_GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
_NARROW = "eflags cs ss ds es fs gs".split()
_X87 = "fctrl fstat ftag fiseg fioff foseg fooff fop".split()
_XMM = 16
#: Bytes of these, of the eight registers of the x87, and of those of SSE: gdb does without none of them.
CORE_BYTES = 8 * len(_GENERAL) + 4 * len(_NARROW) + 10 * 8 + 4 * len(_X87) + 16 * _XMM + 4
#: More bytes than any machine has of registers.
MAX_BYTES = 1 << 14


def description(size: int) -> str:
    """Return a target description (gdb's manual, appendix G) for a stub that sends ``size`` bytes of registers."""
    core = [_register(name, 64) for name in _GENERAL] + [_register(name, 32) for name in _NARROW]
    core += [_register(f"st{number}", 80, "i387_ext") for number in range(8)]
    core += [_register(name, 32) for name in _X87]
    sse = [_register(f"xmm{number}", 128, "uint128") for number in range(_XMM)] + [_register("mxcsr", 32)]
    rest = [_register(f"more{number}", 8) for number in range(size - CORE_BYTES)]
    more = f'<feature name="org.kgen.more">{"".join(rest)}</feature>' if rest else ""
    return (
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target>'
        "<architecture>i386:x86-64</architecture>"
        f'<feature name="org.gnu.gdb.i386.core">{"".join(core)}</feature>'
        f'<feature name="org.gnu.gdb.i386.sse">{"".join(sse)}</feature>{more}</target>\n'
    )


def _register(name: str, bits: int, kind: str = "int") -> str:
    return f'<reg name="{name}" bitsize="{bits}" type="{kind}"/>'
