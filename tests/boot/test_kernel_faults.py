"""What goes wrong inside the guest is reported and judged for what it is: exceptions, CPUs that hang, no storage."""

from __future__ import annotations

import pytest
from _kernel import Edit, built, memory_of, replaced, run, spec_of

from kgen import pipeline, source
from kgen.builder import Kernel
from kgen.results import CpuState, KernelState, PhaseStatus
from kgen.verdict import VerdictKind

XCHG = "xchg dword ptr [edi], eax"
PRODUCER = "put_xchg_32"
CONSUMER = "consume_exchange_xchg_32"
#: A statement that faults, and the vector and error code it faults with (SDM volume 3, table 6-1).
FAULTS = {
    "#UD": ("ud2", 6, 0),
    "#GP": ("mov edx, 0x1234\n    mov ds, dx", 13, 0x1234),
    "#DE": ("xor edx, edx\n    div edx", 0, 0),
    "#BP": ("int3", 3, 0),
}


def only_below_1_mib(statement: str, label: str) -> str:
    """The statement where the cell is not the kernel's own memory: in the case and its power controls, not in the
    sanity control."""
    return f"cmp edi, 0x100000\n    jae .{label}\n    {statement}\n.{label}:\n    {XCHG}"


def section_of(kernel: Kernel, routine: str) -> range:
    """The addresses of a routine."""
    symbol = next(symbol for symbol in kernel.assembly.symbols if symbol.name == routine)
    return range(symbol.value, symbol.value + symbol.size)


@pytest.mark.parametrize("routine", [PRODUCER, CONSUMER])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_in_the_case(fault: str, routine: str) -> None:
    """It is reported on serial and in memory, by vector, place and CPU, and nothing resets."""
    statement, vector, error = FAULTS[fault]
    kernel = built(spec_of(target="vga-text"), replaced(XCHG, only_below_1_mib(statement, "kept"), routine=routine))
    seen, verdict = run(kernel)
    record = memory_of(seen)
    assert seen.crash == ""
    assert record.state is KernelState.FAULTED
    (found,) = record.faults
    assert (found.vector, found.error) == (vector, error)
    assert found.cpu == 0 if routine == PRODUCER else found.cpu % 2 == 1  # odd consumers exchange at once
    assert found.eip in section_of(kernel, routine)
    assert record.cpus[found.cpu].state in (CpuState.FAULTED, CpuState.HALTED)
    line = next(line for line in seen.log.splitlines() if " fault " in line)
    assert f"cpu={found.cpu} vector={vector} error={error:08x} eip={found.eip:08x}" in line
    if fault in ("#UD", "#GP"):
        assert verdict.kind is VerdictKind.UNSUPPORTED
        assert fault in verdict.reason
    else:
        assert verdict.kind is VerdictKind.CRASH
    assert f"vector {vector} at {found.eip:#010x}" in verdict.reason


def test_the_case_is_refused_after_its_controls() -> None:
    """As by a CPU that faults on LOCK to uncached memory only: the sanity control has run, the case has not."""
    spec = spec_of(target="vga-text", rounds=30, controls=True)
    seen, verdict = run(built(spec, replaced(XCHG, only_below_1_mib("ud2", "kept"), routine=PRODUCER)))
    record = memory_of(seen)
    assert [phase.status for phase in record.phases] == [*[PhaseStatus.DONE] * 3, PhaseStatus.RUNNING]
    assert verdict.kind is VerdictKind.UNSUPPORTED


def test_an_exception_in_a_control_is_no_refusal() -> None:
    spec = spec_of(target="vga-text", rounds=30, controls=True)
    seen, verdict = run(built(spec, replaced("mov dword ptr [edi], eax", "ud2", routine="put_mov_mov_32")))
    assert len(memory_of(seen).faults) == 1
    assert verdict.kind is VerdictKind.CRASH


def test_every_cpu_faults() -> None:
    """Each keeps its own record; the one that reports survives the others."""
    edits = [replaced(XCHG, "ud2", routine=routine) for routine in ("consume_exchange_xchg_32", "consume_read_xchg_32")]
    seen, verdict = run(built(spec_of(cpus=5), *edits))
    record = memory_of(seen)
    faulted = {fault.cpu for fault in record.faults}
    assert faulted
    assert faulted <= {1, 2, 3, 4}
    assert all(fault.vector == 6 for fault in record.faults)
    assert verdict.kind is VerdictKind.UNSUPPORTED


