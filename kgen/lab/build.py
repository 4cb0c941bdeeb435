"""Make a lab: packages, root file system, first boot, saved state, canary; then publish it in the cache."""

from __future__ import annotations

import contextlib
import gzip
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from kgen.errors import DebuggerError, MachineError, MachineStuck, PlatformUnavailable
from kgen.host.process import END_SECONDS, Child, spawn
from kgen.lab import cache, outer
from kgen.lab.cache import Lab
from kgen.lab.choice import Choice
from kgen.lab.console import Console
from kgen.lab.recipe import BUSYBOX, Recipe
from kgen.lab.system import Gathering, Stage, System, Watcher, check, title
from kgen.machine import qemu_words
from kgen.machine.platform import SHARE_BYTES
from kgen.machine.qmp import Qmp

#: The first boot's deadline in seconds, and the saved state's.
BOOT_SECONDS = 180.0
#: Under QEMU's translator a Linux of two CPUs got stuck in 1 of 40 first boots (QEMU 7.2): it is booted again.
BOOTS = 3
SAVE_SECONDS = 120.0
QMP_SECONDS = 60.0
#: What a hypervisor printed at the first boot, in the lab's directory.
_LOG = "log"
QEMU_HINT = "install it with 'apt install qemu-system-x86', or name one with --qemu"


@dataclass(frozen=True)
class Tools:
    """The programs to use."""

    #: The outer QEMU, None to look for it.
    qemu: str | None = None
    gdb: str = "gdb"


#: A run that a lab must pass before it is published. Raises MachineError where it does not.
Canary = Callable[[Lab, Tools], None]


def build_lab(
    system: System, choice: Choice, tools: Tools, watcher: Watcher, canary: Canary, *, rebuild: bool = False
) -> Lab:
    """Make the lab of this choice, or return the one that exists. Other processes see a lab only when it is complete.

    A lab that has a name is used as it is, even where newer packages exist, unless ``rebuild`` is true.

    Raises PlatformUnavailable where pieces are unavailable, SpecError where a piece is of the wrong kind, MachineError
    with the stage that failed, OutputError where the lab cannot be stored.
    """
    return _made(system, choice, tools, watcher, canary, rebuild=rebuild, network=True)


def ensure(system: System, choice: Choice, tools: Tools, watcher: Watcher, canary: Canary) -> Lab:
    """Return the lab of this choice. Make it if all its pieces are on this host. Raises as ``build_lab`` does, and
    PlatformUnavailable where something would have to be downloaded."""
    name = title(system, choice)
    if name:
        lab = cache.titled(name)
        if lab is None:
            raise PlatformUnavailable(
                f"the lab {name} has not been built", hint=f"run '{shlex.join(command(system, choice))}'"
            )
        return lab
    return _made(system, choice, tools, watcher, canary, rebuild=False, network=False)


def command(system: System, choice: Choice) -> tuple[str, ...]:
    """Return the words of the command that makes a lab."""
    words = ["kgen", "lab", "build", *([] if system.name == cache.DEFAULT else [system.name])]
    return (*words, *(str(word) for pair in choice.options().items() for word in pair))


def _made(
    system: System, choice: Choice, tools: Tools, watcher: Watcher, canary: Canary, *, rebuild: bool, network: bool
) -> Lab:
    check(system, choice)
    if shutil.which(tools.qemu or outer.BINARY) is None:
        raise PlatformUnavailable(f"there is no {tools.qemu or outer.BINARY} to run the lab with", hint=QEMU_HINT)
    if shutil.which(tools.gdb) is None:
        raise DebuggerError(f"'{tools.gdb}' is not to be found", hint="install it with 'apt install gdb'")
    name = title(system, choice)
    there = cache.titled(name) if name else None
    if there and not rebuild and _is_current(there, system, choice, tools):
        return there
    with cache.making() as directory:
        seconds: dict[str, float] = {}
        work = directory / "work"
        work.mkdir()
        with _stage("ingredients", seconds):
            made = system.gather(Gathering(system.complete(choice), work, watcher, network=network, newest=rebuild))
        assert isinstance(made, Recipe)
        about = Lab(
            key=made.key(),
            linux="",
            qemu=made.inside,
            modules=made.modules,
            firmware=made.firmware,
            sources=dict(made.sources),
            made_by=system.made_by(choice),
            system=system.name,
            name=name,
            machine=made.machine,
            ports=made.ports,
            directory=directory,
        )
        return _publish(about, made, tools, watcher, canary, seconds)


def _is_current(lab: Lab, system: System, choice: Choice, tools: Tools) -> bool:
    """Return whether a lab is what this kgen and these QEMUs would make of its packages."""
    made = lab.made_by == system.made_by(choice)
    return made and lab.state_of == outer.saved_by(lab.machine, tools.qemu) and lab.state.is_file()


