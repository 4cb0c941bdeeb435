"""Have the real kernel carry out one round of the token experiment in a given order of accesses.

The kernel boots on QEMU's translator and is stopped where every CPU is about to make its first access to the cell. A
snapshot of the whole machine is taken there: RAM, CPUs, devices, clock. A trial loads the snapshot. In the given order,
one CPU at a time makes one access and runs up to its next one, while the others stand still. Then all run freely to the
kernel's own end. The guest's record and what the debugger reads are judged as after any run, and compared with the
model.

Time in the guest is counted in instructions (-icount), so that a trial can be repeated to the bit.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from kgen.build import Kernel
from kgen.errors import DebuggerError, GuestCrash, MachineError, OutputError, SpecError
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import PathEvidence, ask
from kgen.evidence.observation import Observation
from kgen.experiments import ORIGINAL, Poll
from kgen.host.temporary import scratch
from kgen.inspection.stopped import cell_range, inspect
from kgen.interleave.model import (
    PRODUCER,
    Access,
    Exploration,
    Kind,
    Outcome,
    Point,
    Step,
    Trial,
    Window,
    count,
    follow,
    kind_of,
    outcome_of,
    schedules,
    shape_of,
)
from kgen.kernel.parameters import TOKEN_STEP
from kgen.kernel.plan import phases, work_of
from kgen.kernel.protocol import parse_log
from kgen.machine.platform import LaunchRequest, Platform, setting_value
from kgen.machine.qemu import Machine, launch
from kgen.machine.registers import CpuRegisters
from kgen.machine.rsp import Ended, Stub
from kgen.media import formats
from kgen.platforms import platform_named
from kgen.run.options import Options, check_available, request_of
from kgen.spec import KernelSpec
from kgen.spec.case import Case, resolve_target
from kgen.toolchain.assembly import Assembly
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

PLATFORM = "qemu-tcg"
#: An instruction takes 2^ICOUNT_SHIFT nanoseconds of the guest's time, so that the guest's waits, which are long in
#: milliseconds, are short in instructions.
ICOUNT_SHIFT = 10
#: Time for the guest to boot, and to run from one stop to the next, in seconds.
BOOT_SECONDS = 60.0
RUN_SECONDS = 60.0
SNAPSHOT = "window"
#: In every third batch all CPUs start together, in no order. The window is the batch after this one.
BATCH_BEFORE_MELEE = 2


def spec_of(case: Case, poll: Poll) -> KernelSpec:
    """Return the kernel whose only round is the window. Raises SpecError for cases that cannot be interleaved."""
    if case.experiment != ORIGINAL:
        raise SpecError(f"the model does not know the {case.experiment} experiment", hint="give --experiment token")
    if case.width > 32:
        raise SpecError(f"a cell of {case.width} bits is not read at once", hint="give --width 8, 16 or 32")
    if resolve_target(case.target).address is None and not resolve_target(case.target).symbol:
        raise SpecError(f"where the cell is on {case.target} is not known beforehand", hint="try --target vga-text")
    return KernelSpec(case, rounds=1, controls=False, batch=1, poll=poll)


def window_of(spec: KernelSpec, bound: int | None) -> Window:
    """Return the model's window for that kernel. Raises SpecError."""
    (phase,) = phases(spec)
    work = work_of(phase, spec.case.instruction)
    if work.put != work.take:
        raise SpecError(f"{phase.form.name} sets and clears instead of exchanging", hint="try --instr xchg or cmpxchg")
    # odd consumers exchange at once, even ones read first, where they differ
    reads_first = {Poll.EXCHANGE: (False, False), Poll.READ: (True, True), Poll.BOTH: (True, False)}[spec.poll]
    return Window(
        shape=shape_of(work.put.statements),
        reads_first=tuple(reads_first[cpu % 2] for cpu in range(1, spec.case.cpus)),
        token=TOKEN_STEP & work.token_mask,
        bound=bound,
    )


def points_of(assembly: Assembly, exchanges: str, looks: str) -> dict[int, Point]:
    """Return the instructions that access the cell, by address: those of the routine that exchanges and of the routine
    that only looks."""
    text = assembly.source.text.split("\n")
    found = {}
    for name in (exchanges, looks):
        for line in assembly.code_of(name):
            statement = " ".join(text[line.line - 1].split(";")[0].split())
            kind = kind_of(statement)
            if kind and name == looks:
                kind = Kind.LOOK
            if kind:
                found[line.run_address] = Point(line.run_address, statement, kind, _register(statement, kind))
    return found


