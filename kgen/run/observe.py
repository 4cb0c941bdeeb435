"""Run a kernel and observe it: boot, watch, freeze, read both channels, attest the path."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kgen import registry
from kgen.build import Kernel, build, formats
from kgen.errors import (
    DebuggerError,
    GuestCrash,
    KgenError,
    MachineError,
    OutputError,
    PlatformUnavailable,
    SpecError,
)
from kgen.evidence.kvm_trace import TraceEvent, surroundings
from kgen.evidence.mtree import NOT_ASKED, PathEvidence
from kgen.evidence.observation import Observation, Record, Scene, from_log
from kgen.host.process import noted_ctrl_c
from kgen.host.temporary import scratch
from kgen.inspection.scene import capture, place_to_begin, place_to_stop
from kgen.inspection.stopped import Inspection, cell_range, inspect
from kgen.kernel.plan import Phase, decisive, layout_of, phases
from kgen.kernel.protocol import TABLE_HEADER, parse_line, parse_log, parse_row
from kgen.kernel.results_block import Role
from kgen.machine import bochs, qemu_engine
from kgen.machine.engine import Engine, Start
from kgen.platforms import CHOICES, LaunchRequest, Platform
from kgen.spec.kernel_spec import Case, KernelSpec, resolve_target, unknown
from kgen.toolchain.listing import listing
from kgen.verdict.judge import Verdict, judge, was_run

#: OVMF takes so many times as long to boot as other firmware.
OVMF_PATIENCE = 4
#: Without a byte on serial for so long, in seconds, a run is given up: the guest gives up on a CPU after 30.
STALL_SECONDS = 120.0
#: A suite's guest says something every second.
SUITE_STALL_SECONDS = 60.0
#: After being told to stop, the guest may take this long, in seconds, to park and print its final record.
STOP_SECONDS = 60.0
#: How long the guest may take from its closing line to its final state, in seconds.
SETTLE_SECONDS = 10.0
POLL_SECONDS = 0.1
#: What asks for the run to be stopped at the case's first violation, in words of the command line.
STOP = "--stop-on-violation"
#: The recorder of accesses is asked for so many of the case's first witnesses; the first that it has is shown.
TRACED = 4


@dataclass(frozen=True)
class Options:
    """How to run. ``seconds`` ends the case after that time, ``timeout`` gives up on the whole run (None: never, as
    long as the guest says something); ``pin`` names the host CPUs the emulator may use, ``extra`` are its own
    arguments; ``lab`` is the directory of the lab to use. ``stop_on_violation`` freezes the machine at the case's first
    one, ``moment`` at one of scene.place_to_begin, if it is not "". The last ones choose the machine, see
    LaunchRequest; None leaves it to the platform."""

    qemu: str | None = None
    gdb: str = "gdb"
    extra: tuple[str, ...] = ()
    seconds: float | None = None
    timeout: float | None = 600.0
    pin: frozenset[int] = frozenset()
    lab: Path | None = None
    stop_on_violation: bool = False
    moment: str = ""
    machine: str | None = None
    vga: str | None = None
    firmware: str | None = None
    cpu: str | None = None
    boot: str | None = None

    @property
    def lies_in_wait(self) -> bool:
        """Whether the machine is to be caught at some instruction."""
        return self.stop_on_violation or bool(self.moment)


@dataclass(frozen=True)
class Progress:
    """What a live line shows. ``row`` is the newest table row, ``violations`` are those seen in the running phase."""

    phase: str
    role: Role | None
    rounds: int
    limit: int
    violations: int
    row: tuple[int, int, int, int] | None = None


Watcher = Callable[[Progress], None]
Holder = Callable[[Engine, Path, Observation], None]

#: What carries a guest, by the name that platforms give.
ENGINES: Mapping[str, Start] = {"qemu": qemu_engine.start, "bochs": bochs.start}


def platforms() -> dict[str, Platform]:
    """Every platform by name."""
    return registry.discover("kgen.platforms", "PLATFORM", Platform)


def platform_named(name: str) -> Platform:
    """The platform of that name. Raises SpecError."""
    known = platforms()
    if name not in known:
        raise unknown("platform", name, known)
    return known[name]


def request_of(spec: KernelSpec, options: Options) -> LaunchRequest:
    """The machine that a kernel of this specification needs, without the kernel. Raises SpecError for a suite that is
    to stop at a violation: it is made to go on."""
    if spec.suite and options.stop_on_violation:
        raise SpecError("it is for one case", where=STOP, hint="name the case")
    places = dict.fromkeys(resolve_target(case.target) for case in spec.cases)
    return LaunchRequest(
        kernel=None,
        cpus=spec.case.cpus,
        qemu=options.qemu,
        extra=options.extra,
        lab=options.lab,
        serial_port=spec.serial_port,
        append="attend=0x1" if spec.suite else "",
        paused=options.lies_in_wait,
        fixtures=tuple(word for target in places for word in target.qemu),
        **{name: getattr(options, name) for name in CHOICES},
    )


def check_choices(platform: Platform, request: LaunchRequest) -> None:
    """Raises SpecError for what cannot be chosen on this platform, or not together."""
    for name in CHOICES:
        if getattr(request, name) == "":
            raise SpecError("it names nothing", where=f"--{name}", hint="leave it out")
        if getattr(request, name) is not None and name not in platform.options:
            having = ", ".join(f"--{each}" for each in CHOICES if each in platform.options)
            hint = f"there you may choose {having}" if having else "leave it out"
            raise SpecError(f"{platform.name} leaves no choice of it", where=f"--{name}", hint=hint)
    if request.paused and platform.breakpoints == "none":
        raise SpecError(
            f"no breakpoint hits on {platform.name}: it cannot be stopped there", where=STOP, hint="leave it out"
        )
    wanted = platform.medium(request)
    if wanted and wanted not in formats():
        where = f"--boot {request.boot}"
        raise SpecError(f"this kgen makes no {wanted} image", where=where, hint="choose another medium")


#: Capabilities of a platform in words, where their names are not enough.
_DEVICES = {
    "edu": "edu device",
    "hpet": "HPET",
    "ivshmem": "ivshmem device",
    "pc-testdev": "pc-testdev device",
    "vga": "VGA adapter",
}


def check_available(spec: KernelSpec, platform: Platform, request: LaunchRequest) -> None:
    """Raises PlatformUnavailable where this case cannot run on this platform here."""
    for name in dict.fromkeys(case.target for case in spec.cases):
        missing = resolve_target(name).requires - platform.provides
        if missing:
            lacking = " and ".join(f"no {_DEVICES.get(each, each)}" for each in sorted(missing))
            raise PlatformUnavailable(f"the platform has {lacking}", where=platform.name, hint="choose another target")
    reason = platform.unavailable(request)
    if reason:
        raise PlatformUnavailable(reason, where=platform.name)


class _Watch:
    """Follows the serial log as it grows. Lines are looked at once; the record itself is parsed at the end. Phases that
    take turns are announced together: what is said of a phase names it."""

    def __init__(self, spec: KernelSpec, watcher: Watcher | None) -> None:
        self.data = bytearray()
        self.ended = False
        self.case_since: float | None = None
        self.case_witnessed = False
        #: Whether the machine was caught where it was to be.
        self.caught = False
        self.paths: dict[int, PathEvidence] = {}
        self._rows_are_timed = not spec.print_every
        self._planned = phases(spec)
        self.suite = bool(spec.suite)
        #: By case, the phases whose violations are the case's.
        self._decisive = [{phase.index for phase in decisive(spec, number)} for number in range(len(spec.cases))]
        self._violations: dict[int, int] = {}
        #: The phase that is shown.
        self._shown = -1
        #: The case before which a suite's guest waits for a look at the machine: its phase and the address it named.
        self.waiting: tuple[Phase, int] | None = None
        self._watcher = watcher
        self._seen = 0
        self._progress = Progress("booting", None, 0, 0, 0)

    @property
    def talks(self) -> bool:
        """Whether a guest that is well prints something every second: while it boots, and in the case."""
        in_case = self._progress.role is Role.CASE
        return self.suite or self._progress.role is None or (in_case and self._rows_are_timed)

    def feed(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\n", self._seen)) >= 0:
            self._line(bytes(self.data[self._seen : end]).decode("latin-1").rstrip("\r"))
            self._seen = end + 1

    def stopping(self) -> None:
        """Tell that the guest has been asked to stop."""
        self._show(replace(self._progress, phase=f"{self._progress.phase}, stopping"))

    def _line(self, text: str) -> None:
        row = parse_row(text)
        if row is not None:
            self._show(replace(self._progress, rounds=row[0], row=row))
            return
        line = None if text == TABLE_HEADER else parse_line(text)
        if line is None:
            return
        if line.kind == "end":
            self.ended = True
        elif line.kind == "phase":
            self._phase(line.fields.get("index", ""), int(line.fields["address"], 16))
        elif line.kind == "progress":
            phase = self._named(line.fields.get("phase", ""))
            if phase is not None:
                self._show(self._progress_of(phase, int(line.fields["rounds"])))
        elif line.kind == "witness":
            self._witness(line.fields.get("phase", ""))

    def _named(self, index: str) -> Phase | None:
        return self._planned[int(index)] if index.isdigit() and int(index) < len(self._planned) else None

    def _phase(self, index: str, address: int) -> None:
        phase = self._named(index)
        if phase is None:
            return
        if phase.role is Role.CASE:
            self.case_since = time.monotonic()
            self.waiting = (phase, address) if address else None
        if phase.role in (Role.CASE, Role.PROOF):
            self.case_witnessed = any(index in self._violations for index in self._decisive[phase.case])
        self._show(self._progress_of(phase, 0))

    def _witness(self, index: str) -> None:
        phase = self._named(index)
        if phase is None:
            return
        self._violations[phase.index] = self._violations.get(phase.index, 0) + 1
        self.case_witnessed |= phase.index in self._decisive[phase.case]
        if phase.index == self._shown:
            self._show(replace(self._progress, violations=self._violations[phase.index]))

    def _progress_of(self, phase: Phase, rounds: int) -> Progress:
        self._shown = phase.index
        done = f"{phase.case + 1} of {self._planned[-1].case + 1}: " if self.suite else ""
        limit = 0 if self.suite else phase.rounds
        return Progress(f"{done}{phase.label}", phase.role, rounds, limit, self._violations.get(phase.index, 0))

    def _show(self, progress: Progress) -> None:
        self._progress = progress
        if self._watcher:
            self._watcher(progress)


def _follow(
    machine: Engine,
    watch: _Watch,
    platform: Platform,
    options: Options,
    interrupts: list[int],
    word: int,
) -> str:
    """Follow the run to its end. Returns why it was ended from outside, "" where it ended by itself. ``word`` is the
    address of the guest's word that asks it to stop."""
    start = last = time.monotonic()
    stop_by: float | None = None
    cut = ""
    tracing = machine.supervisor is not None
    while not watch.ended:
        try:
            data = machine.read_serial(POLL_SECONDS)
        except GuestCrash:
            break
        now = time.monotonic()
        if data:
            last = now
            watch.feed(data)
        if options.lies_in_wait:
            # a debugger that has died is told of below
            with contextlib.suppress(DebuggerError):
                watch.caught = machine.caught()
            if watch.caught:
                break
        if watch.suite and watch.waiting:
            try:
                _look(machine, watch)
            except (MachineError, GuestCrash) as error:
                # if it is dead, that shows at the next read
                if not machine.crashed():
                    return f"the machine could not be looked at: {error.message}"
        if tracing and watch.case_witnessed and machine.supervisor:
            # at once: the recorder keeps only so much
            machine.supervisor.stop_trace()
            tracing = False
        reason = machine.died or _expired(watch, platform, options, now - start, now - last)
        if reason:
            return reason
        if stop_by is not None:
            if now > stop_by:
                return f"{cut or '--seconds were over'}, and the guest did not park within {STOP_SECONDS:.0f} s"
            continue
        over = options.seconds and watch.case_since and now - watch.case_since >= options.seconds
        if interrupts or over:
            cut = "the run was stopped by Ctrl-C" if interrupts else ""
            stop_by = now + STOP_SECONDS
            try:
                machine.ask_to_stop(word)
            except GuestCrash:
                break
            except (MachineError, DebuggerError) as error:
                return f"{cut or '--seconds were over'}, and {error.message}"
            watch.stopping()
    return cut


