"""Every CPU there is gets started, few or many, in either mode of its local APIC; too few of them end in a report."""

from __future__ import annotations

import pytest
from _kernel import built, memory_of, needs, replaced, run, spec_of

from kgen.build import Kernel
from kgen.evidence.observation import Observation
from kgen.kernel import parameters
from kgen.kernel.results_block import CpuState, KernelState
from kgen.verdict.model import Verdict, VerdictKind


@pytest.fixture(scope="module")
def tiny() -> Kernel:
    """Three CPUs' work, and not much of it."""
    return built(spec_of(rounds=10))


@pytest.mark.parametrize("cpus", [64, 255])
def test_starts_every_cpu(tiny: Kernel, cpus: int) -> None:
    seen, _ = run(tiny, "qemu-tcg", "-smp", str(cpus))
    record = memory_of(seen)
    assert record.cpus_found == cpus
    assert (record.state, record.phases[-1].rounds) == (KernelState.FINISHED, 10)
    assert sorted(cpu.apic_id for cpu in record.cpus) == list(range(cpus))
    assert [cpu.state for cpu in record.cpus[3:]] == [CpuState.SPARE] * (cpus - 3)


def test_too_few_cpus(tiny: Kernel) -> None:
    seen, verdict = run(tiny, "qemu-tcg", "-smp", "2")
    check_too_few(seen, verdict, found=2, needed=3)
    assert "\nonly 2 of 3 CPUs started: give the machine 3 CPUs\r\n" in seen.log
    # firmware lists two, so nobody waits for a third
    assert seen.timings["run"] < 4


@pytest.mark.parametrize(("found", "needed"), [(1, 3), (6, 8)])
def test_too_few_cpus_of_more(monkeypatch: pytest.MonkeyPatch, found: int, needed: int) -> None:
    for name in ("BROADCAST_MS", "DIRECTED_MS"):
        monkeypatch.setattr(parameters, name, 200)
    kernel = built(spec_of(cpus=needed, rounds=10))
    check_too_few(*run(kernel, "qemu-tcg", "-smp", str(found)), found=found, needed=needed)


def check_too_few(seen: Observation, verdict: Verdict, *, found: int, needed: int) -> None:
    """The run ended by itself, with a closing line, and the verdict names the shortage."""
    record = memory_of(seen)
    assert record.state is KernelState.TOO_FEW_CPUS
    assert (record.cpus_found, record.phases) == (found, ())
    assert f" end state={KernelState.TOO_FEW_CPUS.value} cpus={found} " in seen.log.splitlines()[-1]
    assert verdict.kind is VerdictKind.ERROR
    counts, _, why = verdict.reason.partition(": ")
    assert counts == f"only {found} CPU{'' if found == 1 else 's'} started and the case needs {needed}"
    # the kernel's own reason
    assert f"\nonly {found} of {needed} CPUs started: {why}\r\n" in seen.log


def test_a_sparse_topology(tiny: Kernel) -> None:
    """APIC ids with holes: three cores a socket take four ids."""
    seen, _ = run(tiny, "qemu-tcg", "-smp", "9,sockets=3,cores=3,threads=1")
    record = memory_of(seen)
    assert sorted(cpu.apic_id for cpu in record.cpus) == [0, 1, 2, 4, 5, 6, 8, 9, 10]


def test_directed_start() -> None:
    """Where the broadcast reaches nobody, each CPU is started by its id."""
    kernel = built(
        spec_of(rounds=10),
        # the broadcast's three interrupts become no destination at all; only `.each` is left to start the others
        replaced("mov eax, 0xC4500", "mov eax, 0x4500", routine="start_cpus"),
        replaced("mov eax, 0xC4600", "mov eax, 0x4600", routine="start_cpus"),
        replaced("xor edx, edx\n    call send_ipi", "mov edx, 0xFE\n    call send_ipi", routine="start_cpus"),
        replaced("mov eax, BROADCAST_MS", "mov eax, 100", routine="start_cpus"),
    )
    seen, _ = run(kernel, "qemu-tcg", "-smp", "7,sockets=3,cores=3,threads=1,maxcpus=9")
    record = memory_of(seen)
    assert sorted(cpu.apic_id for cpu in record.cpus) == [0, 1, 2, 4, 5, 6, 8]
    assert record.phases[-1].rounds == 10


