"""Make a lab: packages, root file system, first boot, saved state, canary; then publish it in the cache."""

from __future__ import annotations

import contextlib
import gzip
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kgen.errors import DebuggerError, MachineError, MachineStuck, PlatformUnavailable, SpecError
from kgen.host.process import END_SECONDS, Child, output, spawn
from kgen.lab import cache, outer
from kgen.lab.cache import Lab
from kgen.lab.console import Console
from kgen.lab.packages import BUSYBOX as BUSYBOX_PACKAGES
from kgen.lab.packages import Apt, Package
from kgen.lab.recipe import BUSYBOX, Choice, Recipe, find_busybox, find_kernel, made_by, recipe
from kgen.machine import qemu_words
from kgen.machine.qmp import Qmp

#: The first boot's deadline in seconds, and the saved state's.
BOOT_SECONDS = 180.0
#: Under QEMU's translator a Linux of two CPUs got stuck in 1 of 40 first boots (QEMU 7.2): it is booted again.
BOOTS = 3
SAVE_SECONDS = 120.0
QMP_SECONDS = 60.0
QEMU_HINT = "install it with 'apt install qemu-system-x86', or name one with --inner-qemu"


@dataclass(frozen=True)
class Stage:
    """A step that takes a while."""

    name: str
    #: In bytes, of ``total``. Both are 0 where the amount is unknown.
    done: int = 0
    total: int = 0


Watcher = Callable[[Stage], None]


@dataclass(frozen=True)
class Tools:
    """The programs to use."""

    #: The outer QEMU, None to look for it.
    qemu: str | None = None
    gdb: str = "gdb"


#: A run that a lab must pass before it is published. Raises MachineError where it does not.
Canary = Callable[[Lab, Tools], None]


def build_lab(choice: Choice, tools: Tools, watcher: Watcher, canary: Canary, *, rebuild: bool = False) -> Lab:
    """Make the lab of this choice, or return the one that exists. Other processes see a lab only when it is complete.

    The distribution's lab is used as it is, even where newer packages exist, unless ``rebuild`` is true.

    Raises PlatformUnavailable where pieces are unavailable, SpecError where a piece is of the wrong kind, MachineError
    with the stage that failed, OutputError where the lab cannot be stored.
    """
    if shutil.which(tools.qemu or outer.BINARY) is None:
        raise PlatformUnavailable(f"there is no {tools.qemu or outer.BINARY} to run the lab with", hint=QEMU_HINT)
    if shutil.which(tools.gdb) is None:
        raise DebuggerError(f"'{tools.gdb}' is not to be found", hint="install it with 'apt install gdb'")
    there = cache.default()
    if choice.is_default and there and not rebuild and _is_current(there, choice, tools):
        return there
    with cache.making() as directory:
        return _build(directory, choice, tools, watcher, canary)


def ensure(choice: Choice, tools: Tools, watcher: Watcher, canary: Canary) -> Lab:
    """Return the lab of this choice. Make it if all its pieces are on this host. Raises as ``build_lab`` does, and
    PlatformUnavailable where something would have to be downloaded."""
    if choice.is_default:
        lab = cache.default()
        if lab is None:
            raise PlatformUnavailable("the lab has not been built", hint="run 'kgen lab build'")
        return lab
    if choice.kernel is None or _busybox() is None:
        hint = "run 'kgen lab build' with the same options; it says what it downloads"
        raise PlatformUnavailable("something must be downloaded for this lab", hint=hint)
    return build_lab(choice, tools, watcher, canary)


def _is_current(lab: Lab, choice: Choice, tools: Tools) -> bool:
    """Return whether a lab is what this kgen and these QEMUs would make of its packages."""
    made = lab.made_by == made_by(choice.qemu or outer.BINARY)
    return made and lab.state_of == outer.saved_by(tools.qemu) and lab.state.is_file()