def _publish(lab: Lab, made: Recipe, tools: Tools, watcher: Watcher, canary: Canary, seconds: dict[str, float]) -> Lab:
    """Write the lab, boot it, try it, and publish it."""
    state_of = outer.saved_by(made.machine, tools.qemu)
    there = cache.named(lab.key)
    if there is not None and there.state_of == state_of:
        if lab.name:
            # the same contents from other sources: note these for the next time
            there = replace(there, made_by=lab.made_by, sources=lab.sources, name=lab.name)
            there.save()
        return cache.publish(there)
    watcher(Stage("packing the root file system"))
    with _stage("initramfs", seconds):
        lab.kernel.write_bytes(made.kernel)
        lab.busybox.write_bytes(made.files[BUSYBOX])
        for name, data in made.loaded.items():
            (lab.directory / name).write_bytes(data)
        with gzip.GzipFile(lab.initramfs, "wb", compresslevel=1, mtime=0) as packed:
            for piece in made.initramfs():
                packed.write(piece)
    shutil.rmtree(lab.directory / "work", ignore_errors=True)
    watcher(Stage("booting the lab's Linux for the first time"))
    linux = _booted(lab, tools, watcher, seconds)
    lab = replace(lab, linux=linux, state_of=state_of, seconds=seconds)
    lab.save()
    watcher(Stage("a canary in the lab"))
    with _stage("canary", seconds):
        canary(lab, tools)
    lab = replace(lab, seconds={name: round(value, 2) for name, value in seconds.items()})
    lab.save()
    return cache.publish(lab)


def _booted(lab: Lab, tools: Tools, watcher: Watcher, seconds: dict[str, float]) -> str:
    """Boot the lab and save its state, again where Linux got stuck. Return the release of that Linux."""
    for _ in range(BOOTS - 1):
        try:
            return _boot_and_save(lab, tools, watcher, seconds)
        except MachineStuck:
            watcher(Stage("booting it again: it got stuck"))
    return _boot_and_save(lab, tools, watcher, seconds)


def _boot_and_save(lab: Lab, tools: Tools, watcher: Watcher, seconds: dict[str, float]) -> str:
    """Boot the lab and save the outer machine's state once Linux is ready. Return the release of that Linux."""
    with contextlib.ExitStack() as stack:
        pairs = [[stack.enter_context(end) for end in socket.socketpair()] for _ in range(5)]
        ends = [pair[1].fileno() for pair in pairs]
        log = stack.enter_context((lab.directory / _LOG).open("w+b"))
        share = stack.enter_context(tempfile.TemporaryFile())
        share.truncate(SHARE_BYTES)
        lines = outer.Lines(
            console=ends[0],
            serial=ends[1],
            gdb=ends[2],
            control=ends[3],
            log=log.fileno(),
            share=share.fileno(),
            qmp=ends[4],
        )
        # Here the stub's port is a connected socket, in a run it listens. The saved state is the same for both.
        command = [
            word.replace(",server=on,wait=off", "") for word in outer.command(lab, tools.qemu, lines, restore=False)
        ]
        try:
            child = spawn(command, pass_fds=[*ends, log.fileno(), share.fileno()], guarded=True)
        except OSError as error:
            raise MachineError(f"cannot be run: {error.strerror}", where=command[0]) from error
        stack.callback(child.stop)
        for pair in pairs:
            pair[1].close()
        console = Console(pairs[0][0], lambda seconds: "" if child.wait(seconds) is None else _last_words(child))
        with _stage("boot", seconds):
            try:
                console.await_ready(BOOT_SECONDS, cold=True)
            except MachineStuck:
                raise
            except MachineError as error:
                log.seek(0)
                said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
                tail = f"; the hypervisor's last lines: {' / '.join(said[-3:])}" if said else ""
                raise MachineError(f"{error.message}{tail}", where=error.where) from error
        watcher(Stage("saving the state of the booted lab"))
        with _stage("save", seconds):
            try:
                _save(lab, Qmp(pairs[4][0], QMP_SECONDS), stack)
            except MachineError as error:
                if child.wait(END_SECONDS) is None:
                    raise
                raise MachineError(f"saving the lab's state: {_last_words(child)}", where="the lab") from error
        return console.linux


def _save(lab: Lab, control: Qmp, stack: contextlib.ExitStack) -> None:
    """Migrate the machine into a file. It is stopped before: of one that runs, QEMU 7.2's translator was seen to save
    memory that a CPU had changed since."""
    stack.callback(control.close)
    control.execute("stop", {}, QMP_SECONDS)
    control.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40}, QMP_SECONDS)
    where = shlex.quote(str(lab.state))
    control.execute("migrate", {"uri": f"exec:cat > {where}"}, QMP_SECONDS)
    until = time.monotonic() + SAVE_SECONDS
    while True:
        about: Mapping[str, str] = control.execute("query-migrate", {}, QMP_SECONDS)
        if about.get("status") == "completed":
            return
        if about.get("status") in ("failed", "cancelled") or time.monotonic() > until:
            raise MachineError(
                f"saving the lab's state: {about.get('error-desc', about.get('status'))}", where="the lab"
            )
        control.wait(0.05)


def _last_words(child: Child) -> str:
    lines = qemu_words.causes(child.stderr_lines())[-3:]
    return f"QEMU {child.epitaph()}" + (f": {' / '.join(lines)}" if lines else "")


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Record how long something takes."""
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start