def _look(machine: Engine, watch: _Watch) -> None:
    """Ask what lies behind the cells of the case that is about to begin, then let the guest go on. Raises MachineError,
    GuestCrash."""
    assert watch.waiting
    phase, address = watch.waiting
    watch.waiting = None
    watch.paths[phase.index] = machine.attend(address, phase.length, phase.cpus, declared=phase.target.declared)


def _expired(watch: _Watch, platform: Platform, options: Options, running: float, silent: float) -> str:
    """Why a run must be given up now, "" if it must not. Times in seconds."""
    patience = platform.boot_seconds * (OVMF_PATIENCE if options.firmware == "ovmf" else 1)
    if not watch.data and running > patience:
        return f"nothing came from the serial port within {patience:.0f} s of boot"
    if options.timeout is not None and running > options.timeout:
        return f"the run did not end within {options.timeout:g} s (--timeout)"
    # Controls print nothing while they run, and neither does a case whose rows are far apart: --timeout bounds those.
    stall = SUITE_STALL_SECONDS * platform.patience if watch.suite else STALL_SECONDS
    if silent > stall and watch.talks:
        return f"the serial port fell silent for {stall:.0f} s"
    return ""


def observe(
    kernel: Kernel,
    platform: Platform,
    options: Options,
    *,
    watcher: Watcher | None = None,
    holder: Holder | None = None,
) -> Observation:
    """One run of the kernel on the platform, from power-on to the debugger's reading of the frozen machine.

    ``holder`` is called with the machine still frozen. Raises SpecError for choices that the platform does not have,
    PlatformUnavailable, MachineError where the emulator does not start, DebuggerError where its debugger does not,
    MediaError and OutputError where its files cannot be made; what fails later is part of the observation.
    """
    request = request_of(kernel.spec, options)
    check_choices(platform, request)
    last = phases(kernel.spec)[-1]
    where = cell_range(last, kernel.elf.symbols)
    if last.target.declared == "io" and where is not None:
        request = replace(request, traced=(where[0], where[0] + where[1]))
    check_available(kernel.spec, platform, request)
    with contextlib.ExitStack() as stack:
        elf = _temporary_elf(kernel, stack)
        request = replace(request, kernel=elf, image=_temporary_image(kernel, elf, platform.medium(request)))
        started = time.monotonic()
        start = ENGINES[platform.engine]
        machine = stack.enter_context(start(platform, request, gdb=options.gdb, pinned=_pinned(options.pin)))
        watch = _Watch(kernel.spec, watcher)
        # The first Ctrl-C asks the guest to park and print its record, which is then read; a second one interrupts.
        with noted_ctrl_c(second_interrupts=True) as interrupts:
            if options.lies_in_wait:
                place = place_to_begin(kernel, options.moment) if options.moment else place_to_stop(kernel)
                machine.lie_in_wait(*place)
            word = kernel.elf.symbols["results"] + layout_of(kernel.spec).constants()["Results.stop"]
            cut = _follow(machine, watch, platform, options, interrupts, word)
            ran = time.monotonic()
            observation = _freeze(kernel, platform, machine, watch, cut)
            frozen = time.monotonic()
        observation = replace(
            observation,
            timings={"run": ran - started, "inspect": frozen - ran},
            environment=dict(machine.facts()),
        )
        if holder:
            machine.let_in()
            # what the ELF's line table refers to
            source = elf.with_name(kernel.assembly.source.name)
            source.write_bytes(listing(kernel.assembly).encode())
            # gdb warns of a source that is newer than its program
            os.utime(source, ns=(elf.stat().st_atime_ns, elf.stat().st_mtime_ns))
            holder(machine, elf, observation)
        return observation


