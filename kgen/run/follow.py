"""Follow a running machine through its serial port until it ends, is stopped, or falls silent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kgen.errors import DebuggerError, GuestCrash, MachineError
from kgen.evidence.mtree import PathEvidence
from kgen.evidence.observation import Cut
from kgen.kernel.plan import Phase, decisive, phases
from kgen.kernel.protocol import TABLE_HEADER, parse_line, parse_row
from kgen.kernel.results_block import Role
from kgen.machine.engine import Engine
from kgen.machine.platform import Platform
from kgen.run.options import Options
from kgen.spec import KernelSpec

#: How many times as long OVMF takes to boot as other firmware.
OVMF_PATIENCE = 4


#: A run is given up after this time without a byte on the serial port, in seconds. The guest itself gives up on a CPU
#: after 30.
STALL_SECONDS = 120.0


#: The same for a suite, whose guest prints something every second.
SUITE_STALL_SECONDS = 60.0


#: How long the guest may take from the request to stop until it has parked and printed its final record, in seconds.
STOP_SECONDS = 60.0


#: How long the guest may take from its closing line to its final state, in seconds.
SETTLE_SECONDS = 10.0


POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """The contents of the live line."""

    #: The running phase, or another stage, in words.
    phase: str
    #: The phase's role, None before the first phase.
    role: Role | None
    #: The rounds of the phase so far.
    rounds: int
    #: The planned number of rounds, 0 for no limit.
    limit: int
    #: The violations seen in the phase.
    violations: int
    #: The newest row of the table.
    row: tuple[int, int, int, int] | None = None


Watcher = Callable[[Progress], None]


class Watch:
    """Follows the serial log as it grows. Each line is read once; the record itself is parsed at the end.

    Phases that take turns are announced together, and each line about a phase names it.
    """

    def __init__(self, spec: KernelSpec, watcher: Watcher | None) -> None:
        self.data = bytearray()
        self.ended = False
        self.case_since: float | None = None
        self.case_witnessed = False
        #: Whether the machine was stopped at its breakpoint.
        self.caught = False
        self.paths: dict[int, PathEvidence] = {}
        self._rows_are_timed = not spec.print_every
        self._planned = phases(spec)
        self.suite = bool(spec.suite)
        #: For each case, the phases whose violations are the case's.
        self._decisive = [{phase.index for phase in decisive(spec, number)} for number in range(len(spec.cases))]
        self._violations: dict[int, int] = {}
        #: The index of the phase that is shown.
        self._shown = -1
        #: Where a suite's guest waits, before a case, until kgen has asked QEMU about its cells: the phase and the
        #: cells' address.
        self.waiting: tuple[Phase, int] | None = None
        self._watcher = watcher
        self._seen = 0
        self._progress = Progress("booting", None, 0, 0, 0)

    @property
    def talks(self) -> bool:
        """Whether a healthy guest prints something every second at this stage, that is, while it boots and in the
        case."""
        in_case = self._progress.role is Role.CASE
        return self.suite or self._progress.role is None or (in_case and self._rows_are_timed)

    def feed(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\n", self._seen)) >= 0:
            self._line(bytes(self.data[self._seen : end]).decode("latin-1").rstrip("\r"))
            self._seen = end + 1

    def stopping(self) -> None:
        """Show that the guest has been requested to stop."""
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


@dataclass(frozen=True)
class Ending:
    """Why kgen ended a run."""

    #: The reason, None where the guest ended by itself.
    cut: Cut | None = None
    #: The reason in words, "" where the guest ended by itself or --seconds ended it in order.
    words: str = ""


def follow(
    machine: Engine,
    watch: Watch,
    platform: Platform,
    options: Options,
    interrupts: list[int],
    word: int,
) -> Ending:
    """Follow the run to its end. ``word`` is the address of the word by which the guest is requested to stop."""
    start = last = time.monotonic()
    stop_by: float | None = None
    ending = Ending()
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
        if options.waits_for_breakpoint:
            # a debugger that has died is reported below
            with contextlib.suppress(DebuggerError):
                watch.caught = machine.caught()
            if watch.caught:
                break
        if watch.suite and watch.waiting:
            try:
                _look(machine, watch)
            except (MachineError, GuestCrash) as error:
                # the next read reports a dead machine
                if not machine.crashed():
                    return Ending(Cut.LOST, f"the machine could not be looked at: {error.message}")
        if tracing and watch.case_witnessed and machine.supervisor:
            # immediately, because the recorder's buffer is small
            machine.supervisor.stop_trace()
            tracing = False
        if machine.died:
            return Ending(Cut.LOST, machine.died)
        expired = _expired(watch, platform, options, now - start, now - last)
        if expired:
            return expired
        if stop_by is not None:
            if now > stop_by:
                return _but(ending, f"the guest did not park within {STOP_SECONDS:.0f} s")
            continue
        over = options.seconds and watch.case_since and now - watch.case_since >= options.seconds
        if interrupts or over:
            ending = Ending(Cut.USER, "the run was stopped by Ctrl-C") if interrupts else Ending(Cut.SECONDS)
            stop_by = now + STOP_SECONDS
            try:
                machine.ask_to_stop(word)
            except GuestCrash:
                break
            except (MachineError, DebuggerError) as error:
                return _but(ending, error.message)
            watch.stopping()
    return ending


def _but(ending: Ending, what: str) -> Ending:
    """Return the same ending, with the words for what went wrong."""
    return replace(ending, words=f"{ending.words or '--seconds were over'}, and {what}")


def _look(machine: Engine, watch: Watch) -> None:
    """Attest what backs the cells of the case that is about to begin, then let the guest go on. Raises MachineError,
    GuestCrash."""
    assert watch.waiting
    phase, address = watch.waiting
    watch.waiting = None
    watch.paths[phase.index] = machine.attend(address, phase.length, phase.cpus, declared=phase.target.declared)


def _expired(watch: Watch, platform: Platform, options: Options, running: float, silent: float) -> Ending | None:
    """Return why a run must be given up now, None if it need not be. Times are in seconds."""
    patience = platform.boot_seconds * (OVMF_PATIENCE if options.firmware == "ovmf" else 1)
    if not watch.data and running > patience:
        return Ending(Cut.NO_BOOT, f"nothing came from the serial port within {patience:.0f} s of boot")
    if options.timeout is not None and running > options.timeout:
        return Ending(Cut.TIMEOUT, f"the run did not end within {options.timeout:g} s (--timeout)")
    # Controls print nothing while they run, and a case whose rows are far apart prints seldom: --timeout bounds those.
    stall = SUITE_STALL_SECONDS * platform.patience if watch.suite else STALL_SECONDS
    if silent > stall and watch.talks:
        return Ending(Cut.SILENCE, f"the serial port fell silent for {stall:.0f} s")
    return None