def _build(directory: Path, choice: Choice, tools: Tools, watcher: Watcher, canary: Canary) -> Lab:
    seconds: dict[str, float] = {}
    with _stage("ingredients", seconds):
        made = _gather(directory / "work", choice, watcher)
    key = made.key()
    state_of = outer.saved_by(tools.qemu)
    there = cache.named(key)
    if there is not None and there.state_of == state_of:
        if choice.is_default:
            # the same contents from other sources: note these for the next time
            there = replace(there, made_by=made_by(outer.BINARY), sources=dict(made.sources))
            there.save()
        return cache.publish(there, is_default=choice.is_default)
    lab = Lab(
        key=key,
        linux="",
        qemu=_version(made),
        modules=made.modules,
        firmware=made.firmware,
        sources=dict(made.sources),
        made_by=made_by(choice.qemu or outer.BINARY),
        directory=directory,
    )
    watcher(Stage("packing the root file system"))
    with _stage("initramfs", seconds):
        lab.kernel.write_bytes(made.kernel)
        lab.busybox.write_bytes(made.files[BUSYBOX])
        with gzip.GzipFile(lab.initramfs, "wb", compresslevel=1, mtime=0) as packed:
            for piece in made.initramfs():
                packed.write(piece)
    shutil.rmtree(directory / "work", ignore_errors=True)
    watcher(Stage("booting the lab's Linux for the first time"))
    linux = _booted(lab, tools, watcher, seconds)
    lab = replace(lab, linux=linux, state_of=state_of, seconds=seconds)
    lab.save()
    watcher(Stage("a canary in the lab"))
    with _stage("canary", seconds):
        canary(lab, tools)
    lab = replace(lab, seconds={name: round(value, 2) for name, value in seconds.items()})
    lab.save()
    return cache.publish(lab, is_default=choice.is_default)


def _gather(work: Path, choice: Choice, watcher: Watcher) -> Recipe:
    """Return all the pieces, from the choice or from the distribution."""
    work.mkdir()
    qemu = shutil.which(choice.qemu or outer.BINARY)
    if qemu is None:
        raise PlatformUnavailable(f"there is no {choice.qemu or outer.BINARY} to put into the lab", hint=QEMU_HINT)
    kernel, modules, busybox = choice.kernel, choice.modules, _busybox()
    sources = {"qemu": str(Path(qemu).resolve())}
    if kernel is None or busybox is None:
        tree, packages = _packages(work, kernel is None, busybox is None, watcher)
        by_name = {package.name: f"package {package.name} {package.version}" for package in packages}
        if kernel is None:
            kernel = find_kernel(tree)
            modules = modules or tree
            sources["linux"] = next(text for name, text in by_name.items() if name.startswith("linux-image-"))
        if busybox is None:
            busybox = find_busybox(tree)
            sources["busybox"] = next(text for name, text in by_name.items() if name in BUSYBOX_PACKAGES)
    if busybox is None:
        raise SpecError("the distribution's busybox needs libraries", where=str(work))
    if choice.kernel is not None:
        sources["linux"] = str(choice.kernel.resolve())
    if choice.modules is not None:
        sources["modules"] = str(choice.modules.resolve())
    known = cache.default()
    if known and busybox == known.busybox:
        sources["busybox"] = known.sources["busybox"]
    sources.setdefault("busybox", str(busybox))
    watcher(Stage("gathering the pieces"))
    return recipe(kernel, modules, busybox, Path(qemu), sources)


def _busybox() -> Path | None:
    """Return this host's busybox, or the one of the distribution's lab."""
    lab = cache.default()
    return find_busybox() or (lab.busybox if lab and lab.busybox.is_file() else None)


def _packages(work: Path, kernel: bool, busybox: bool, watcher: Watcher) -> tuple[Path, tuple[Package, ...]]:
    """Download and unpack what is needed from the distribution. Return the tree and the packages."""
    watcher(Stage("looking for the distribution's packages"))
    apt = Apt(work)
    wanted = (apt.kernel() if kernel else ()) + ((apt.find(BUSYBOX_PACKAGES),) if busybox else ())
    total = sum(package.size for package in wanted)
    title = f"downloading {', '.join(package.title for package in wanted)}"
    watcher(Stage(title, 0, total))
    files = apt.download(wanted, lambda done: watcher(Stage(title, min(done, total), total)))
    watcher(Stage("unpacking"))
    tree = work / "tree"
    apt.unpack(files, tree)
    return tree, wanted


def _version(made: Recipe) -> str:
    """Return the inner QEMU's own first line."""
    lines = output([made.sources["qemu"], "--version"], QMP_SECONDS).splitlines()
    return lines[0].strip() if lines else "QEMU of unknown version"


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
        lines = outer.Lines(console=ends[0], serial=ends[1], gdb=ends[2], control=ends[3], qmp=ends[4])
        # Here the stub's port is a connected socket, in a run it listens. The saved state is the same for both.
        command = [
            word.replace(",server=on,wait=off", "") for word in outer.command(lab, tools.qemu, lines, restore=False)
        ]
        try:
            child = spawn(command, pass_fds=ends, guarded=True)
        except OSError as error:
            raise MachineError(f"cannot be run: {error.strerror}", where=command[0]) from error
        stack.callback(child.stop)
        for pair in pairs:
            pair[1].close()
        console = Console(pairs[0][0], lambda seconds: "" if child.wait(seconds) is None else _last_words(child))
        with _stage("boot", seconds):
            console.await_ready(BOOT_SECONDS)
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
    """Migrate the running machine into a file. A machine that was stopped before would be restored stopped."""
    stack.callback(control.close)
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
