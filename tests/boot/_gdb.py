"""Real gdb on a terminal of its own, as a person sits before it, and a stub that can less than QEMU's."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from running import environment

PROMPT = "(gdb) "
#: What a terminal is told that is no text.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\x07")
#: No command may ever show one.
_TRACEBACK = "Traceback (most recent call last)"


class Terminal:
    """A program on a pseudo terminal. A context manager that ends it."""

    def __init__(self, command: Sequence[str], cwd: Path, changes: Mapping[str, str] | None = None) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self.process = subprocess.Popen(
            list(command),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=environment(TERM="dumb", **(changes or {})),
            start_new_session=True,
            preexec_fn=lambda: _own_terminal(theirs),  # noqa: PLW1509 - one system call
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def read_until(self, text: str, seconds: float = 60.0) -> str:
        """What is printed up to this text, which must come."""
        said = self.listen(text, seconds)
        assert text in said, f"no {text!r} in {said!r}"
        return said

    def listen(self, text: str, seconds: float) -> str:
        """What is printed up to this text, within these seconds, before the program's end."""
        said = ""
        until = time.monotonic() + seconds
        while text not in said and select.select([self._ours], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                data = b""
            if not data:
                break
            said += _CONTROL.sub("", data.decode(errors="replace"))
        assert _TRACEBACK not in said, said
        return said

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def ask(self, command: str, seconds: float = 60.0) -> str:
        """What gdb answers to a command, up to the next prompt."""
        self.type(f"{command}\n")
        said = self.read_until(PROMPT, seconds)
        # the terminal echoes what was typed
        return said.partition("\n")[2].removesuffix(PROMPT)

    def interrupt(self) -> str:
        """Press Ctrl-C until gdb shows its prompt; what it says then. gdb loses a Ctrl-C that comes while it decides
        whether a breakpoint's condition holds, and a person presses it again."""
        for _ in range(10):
            self.type("\x03")
            if PROMPT in (said := self.listen(PROMPT, 3.0)):
                return said
        raise AssertionError("no prompt after ten times Ctrl-C")

    def leave(self) -> int:
        """Quit; the exit code."""
        self.type("quit\n")
        until = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < until:
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    os.read(self._ours, 65536)
                except OSError:
                    break
        return self.process.wait(10)


def _own_terminal(handle: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(handle, termios.TIOCSCTTY, 0)


class PoorStub:
    """Stands between gdb and QEMU's stub and answers some packets as a stub does that does not know them: it moves all
    CPUs or none, shows one, and has no monitor. At a packet of ``last`` it hangs up. All else is QEMU's."""

    UNKNOWN = ("vCont", "qRcmd", "qfThreadInfo", "qsThreadInfo", "qThreadExtraInfo", "qXfer:threads", "Hc")

    def __init__(self, behind: str, path: Path, unknown: Sequence[str] = UNKNOWN, last: Sequence[str] = ()) -> None:
        self.address = str(path)
        self._last = tuple(word.encode() for word in last)
        self._unknown = tuple(word.encode() for word in unknown)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._behind = behind
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> PoorStub:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        try:
            person, _ = self._listener.accept()
        except OSError:
            return
        stub = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stub.connect(self._behind)
        held = b""
        with person, stub:
            while True:
                for end in select.select([person, stub], [], [])[0]:
                    try:
                        data = end.recv(65536)
                    except OSError:
                        data = b""
                    if not data:
                        return
                    if end is stub:
                        # a stub that knows no vCont does not say so when asked what it can
                        person.sendall(data)
                        continue
                    try:
                        held = self._forward(held + data, person, stub)
                    except EOFError:
                        return

    def _forward(self, data: bytes, person: socket.socket, stub: socket.socket) -> bytes:
        """Pass on whole packets, or answer them; what is left of the data. Raises EOFError to hang up."""
        while data:
            start = data.find(b"$")
            if start != 0:
                end = len(data) if start < 0 else start
                stub.sendall(data[:end])
                data = data[end:]
                continue
            end = data.find(b"#")
            if end < 0 or end + 3 > len(data):
                return data
            packet, data = data[: end + 3], data[end + 3 :]
            if packet[1:].startswith(self._last):
                raise EOFError
            if packet[1:].startswith(self._unknown):
                person.sendall(b"+$#00")
                # gdb acknowledges that answer, which QEMU must not see
                while not data:
                    data = person.recv(65536)
                data = data.removeprefix(b"+")
            else:
                stub.sendall(packet)
        return b""