@dataclass(frozen=True)
class Boot:
    """One boot of a suite: what ran, and what was seen."""

    spec: KernelSpec
    observation: Observation


def observe_suite(
    spec: KernelSpec,
    platform: Platform,
    options: Options,
    *,
    watcher: Watcher | None = None,
    rebooted: Callable[[Observation, int], None] | None = None,
) -> tuple[Boot, ...]:
    """Run a suite: in one boot, and where a case ends the machine in another one from the next case on.

    ``rebooted`` is told what ended a boot and how many cases are left. Raises as ``observe`` does.
    """
    boots: list[Boot] = []
    left = spec.cases
    spent = 0.0
    while left:
        seconds = max(len(left), round(spec.budget - spent))
        part = replace(spec, case=left[0], more=left[1:], budget=min(seconds, spec.budget))
        started = time.monotonic()
        seen = observe(build(part), platform, options, watcher=watcher)
        spent += time.monotonic() - started
        boots.append(Boot(part, seen))
        begun = [number for number in range(len(left)) if was_run(part, seen, number)]
        rest = left[len(begun) :]
        # A boot that begins nothing would begin nothing the next time either.
        if not rest or not begun or _stopped(seen):
            break
        if rebooted:
            rebooted(seen, len(rest))
        left = rest
    return tuple(boots)


