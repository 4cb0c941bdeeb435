"""Machines with many CPUs start all of them, every time."""

from __future__ import annotations

import pytest

from kgen.build import build
from kgen.kernel.results_block import CpuState, KernelState
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("time", range(5))
@pytest.mark.parametrize("cpus", [64, 255])
def test_starts_every_cpu(cpus: int, time: int) -> None:
    kernel = build(KernelSpec(Case("xchg", target="ram"), rounds=10, controls=False))
    seen = observe(kernel, platforms()["qemu-tcg"], Options(extra=("-smp", str(cpus)), timeout=240))
    assert seen.serial is not None
    assert seen.serial.complete, seen.serial.gap
    assert seen.memory is not None
    assert (seen.serial.cpus_found, seen.memory.cpus_found) == (cpus, cpus)
    assert seen.memory.state is KernelState.FINISHED
    assert sorted(cpu.apic_id for cpu in seen.memory.cpus) == list(range(cpus))
    assert sum(cpu.state is CpuState.SPARE for cpu in seen.memory.cpus) == cpus - 3


@pytest.mark.parametrize("cpus", [16, 64])
def test_many_take_part(cpus: int) -> None:
    kernel = build(KernelSpec(Case("xchg", cpus=cpus), rounds=40, batch=8, controls=False))
    seen = observe(kernel, platforms()["qemu-tcg"], Options(timeout=240))
    assert seen.memory is not None
    assert seen.memory.complete, seen.memory.gap
    case = seen.memory.phases[-1]
    assert (case.rounds, case.total, len(case.counts)) == (40, 0, cpus)
    assert sum(count.takes for count in case.counts) == 40
