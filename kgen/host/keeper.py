"""A process that runs commands for kgen, and ends all that these have started when kgen is gone.

It is for programs that put daemons into sessions of their own, where neither a death signal nor a process group reaches
them: on Linux every orphan among its descendants becomes its child (prctl(2), PR_SET_CHILD_SUBREAPER; or it is the
first process of a namespace). At the end of its input it kills its descendants, removes the directories that are its
arguments, and ends.

Each line of input is a request in JSON, each line of output the answer to one, in order:

    {"run": [WORD...], "seconds": N}      {"status": 0, "text": "..."}    run a command to its end; null: it took longer
    {"start": [WORD...], "output": FILE}  {"pid": 17}                     start one that goes on
    {"ended": 17}                         {"status": null}                how that one has ended, null while it runs

It uses the standard library alone, and runs in any Python from 3.10 on: not in kgen's own where the commands need
another root directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: prctl(2).
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: How many bytes of a command's output are kept.
_KEPT = 1 << 20
#: How long the descendants may take to end, in seconds.
_END_SECONDS = 10.0
_POLL_SECONDS = 0.05


class Keeper:
    """The process's state."""

    def __init__(self) -> None:
        #: How the children have ended, by their numbers.
        self.ended: dict[int, int] = {}
        self._left = b""

    def serve(self) -> None:
        """Carry out requests until the input ends."""
        with contextlib.suppress(EOFError):
            for line in self._lines():
                answer = self._answer(json.loads(line))
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            if "run" in request:
                return self._run(request["run"], float(request["seconds"]))
            if "start" in request:
                with open(request["output"], "wb") as file:
                    return {"pid": _spawn(request["start"], file.fileno())}
            self._reap()
            return {"status": self.ended.get(int(request["ended"]))}
        except OSError as error:
            return {"status": 127, "text": f"{error.filename}: {error.strerror}", "pid": 0}

    def _run(self, words: Sequence[str], seconds: float) -> Mapping[str, Any]:
        """Run a command to its end, at most so many seconds."""
        reader, writer = os.pipe()
        try:
            pid = _spawn(words, writer)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        said = b""
        outputs = [reader]
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                self._reap()
                ready = select.select([*outputs, *self._input()], [], [], _POLL_SECONDS)[0]
                data = os.read(reader, 65536) if reader in ready else b""
                said = (said + data)[-_KEPT:]
                if pid in self.ended and not data:
                    # a daemon that it has started may hold the pipe open
                    return {"status": self.ended.pop(pid), "text": said.decode(errors="replace")}
                if reader in ready and not data:
                    outputs = []
                if 0 in ready and not self._read():
                    raise EOFError
        finally:
            os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return {"status": None, "text": said.decode(errors="replace")}

    def _lines(self) -> Iterator[bytes]:
        while True:
            line, newline, rest = self._left.partition(b"\n")
            if newline:
                self._left = rest
                yield line
            elif not self._read():
                return

    def _input(self) -> tuple[int, ...]:
        """Return the input's descriptor where its end, or more, can be read; with a whole line there is enough."""
        return () if b"\n" in self._left else (0,)

    def _read(self) -> bool:
        data = os.read(0, 65536)
        self._left += data
        return bool(data)

    def _reap(self) -> None:
        """Note how children have ended, orphans too."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self.ended[pid] = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill all descendants, and wait for their ends."""
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until:
            for pid in descendants(os.getpid(), parents()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.01)


def _spawn(words: Sequence[str], output: int) -> int:
    """Start a command without input, in a session of its own. Return its number. Raises OSError."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, nothing, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        return os.posix_spawnp(words[0], list(words), os.environ, file_actions=actions, setsigmask=[], setsid=True)
    finally:
        os.close(nothing)


def parents() -> Mapping[int, int]:
    """Return every process of this system with its parent, as far as /proc has them."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                # the name before the state may contain anything
                found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def descendants(pid: int, born_of: Mapping[int, int]) -> list[int]:
    """Return the numbers of all processes that descend from one."""
    found: list[int] = []
    wanted = [pid]
    while wanted:
        children = [child for child, parent in born_of.items() if parent in wanted]
        found += children
        wanted = children
    return found


def _adopt() -> None:
    """Become the parent of all orphans among the descendants, and outlive kgen for the moment that ending them
    takes."""
    if sys.platform == "linux":
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def main(directories: Sequence[str]) -> None:
    """Serve until the input ends."""
    keeper = Keeper()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _adopt()
    try:
        keeper.serve()
    finally:
        keeper.end()
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
