"""What goes wrong inside the guest is reported and judged for what it is: exceptions, CPUs that hang, no storage."""

from __future__ import annotations

import pytest
from _kernel import Edit, built, memory_of, replaced, run, spec_of

from kgen.build import Kernel
from kgen.kernel import parameters
from kgen.kernel.results_block import CpuState, KernelState, PhaseStatus
from kgen.run import follow
from kgen.verdict.model import VerdictKind

XCHG = "xchg dword ptr [edi], eax"
#: The routine that all CPUs call for the exchange.
LEAF = "exchange_xchg_32"
PRODUCER = "token_put"
CONSUMER = "consume_exchange"
#: Where the producer and the consumers call it.
CALLS = {
    PRODUCER: "call dword ptr [results + Results.handshake + Handshake.task + Task.put]",
    CONSUMER: "call dword ptr [results + Results.handshake + Handshake.task + Task.take]",
}
#: A statement that faults, and the vector and error code it faults with (SDM volume 3, table 6-1).
FAULTS = {
    "#UD": ("ud2", 6, 0),
    "#GP": ("mov edx, 0x1234\n    mov ds, dx", 13, 0x1234),
    "#DE": ("xor edx, edx\n    div edx", 0, 0),
    "#BP": ("int3", 3, 0),
}


def before_the_call(routine: str, statement: str) -> Edit:
    """A statement in front of a producer's or a consumer's exchange."""
    return replaced(CALLS[routine], f"{statement}\n    {CALLS[routine]}", routine=routine)


def only_below_1_mib(statement: str) -> str:
    """The statement where the cell is not the kernel's own memory: in the case and its power controls, not in the
    sanity control."""
    return f"cmp edi, 0x100000\n    jae .kept\n    {statement}\n.kept:"


def section_of(kernel: Kernel, routine: str) -> range:
    """The addresses of a routine."""
    symbol = next(symbol for symbol in kernel.assembly.symbols if symbol.name == routine)
    return range(symbol.value, symbol.value + symbol.size)


@pytest.mark.parametrize("routine", [PRODUCER, CONSUMER])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_in_the_case(fault: str, routine: str) -> None:
    """It is reported on serial and in memory, by vector, place, CPU and phase; it ends the phase, and nothing else."""
    statement, vector, error = FAULTS[fault]
    kernel = built(spec_of(target="vga-text"), before_the_call(routine, only_below_1_mib(statement)))
    seen, verdict = run(kernel)
    record = memory_of(seen)
    assert seen.crash == ""
    assert record.state is KernelState.FINISHED
    (found,) = record.faults
    assert (found.vector, found.error, found.phase) == (vector, error, 0)
    assert record.phases[0].status is PhaseStatus.FAULTED
    assert found.cpu == 0 if routine == PRODUCER else found.cpu % 2 == 1  # odd consumers exchange at once
    assert found.eip in section_of(kernel, routine)
    assert [cpu.state for cpu in record.cpus] == [CpuState.HALTED] * 3
    (line,) = (line for line in seen.log.splitlines() if " fault " in line)
    assert f"cpu={found.cpu} vector={vector} error={error:08x} eip={found.eip:08x}" in line
    assert " phase=0 crc=" in line
    if fault in ("#UD", "#GP"):
        assert verdict.kind is VerdictKind.UNSUPPORTED
        assert fault in verdict.reason
    else:
        assert verdict.kind is VerdictKind.CRASH
    assert f"vector {vector} at {found.eip:#010x}" in verdict.reason


def test_the_case_is_refused_after_its_controls() -> None:
    """As by a CPU that faults on LOCK to uncached memory only: the sanity control has run, the case has not."""
    spec = spec_of(target="vga-text", rounds=30, controls=True)
    refused = f"{only_below_1_mib('ud2')}\n    {XCHG}"
    seen, verdict = run(built(spec, replaced(XCHG, refused, routine=LEAF)))
    record = memory_of(seen)
    # its proof is refused as well, while the controls that take turns with it go on to their end
    done, faulted = PhaseStatus.DONE, PhaseStatus.FAULTED
    assert [phase.status for phase in record.phases] == [done, done, done, done, faulted, faulted]
    assert [(fault.phase, fault.vector) for fault in record.faults] == [(4, 6), (5, 6)]
    assert verdict.kind is VerdictKind.UNSUPPORTED
    assert "xchg.32 raised #UD" in verdict.reason


