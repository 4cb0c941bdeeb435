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
from kgen.machine import qemu_words
from kgen.wording import plural

#: Lines kept for the message of a stage that failed.
LAST_LINES = 40
SHOWN_LINES = 3
#: How often the lab is asked whether it is ready, in seconds.
ASK_SECONDS = 0.1
#: The seconds between the newlines that are sent while it boots: a port that is not read yet holds few bytes.
NUDGE_SECONDS = 1.0
#: How long a lab that is not waited for may take to accept a command, in seconds.
OFF_SECONDS = 5.0

#: What Linux logs when one of its CPUs did not schedule for 20 s (kernel/watchdog.c).
_STUCK = "BUG: soft lockup"

#: How many times 64 KiB are read at a time.
_READS = 64
_OURS = "kgen-lab: "
#: A record of /dev/kmsg: priority, sequence number, microseconds, flags; then the message.
_KMSG = re.compile(r"\d+,\d+,\d+,[^;]*;(.*)")
#: Lines of /dev/kmsg with further fields begin with a blank.
_KMSG_FIELD = re.compile(r" [A-Z_]+=")


class Console:
    """The dialogue with the lab. ``kernel_log`` holds what the inner kernel has logged since the start of the dialogue,
    ``log`` the lines that the lab has sent of another log.

    ``died`` waits at most so many seconds for the end of the outer machine and returns how it ended, "" while it runs.
    Every wait has a deadline. The exceptions name the stage that failed and end with the lab's last lines.
    """

    def __init__(self, line: socket.socket, died: Callable[[float], str]) -> None:
        self.kernel_log: list[str] = []
        self.log: list[str] = []
        self.linux = ""
        self.ended: str | None = None
        self.eof = False
        self._line = line
        self._died = died
        self._rest = b""
        #: The deadline that was over when lines were last waited for.
        self._overdue: float | None = None
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._said: list[str] = []
        #: How many commands were carried out.
        self._asked = 0
        self._problems: list[str] = []
        self._heard: deque[str] = deque()
        line.setblocking(False)

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._line.fileno()

    def await_ready(self, timeout: float, *, cold: bool = False) -> None:
        """Wait until /init accepts commands. Raises MachineError, MachineStuck where Linux itself reports that it is
        stuck.

        ``cold`` is whether it boots, and was not restored: then nothing is sent before /init has printed something. A
        byte that waits in a port before its interrupt is set up can keep that interrupt from ever being raised.
        """
        stage = "booting the lab's Linux"
        until = time.monotonic() + timeout
        nudged = 0.0
        while not self._take("ready"):
            if (self.linux or not cold) and time.monotonic() - nudged >= NUDGE_SECONDS:
                # a Linux that has not booted so far takes no byte, which is no failure before the deadline
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
        until = time.monotonic() + timeout
        self._await_silence(until)
        # The shell reads its line byte by byte. Bytes that follow at once are not lost: they wait in the port's
        # buffers.
        self._send(f"file {name} {len(data)}\n".encode() + data, until, stage, timeout)
        self._await(f"took {name}", until, stage, timeout)

    def run(self, command: str, started: Callable[[], bool], timeout: float, what: str = "QEMU") -> None:
        """Start a program and return when ``started`` is true. Raises MachineError, also where the program ends
        before."""
        stage = f"starting {what} in the lab"
        until = time.monotonic() + timeout
        self._send(f"run {command}\n".encode(), until, stage, timeout)
        while not started():
            if self.ended is not None:
                raise MachineError(f"{stage}: it {self.ended}", where="the lab")
            self._wait(min(until, time.monotonic() + ASK_SECONDS), until, stage, timeout)

    def do(self, command: str, timeout: float) -> tuple[int, tuple[str, ...]]:
        """Carry out a command and return its exit status and what it prints. Raises MachineError."""
        self._asked += 1
        mark = str(self._asked)
        stage = f"carrying out '{command}' in the lab"
        until = time.monotonic() + timeout
        lines: list[str] = []
        self._send(f"do {mark} {command}\n".encode(), until, stage, timeout)
        while True:
            self._wait(until, until, stage, timeout)
            while self._heard:
                word, number, rest = (*self._heard.popleft().split(" ", 2), "", "")[:3]
                # answers to earlier commands, which were not waited for, have other numbers
                if word == "out" and number == mark:
                    lines.append(rest)
                elif word == "done" and number == mark and rest.isdigit():
                    return int(rest), tuple(lines)

    def tell(self, command: str) -> None:
        """Have a command carried out, and do not wait for its end. Raises MachineError."""
        self._send(f"do 0 {command}\n".encode(), time.monotonic() + OFF_SECONDS, "telling the lab", OFF_SECONDS)

    def trace_on(self, low: int, high: int, timeout: float) -> bool:
        """Record accesses to physical addresses from ``low`` to below ``high``. Return whether the kernel can."""
        return self._trace(f"trace on gpa >= {low:#x} && gpa < {high:#x}", "on", timeout) is not None

    def trace_off(self) -> None:
        """Stop the recording. Do not wait for the lab."""
        self._send(b"trace off\n", time.monotonic() + OFF_SECONDS, "tracing", OFF_SECONDS)

    def trace_read(self, regex: str, timeout: float) -> tuple[str, ...]:
        """Return the recorded lines that contain ``regex`` (POSIX, extended), () where there are none or the lab does
        not answer in time.
        """
        return self._trace(f"trace read {regex}", "read", timeout) or ()

    def poll(self) -> None:
        """Read what has arrived, without waiting; not more than what a line holds, because a lab may send faster than
        that."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            for _ in range(_READS):
                if self.eof:
                    break
                try:
                    data = self._line.recv(65536)
                except ConnectionError:
                    data = b""
                self.eof |= not data
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._note(line.decode(errors="replace").rstrip("\r"))

    def close(self) -> None:
        """Disconnect. May be called twice."""
        self._line.close()

    def _note(self, text: str) -> None:
        """Store one line by its kind."""
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
            lines = qemu_words.causes(self._said)[-SHOWN_LINES:]
            self.ended = f"ended with status {rest}" + (f": {' / '.join(lines)}" if lines else "")
        elif word == "log":
            self.log.append(rest)
        elif word == "linux":
            self.linux = rest
        elif word == "problem":
            self._problems.append(rest)
        else:
            self._heard.append(text)

    def _take(self, text: str) -> bool:
        """Return whether this answer has arrived. Drop the answers before it."""
        while self._heard:
            if self._heard.popleft() == text:
                return True
        return False

    def _await(self, text: str, until: float, stage: str, timeout: float) -> None:
        while not self._take(text):
            self._wait(until, until, stage, timeout)

    def _await_silence(self, until: float) -> None:
        """Read until the lab is silent, at most until then, and drop its answers: those to repeated questions must not
        reach the next stage."""
        while time.monotonic() < until and select.select([self._line], [], [], ASK_SECONDS)[0] and not self.eof:
            self.poll()
        self._heard.clear()

    def _trace(self, command: str, word: str, timeout: float) -> tuple[str, ...] | None:
        """Run one trace command and return its lines, None where the kernel cannot trace or did not answer."""
        self._heard.clear()
        lines: list[str] = []
        until = time.monotonic() + timeout
        with contextlib.suppress(MachineError):
            self._send(command.encode() + b"\n", until, "tracing", timeout)
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
        """Wait for lines until ``wake``. Raises MachineError when the lab has ended or ``until`` is over.

        What has arrived is read once even after the deadline, because this process may have been delayed. Lines that
        the caller does not wait for do not put the deadline off any further.
        """
        late = time.monotonic() >= until
        last, self._overdue = late and self._overdue == until, until if late else None
        self.poll()
        if not last and (self._heard or self.ended is not None):
            return
        left = wake - time.monotonic()
        if left > 0 and not self.eof:
            select.select([self._line], [], [], left)
            self.poll()
        reason = self._died(END_SECONDS if self.eof else 0.0)
        if reason or self.eof:
            raise MachineError(f"{stage}: {reason or 'the outer machine hung up'}{self._tail()}", where="the lab")
        if last or (time.monotonic() >= until and not self._heard):
            raise MachineError(f"{stage}: no answer within {timeout:g} s{self._tail()}", where="the lab")

    def _send(self, data: bytes, until: float, stage: str, timeout: float) -> None:
        """Send all bytes and read meanwhile: a lab whose output is blocked reads no input.

        The stage has one deadline, ``until``, for what it sends and for the answer: a port that is not read yet is full
        of the newlines of the boot, and takes nothing before they are read. Raises MachineError.
        """
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
                took = f"it took {len(data) - len(view)} of {plural(len(data), 'byte')} within {timeout:g} s"
                raise MachineError(f"{stage}: {took}{self._tail()}", where="the lab")

    def _tail(self) -> str:
        """Return the lab's last lines, for a message."""
        lines: Sequence[str] = list(self._last)[-SHOWN_LINES:]
        return f"; its last lines: {' / '.join(lines)}" if lines else "; it has printed nothing"