def test_a_cpu_that_does_not_answer() -> None:
    """Firmware lists four, and nobody hears the call."""
    kernel = built(spec_of(rounds=10), replaced("    call start_cpus\n", ""))
    seen, verdict = run(kernel, "qemu-tcg", "-smp", "4")
    check_too_few(seen, verdict, found=1, needed=3)
    assert "\nonly 1 of 3 CPUs started: firmware lists 4, and the others do not answer\r\n" in seen.log


#: What firmware with many CPUs in view does before we come: x2APIC on, where there is one (CPUID.1:ECX bit 21).
X2APIC = """
    mov eax, 1
    cpuid
    bt ecx, 21
    jnc {0}
    mov ecx, MSR_APIC_BASE
    rdmsr
    or eax, 3 << 10
    wrmsr
{0}:
"""
CALL_INIT = "    call apic_init\n"
#: Where an AP first looks at its APIC.
JOIN = "    mov ebp, .joined\n"


@pytest.mark.parametrize("where", ["all", "bsp", "aps"])
def test_x2apic(where: str) -> None:
    """Every CPU in x2APIC mode, as firmware leaves them, or the first one only, or all others."""
    platform = needs("qemu-kvm")
    edits = []
    if where != "aps":
        edits.append(replaced(CALL_INIT, X2APIC.format("no_x2apic") + CALL_INIT))
    if where != "bsp":
        edits.append(replaced(JOIN, X2APIC.format(".no_x2apic") + JOIN, routine="ap_entry"))
    kernel = built(spec_of(rounds=40), *edits)
    seen, _ = run(kernel, platform, "-cpu", "host,-arch-capabilities,+x2apic", "-smp", "6")
    record = memory_of(seen)
    if where != "aps" and " x2apic=0 " in seen.log:
        pytest.skip("this KVM has no x2APIC")
    assert record.cpus_found == 6
    assert (record.state, record.phases[-1].rounds) == (KernelState.FINISHED, 40)
    assert sorted(cpu.apic_id for cpu in record.cpus) == list(range(6))


#: What firmware may have done to a local APIC: EDX:EAX is what its base register holds, to be changed by one statement.
SPOIL = """
    mov ecx, MSR_APIC_BASE
    rdmsr
    {0}
    wrmsr
"""
MOVED = "and eax, 0xFFF; or eax, 0xFED20000".replace("; ", "\n    ")
DISABLED = "and eax, 0xFFFFF7FF"


@pytest.mark.parametrize("platform", ["qemu-tcg", "qemu-kvm"])
def test_apics_that_firmware_has_moved(platform: str) -> None:
    """The first one elsewhere than the others; under TCG the register says so and nothing is there."""
    kernel = built(spec_of(rounds=40), replaced(CALL_INIT, SPOIL.format(MOVED) + CALL_INIT))
    seen, _ = run(kernel, needs(platform), "-smp", "4")
    record = memory_of(seen)
    assert (record.cpus_found, record.state, record.phases[-1].rounds) == (4, KernelState.FINISHED, 40)


def test_an_apic_out_of_reach() -> None:
    """One whose base is above 4 GiB is fetched back."""
    kernel = built(spec_of(rounds=40), replaced(CALL_INIT, SPOIL.format("mov edx, 1") + CALL_INIT))
    seen, _ = run(kernel, needs("qemu-kvm"), "-smp", "4")
    record = memory_of(seen)
    assert (record.cpus_found, record.state, record.phases[-1].rounds) == (4, KernelState.FINISHED, 40)


