"""Kernels on a machine with a defect, or with a lie in their own accounting.

A defective machine: on the device's cells, and only there, the exchange under test does what a defective hypervisor
would do. The sanity control on RAM stays whole, and so do the power controls. A lie: the source of the kernel is
changed so that it no longer tests, or no longer counts, what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Counts executions of the routine, in the entry of a CPU that no kernel of these tests has.
_COUNT = "dword ptr [results + Results.cpu + 255 * Cpu.SIZE + Cpu.reserved]"

#: What takes the place of an exchange: EAX is the new value, EDI the cell; EAX gives the old one, EDX may change.
_SPLIT = ("mov edx, dword ptr [edi]", "jmp .split", ".split:", "mov dword ptr [edi], eax", "mov eax, edx")
_NOT_WRITTEN = ("mov eax, dword ptr [edi]",)
#: The old value is given back, and is in the cell again a moment later.
_BACK = ("xchg dword ptr [edi], eax", "test eax, eax", "jz .empty", "mov dword ptr [edi], eax", ".empty:")
_NEIGHBOUR = ("xchg dword ptr [edi], eax", "mov dword ptr [edi + 4], 0")
_HALF = ("mov edx, dword ptr [edi]", "mov word ptr [edi], ax", "mov eax, edx")


@dataclass(frozen=True)
class Mutant:
    """``code`` is what goes wrong; of ``every`` executions that ``only`` lets through, the last does."""

    code: tuple[str, ...]
    every: int = 1
    only: tuple[str, ...] = ()

    @property
    def lines(self) -> str:
        """The statements before the routine's own, which are left as they are."""
        statements = ["cmp edi, 0xA0000", "jb .whole", "cmp edi, 0xC0000", "jae .whole", *self.only]
        if self.every > 1:
            statements += [f"dec {_COUNT}", "jns .whole", f"mov {_COUNT}, {self.every - 1:#x}"]
        return "".join(f"{line}\n" for line in (*statements, *self.code, "ret", ".whole:"))

    def __call__(self, text: str) -> str:
        """Change a kernel's source."""
        return _once(text, "exchange_xchg_32:\n", f"exchange_xchg_32:\n{self.lines}")


def _once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


MUTANTS: Mapping[str, Mutant] = {
    "split": Mutant(_SPLIT),
    **{f"split-{every}": Mutant(_SPLIT, every) for every in (10, 100, 1000)},
    "split-puts": Mutant(_SPLIT, only=("test eax, eax", "jz .whole")),
    "split-takes": Mutant(_SPLIT, only=("test eax, eax", "jnz .whole")),
    "split-one-cpu": Mutant(_SPLIT, only=("cmp ebx, results + Results.cpu + Cpu.SIZE", "jne .whole")),
    "lost-500": Mutant(_NOT_WRITTEN, 500),
    "lost-5000": Mutant(_NOT_WRITTEN, 5000),
    "duplicate-2000": Mutant(_BACK, 2000),
    "neighbour": Mutant(_NEIGHBOUR),
    "half": Mutant(_HALF),
}


def _unlocked_case(text: str) -> str:
    """The exchange of the case is a pair of instructions, on RAM as well, and not only on the device."""
    return _once(text, "exchange_xchg_32:\n", "exchange_xchg_32:\n" + "".join(f"{line}\n" for line in (*_SPLIT, "ret")))


def _foreign_controls(text: str) -> str:
    """The power controls are as atomic as the case: they show nothing about what they should show."""
    for label in ("exchange_mov_mov_32:\n", "attempt_cmpxchg_32_nolock:\n"):
        body = "xchg dword ptr [edi], eax\nret\n" if "mov" in label else "lock cmpxchg dword ptr [edi], edx\nret\n"
        text = _once(text, label, label + body)
    return text


def _swapped_target(text: str) -> str:
    """The case's cells are in RAM once they have been probed."""
    only = "cmp dword ptr [ebp + Plan.role], Role.CASE\njb .stays\n"
    moved = f"{only}mov dword ptr [ebx + Phase.address], ram_cells\n.stays:\n"
    return _once(
        text, "    mov dword ptr [ebx + Phase.latency], eax\n", f"    mov dword ptr [ebx + Phase.latency], eax\n{moved}"
    )


def _uncounted(text: str) -> str:
    """No violation is counted."""
    return _once(text, "violation:\n", "violation:\nret 20\n")


def _unnoticed_batches(text: str) -> str:
    """No batch counts as violated."""
    return _once(text, "count_live:\n", "count_live:\nxor edx, edx\n")


def _standing_tickets(text: str) -> str:
    """Every operation draws the same ticket."""
    return _once(text, "    mov eax, 1\n    lock xadd dword ptr [sequence], eax\n", "    xor eax, eax\n")


#: Kernels that must never be ATOMIC, whatever the machine does.
LIES: Mapping[str, Callable[[str], str]] = {
    "unlocked case": _unlocked_case,
    "foreign controls": _foreign_controls,
    "swapped target": _swapped_target,
    "uncounted violations": _uncounted,
    "unnoticed batches": _unnoticed_batches,
    "standing tickets": _standing_tickets,
}
