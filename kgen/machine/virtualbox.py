"""VirtualBox as an engine: a machine of its own, made, driven and removed by VBoxManage.

All of it is private: settings, machine, disk, serial port and log are in one temporary directory, and the programs use
a server of their own, so no machine of the user is ever touched. A keeper (``host.keeper``) starts VirtualBox's
programs, which are daemons, and ends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kgen.errors import DebuggerError, GuestCrash, MachineError, PlatformUnavailable
from kgen.host import keeper
from kgen.host.environment import gathering
from kgen.host.process import END_SECONDS, Child, spawn
from kgen.host.temporary import socket_scratch
from kgen.machine import virtualbox_headless
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.virtualbox_engine import COMMAND_SECONDS, NAME, VGA, VirtualBox, about, title
from kgen.machine.virtualbox_words import begin, complaint, complete, death_of

#: The name of the starter of a private root; any other command is the VBoxManage of this host.
INSIDE = "inside"
#: What VBoxManage calls the engines that the user may choose.
ENGINES: Mapping[str, str] = {"iem": "recompiler", "iem-interpreter": "interpreter"}
#: The driver's device. Without it VirtualBox's own interpreter or recompiler carries the guest out.
DRIVER = Path("/dev/vboxdrv")
#: Where VirtualBox's libraries are.
LIBRARIES = (
    Path("/usr/lib/virtualbox"),
    Path("/opt/VirtualBox"),
    Path("/usr/lib64/virtualbox"),
    Path("/Applications/VirtualBox.app/Contents/MacOS"),
)
#: How long the start of the machine may take, in seconds.
START_SECONDS = 60.0
#: How much longer than its command the keeper may take to answer, in seconds.
_GRACE_SECONDS = 10.0
#: How long the keeper may take to end what it started, in seconds.
_STOP_SECONDS = 12.0
_CHUNK = 65536


class Talk:
    """The dialogue with the keeper."""

    def __init__(self, child: Child) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self.child = child
        self.commands: list[list[str]] = []
        self._in = child.stdin
        self._out = child.stdout.fileno()
        self._heard = b""
        #: Whether an answer may still come.
        self._owed = False

    def ask(self, request: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """Return the keeper's answer. Raises MachineError where none comes in so many seconds; after that there is
        no dialogue, because the next answer would be the one to this request."""
        if self._owed:
            raise MachineError("VirtualBox has not answered before")
        self._owed = True
        try:
            self._in.write(json.dumps(request).encode() + b"\n")
            until = time.monotonic() + seconds
            while b"\n" not in self._heard:
                if not select.select([self._out], [], [], max(0.0, until - time.monotonic()))[0]:
                    raise MachineError(f"VirtualBox did not answer within {seconds:g} s")
                data = os.read(self._out, _CHUNK)
                if not data:
                    raise MachineError(self._dead())
                self._heard += data
        except (OSError, ValueError) as error:  # ValueError: the pipe has been closed
            raise MachineError(self._dead()) from error
        line, _, self._heard = self._heard.partition(b"\n")
        self._owed = False
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def manage(self, program: str, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run VBoxManage and return what it prints. Raises MachineError with its complaint."""
        command = [program, "-q", *words]
        self.commands.append(command)
        answer = self.ask({"run": command, "seconds": seconds}, seconds + _GRACE_SECONDS)
        text = str(answer["text"])
        if answer["status"] is None:
            raise MachineError(f"it took more than {seconds:g} s", where=f"VBoxManage {words[0]}")
        if answer["status"]:
            raise MachineError(complaint(text), where=f"VBoxManage {words[0]}")
        return text

    def power_off(self, program: str) -> None:
        """Switch the machine off, if it runs."""
        with contextlib.suppress(MachineError):
            self.manage(program, "controlvm", NAME, "poweroff")

    def close(self) -> None:
        """End the keeper, and with it everything that it has started."""
        self.child.stop(self._hang_up, _STOP_SECONDS)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()

    def _dead(self) -> str:
        self.child.wait(END_SECONDS)
        lines = self.child.stderr_lines()
        return f"what runs VirtualBox {self.child.epitaph()}" + (f": {lines[-1]}" if lines else "")


