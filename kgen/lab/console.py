"""The host's end of the lab's first serial port: the dialogue with /init in guest.sh."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from kgen.errors import MachineError, MachineStuck
from kgen.host.process import END_SECONDS

#: Lines kept for the message of a stage that failed.
LAST_LINES = 40
SHOWN_LINES = 3
#: How often the lab is asked whether it is ready, in seconds.
ASK_SECONDS = 0.1
#: The distance of the newlines that it is woken with while it boots, in seconds: a port that is not read yet holds few.
NUDGE_SECONDS = 1.0

#: What Linux logs when one of its CPUs did not come to schedule for 20 s (kernel/watchdog.c).
_STUCK = "BUG: soft lockup"

_OURS = "kgen-lab: "
#: A record of /dev/kmsg: priority, sequence number, microseconds, flags; then the message.
_KMSG = re.compile(r"\d+,\d+,\d+,[^;]*;(.*)")
#: /dev/kmsg's lines of further fields begin with a blank.
_KMSG_FIELD = re.compile(r" [A-Z_]+=")


class Console:
    """The conversation with the lab. ``kernel_log`` holds what the inner kernel has logged since we listen.

    ``died`` tells how the outer machine has ended, "" while it lives; it waits at most so many seconds for that. Every
    wait has a deadline; the exceptions say which stage failed and end with the lab's last lines.
    """

    def __init__(self, line: socket.socket, died: Callable[[float], str]) -> None:
        self.kernel_log: list[str] = []
        self.linux = ""
        self.ended: str | None = None
        self.eof = False
        self._line = line
        self._died = died
        self._rest = b""
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._said: list[str] = []
        self._problems: list[str] = []
        self._heard: deque[str] = deque()
        line.setblocking(False)

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._line.fileno()

    def await_ready(self, timeout: float) -> None:
        """Wait until /init takes commands. Raises MachineError; MachineStuck where Linux itself says that it is."""
        stage = "booting the lab's Linux"
        until = time.monotonic() + timeout
        nudged = 0.0
        while not self._take("ready"):
            if time.monotonic() - nudged >= NUDGE_SECONDS:
                # a Linux that has not come so far takes no byte, which is no failure before the deadline
                with contextlib.suppress(OSError):
                    self._line.send(b"\n")
                nudged = time.monotonic()
            self._wait(min(until, time.monotonic() + ASK_SECONDS), until, stage, timeout)
            if any(_STUCK in line for line in self._last):
                raise MachineStuck(f"{stage}: it got stuck{self._tail()}", where="the lab")
        if self._problems:
            raise MachineError(f"{stage}: {'; '.join(self._problems)}{self._tail()}", where="the lab")

    def send_file(self, name: str, data: bytes, timeout: float) -> None:
        """Put a file into /job. Raises MachineError."""
        stage = f"sending {name} to the lab"
        self._await_silence()
        self._send(f"file {name} {len(data)}\n".encode(), stage)
        # The shell reads its line byte by byte: what follows at once is not lost, it waits in the port's buffers.
        self._send(data, stage, timeout)
        self._await(f"took {name}", stage, timeout)

    def run(self, command: str, started: Callable[[], bool], timeout: float) -> None:
        """Start a program; returns when ``started`` says so. Raises MachineError, also when it ends before."""
        stage = "starting QEMU in the lab"
        self._send(f"run {command}\n".encode(), stage)
        until = time.monotonic() + timeout
        while not started():
            if self.ended is not None:
                raise MachineError(f"{stage}: it {self.ended}", where="the lab")
            self._wait(min(until, time.monotonic() + ASK_SECONDS), until, stage, timeout)

    def trace_on(self, low: int, high: int, timeout: float) -> bool:
        """Record accesses to physical addresses from ``low`` to below ``high``; whether the kernel can."""
        return self._trace(f"trace on gpa >= {low:#x} && gpa < {high:#x}", "on", timeout) is not None

    def trace_off(self) -> None:
        """Record no more; returns at once."""
        self._send(b"trace off\n", "tracing")

    def trace_read(self, regex: str, timeout: float) -> tuple[str, ...]:
        """Return the recorded lines that contain ``regex`` (POSIX, extended), () where there are none or the lab does
        not answer in time.
        """
        return self._trace(f"trace read {regex}", "read", timeout) or ()

    def poll(self) -> None:
        """Take what has come, without waiting."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while not self.eof:
                try:
                    data = self._line.recv(65536)
                except ConnectionError:
                    data = b""
                self.eof |= not data
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._note(line.decode(errors="replace").rstrip("\r"))

    def close(self) -> None:
        """Hang up. May be called twice."""
        self._line.close()

    def _note(self, text: str) -> None:
        """Sort one line."""
        if not text.startswith(_OURS):
            record = _KMSG.fullmatch(text)
            if record:
                self.kernel_log.append(record[1])
            if text and not _KMSG_FIELD.match(text):
                self._last.append(record[1] if record else text)
            return
        text = text.removeprefix(_OURS)
        word, _, rest = text.partition(" ")
        if word == "said":
            self._said.append(rest)
        elif word == "ended":
            lines = [line for line in self._said if "warning:" not in line][-SHOWN_LINES:]
            self.ended = f"ended with status {rest}" + (f": {' / '.join(lines)}" if lines else "")
        elif word == "linux":
            self.linux = rest
        elif word == "problem":
            self._problems.append(rest)
        else:
            self._heard.append(text)

    def _take(self, text: str) -> bool:
        """Return whether this answer has come; what came before it is forgotten."""
        while self._heard:
            if self._heard.popleft() == text:
                return True
        return False

    def _await(self, text: str, stage: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while not self._take(text):
            self._wait(until, until, stage, timeout)

    def _await_silence(self) -> None:
        """Answers to questions that were asked more than once must not follow us into the next stage."""
        while select.select([self._line], [], [], ASK_SECONDS)[0] and not self.eof:
            self.poll()
        self._heard.clear()

    def _trace(self, command: str, word: str, timeout: float) -> tuple[str, ...] | None:
        """Return one trace command: its lines, or None where the kernel cannot trace or did not answer."""
        self._heard.clear()
        lines: list[str] = []
        until = time.monotonic() + timeout
        with contextlib.suppress(MachineError):
            self._send(command.encode() + b"\n", "tracing")
            while True:
                self._wait(until, until, "tracing", timeout)
                while self._heard:
                    text = self._heard.popleft()
                    if text == f"traced {word}":
                        return tuple(lines)
                    if text == f"untraced {word}":
                        return None
                    lines.append(text.removeprefix("trace "))
        return None

    def _wait(self, wake: float, until: float, stage: str, timeout: float) -> None:
        """Wait for lines until ``wake``; raises MachineError when the lab is gone or ``until`` is over."""
        self.poll()
        if self._heard or self.ended is not None:
            return
        left = wake - time.monotonic()
        if left > 0 and not self.eof:
            select.select([self._line], [], [], left)
            self.poll()
        reason = self._died(END_SECONDS if self.eof else 0.0)
        if reason or self.eof:
            raise MachineError(f"{stage}: {reason or 'the outer machine hung up'}{self._tail()}", where="the lab")
        if time.monotonic() >= until and not self._heard:
            raise MachineError(f"{stage}: no answer within {timeout:g} s{self._tail()}", where="the lab")

    def _send(self, data: bytes, stage: str, timeout: float = 5.0) -> None:
        """Send everything, listening meanwhile: a lab that cannot get rid of its lines takes none of ours."""
        until = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._line], [], 0.05)
            self.poll()
            try:
                sent = self._line.send(view) if writable else 0
            except BlockingIOError:
                sent = 0
            except OSError as error:
                reason = self._died(END_SECONDS) or "the outer machine hung up"
                raise MachineError(f"{stage}: {reason}{self._tail()}", where="the lab") from error
            view = view[sent:]
            if view and time.monotonic() > until:
                raise MachineError(f"{stage}: it took no byte for {timeout:g} s{self._tail()}", where="the lab")

    def _tail(self) -> str:
        """Return the lab's last lines, for a message."""
        lines: Sequence[str] = list(self._last)[-SHOWN_LINES:]
        return f"; its last lines: {' / '.join(lines)}" if lines else "; it has said nothing"
