"""The targets in short runs: where they are, and what QEMU says of them."""

from __future__ import annotations

from typing import Any

from _kernel import memory_of

from kgen.evidence.observation import Observation
from kgen.kernel.plan import phases_of
from kgen.spec import KernelSpec
from kgen.spec.case import PAGE, Case, resolve_target
from kgen.targets import targets

#: They say that they are a device's memory, and QEMU maps RAM there.
BACKED_BY_RAM = frozenset({"framebuffer", "ivshmem", "vga-chained"})
IO = tuple(target for target in targets().values() if target.declared == "io")
#: Functions on PCI, whose memory the kernel must find and may have to place.
FOUND = tuple(target for target in IO if target.sought)


def spec_of(target: str, *, rounds: int = 100, controls: bool = False, **case: Any) -> KernelSpec:
    """A short run there, of XCHG unless another instruction is named."""
    return KernelSpec(Case(**{"instruction": "xchg", "target": target, **case}), rounds=rounds, controls=controls)


def suite_of(*cases: Case, budget: int, rounds: int = 100, controls: bool = False) -> KernelSpec:
    """All those cases in one boot, for so many seconds."""
    first, *more = cases
    return KernelSpec(first, more=tuple(more), suite="places", budget=budget, rounds=rounds, controls=controls)


def check_place(spec: KernelSpec, seen: Observation, number: int = -1) -> int:
    """QEMU says what it should of a case's place, and that is where the target says. Its address."""
    target = resolve_target(spec.cases[number].target)
    index = phases_of(spec, number)[-1].index
    path = seen.paths[index] if spec.suite else seen.path
    assert path.kind == ("ram" if target.name in BACKED_BY_RAM else "io"), target.name
    address = memory_of(seen).phases[index].address - spec.cases[number].offset
    assert address % PAGE == target.page_offset, f"{target.name} is at {address:#x}"
    assert target.address in (None, address), f"{target.name} is at {address:#x}"
    return address