def test_an_exception_in_a_control_is_no_refusal() -> None:
    """The case behind it runs, and is worth nothing without its control."""
    spec = spec_of(target="vga-text", rounds=30, controls=True)
    seen, verdict = run(built(spec, replaced("mov dword ptr [edi], eax", "ud2", routine="exchange_mov_mov_32")))
    record = memory_of(seen)
    assert [fault.phase for fault in record.faults] == [2]
    statuses = [*[PhaseStatus.DONE] * 2, PhaseStatus.FAULTED, *[PhaseStatus.DONE] * 3]
    assert [phase.status for phase in record.phases] == statuses
    assert record.phases[5].total == 0
    assert (verdict.kind, verdict.reason) == (
        VerdictKind.INCONCLUSIVE,
        "the power control power:mov-mov.32@vga-text/chain did not run to its end",
    )


@pytest.mark.parametrize("cpus", [3, 5])
def test_every_cpu_faults_and_works_again(cpus: int) -> None:
    """The phase keeps one of the exceptions, and all CPUs are there for the next one."""
    only_on_ram = f"cmp edi, 0x100000\n    jb .kept\n    ud2\n.kept:\n    {XCHG}"
    spec = spec_of(target="vga-text", cpus=cpus, rounds=30, controls=True)
    seen, verdict = run(built(spec, replaced(XCHG, only_on_ram, routine=LEAF)))
    record = memory_of(seen)
    # both on RAM: the sanity controls of tokens and of the chain
    assert [(fault.phase, fault.vector) for fault in record.faults] == [(0, 6), (1, 6)]
    assert all(fault.cpu in range(cpus) for fault in record.faults)
    assert [phase.status for phase in record.phases] == [*[PhaseStatus.FAULTED] * 2, *[PhaseStatus.DONE] * 4]
    case = record.phases[-1]
    assert (case.rounds, case.total, len(case.counts)) == (30, 0, cpus)
    assert all(count.tries >= 30 for count in case.counts[1:])
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "sanity:xchg.32@ram did not run to its end" in verdict.reason


@pytest.mark.parametrize("controls", [False, True])
def test_an_exception_outside_the_experiments_ends_the_run(controls: bool) -> None:
    """It is no word on the instruction."""
    kernel = built(
        spec_of(target="vga-text", rounds=30, controls=controls),
        replaced("    call maybe_row\n", "    ud2\n", routine="take_turn"),
    )
    seen, verdict = run(kernel)
    record = memory_of(seen)
    assert record.state is KernelState.FAULTED
    assert [phase.status for phase in record.phases] == [PhaseStatus.RUNNING]
    (fault,) = record.faults
    assert (fault.cpu, fault.vector, fault.phase) == (0, 6, None)
    assert fault.eip in section_of(kernel, "take_turn")
    assert seen.serial is not None
    assert seen.serial.faults == record.faults
    assert verdict.kind is VerdictKind.CRASH
    assert f"CPU 0, vector 6 at {fault.eip:#010x}" in verdict.reason
    assert f"\nCPU 0 stopped with exception 6 at {fault.eip:08x}\r\n" in seen.log


def test_a_fault_while_cpus_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AP that faults before it has checked in is one CPU too few, and the report says why."""
    for name in ("BROADCAST_MS", "DIRECTED_MS"):
        monkeypatch.setattr(parameters, name, 200)
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
            before_the_call(routine, "lidt [no_idt]\n    ud2"),
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
        "    cmp ebx, results + Results.cpu + 2 * Cpu.SIZE\n    jne .alive\n    cmp ebp, 5\n    jne .alive\n"
        ".forever:\n    pause\n    jmp .forever\n.alive:\n"
    )
    return replaced(acknowledge, hang + acknowledge, routine="crew_main")(text)


def test_a_consumer_that_never_parks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "PARK_MS", 500)
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
        routine="take_turn",
    )


def test_a_guest_that_hangs_ends_at_the_timeout() -> None:
    seen, verdict = run(built(spec_of(batch=5), hang_after(30)), timeout=4)
    assert "--timeout" in seen.cut
    assert seen.memory is not None
    assert seen.memory.phases[-1].status is PhaseStatus.RUNNING
    assert seen.memory.phases[-1].rounds == 30
    assert (verdict.kind, verdict.rounds) == (VerdictKind.INCONCLUSIVE, 30)
    assert len(seen.registers) == 3


@pytest.mark.soak
def test_a_guest_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "STALL_SECONDS", 3.0)
    seen, verdict = run(built(spec_of(batch=5), hang_after(30)))
    assert "fell silent" in seen.cut
    assert verdict.kind is VerdictKind.INCONCLUSIVE


@pytest.mark.soak
def test_a_guest_that_hangs_cannot_be_stopped_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--seconds`` asks the guest to end, and does not wait for ever that it does."""
    monkeypatch.setattr(follow, "STOP_SECONDS", 2.0)
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
    assert [phase.status for phase in record.phases] == [*[PhaseStatus.DONE] * 2, *[PhaseStatus.NO_STORAGE] * 4]
    assert record.state is KernelState.FINISHED
    assert verdict.kind is VerdictKind.NO_STORAGE
