"""The targets in short runs: where they are, and what QEMU says of them."""

from __future__ import annotations

from typing import Any

from _kernel import memory_of

from kgen.evidence.observation import Observation
from kgen.spec import KernelSpec
from kgen.spec.case import PAGE, Case
from kgen.targets import MemoryTarget, targets

#: They say that they are a device's memory, and QEMU maps RAM there.
BACKED_BY_RAM = frozenset({"framebuffer", "ivshmem", "vga-chained"})
IO = tuple(target for target in targets().values() if target.declared == "io")
#: Where the kernel must look for the place itself.
FOUND = tuple(target for target in IO if target.address is None)


def spec_of(target: str, *, rounds: int = 100, controls: bool = False, **case: Any) -> KernelSpec:
    """A short run there, of XCHG unless another instruction is named."""
    return KernelSpec(Case(**{"instruction": "xchg", "target": target, **case}), rounds=rounds, controls=controls)


def check_place(target: MemoryTarget, seen: Observation) -> int:
    """QEMU says what it should of the place, and that is where the target says. Its address."""
    assert seen.path.kind == ("ram" if target.name in BACKED_BY_RAM else "io")
    address = memory_of(seen).phases[-1].address
    assert address % PAGE == target.page_offset
    assert target.address in (None, address)
    return address