class _Place:
    """Where VirtualBox runs: in a private root, or on this host."""

    def __init__(self, starter: str, directory: Path) -> None:
        self.in_root = Path(starter).name == INSIDE
        #: The directory as VirtualBox sees it.
        self.shared = Path("/mnt") if self.in_root else directory
        self.libraries = LIBRARIES[0] if self.in_root else next((path for path in LIBRARIES if path.is_dir()), None)
        # what the packages have in the PATH is a script, which prints warnings of its own
        program = self.libraries / "VBoxManage" if self.libraries else Path(starter)
        self.manage = str(program) if self.in_root or program.is_file() else starter
        self.python = "python3" if self.in_root else sys.executable
        #: Whether VirtualBox goes without its driver.
        self.driverless = self.in_root or (sys.platform == "linux" and not DRIVER.exists())
        # VirtualBox keeps its server's socket there, whatever TMPDIR is.
        own = Path(f"/tmp/.vbox-{directory.name}-ipc")
        keep = [self.python, "-I", "-S", str(self.shared / "keeper.py")]
        self.command = (starter, str(directory), *keep) if self.in_root else (*keep, str(own))
        self.environment = (
            {} if self.in_root else {"VBOX_USER_HOME": f"{directory}/home", "VBOX_IPC_SOCKETID": directory.name}
        )


def start(platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]) -> VirtualBox:
    """See ``engine.Start``. No gdb is needed."""
    reason = platform.unavailable(request)
    if reason:
        raise PlatformUnavailable(reason, where=platform.name)
    assert request.image is not None
    with contextlib.ExitStack() as undo:
        directory = undo.enter_context(socket_scratch("serial"))
        place = _Place(platform.command(request)[0], directory)
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            listener.bind(str(directory / "serial"))
            listener.listen(1)
            disk = directory / f"disk{request.image.suffix}"
            shutil.copyfile(request.image, disk)
            for source, name in ((keeper.__file__, "keeper.py"), (virtualbox_headless.__file__, "headless.py")):
                shutil.copyfile(source, directory / name)
        except OSError as error:
            raise MachineError(f"no files can be made for VirtualBox: {error.strerror}", hint="set TMPDIR") from error
        try:
            with pinned:
                # not guarded: in a session of its own, the keeper lives a moment longer than we to end the others
                child = spawn(place.command, pipes=True, env=place.environment)
        except OSError as error:
            raise MachineError(f"cannot be run: {error.strerror}", where=place.command[0]) from error
        talk = Talk(child)
        undo.callback(talk.close)
        if sys.platform != "linux":
            # there the keeper finds no process of VirtualBox's that has left its parent
            undo.callback(talk.power_off, place.manage)
        gather = undo.enter_context(gathering("", ""))
        patience = platform.patience
        pid = _boot(talk, place, request, disk.name)
        serial = undo.enter_context(_connected(talk, listener, directory, pid, START_SECONDS * patience))

        def facts() -> Mapping[str, Any]:
            found = gather()
            log = _log(directory)
            found["versions"] |= {"emulator": title(log)}
            own = about(log, driverless=place.driverless, ring3=request.ring3, commands=talk.commands)
            return found | {"command": list(place.command), "virtualbox": own}

        site = _OnHost(talk, place, serial, directory, pid)
        return VirtualBox(site, request.cpus, patience, facts, undo.pop_all())


