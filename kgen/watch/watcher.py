"""Watch a machine that another program started: stop it for a moment, look, let it run, and not too often.

The output is for people. A stop shifts the CPUs against each other in time, so there is no verdict here.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from kgen.errors import DebuggerError, GuestCrash, KgenError, ProtocolError
from kgen.host.signals import signals_held
from kgen.inspection.glance import Glance, look
from kgen.kernel.plan import layout_of, phases
from kgen.machine.foreign import ask_control, kernel_of, left_in_order, must_be_an_address, status_of
from kgen.machine.qemu_words import FOR_EVER, stopped_by
from kgen.machine.qmp import Qmp
from kgen.machine.rsp import UNKNOWN, Ended, Stub
from kgen.spec import KernelSpec
from kgen.toolchain.elf_reader import LoadedElf
from kgen.watch.pacing import Cost, Pace, Pause
from kgen.watch.view import Sample, View

#: How often a wait checks whether it must end, in seconds.
TICK = 0.1
#: How long a machine may take until its kernel has begun, in seconds: a loaded host boots slowly.
BOOT_SECONDS = 60.0
#: How many looks are kept.
HISTORY = 512
#: The first QEMU whose stub does not report the stop that a connection causes.
_SILENT_QEMU = (8, 1)
_GUESS = "it is assumed to have been running: neither its stub nor a --qmp reports that"


@dataclass(frozen=True)
class Watched:
    """Where to look, and how."""

    #: The stub's.
    address: str
    pace: Pace
    #: QEMU's control socket.
    qmp: str | None = None
    #: The most that the whole may take, None for no limit.
    seconds: float | None = None
    #: Whether to look only once.
    once: bool = False
    #: Whether to let a machine run that was found stopped.
    resume: bool = False
    #: In seconds, for each answer of the stub.
    timeout: float = 10.0


@dataclass
class _Machine:
    """The machine that the stub controls, and how to leave it."""

    stub: Stub
    #: When kgen connected, on the clock of time.monotonic.
    began: float
    found: str
    runs_after: bool
    ended: bool = False
    #: What is known of the machine where it could not be left as it should be.
    doubt: str = ""


def watch(elf: bytes, name: str, wanted: Watched, show: Callable[[View], None], stop: Callable[[], bool]) -> View:
    """Look again and again, and ``show`` each time, until the run or the machine has ended, time is up, or ``stop`` is
    true.

    Returns the last view, whose ``ending`` says why it is the last and how the machine was left.

    Raises SpecError for what is no address or no kernel of kgen's, DebuggerError for a stub that does not answer or has
    another kernel, GuestCrash where the guest died, MachineError for a control socket that is silent.
    """
    kernel, spec = kernel_of(elf, name)
    must_be_an_address(wanted.address)
    with _attached(wanted) as machine:
        view = _Watch(machine, kernel, spec, wanted).run(show, stop)
    return replace(view, left=_left(machine))


@contextmanager
def _attached(wanted: Watched) -> Iterator[_Machine]:
    """Stop the machine; afterwards leave it as it was found, whatever happened."""
    with ExitStack() as stack:
        control, status = ask_control(stack, wanted.qmp)
        held: list[_Machine] = []

        def leave() -> KgenError | None:
            return _leave(held[0], control) if held else None

        with left_in_order(leave, lambda: _left(held[0]) if held else ""):
            with signals_held():
                # If this were interrupted, it would not be known whether the machine ran.
                began = time.monotonic()
                stub = stack.enter_context(Stub(wanted.address, timeout=wanted.timeout))
                machine = _Machine(stub, began, _GUESS, True)
                held.append(machine)
                found = _how_found(stub, status)
                machine.found = found.words
                machine.runs_after = found.ran or (wanted.resume and not found.for_ever)
            yield machine


def _leave(machine: _Machine, control: Qmp | None) -> KgenError | None:
    """Leave the machine as planned. Return what went wrong, None for nothing."""
    if not machine.runs_after or machine.ended:
        return None
    try:
        with signals_held():
            machine.stub.leave()
    except Ended:
        machine.ended = True
    except GuestCrash as error:
        machine.runs_after = False
        return error
    except KgenError as error:
        machine.doubt = _doubt(control)
        return error
    return None


def _doubt(control: Qmp | None) -> str:
    """Return what is known of a machine whose stub has not confirmed that it lets it run."""
    told = f"{UNKNOWN}: its stub has not confirmed the request to let it run"
    try:
        return f"QEMU's control socket calls the machine {status_of(control)}" if control else told
    except KgenError:
        return told


def _left(machine: _Machine) -> str:
    if machine.ended:
        return "the machine is gone"
    if machine.doubt:
        return machine.doubt
    return f"the machine was left {'running' if machine.runs_after else 'stopped'} ({machine.found})"


@dataclass(frozen=True)
class _Found:
    """How a machine was before kgen connected."""

    words: str
    ran: bool
    #: Whether it stands still until it is reset, whatever a debugger requests.
    for_ever: bool = False


def _how_found(stub: Stub, status: str) -> _Found:
    """Return how the machine was before kgen connected.

    ``status`` is what QEMU's control socket said before that, "" where it was not asked.
    """
    if status:
        return _found_stopped(f"found {status}", status) if status != "running" else _Found("found running", True)
    if stub.announced:
        return _Found("found running", True)
    told = stub.monitor("info status")
    if state := stopped_by(told):
        return _found_stopped(f"found stopped: {state}", state)
    version = re.match(r"(\d+)\.(\d+)", stub.monitor("info version").strip())
    if version and (int(version[1]), int(version[2])) < _SILENT_QEMU:
        return _Found("found stopped", False)
    return _Found(_GUESS, True)


def _found_stopped(words: str, state: str) -> _Found:
    for_ever = state in FOR_EVER
    return _Found(f"{words}, and only a reset could let it run" if for_ever else words, False, for_ever)


class _Watch:
    """The looks taken so far, and what comes next."""

    def __init__(self, machine: _Machine, kernel: LoadedElf, spec: KernelSpec, wanted: Watched) -> None:
        self._machine = machine
        self._stub = machine.stub
        self._kernel = kernel
        self._wanted = wanted
        self._began = machine.began
        self._spec = spec
        self._phases = phases(spec)
        self._layout = layout_of(spec)
        self._samples: deque[Sample] = deque(maxlen=HISTORY)
        self._cost = Cost(machine.began, machine.began)
        self._next = machine.began

    def run(self, show: Callable[[View], None], stop: Callable[[], bool]) -> View:
        """See watch()."""
        try:
            return self._run(show, stop)
        except Ended:
            self._machine.ended = True
            if not self._cost.looks:
                raise  # nothing was seen
            return self._view("the machine ended")
        except GuestCrash:
            self._machine.runs_after = False
            raise

    def _run(self, show: Callable[[View], None], stop: Callable[[], bool]) -> View:
        begin = self._began  # connecting has stopped the machine
        foreign = False
        while True:
            with signals_held():  # a look is short; if it were interrupted, the machine would be left stopped
                if not foreign and self._cost.looks:
                    self._stub.interrupt()
                seen = self._look()
                reason = self._enough(seen, foreign)
                if not reason:
                    self._stub.go()
            pause = Pause(begin, time.monotonic())
            self._keep(pause, seen)
            self._next = self._wanted.pace.next_look(pause)
            if reason:
                return self._view(reason)
            show(self._view())
            foreign, reason = self._wait(self._next, stop)
            if reason:
                return self._view(reason)
            begin = time.monotonic()

    def _enough(self, seen: Glance | None, foreign: bool) -> str:
        """Return why this look is the last one, "" where it is not."""
        if foreign:
            self._machine.runs_after = False  # the machine stays as the other user left it
            return "another debugger stopped the machine"
        if seen is not None and seen.final:
            return "the run is over"
        if not self._machine.runs_after:
            return "the machine stands still"
        return "only one look was requested" if self._wanted.once else ""

    def _wait(self, moment: float, stop: Callable[[], bool]) -> tuple[bool, str]:
        """Let the machine run until then. Return whether another debugger stopped it, and why no other look follows."""
        seconds = self._wanted.seconds
        until = moment if seconds is None else min(moment, self._began + seconds)
        while True:
            now = time.monotonic()
            if stop():
                return False, "stopped by Ctrl-C"
            if now >= until:
                return False, "" if until == moment else "time is up"
            if self._stub.halted(min(until - now, TICK)):
                return True, ""

    def _look(self) -> Glance | None:
        try:
            seen = look(self._stub.read_memory, self._layout, self._kernel.symbols["results"], self._phases)
        except ProtocolError as error:
            raise ProtocolError(error.message, where=self._wanted.address, hint="is this the machine's ELF?") from error
        if seen is None:
            if not self._machine.runs_after or self._wanted.once or time.monotonic() > self._began + BOOT_SECONDS:
                raise DebuggerError(
                    "there is no results block in memory", where=self._wanted.address, hint="has the kernel booted?"
                )
        elif seen.build_id != self._kernel.build_id.hex():
            raise DebuggerError(
                f"the guest runs build {seen.build_id}, the ELF is build {self._kernel.build_id.hex()}",
                where=self._wanted.address,
                hint="give the ELF that the machine was started with",
            )
        return seen

    def _keep(self, pause: Pause, seen: Glance | None) -> None:
        self._cost = self._cost.after(pause)
        if seen is not None:
            self._samples.append(Sample(pause.begin - self._began, pause.seconds, seen))

    def _view(self, reason: str = "") -> View:
        now = time.monotonic()
        # The run that must follow the last pause counts: either the next look comes after it, or no look disturbs it.
        runs = self._machine.runs_after and not self._machine.ended
        return View(
            spec=self._spec,
            address=self._wanted.address,
            budget=self._wanted.pace.share,
            samples=tuple(self._samples),
            elapsed=now - self._began,
            cost=self._cost.at(max(now, self._next) if runs else now),
            ending=reason,
        )