def test_a_fault_while_cpus_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AP that faults before it has checked in is one CPU too few, and the report says why."""
    for name in ("BROADCAST_MS", "DIRECTED_MS"):
        monkeypatch.setattr(source, name, 200)
    kernel = built(
        spec_of(),
        replaced("lock inc dword ptr [results + Results.cpus_found]", "ud2", routine="ap_entry"),
    )
    seen, verdict = run(kernel)
    record = memory_of(seen)
    assert record.state is KernelState.FAULTED
    assert {fault.cpu for fault in record.faults} == {1, 2}
    assert seen.serial is not None
    assert seen.serial.faults == record.faults
    assert verdict.kind is VerdictKind.CRASH
    assert all(fault.eip in section_of(kernel, "ap_entry") for fault in record.faults)


@pytest.mark.parametrize("routine", [PRODUCER, CONSUMER])
def test_a_triple_fault(routine: str) -> None:
    """The table of handlers is gone, so that the first exception is the third as well."""
    seen, verdict = run(
        built(
            spec_of(),
            replaced("debug_exit_port:\n", "no_idt:\n    .skip 8\ndebug_exit_port:\n"),
            replaced(XCHG, "lidt [no_idt]\n    ud2", routine=routine),
        )
    )
    assert verdict.kind is VerdictKind.CRASH
    assert "triple fault" in verdict.reason
    assert "case:xchg.32@ram" in seen.log  # it came as far as the case
    assert " end state=" not in seen.log


def hang_instead_of_acknowledging(text: str) -> str:
    """The second consumer never finishes its fifth batch."""
    acknowledge = "    mov dword ptr [ebx + Cpu.ack], ebp\n"
    hang = (
        "    cmp ebx, results + Results.cpu + 2 * Cpu.SIZE\n    jne .finished\n    cmp ebp, 5\n    jne .finished\n"
        ".forever:\n    pause\n    jmp .forever\n.finished:\n"
    )
    return replaced(acknowledge, hang + acknowledge, routine="consumer_main")(text)


def test_a_consumer_that_never_parks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PARK_MS", 500)
    seen, verdict = run(built(spec_of(), hang_instead_of_acknowledging))
    record = memory_of(seen)
    assert record.state is KernelState.NOT_PARKED
    assert record.phases[-1].status is PhaseStatus.NOT_PARKED
    assert record.phases[-1].total == 0  # a CPU that hangs is no lost token
    assert record.cpus[2].state is CpuState.WAITING or record.cpus[2].ack == 4
    assert verdict.kind is VerdictKind.ERROR
    assert "did not finish its batch" in verdict.reason


def hang_after(rounds: int) -> Edit:
    """The producer stops dead, saying nothing."""
    return replaced(
        "    call maybe_row\n",
        f"    cmp dword ptr [ebx + Phase.rounds], {rounds}\n.dead:\n    pause\n    jae .dead\n    call maybe_row\n",
        routine="run_phase",
    )


def test_a_guest_that_hangs_ends_at_the_timeout() -> None:
    seen, verdict = run(built(spec_of(batch=5), hang_after(30)), timeout=4)
    assert "--timeout" in seen.cut
    assert seen.memory is not None
    assert seen.memory.phases[-1].status is PhaseStatus.RUNNING
    assert seen.memory.phases[-1].rounds == 30
    assert (verdict.kind, verdict.rounds) == (VerdictKind.INCONCLUSIVE, 30)
    assert len(seen.registers) == 3


def test_a_guest_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STALL_SECONDS", 3.0)
    seen, verdict = run(built(spec_of(batch=5), hang_after(30)))
    assert "fell silent" in seen.cut
    assert verdict.kind is VerdictKind.INCONCLUSIVE


def test_a_guest_that_hangs_cannot_be_stopped_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--seconds`` asks the guest to end, and does not wait for ever that it does."""
    monkeypatch.setattr(pipeline, "STOP_SECONDS", 2.0)
    seen, verdict = run(built(spec_of(rounds=0, batch=5), hang_after(30)), seconds=1)
    assert "did not park" in seen.cut
    assert verdict.kind is VerdictKind.INCONCLUSIVE


def test_no_vga() -> None:
    seen, verdict = run(built(spec_of(target="vga-text", rounds=40, controls=True)), "qemu-tcg", "-vga", "none")
    memory_of(seen)
    assert seen.path.kind == "ram"
    assert verdict.kind is VerdictKind.RAM_BACKED


@pytest.mark.parametrize("address", ["0xd0000000", "0xfffc0000"], ids=["hole", "rom"])
def test_no_storage(address: str) -> None:
    seen, verdict = run(built(spec_of(target=address, rounds=20, controls=True)))
    record = memory_of(seen)
    assert [phase.status for phase in record.phases] == [PhaseStatus.DONE, *[PhaseStatus.NO_STORAGE] * 3]
    assert record.state is KernelState.FINISHED
    assert verdict.kind is VerdictKind.NO_STORAGE