def _stopped(seen: Observation) -> bool:
    """Whether the run was ended by whoever asked for it, or by its time limit, and not by a case."""
    return "Ctrl-C" in seen.cut or "--timeout" in seen.cut or "--seconds" in seen.cut


def case_of(boots: tuple[Boot, ...], case: Case) -> tuple[Boot, int] | None:
    """The boot in which a case was run, and its number there; the last one that had it where it was run in none."""
    having = [boot for boot in boots if case in boot.spec.cases]
    for boot in having:
        number = boot.spec.cases.index(case)
        if was_run(boot.spec, boot.observation, number):
            return boot, number
    return (having[-1], having[-1].spec.cases.index(case)) if having else None


def judge_cases(boots: tuple[Boot, ...]) -> tuple[tuple[Case, Boot, Verdict], ...]:
    """Each case of a suite, the boot that its verdict is of, and the verdict. The first boot has all cases."""
    found = []
    for case in boots[0].spec.cases:
        where = case_of(boots, case)
        assert where is not None
        boot, number = where
        found.append((case, boot, judge(boot.spec, boot.observation, number)))
    return tuple(found)


def _temporary_elf(kernel: Kernel, stack: contextlib.ExitStack) -> Path:
    """The ELF in a directory that lasts as long as ``stack``."""
    try:
        elf = stack.enter_context(scratch()) / "kernel.elf"
        elf.write_bytes(kernel.elf.data)
    except OSError as error:
        raise OutputError(
            error.strerror or str(error), where=error.filename or tempfile.gettempdir(), hint="set TMPDIR"
        ) from error
    return elf


