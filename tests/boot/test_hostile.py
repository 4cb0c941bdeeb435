"""Machines that lack something: each ends in an outcome that a person can read, on serial or in memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from _kernel import DEADLINE, built, console, memory_of, needs, run, spec_of, without_serial

from kgen.build import Kernel
from kgen.evidence.from_memory import from_memory
from kgen.evidence.records import Record
from kgen.kernel.plan import layout_of
from kgen.kernel.results_block import CpuState, KernelState
from kgen.machine.platform import LaunchRequest
from kgen.machine.qemu import launch
from kgen.verdict.model import VerdictKind


@pytest.fixture(scope="module")
def small() -> Kernel:
    return built(spec_of(target="vga-text", rounds=60))


def end_in_memory(kernel: Kernel, elf: Path, *extra: str) -> Record:
    """What the results block holds once the kernel has ended, read from outside a machine without a serial port."""
    platform = without_serial(needs("qemu-tcg"), boot_seconds=DEADLINE)
    elf.write_bytes(kernel.elf.data)
    layout, dump = layout_of(kernel.spec), elf.with_suffix(".results")
    address = next(symbol.value for symbol in kernel.assembly.symbols if symbol.name == "results")
    until = time.monotonic() + DEADLINE
    with launch(platform, LaunchRequest(kernel=elf, extra=extra)) as machine:
        while time.monotonic() < until:
            machine.qmp("pmemsave", val=address, size=layout.size, filename=str(dump))
            data = dump.read_bytes()
            if layout.parse(data).state.value >= KernelState.FINISHED:
                return from_memory(layout, data)
            assert machine.read_serial(0.05) == b""
    raise AssertionError("the kernel did not come to its end")


def test_no_serial_port(small: Kernel, tmp_path: Path) -> None:
    record = end_in_memory(small, tmp_path / "kernel.elf")
    assert (record.state, record.phases[-1].rounds, record.phases[-1].total) == (KernelState.FINISHED, 60, 0)


def test_neither_serial_port_nor_graphics_nor_enough_cpus(small: Kernel, tmp_path: Path) -> None:
    record = end_in_memory(small, tmp_path / "kernel.elf", "-vga", "none", "-smp", "1")
    assert (record.state, record.cpus_found, record.cpus_needed) == (KernelState.TOO_FEW_CPUS, 1, 3)


def test_one_cpu_by_hand(small: Kernel, tmp_path: Path) -> None:
    """Somebody boots the kernel without kgen and forgets the CPUs: a sentence says so, and the log stays whole."""
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(small.elf.data)
    with console("-kernel", elf, "-serial", "stdio", "-nic", "none") as qemu:
        _, record = qemu.record()
    assert (record.state, record.cpus_found) == (KernelState.TOO_FEW_CPUS, 1)
    assert b"\r\nonly 1 of 3 CPUs started: give the machine 3 CPUs\r\n" in qemu.heard


@pytest.mark.parametrize("memory", ["16", "2"])
def test_little_memory(small: Kernel, memory: str) -> None:
    """In MiB; the kernel lies at the first and takes less than one."""
    seen, _ = run(small, "qemu-tcg", "-m", memory)
    assert memory_of(seen).state is KernelState.FINISHED


def test_no_graphics(small: Kernel) -> None:
    seen, verdict = run(small, vga="none")
    assert memory_of(seen).state is KernelState.FINISHED
    assert verdict.kind is VerdictKind.RAM_BACKED


def test_more_cpus_than_ids_of_eight_bits(small: Kernel) -> None:
    """The kernel switches x2APIC on; what its table of CPUs has no room for counts and rests."""
    wide = ("-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on,eim=on", "-smp", "280")
    cpu = ("-cpu", "host,-arch-capabilities,+x2apic")
    seen, _ = run(small, needs("qemu-kvm"), *wide, *cpu, qemu="qemu-system-x86_64")
    record = memory_of(seen)
    assert (record.x2apic, record.cpus_found, record.state) == (1, 280, KernelState.FINISHED)
    assert sum(cpu.state is CpuState.SPARE for cpu in record.cpus) == 256 - 3