def _register(statement: str, kind: Kind) -> str:
    """Return the 32-bit register of a statement whose other operand is the cell."""
    operands = statement.removeprefix("lock ").split(None, 1)[1].split(",")
    name = operands[0 if kind in (Kind.LOOK, Kind.READ) else 1].strip()
    return f"e{name[0]}x" if name[1] in "lh" else f"e{name.removeprefix('e')}"


class Stepper:
    """A machine that is stopped at the window. ``opened`` makes it."""

    def __init__(self, kernel: Kernel, machine: Machine, stub: Stub, log: BinaryIO) -> None:
        (phase,) = kernel.phases
        self.kernel = kernel
        self._machine = machine
        self._stub = stub
        self._log = log
        symbols = kernel.elf.symbols
        routine = work_of(phase, kernel.spec.case.instruction).put.label
        self.points = points_of(kernel.assembly, routine, f"load_{phase.form.width}")
        where = cell_range(phase, symbols)
        assert where is not None
        self.address, self._bytes = where
        self._mask = (1 << 8 * self._bytes) - 1
        # a finished consumer wakes the BSP; the producer waits for the consumers
        self._ends = {symbols["wake_bsp"], symbols["wait_crew"]}
        self._stops = {*self.points, *self._ends}
        self._rest = symbols["final_park"]
        self._threads: dict[int, int] = {}
        self._at_start: dict[int, CpuRegisters] = {}
        self._heard = b""
        self._path: PathEvidence
        self._inserted: set[int] = set()

    def open(self) -> None:
        """Run the machine to the window and take the snapshot. Raises DebuggerError, MachineError, GuestCrash."""
        symbols = self.kernel.elf.symbols
        layout = self.kernel.layout.constants()
        self._break_at({symbols["token_batch"]})
        boot = self._stub.run(self._stub.numbers, BOOT_SECONDS)
        batch = self.kernel.results_address("handshake") + layout["Handshake.batch"]
        self._stub.write_u32(batch, BATCH_BEFORE_MELEE)
        self._break_at(set(self.points))
        waiting = set(self._stub.numbers)
        table, size = self.kernel.results_address("cpu"), layout["Cpu.SIZE"]
        until = time.monotonic() + BOOT_SECONDS
        while waiting:
            stopped = self._stub.run(waiting, max(0.0, until - time.monotonic())).thread
            registers = self._stub.registers(stopped)
            if stopped not in waiting or registers.eip not in self.points:
                raise DebuggerError(f"CPU#{stopped - 1} stopped at {registers.eip:#x}, which is no access to the cell")
            waiting.discard(stopped)
            # a consumer has its entry of the CPU table in EBX; the order of arrival is not the emulator's
            number = PRODUCER if stopped == boot.thread else (registers.ebx - table) // size
            self._threads[number] = stopped
            self._at_start[number] = registers
        if sorted(self._threads) != list(range(self.kernel.spec.case.cpus)):
            raise DebuggerError(f"the CPUs at the window are {sorted(self._threads)}")
        self._path = ask(self._machine.hmp, self.address, self._bytes, cpus=self.kernel.spec.case.cpus)
        self._heard = self._printed()
        self._monitor(f"savevm {SNAPSHOT}")

    def carry_out(self, window: Window, schedule: Sequence[int]) -> Trial:
        """Load the snapshot and let the CPUs access the cell in this order, which must lead each CPU to its end.

        Raises DebuggerError, MachineError, GuestCrash where the machine fails. That it deviates from the model is part
        of the trial.
        """
        accesses, world = follow(window, schedule)
        expected = outcome_of(window, world)
        self._monitor(f"loadvm {SNAPSHOT}")
        self._machine.forget_events()
        self._break_at(self._stops)
        # output of a trial that was given up
        self._printed()
        at = dict(self._at_start)
        cell = self._cell()
        differences = [f"the cell holds {cell:#x} before the first access"] if cell else []
        steps: list[Step] = []
        for number, (cpu, wanted) in enumerate(zip(schedule, accesses, strict=True), start=1):
            if at[cpu].eip not in self.points:
                differences.append(f"step {number}: the model gives CPU {cpu} one more access, the guest is done")
                return Trial(tuple(schedule), tuple(steps), expected, "", tuple(differences))
            step, at[cpu] = self._access(cpu, at[cpu])
            steps.append(step)
            if step.access != wanted:
                differences.append(f"step {number}: the model says {told(wanted)}, the guest {told(step.access)}")
        late = [cpu for cpu, registers in at.items() if registers.eip not in self._ends]
        if late:
            differences.append(f"the model says that all are done, and CPU {late[0]} is at {at[late[0]].eip:#x}")
            return Trial(tuple(schedule), tuple(steps), expected, "", tuple(differences))
        seen = self._finish()
        verdict = judge(self.kernel.spec, seen)
        differences += contradictions(expected, window.token, seen, verdict)
        return Trial(tuple(schedule), tuple(steps), expected, verdict.kind.name, tuple(differences), seen.log)

    def _access(self, cpu: int, before: CpuRegisters) -> tuple[Step, CpuRegisters]:
        """Let one CPU make its current access and run to its next one or to its end. Return where it is then."""
        thread, point = self._threads[cpu], self.points[before.eip]
        if self._stub.registers(thread) != before:
            raise DebuggerError(f"CPU {cpu} moved while it was to stand still")
        self._stub.step(thread)
        after = self._stub.registers(thread)
        cell = self._cell()
        given, found = getattr(before, point.register) & self._mask, getattr(after, point.register) & self._mask
        read: int | None = found
        wrote: int | None = None
        if point.kind is Kind.WRITE:
            read, wrote = None, given
        elif point.kind is Kind.EXCHANGE:
            wrote = given
        elif point.kind is Kind.COMPARE:
            # the accumulator holds what was found, and the zero flag says whether that was expected
            read, wrote = after.eax & self._mask, given if after.eflags & 0x40 else None
        self._stub.run([thread], RUN_SECONDS)
        return Step(Access(cpu, point.kind, read, wrote, cell), point), self._stub.registers(thread)

    def _finish(self) -> Observation:
        """Let all CPUs run to the kernel's end. Return the observation, as after any other run."""
        self._break_at({self._rest})
        running = set(self._stub.numbers)
        until = time.monotonic() + RUN_SECONDS
        while self._threads[PRODUCER] in running:
            running.discard(self._stub.run(running, max(0.0, until - time.monotonic())).thread)
        elf = self.kernel.elf
        found = inspect(self._stub, self.kernel.spec, elf.build_id, elf.symbols, elf.sections)
        heard = self._heard + self._printed()
        log = parse_log(heard)
        return Observation(
            platform=PLATFORM,
            serial=from_log(log),
            memory=found.memory,
            path=self._path,
            problems=found.problems,
            cells=found.cells,
            registers=found.registers,
            symbols=found.symbols,
            rows=log.rows,
            log=heard.decode("latin-1"),
        )

    def _cell(self) -> int:
        return int.from_bytes(self._stub.read_memory(self.address, self._bytes), "little")

    def _break_at(self, addresses: set[int]) -> None:
        self._stub.remove_breakpoints(self._inserted - addresses)
        self._stub.insert_breakpoints(addresses - self._inserted)
        self._inserted = set(addresses)

    def _monitor(self, line: str) -> None:
        answer = self._machine.hmp(line).strip()
        if answer:
            raise MachineError(f"QEMU refuses: {answer}", where=line)

    def _printed(self) -> bytes:
        """Return what the guest has printed since the last call."""
        return self._log.read()