def _temporary_image(kernel: Kernel, elf: Path, name: str) -> Path | None:
    """The image of that format beside the ELF, None where none is wanted. Raises MediaError and OutputError."""
    if not name:
        return None
    image = elf.with_suffix(formats()[name].suffix)
    formats()[name].write(kernel.payload, image)
    return image


def _freeze(kernel: Kernel, platform: Platform, machine: Engine, watch: _Watch, cut: str) -> Observation:
    """Stop the machine where it is and read everything."""
    problems: list[str] = []
    path = NOT_ASKED
    scene: Scene | None = None
    seen = Inspection(None, (), (), ())
    try:
        elf = kernel.elf
        seen = inspect(machine.freeze(), kernel.spec, elf.build_id, elf.symbols, elf.sections)
        give_up = time.monotonic() + SETTLE_SECONDS * platform.patience
        while watch.ended and seen.memory and not seen.memory.complete and time.monotonic() < give_up:
            # The closing line is out a moment before the guest writes that it is done.
            machine.thaw()
            time.sleep(POLL_SECONDS)
            seen = inspect(machine.freeze(), kernel.spec, elf.build_id, elf.symbols, elf.sections)
        where = cell_range(phases(kernel.spec)[-1], elf.symbols, seen.memory)
        if where is not None:
            path = machine.attest(*where, kernel.spec.case.cpus)
        if watch.caught and seen.memory:
            scene = capture(kernel, machine.freeze(), seen.memory)
    except (DebuggerError, MachineError, GuestCrash) as error:
        problems.append(error.line)
    with contextlib.suppress(KgenError):
        # bytes that were on their way when the watch ended
        watch.feed(machine.read_serial(0))
    crash = machine.crashed() or ""
    if crash:
        # What could not be read of a dead machine is no second failure.
        problems = []
    elif not cut or seen.memory is not None:
        problems += seen.problems
    log = parse_log(bytes(watch.data))
    return Observation(
        platform=platform.name,
        serial=from_log(log),
        memory=seen.memory,
        path=path,
        crash=crash,
        cut=cut,
        problems=tuple(problems),
        cells=seen.cells,
        registers=seen.registers,
        symbols=seen.symbols,
        rows=log.rows,
        log=bytes(watch.data).decode("latin-1"),
        paths=dict(watch.paths),
        kernel_log=machine.supervisor.kernel_log() if machine.supervisor else None,
        trace=_trace(kernel, machine, seen.memory) if watch.case_witnessed else (),
        scene=scene,
    )