def test_an_apic_that_firmware_has_switched_off() -> None:
    kernel = built(spec_of(rounds=40), replaced(CALL_INIT, SPOIL.format(DISABLED) + CALL_INIT))
    seen, _ = run(kernel, needs("qemu-kvm"), "-smp", "4")
    record = memory_of(seen)
    assert (record.cpus_found, record.state, record.phases[-1].rounds) == (4, KernelState.FINISHED, 40)


def test_an_apic_that_cannot_be_switched_on_again() -> None:
    """QEMU's translator up to 7.2 keeps a local APIC off that was switched off, as CPUs of the P6 family do."""
    kernel = built(spec_of(rounds=10), replaced(CALL_INIT, SPOIL.format(DISABLED) + CALL_INIT))
    seen, verdict = run(kernel)
    if memory_of(seen).state is KernelState.FINISHED:
        pytest.skip("this QEMU lets a local APIC be switched on again")
    check_too_few(seen, verdict, found=1, needed=3)
    assert "\nonly 1 of 3 CPUs started: this one has no local APIC to call the others with\r\n" in seen.log


#: A machine that takes APIC ids from 255 on.
WIDE = ("-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on,eim=on")


def test_an_id_that_does_not_fit_eight_bits(tiny: Kernel) -> None:
    """Firmware leaves the APICs in the mode of eight bits, and its tables list a CPU with the id 270."""
    cpu = "host-x86_64-cpu,arch-capabilities=off,x2apic=on,socket-id=270,core-id=0,thread-id=0"
    slots = "2,maxcpus=288,sockets=288,cores=1,threads=1"
    more = ("-cpu", "host,-arch-capabilities,+x2apic", "-smp", slots, "-device", cpu)
    seen, _ = run(tiny, needs("qemu-kvm"), *WIDE, *more, qemu="qemu-system-x86_64")
    record = memory_of(seen)
    assert (record.x2apic, record.state, record.phases[-1].rounds) == (1, KernelState.FINISHED, 10)
    assert sorted(cpu.apic_id for cpu in record.cpus) == [0, 1, 270]


def test_an_id_that_passes_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no table tells of ids from 256 on, a CPU with the id 258 must not come as number 2."""
    for name in ("BROADCAST_MS", "DIRECTED_MS"):
        monkeypatch.setattr(parameters, name, 300)
    kernel = built(spec_of(rounds=40), replaced("    call find_madt\n", ""))
    cpu = "host-x86_64-cpu,arch-capabilities=off,x2apic=on,socket-id=258,core-id=0,thread-id=0"
    slots = "2,maxcpus=288,sockets=288,cores=1,threads=1"
    more = ("-cpu", "host,-arch-capabilities,+x2apic", "-smp", slots, "-device", cpu)
    seen, verdict = run(kernel, needs("qemu-kvm"), *WIDE, *more, qemu="qemu-system-x86_64")
    check_too_few(seen, verdict, found=2, needed=3)
    assert sorted(cpu.apic_id for cpu in memory_of(seen).cpus) == [0, 1]


def test_every_cpu_on_kvm(tiny: Kernel) -> None:
    seen, _ = run(tiny, needs("qemu-kvm"), "-smp", "16")
    record = memory_of(seen)
    assert record.cpus_found == 16
    assert sorted(cpu.apic_id for cpu in record.cpus) == list(range(16))


def test_a_machine_that_loses_the_shadow_of_sti() -> None:
    """An interrupt between STI and HLT, as nested virtualisation lets through, must not leave a CPU halted for ever:
    its handler returns with interrupts disabled. Here the shadow is used up by a NOP."""
    lost_shadow = replaced("    sti\n.halt:\n", "    sti\n    nop\n.halt:\n", routine="doze")
    seen, _ = run(built(spec_of(target="vga-text", rounds=4000), lost_shadow))
    assert memory_of(seen).phases[-1].rounds == 4000