@contextlib.contextmanager
def opened(kernel: Kernel, options: Options) -> Iterator[Stepper]:
    """Yield the machine at the window. The end of the context ends the machine.

    Raises PlatformUnavailable, MachineError, DebuggerError, GuestCrash, MediaError and OutputError.
    """
    platform = platform_named(PLATFORM)
    request = request_of(kernel.spec, options)
    check_available(kernel.spec, platform, request)
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(scratch())
            elf, log = directory / "kernel.elf", directory / "serial.log"
            elf.write_bytes(kernel.elf.data)
            log.touch()
        except OSError as error:
            raise OutputError(error.strerror or str(error), where=error.filename or "", hint="set TMPDIR") from error
        # snapshots are kept in a disk, whose content does not matter
        disk = directory / "snapshots.qcow2"
        formats()["qcow2"].write(kernel.payload, disk)
        drive = f"if=none,id=kgen-snapshots,format=qcow2,file={setting_value(disk)}"
        extra = ("-icount", f"shift={ICOUNT_SHIFT},sleep=off", "-drive", drive)
        request = replace(request, kernel=elf, thread="single", paused=True, extra=(*extra, *request.extra))
        machine = stack.enter_context(launch(_printing_to(platform, log), request))
        stack.enter_context(ends_named(machine))
        stub = stack.enter_context(Stub(machine.gdb_address, wide=machine.gdb_architecture() is not None))
        stepper = Stepper(kernel, machine, stub, stack.enter_context(log.open("rb")))
        stepper.open()
        yield stepper


