"""Children that cannot outlive us: own session, killed by the kernel when we die, waited for by pid."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: How much of a child's error output is kept, in bytes: its beginning, where the cause is, and its end.
HEAD_BYTES = 8192
TAIL_BYTES = 8192
#: A short-lived program that prints more than this, in bytes, is not the one we took it for.
ANSWER_BYTES = 1 << 20

#: prctl(2), option PR_SET_PDEATHSIG of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


class Child:
    """A running child process. Made by ``spawn``; ``stop`` ends it and may be called any number of times."""

    def __init__(self, command: tuple[str, ...], process: subprocess.Popen[bytes], stderr: int) -> None:
        self.command = command
        self.pid = process.pid
        self._process = process
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
        """Take what the child has written to its error output, without waiting."""
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
        """The error output kept so far, in whole lines without blanks."""
        self.drain_stderr()
        text = self._head + (b"\n" if self._dropped else b"") + self._tail
        return tuple(line.strip() for line in text.decode(errors="replace").splitlines() if line.strip())

    def poll(self) -> int | None:
        """The exit status if the child has ended (negative: the signal that killed it), else None."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds for the end; the exit status, or None if it still runs."""
        if self._process.poll() is None and hasattr(os, "pidfd_open"):
            watch = os.pidfd_open(self.pid)
            try:
                select.select([watch], [], [], max(timeout, 0))
            finally:
                os.close(watch)
            return self._process.poll()
        try:
            return self._process.wait(max(timeout, 0))
        except subprocess.TimeoutExpired:
            return None

    def epitaph(self) -> str:
        """How the child ended, in words without a subject: "exited with status 1", "was killed by SIGKILL"."""
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
        """End the child: ask it, SIGTERM, SIGKILL, each given ``grace`` seconds. Returns its exit status.

        SIGKILL cannot be refused, so after it we wait until the kernel has taken the child down.
        """
        for step in (ask, self._process.terminate):
            if step is not None and self.poll() is None:
                step()
                self.wait(grace)
        return self.kill()

    def kill(self) -> int:
        """End the child at once, without a chance to tidy up. Returns its exit status; may be called twice."""
        if self.poll() is None:
            self._process.kill()
        status = self._process.wait()
        self._close_pipes()
        return status

    def _close_pipes(self) -> None:
        """Close our ends, keeping what the child said last."""
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
) -> Child:
    """Start a child in a session of its own (Ctrl-C reaches us only), to be killed when the calling thread dies.

    ``pipes`` gives it unbuffered pipes for input and output; otherwise both are the null device. ``env`` is added to
    our environment. The death signal follows the *thread* that calls (prctl(2)), so call from one that lasts.
    Raises OSError when the program cannot be run.
    """
    reader, writer = os.pipe()
    # Nobody may be reading at the moment: a child that writes much loses the excess instead of blocking.
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    stream = subprocess.PIPE if pipes else subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            list(command),
            stdin=stream,
            stdout=stream,
            stderr=writer,
            bufsize=0,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - takes no lock, imports nothing
            env={**os.environ, **env} if env else None,
            cwd=cwd,
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return Child(tuple(command), process, reader)


class Answer:
    """What a short-lived program prints. It runs while we do something else; ``text`` or ``close`` ends it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it; a program that cannot be run gives no answer."""
        self._child: Child | None = None
        with contextlib.suppress(OSError):
            self._child = spawn(command, pipes=True)
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()  # there is nothing to read for it

    def text(self, timeout: float) -> str:
        """All it printed, "" when it could not be run, takes more than ``timeout`` seconds, or talks without end."""
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
        """End it, whatever it does. May be called twice."""
        if self._child is not None:
            self._child.kill()


@dataclass(frozen=True)
class Finished:
    """A program that has ended: its exit status (None: it was ended after its time) and all it printed."""

    status: int | None
    text: str


def finish(
    command: Sequence[str], timeout: float, *, cwd: Path | None = None, meanwhile: Callable[[], None] | None = None
) -> Finished:
    """Run a program to its end, at most ``timeout`` seconds, with messages in English. ``meanwhile`` is called a few
    times a second. A program that cannot be run has the status 127, as in a shell."""
    try:
        child = spawn(command, pipes=True, env={"LC_ALL": "C.UTF-8", "LANGUAGE": ""}, cwd=cwd)
    except OSError as error:
        return Finished(127, f"{command[0]}: {error.strerror}")
    said = b""
    until = time.monotonic() + timeout
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()  # there is nothing to read for it
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


def output(command: Sequence[str], timeout: float) -> str:
    """What a short-lived program prints, "" when it cannot be run or takes more than ``timeout`` seconds."""
    return Answer(command).text(timeout)


def _die_with_parent() -> Callable[[], None] | None:
    """What the child runs between fork and exec so that the kernel kills it with us; None where there is no such call.

    The library is loaded here, in the parent: after a fork only what is already there is safe to use.
    """
    if sys.platform != "linux":
        return None
    import ctypes  # not needed to build and judge

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call; the signal will never come
            os._exit(1)

    return arm