def _boot(talk: Talk, place: _Place, request: LaunchRequest, disk: str) -> int:
    """Make the machine and start it. Return the process's number as the keeper knows it, 0 where VirtualBox starts the
    process itself."""

    def manage(*words: str) -> None:
        talk.manage(place.manage, *words)

    wanted = ENGINES.get(request.engine or ("iem" if place.driverless else ""), "")
    shared = place.shared
    for words in begin(NAME, str(shared / "vms")):
        manage(*words)
    for words in complete(
        NAME,
        cpus=request.cpus,
        memory=request.memory_mib,
        vga=request.vga or VGA,
        port=request.serial_port,
        serial=("client", str(shared / "serial")),
        engine=wanted,
        disk=str(shared / disk),
        ring3=request.ring3,
        extra=request.extra,
    ):
        manage(*words)
    if not place.driverless:
        manage("startvm", NAME, "--type", "headless")
        return 0
    started = ["-I", "-S", str(shared / "headless.py"), str(place.libraries), "--startvm", NAME, "--vrde", "off"]
    asked = {"start": [place.python, *started], "output": str(shared / "headless.txt")}
    return int(talk.ask(asked, COMMAND_SECONDS)["pid"])


def _connected(talk: Talk, listener: socket.socket, directory: Path, pid: int, seconds: float) -> socket.socket:
    """Return the guest's serial port once VirtualBox has connected it. Raises MachineError where the machine does not
    start."""
    until = time.monotonic() + seconds
    listener.settimeout(0.1)
    while True:
        try:
            return listener.accept()[0]
        except TimeoutError:
            pass
        if pid and talk.ask({"ended": pid}, COMMAND_SECONDS)["status"] is not None:
            raise MachineError(f"the machine did not start: {_last_words(directory)}", where="VirtualBox")
        if time.monotonic() > until:
            raise MachineError(f"the machine did not start within {seconds:g} s", where="VirtualBox")


def _log(directory: Path) -> str:
    """Return VirtualBox's log of the machine so far."""
    with contextlib.suppress(OSError):
        return (directory / "vms" / NAME / "Logs" / "VBox.log").read_text(errors="replace")
    return ""


def _last_words(directory: Path) -> str:
    """Return the last thing that VBoxHeadless printed."""
    with contextlib.suppress(OSError):
        lines = (directory / "headless.txt").read_text(errors="replace").splitlines()
        told = [line.strip() for line in lines if line.strip()]
        errors = [line for line in told if "rror" in line]
        return next(iter((*errors, *reversed(told))), "no reason given")
    return "no reason given"


class _OnHost:
    """See ``virtualbox_engine.Site``."""

    supervisor = None

    def __init__(self, talk: Talk, place: _Place, serial: socket.socket, directory: Path, pid: int) -> None:
        self._talk = talk
        self._place = place
        self._serial = serial
        self._directory = directory
        self._pid = pid
        self._broken = False

    def read_serial(self, timeout: float) -> bytes:
        if not self._broken and select.select([self._serial], [], [], timeout)[0]:
            with contextlib.suppress(ConnectionError):
                data = self._serial.recv(_CHUNK)
                if data:
                    return data
            self._broken = True
        reason = self.crashed()
        if reason:
            raise GuestCrash(reason)
        return b""

    def send_serial(self, data: bytes) -> None:
        try:
            self._serial.sendall(data)
        except OSError as error:
            raise GuestCrash(self.crashed() or f"the serial port is closed: {error.strerror}") from error

    def crashed(self) -> str | None:
        death = death_of(_log(self._directory))
        if death:
            return death
        status = self._talk.child.poll()
        if status is not None:
            return f"what runs VirtualBox {self._talk.child.epitaph()}"
        if not self._broken:
            return None
        if self._pid:
            with contextlib.suppress(MachineError):
                ended = self._talk.ask({"ended": self._pid}, COMMAND_SECONDS)["status"]
                if ended is not None:
                    return f"VirtualBox's machine ended with status {ended}: {_last_words(self._directory)}"
        return "VirtualBox has closed the machine's serial port"

    def manage(self, *words: str, seconds: float) -> str:
        return self._talk.manage(self._place.manage, *words, seconds=seconds)

    def core(self, name: str) -> str:
        return str(self._place.shared / name)

    def read_core(self, name: str, begin: int, length: int) -> bytes:
        try:
            with (self._directory / name).open("rb") as file:
                file.seek(begin)
                return file.read(length)
        except OSError as error:
            raise DebuggerError(f"VirtualBox's core cannot be read: {error.strerror}") from error

    def drop_core(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