def _trace(kernel: Kernel, machine: Engine, record: Record | None) -> tuple[TraceEvent, ...]:
    """What the hypervisor's kernel recorded around the case's first witness of which it has a record."""
    if record is None or machine.supervisor is None:
        return ()
    own = {phase.index: phase for phase in decisive(kernel.spec)}
    begin = {phase.index: phase.address for phase in record.phases}
    # in the order in which they were found: the recorder was stopped at the first
    witnesses = [entry for entry in record.witnesses if entry.phase in own][:TRACED]
    places = [begin[entry.phase] + own[entry.phase].stride * entry.cell for entry in witnesses]
    events = machine.supervisor.read_trace(list(dict.fromkeys(places)))
    found = (surroundings(events, place, entry.token) for place, entry in zip(places, witnesses, strict=True))
    return next((part for part in found if part), ())


@contextlib.contextmanager
def _pinned(cpus: frozenset[int]) -> Iterator[None]:
    """Restrict what is started inside to these host CPUs: a child inherits its parent's affinity."""
    if not cpus:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise MachineError("this system cannot pin processes to CPUs", hint="leave --pin out")
    before = os.sched_getaffinity(0)
    missing = set(cpus)
    with contextlib.suppress(OSError, OverflowError):
        os.sched_setaffinity(0, cpus)
        # those that do not exist are left out without a word
        missing -= os.sched_getaffinity(0)
    try:
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise SpecError(f"this host has no CPU {numbers} to pin to", where="--pin", hint="see 'nproc' and 'lscpu'")
        yield
    finally:
        os.sched_setaffinity(0, before)
