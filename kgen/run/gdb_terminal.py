"""Run a kernel to a chosen moment, freeze the machine there, and run gdb on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kgen.build import Kernel
from kgen.errors import DebuggerError, GuestCrash, OutputError, SpecError
from kgen.evidence.observation import Observation
from kgen.host.process import foreground
from kgen.machine.engine import Engine
from kgen.machine.platform import Platform
from kgen.run.follow import Watcher
from kgen.run.observe import observe
from kgen.run.options import Options

#: The name of the guest's serial log, which goes on while gdb runs; by default it is next to the ELF.
LOG = "serial.log"
LISTEN_SECONDS = 0.05
#: The moments at which the machine can be stopped, in order of time.
MOMENTS = ("start", "controls", "case", "violation", "end")
_WHERE = {
    "start": "at the kernel's first instructions",
    "controls": "where the first phase begins",
    "case": "where the case begins",
    "violation": "at the case's first violation",
    "end": "at its end",
}


def moment_for(platform: Platform, wanted: str | None) -> str:
    """Return the moment to stop at: the requested one, otherwise the first violation where breakpoints hit, otherwise
    the end. Raises SpecError where the platform cannot be stopped at that moment."""
    if "gdb" not in platform.provides:
        raise SpecError("the platform has no stub that gdb could join", where=platform.name, hint="choose another one")
    if platform.breakpoints != "none":
        return wanted or "violation"
    if wanted not in (None, "end"):
        hint = "give --stop end"
        raise SpecError("no breakpoint hits there, so it cannot be stopped", where=f"--stop {wanted}", hint=hint)
    return "end"


def hand_over(
    kernel: Kernel,
    platform: Platform,
    options: Options,
    moment: str,
    *,
    log: Path | None = None,
    watcher: Watcher | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Run the kernel to the moment, then run gdb on the terminal until it ends. The machine ends with gdb.

    ``log`` is the file for the guest's serial log, None for one that is deleted with the machine. ``tell`` is called
    with lines that say where the machine is stopped and where the log is. Raises as ``observe`` does, GuestCrash where
    the machine died before that moment, DebuggerError where gdb could not be run on the terminal, OutputError where the
    log cannot be written.
    """

    def hold(machine: Engine, elf: Path, observation: Observation) -> None:
        if observation.crash:
            raise GuestCrash(observation.crash, where=platform.name)
        reached = _reached(moment, observation, kernel.decisive)
        tell(f"{platform.name} is frozen {reached}; when gdb ends, so does the machine")
        place = log or elf.with_name(LOG)
        fate = "" if log else ", which goes with the machine (--log FILE keeps it)"
        tell(f"the guest's serial log goes on in {place}{fate}")
        words = [options.gdb, "-q", *machine.join(elf)[1:], "-ex", "kgen status"]
        with _writer(place) as write:
            write(observation.log.encode("latin-1"))
            try:
                foreground(words, lambda: listen(machine, write))
            except OSError as error:
                raise DebuggerError(f"cannot be run: {error.strerror}", where=options.gdb) from error

    where = moment if moment in ("start", "controls", "case") else ""
    wanted = replace(options, moment=where, stop_on_violation=moment == "violation")
    observe(kernel, platform, wanted, watcher=watcher, holder=hold)


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Create a file and yield a function that appends bytes to it. Raises OutputError."""

    def unwritable(error: OSError) -> OutputError:
        hint = "name another file"
        return OutputError(f"cannot be written: {error.strerror or error}", where=str(path), hint=hint)

    try:
        file = path.open("wb", buffering=0)
    except OSError as error:
        raise unwritable(error) from error

    def write(data: bytes) -> None:
        try:
            file.write(data)
        except OSError as error:
            raise unwritable(error) from error

    with file:
        yield write


def listen(machine: Engine, write: Callable[[bytes], object]) -> None:
    """Read the guest's output for a moment. A guest without a reader waits when its line is full."""
    try:
        write(machine.read_serial(LISTEN_SECONDS))
    except GuestCrash:
        time.sleep(LISTEN_SECONDS)


def _reached(moment: str, observation: Observation, own: Container[int]) -> str:
    """Return in words where the machine is stopped: not every run is violated, and some are ended early.

    ``own`` are the indexes of the phases whose violations are the case's.
    """
    if observation.cut:
        return f"where it was: {observation.cut}"
    memory = observation.memory
    if moment == "end" or memory is None or not memory.complete:
        return _WHERE[moment]
    if moment != "violation":
        return f"at its end: it was never {_WHERE[moment]}"
    if any(phase.total for phase in memory.phases if phase.index in own):
        return "at its end: the case was violated, and no breakpoint stopped it there"
    return "at its end: the case was not violated"
