"""Kernels whose machine has a defect: the exchange under test does on the device's cells, and only there, what a defective
hypervisor would do. The sanity control on RAM stays whole, and so do the power controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Counts executions of the routine, in the entry of a CPU that no kernel of these tests has.
_COUNT = "dword ptr [results + Results.cpu + 255 * Cpu.SIZE + Cpu.reserved]"

#: What takes the place of an exchange: EAX is the new value, EDI the cell; EAX gives the old one, EDX may change.
_READ_THEN_WRITE = ("mov edx, dword ptr [edi]", "jmp .split", ".split:", "mov dword ptr [edi], eax", "mov eax, edx")
_NOT_WRITTEN = ("mov eax, dword ptr [edi]",)
_NOT_CLEARED = (
    "xchg dword ptr [edi], eax",
    "mov edx, eax",
    "test edx, edx",
    "jz .empty",
    "mov dword ptr [edi], edx",
    ".empty:",
)
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
        return "".join(
            f"    {line}\n" if not line.endswith(":") else f"{line}\n"
            for line in (*statements, *self.code, "ret", ".whole:")
        )

    def edit(self, text: str) -> str:
        """Change a kernel's source."""
        head = "exchange_xchg_32:\n"
        assert text.count(head) == 1
        return text.replace(head, head + self.lines)


#: By what the issue of a bug report would call them.
MUTANTS: Mapping[str, Mutant] = {
    "split": Mutant(_READ_THEN_WRITE),
    **{f"split-{every}": Mutant(_READ_THEN_WRITE, every) for every in (10, 100, 1000)},
    "split-puts": Mutant(_READ_THEN_WRITE, only=("test eax, eax", "jz .whole")),
    "split-takes": Mutant(_READ_THEN_WRITE, only=("test eax, eax", "jnz .whole")),
    "split-one-cpu": Mutant(_READ_THEN_WRITE, only=("cmp ebx, results + Results.cpu + Cpu.SIZE", "jne .whole")),
    "lost-500": Mutant(_NOT_WRITTEN, 500),
    "lost-5000": Mutant(_NOT_WRITTEN, 5000),
    "duplicate-2000": Mutant(_NOT_CLEARED, 2000),
    "neighbour": Mutant(_NEIGHBOUR),
    "half": Mutant(_HALF),
}
