"""Run a kernel and observe it: boot, watch, freeze, read both channels, attest the path."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from kgen.build import Kernel
from kgen.errors import (
    DebuggerError,
    GuestCrash,
    KgenError,
    MachineError,
    OutputError,
)
from kgen.evidence.from_serial import from_log
from kgen.evidence.kvm_trace import TraceEvent, surroundings
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.evidence.records import Record
from kgen.evidence.scene import Scene
from kgen.host.process import pinned
from kgen.host.signals import noted_ctrl_c
from kgen.host.temporary import scratch
from kgen.inspection.scene import capture, place_to_begin, place_to_stop
from kgen.inspection.stopped import Inspection, cell_range, inspect
from kgen.kernel.protocol import parse_log
from kgen.machine import bochs, qemu_engine, virtualbox, virtualbox_lab, xen
from kgen.machine.engine import Engine, Start
from kgen.machine.platform import Platform
from kgen.media import formats
from kgen.run.follow import POLL_SECONDS, SETTLE_SECONDS, Ending, Watch, Watcher, follow
from kgen.run.options import Options, check_available, check_choices, request_of
from kgen.toolchain.listing import listing

#: How many of the case's first witnesses are looked up in the recorder of accesses. The first one found is shown.
TRACED = 4


Holder = Callable[[Engine, Path, Observation], None]

#: The engines that run a guest, by the names that platforms use.
ENGINES: Mapping[str, Start] = {
    "qemu": qemu_engine.start,
    "bochs": bochs.start,
    "virtualbox": virtualbox.start,
    "virtualbox-lab": virtualbox_lab.start,
    "xen": xen.start,
}


def observe(
    kernel: Kernel,
    platform: Platform,
    options: Options,
    *,
    watcher: Watcher | None = None,
    holder: Holder | None = None,
) -> Observation:
    """Run the kernel on the platform, from power-on to the debugger's reading of the frozen machine. Return the
    observation.

    ``holder`` is called with the machine still frozen. Raises SpecError for choices that the platform does not have,
    PlatformUnavailable, MachineError where the emulator does not start, DebuggerError where its debugger does not,
    MediaError and OutputError where its files cannot be made. Later failures are part of the observation.
    """
    request = request_of(kernel.spec, options)
    check_choices(platform, request)
    last = kernel.phases[-1]
    where = cell_range(last, kernel.elf.symbols)
    if last.target.declared == "io" and where is not None:
        request = replace(request, traced=(where[0], where[0] + where[1]))
    check_available(kernel.spec, platform, request)
    with contextlib.ExitStack() as stack:
        elf = _temporary_elf(kernel, stack)
        request = replace(request, kernel=elf, image=_temporary_image(kernel, elf, platform.medium(request)))
        started = time.monotonic()
        start = ENGINES[platform.engine]
        machine = stack.enter_context(start(platform, request, gdb=options.gdb, pinned=pinned(options.pin)))
        watch = Watch(kernel.spec, watcher)
        # The first Ctrl-C asks the guest to park and print its record, which is then read; a second one interrupts.
        with noted_ctrl_c(second_interrupts=True) as interrupts:
            if options.waits_for_breakpoint:
                place = place_to_begin(kernel, options.moment) if options.moment else place_to_stop(kernel)
                machine.run_until(*place)
            ending = follow(machine, watch, platform, options, interrupts, kernel.results_address("stop"))
            ran = time.monotonic()
            observation = _freeze(kernel, platform, machine, watch, ending)
            frozen = time.monotonic()
        observation = replace(
            observation,
            timings={"run": ran - started, "inspect": frozen - ran},
            environment=dict(machine.facts()) | dict(options.origin),
        )
        if holder:
            machine.let_in()
            # the source that the ELF's line table refers to
            source = elf.with_name(kernel.assembly.source.name)
            source.write_bytes(listing(kernel.assembly).encode())
            # gdb warns of a source that is newer than its program
            os.utime(source, ns=(elf.stat().st_atime_ns, elf.stat().st_mtime_ns))
            holder(machine, elf, observation)
        return observation


def _temporary_elf(kernel: Kernel, stack: contextlib.ExitStack) -> Path:
    """Write the ELF into a directory that lasts as long as ``stack``. Return its path."""
    try:
        elf = stack.enter_context(scratch()) / "kernel.elf"
        elf.write_bytes(kernel.elf.data)
    except OSError as error:
        raise OutputError(
            error.strerror or str(error), where=error.filename or tempfile.gettempdir(), hint="set TMPDIR"
        ) from error
    return elf


def _temporary_image(kernel: Kernel, elf: Path, name: str) -> Path | None:
    """Write the image of that format next to the ELF. Return its path, None where no format is given. Raises MediaError
    and OutputError."""
    if not name:
        return None
    image = elf.with_suffix(formats()[name].suffix)
    formats()[name].write(kernel.payload, image)
    return image


def _freeze(kernel: Kernel, platform: Platform, machine: Engine, watch: Watch, ending: Ending) -> Observation:
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
            # The closing line is printed a moment before the guest writes its final state.
            machine.thaw()
            time.sleep(POLL_SECONDS)
            seen = inspect(machine.freeze(), kernel.spec, elf.build_id, elf.symbols, elf.sections)
        where = cell_range(kernel.phases[-1], elf.symbols, seen.memory)
        if where is not None:
            path = machine.attest(*where, kernel.spec.case.cpus)
        if watch.caught and seen.memory:
            scene = capture(kernel, machine.freeze(), seen.memory)
    except (DebuggerError, MachineError, GuestCrash) as error:
        problems.append(error.line)
    with contextlib.suppress(KgenError):
        # bytes that had not arrived when the watch ended
        watch.feed(machine.read_serial(0))
    crash = machine.crashed() or ""
    if crash:
        # A read that failed because the machine died is no second failure.
        problems = []
    elif not ending.words or seen.memory is not None:
        problems += seen.problems
    log = parse_log(bytes(watch.data))
    return Observation(
        platform=platform.name,
        serial=from_log(log),
        memory=seen.memory,
        path=path,
        crash=crash,
        cut=ending.words,
        cut_by=ending.cut,
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
    """Return what the hypervisor's kernel recorded around the first of the case's witnesses that it has a record of."""
    if record is None or machine.supervisor is None:
        return ()
    own = kernel.decisive
    begin = {phase.index: phase.address for phase in record.phases}
    # in the order in which they were found, because the recorder was stopped at the first one
    witnesses = [entry for entry in record.witnesses if entry.phase in own][:TRACED]
    places = [begin[entry.phase] + own[entry.phase].stride * entry.cell for entry in witnesses]
    events = machine.supervisor.read_trace(list(dict.fromkeys(places)))
    found = (surroundings(events, place, entry.token) for place, entry in zip(places, witnesses, strict=True))
    return next((part for part in found if part), ())
