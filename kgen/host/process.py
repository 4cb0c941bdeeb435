"""Child processes that cannot outlive kgen: each has its own session, is killed when kgen dies, and waited for by pid.

A child is the leader of its process group; a wrapper script and the program it runs are one group. The leader's end is
the end of its group. Signals go to that group, and only while its leader has not been reaped: its number is ours then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kgen.errors import MachineError, SpecError
from kgen.host.sandbox import die_with_parent, no_sockets
from kgen.host.signals import signals_held

#: How many bytes of a child's error output are kept: of its beginning, where the cause is, and of its end.
HEAD_BYTES = 8192
TAIL_BYTES = 8192
#: A short-lived program that prints more than this, in bytes, is not the expected one.
ANSWER_BYTES = 1 << 20

#: How long a process may take to end after one of its channels has broken, in seconds. One that dies closes its sockets
#: and pipes first; it cannot be reaped before its last thread has ended, which takes a virtual machine a moment.
END_SECONDS = 2.0
#: How long the members of a killed group may take to end, in seconds.
_GONE_SECONDS = 1.0
#: Waits for the end of its input, which is the death of kgen, then kills a group. ps(1) shows it by its own name.
_WATCHDOG = ("/bin/sh", "-c", 'read word; kill -9 "-$1"', "kgen-watchdog")


class Child:
    """A running child process. Made by ``spawn``; ``stop`` ends it and may be called any number of times."""

    def __init__(self, command: tuple[str, ...], process: subprocess.Popen[bytes], stderr: int) -> None:
        self.command = command
        self.pid = process.pid
        self._process = process
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._stderr = stderr
        self._head = b""
        self._tail = b""
        self._dropped = False

    @property
    def stdin(self) -> IO[bytes] | None:
        """The write end of the child's standard input, if it was asked for."""
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """The read end of the child's standard output, if it was asked for."""
        return self._process.stdout

    @property
    def stderr_fd(self) -> int:
        """The descriptor to watch for error output, -1 once it has ended."""
        return self._stderr

    def drain_stderr(self) -> None:
        """Read what the child has written to its error output, without waiting."""
        while self._stderr >= 0:
            try:
                data = os.read(self._stderr, 65536)
            except BlockingIOError:
                return
            if not data:
                os.close(self._stderr)
                self._stderr = -1
                return
            room = HEAD_BYTES - len(self._head)
            self._head += data[:room]
            tail = self._tail + data[room:]
            self._dropped |= len(tail) > TAIL_BYTES
            self._tail = tail[-TAIL_BYTES:]

    def stderr_lines(self) -> tuple[str, ...]:
        """Return the error output kept so far, in whole lines without blanks."""
        self.drain_stderr()
        # gdb 16 ends a message with a zero byte
        text = (self._head + (b"\n" if self._dropped else b"") + self._tail).replace(b"\0", b"")
        return tuple(line.strip() for line in text.decode(errors="replace").splitlines() if line.strip())

    def guard(self) -> None:
        """Start a watchdog that outlives kgen for a moment to kill the child's group. Raises OSError."""
        # A session of its own: signals to our group are not for it.
        self._watchdog = subprocess.Popen(
            [*_WATCHDOG, str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Return the exit status if the child has ended (negative: the signal that killed it), otherwise None.

        The remaining processes of its group are killed then.
        """
        if self._process.returncode is None and self._has_ended():
            self._end_group()
        return self._process.returncode

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds for the end. Returns the exit status, or None if it still runs."""
        until = time.monotonic() + timeout
        while self.poll() is None and (left := until - time.monotonic()) > 0:
            if hasattr(os, "pidfd_open"):
                watch = os.pidfd_open(self.pid)
                try:
                    select.select([watch], [], [], left)
                finally:
                    os.close(watch)
            else:
                time.sleep(min(left, 0.01))
        return self.poll()

    def epitaph(self) -> str:
        """Return how the child ended, in words without a subject: "exited with status 1", "was killed by SIGKILL"."""
        status = self.poll()
        if status is None:
            return "is still running"
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"

    def stop(self, ask: Callable[[], None] | None = None, grace: float = 1.0) -> int:
        """End the child and its group: a request, SIGTERM, SIGKILL, with ``grace`` seconds after each. Returns its
        status.

        SIGKILL cannot be refused: after it, wait until the kernel has ended the child.
        """
        for step in (ask, lambda: self._signal(signal.SIGTERM)):
            if step is not None and self.poll() is None:
                step()
                self.wait(grace)
        return self.kill()

    def interrupt(self) -> None:
        """Send SIGINT to the child, as Ctrl-C on its terminal would."""
        if self.poll() is None:
            self._signal(signal.SIGINT)

    def kill(self) -> int:
        """Kill the child and its group at once. Returns its exit status. May be called twice."""
        if self.poll() is None:
            self._end_group()
        self._close_pipes()
        return self._process.returncode

    def _has_ended(self) -> bool:
        """Return whether the child is dead. It is not reaped where the system can report that without it."""
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the child's group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # no process of the group is left
            os.killpg(self.pid, number)

    def _end_group(self) -> None:
        """Kill the group, reap the child, and wait until the other processes have ended: their own parents reap
        them."""
        self._signal(signal.SIGKILL)
        if self._watchdog is not None:
            _end_watchdog(self._watchdog)
        self._process.wait()
        until = time.monotonic() + _GONE_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < until:
                os.killpg(self.pid, 0)
                time.sleep(0.005)

    def _close_pipes(self) -> None:
        """Close our ends of the pipes, and keep the child's last output."""
        self.drain_stderr()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1
        for pipe in (self.stdin, self.stdout):
            if pipe is not None and not pipe.closed:
                # Unbuffered pipes hold nothing back, so closing one whose reader is gone is harmless.
                pipe.close()


def spawn(
    command: Sequence[str],
    *,
    pipes: bool = False,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    guarded: bool = False,
    offline: bool = False,
) -> Child:
    """Start a child in a session of its own (Ctrl-C reaches us only), to be killed when the calling thread dies.

    ``pipes`` gives it unbuffered pipes for input and output; otherwise both are the null device. ``env`` is added to
    our environment. The death signal follows the *thread* that calls (prctl(2)), so call from one that lasts. The
    signal reaches the child only: where the child is ``guarded``, a watchdog kills what a wrapper script may have
    started. In an ``offline`` child, a thread that opens an IPv4 or IPv6 socket ends instead; Linux only. Raises
    OSError when the program cannot be run, or not in this way.
    """
    deaf = no_sockets() if offline else None
    reader, writer = os.pipe()
    # There may be no reader at the moment: a child that writes much loses the excess instead of blocking.
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    stream = subprocess.PIPE if pipes else subprocess.DEVNULL
    child: Child | None = None
    try:
        with signals_held():
            try:
                process = subprocess.Popen(
                    list(command),
                    stdin=stream,
                    stdout=stream,
                    stderr=writer,
                    bufsize=0,
                    pass_fds=tuple(pass_fds),
                    start_new_session=True,
                    preexec_fn=die_with_parent(deaf),  # noqa: PLW1509 - takes no lock, imports nothing
                    env={**os.environ, **env} if env else None,
                    cwd=cwd,
                )
            except subprocess.SubprocessError as error:
                raise OSError(errno.EPERM, "this system has no filter to keep it off the network") from error
            finally:
                os.close(writer)
            child = Child(tuple(command), process, reader)
        if guarded:
            child.guard()
    except BaseException:
        if child is None:
            os.close(reader)
        else:
            child.kill()
        raise
    return child


def _end_watchdog(watchdog: subprocess.Popen[bytes]) -> None:
    """End the watchdog. Closing its input would make it kill the group."""
    watchdog.kill()
    watchdog.wait()
    if watchdog.stdin is not None:
        watchdog.stdin.close()


class Answer:
    """What a short-lived program prints. It runs while we do something else; ``text`` or ``close`` ends it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the program; one that cannot be run prints nothing."""
        self._child: Child | None = None
        with contextlib.suppress(OSError):
            self._child = spawn(command, pipes=True)
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()  # it gets no input

    def text(self, timeout: float) -> str:
        """Return its whole output, "" when it could not be run, takes more than ``timeout`` seconds, or prints too
        much."""
        if self._child is None or self._child.stdout is None or self._child.stdout.closed:
            return ""
        until = time.monotonic() + timeout
        said = b""
        stdout = self._child.stdout.fileno()
        try:
            while len(said) <= ANSWER_BYTES:
                ready, _, _ = select.select([stdout], [], [], max(0.0, until - time.monotonic()))
                data = os.read(stdout, 65536) if ready else None
                if not data:
                    return said.decode(errors="replace") if data == b"" else ""
                said += data
            return ""
        finally:
            self.close()

    def close(self) -> None:
        """End the program, whatever it does. May be called twice."""
        if self._child is not None:
            self._child.kill()


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    #: Its exit status, None where it was ended because its time was over.
    status: int | None
    #: All that it printed.
    text: str


def finish(
    command: Sequence[str],
    timeout: float,
    *,
    cwd: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
    guarded: bool = False,
) -> Finished:
    """Run a program to its end, at most ``timeout`` seconds, with messages in English. ``meanwhile`` is called a few
    times a second; ``guarded`` is for one that starts others (see ``spawn``). For a program that cannot be run the
    status is 127, as in a shell."""
    try:
        child = spawn(command, pipes=True, env={"LC_ALL": "C.UTF-8", "LANGUAGE": ""}, cwd=cwd, guarded=guarded)
    except OSError as error:
        return Finished(127, f"{command[0]}: {error.strerror}")
    said = b""
    until = time.monotonic() + timeout
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()  # it gets no input
        open_ends = [child.stdout.fileno()]
        while open_ends and time.monotonic() < until:
            ready, _, _ = select.select(open_ends, [], [], 0.2)
            child.drain_stderr()
            if ready:
                data = os.read(open_ends[0], 65536)
                said = (said + data)[-ANSWER_BYTES:]
                open_ends = open_ends if data else []
            if meanwhile:
                meanwhile()
        status = child.wait(max(0.0, until - time.monotonic()))
    finally:
        child.kill()
    return Finished(status, said.decode(errors="replace") + "\n".join(child.stderr_lines()))


def foreground(command: Sequence[str], meanwhile: Callable[[], None]) -> int:
    """Run a program on our terminal and wait for its end. Return its exit status, negative for the signal that killed
    it. ``meanwhile`` is called again and again, and takes some hundredths of a second each time.

    It shares our process group, so it may read from the terminal, and a shell stops and continues both together.
    Meanwhile Ctrl-C is left to the program. It is killed when we die, and the terminal is left as it was found. Raises
    OSError when it cannot be run.
    """
    restore = _terminal()
    ours = signal.getsignal(signal.SIGINT)
    process = subprocess.Popen(list(command), preexec_fn=die_with_parent())  # noqa: PLW1509 - see spawn
    try:
        # not ignored from the start: the child would inherit that
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while process.poll() is None:
            meanwhile()
        return process.wait()
    finally:
        process.kill()
        process.wait()
        signal.signal(signal.SIGINT, ours)
        restore()


def _terminal() -> Callable[[], None]:
    """Return a function that restores our terminal's settings; it does nothing where there is no terminal."""
    import termios

    try:
        handle = sys.stdin.fileno()
        before = termios.tcgetattr(handle)
    except (termios.error, OSError, ValueError):
        return lambda: None

    def restore() -> None:
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(handle, termios.TCSADRAIN, before)

    return restore


def output(command: Sequence[str], timeout: float) -> str:
    """Return what a short-lived program prints, "" when it cannot be run or takes more than ``timeout`` seconds."""
    return Answer(command).text(timeout)


@contextlib.contextmanager
def pinned(cpus: frozenset[int]) -> Iterator[None]:
    """Restrict what is started inside to these host CPUs: a child inherits its parent's affinity."""
    if not cpus:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise MachineError("this system cannot pin processes to CPUs", hint="leave --pin out")
    before = os.sched_getaffinity(0)
    missing = set(cpus)
    with contextlib.suppress(OSError, OverflowError):
        os.sched_setaffinity(0, cpus)
        # those that do not exist are left out without a word
        missing -= os.sched_getaffinity(0)
    try:
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise SpecError(f"this host has no CPU {numbers} to pin to", where="--pin", hint="see 'nproc' and 'lscpu'")
        yield
    finally:
        os.sched_setaffinity(0, before)
