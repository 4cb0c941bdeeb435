"""Every CPU there is gets started, few or many, in either mode of its local APIC; too few of them end in a report."""

from __future__ import annotations

import pytest
from _kernel import built, memory_of, needs, replaced, run, spec_of

from kgen import source
from kgen.builder import Kernel
from kgen.observation import Observation
from kgen.results import CpuState, KernelState
from kgen.verdict import Verdict, VerdictKind


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
    check_too_few(*run(tiny, "qemu-tcg", "-smp", "2"), found=2, needed=3)


@pytest.mark.parametrize(("found", "needed"), [(1, 3), (6, 8)])
def test_too_few_cpus_of_more(monkeypatch: pytest.MonkeyPatch, found: int, needed: int) -> None:
    for name in ("BROADCAST_MS", "DIRECTED_MS"):
        monkeypatch.setattr(source, name, 200)
    kernel = built(spec_of(cpus=needed, rounds=10))
    check_too_few(*run(kernel, "qemu-tcg", "-smp", str(found)), found=found, needed=needed)


def check_too_few(seen: Observation, verdict: Verdict, *, found: int, needed: int) -> None:
    """The run ended by itself, with a closing line, and the verdict names the shortage."""
    record = memory_of(seen)
    assert record.state is KernelState.TOO_FEW_CPUS
    assert (record.cpus_found, record.phases) == (found, ())
    assert f" end state={KernelState.TOO_FEW_CPUS.value} cpus={found} " in seen.log.splitlines()[-1]
    reason = f"only {found} CPUs started and the case needs {needed}"
    assert (verdict.kind, verdict.reason) == (VerdictKind.ERROR, reason)


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
    seen, _ = run(kernel, "qemu-tcg", "-smp", "7")
    record = memory_of(seen)
    assert record.cpus_found == 7
    assert record.phases[-1].rounds == 10


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
READ_ID = "    mov ecx, MSR_APIC_BASE\n"


@pytest.mark.parametrize("where", ["all", "bsp", "aps"])
def test_x2apic(where: str) -> None:
    """Every CPU in x2APIC mode, as firmware leaves them, or the first one only, or all others."""
    platform = needs("qemu-kvm")
    edits = []
    if where != "aps":
        edits.append(replaced(CALL_INIT, X2APIC.format("no_x2apic") + CALL_INIT))
    if where != "bsp":
        edits.append(replaced(READ_ID, X2APIC.format(".no_x2apic") + READ_ID, routine="ap_entry"))
    kernel = built(spec_of(rounds=40), *edits)
    seen, _ = run(kernel, platform, "-cpu", "host,-arch-capabilities,+x2apic", "-smp", "6")
    record = memory_of(seen)
    if where != "aps" and " x2apic=0 " in seen.log:
        pytest.skip("this KVM has no x2APIC")
    assert record.cpus_found == 6
    assert (record.state, record.phases[-1].rounds) == (KernelState.FINISHED, 40)
    assert sorted(cpu.apic_id for cpu in record.cpus) == list(range(6))


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