@contextlib.contextmanager
def ends_named(machine: Machine) -> Iterator[None]:
    """Raise GuestCrash where the stub fails because QEMU has died."""
    try:
        yield
    except (Ended, DebuggerError) as error:
        reason = machine.crashed(broken=True)
        if reason:
            raise GuestCrash(reason) from error
        raise


def explore(
    stepper: Stepper, window: Window, limit: int | None = None, told: Callable[[Exploration], None] | None = None
) -> Exploration:
    """Carry out every schedule of the window, or the first ``limit`` of them. ``told`` is called after each. Raises as
    ``Stepper.carry_out`` does."""
    found = Exploration(total=count(window))
    for schedule in itertools.islice(schedules(window), limit):
        found = found.having(stepper.carry_out(window, schedule))
        if told:
            told(found)
    return found


def _printing_to(platform: Platform, log: Path) -> Platform:
    """Return the platform with the guest's serial port on a file, which takes every byte at once: the speed of a reader
    must not affect the guest."""

    def command(request: LaunchRequest) -> tuple[str, ...]:
        words = platform.command(request)
        port = next(at for at, word in enumerate(words) if word.startswith("socket,id=kgen-serial,"))
        return (*words[:port], f"file,id=kgen-serial,path={setting_value(log)}", *words[port + 1 :])

    return replace(platform, command=command)


def told(access: Access) -> str:
    """Return an access in a few words."""
    did = [f"reads {access.read:#x}" if access.read is not None else "", _written(access)]
    return f"CPU {access.cpu} {' and '.join(filter(None, did))}, cell {access.cell:#x}"


def _written(access: Access) -> str:
    if access.wrote is not None:
        return f"writes {access.wrote:#x}"
    return "writes nothing" if access.kind is Kind.COMPARE else ""


def contradictions(expected: Outcome, token: int, seen: Observation, verdict: Verdict) -> list[str]:
    """Return how the guest's record, or the verdict on it, differs from the model, one sentence each."""
    wanted_kind = VerdictKind.NOT_ATOMIC if expected.violated else VerdictKind.INCONCLUSIVE
    found = []
    if verdict.kind is not wanted_kind:
        found.append(f"the model's verdict is {wanted_kind.name}, kgen's {verdict.kind.name}: {verdict.reason}")
    for record in (seen.memory, seen.serial):
        if record is None or not record.phases:
            found.append("there is no record of the round")
            continue
        (phase,) = record.phases
        names = ("lost", "duplicate", "stale", "left")
        told_by_model: dict[str, object] = {name: getattr(expected, name) for name in names}
        told_by_model |= {"torn": 0, "foreign": 0, "rounds": 1}
        told_by_guest: dict[str, object] = {name: getattr(phase, name) for name in told_by_model}
        told_by_model["takes"] = tuple(int(take != 0) for take in expected.takes)
        told_by_guest["takes"] = tuple(count.takes for count in phase.counts[1:])
        told_by_model["tries"] = expected.tries
        told_by_guest["tries"] = tuple(count.tries for count in phase.counts[1:])
        told_by_model["witnesses"] = _in_order((kind, token, *rest) for kind, *rest in expected.witnesses)
        told_by_guest["witnesses"] = _in_order(
            (entry.kind.name.lower(), entry.token, entry.value, entry.cpu, entry.other) for entry in record.witnesses
        )
        found += [
            f"{name}: the model says {told_by_model[name]}, the guest's {record.channel} record {told_by_guest[name]}"
            for name in told_by_model
            if told_by_model[name] != told_by_guest[name]
        ]
    if seen.memory is not None:
        takes = {entry.cpu: entry.token for entry in seen.memory.cpus if entry.takes}
        wanted = {cpu: take for cpu, take in enumerate(expected.takes, start=1) if take}
        if takes != wanted:
            found.append(f"the model says that {_hands(wanted)}, the guest's CPU table that {_hands(takes)}")
    return found


def _in_order(witnesses: Iterable[tuple[object, ...]]) -> list[str]:
    """Return witnesses as sorted text: within one round their order does not matter."""
    return sorted(str(witness) for witness in witnesses)


def _hands(takes: Mapping[int, int]) -> str:
    return " and ".join(f"CPU {cpu} took {take:#x}" for cpu, take in sorted(takes.items())) or "no CPU took anything"
