"""Runs of the kgen command as its users start it, and a look at what they leave behind."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Found in the environment of everything that a run starts.
MARK = "KGEN_TEST_RUN"
#: For a run to end, in seconds, on a loaded machine.
DEADLINE = 120.0
#: Variables that would change what kgen prints.
UNWANTED = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "KGEN_TRACEBACK", "COLUMNS")


def environment(**changes: str) -> dict[str, str]:
    """Ours, so that the child finds kgen as we do, without what would change what it prints."""
    ours = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    return ours | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUNBUFFERED": "1"} | changes


@dataclass
class Run:
    """A kgen that runs in a directory for its temporary files. End it with ``wait``; ``stop`` is for the clumsy."""

    arguments: Sequence[str]
    temporary: Path
    changes: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = (sys.executable, "-m", "kgen")
    terminal: int | None = None

    def __post_init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.temporary.mkdir(parents=True, exist_ok=True)
        outputs = subprocess.PIPE if self.terminal is None else self.terminal
        self.process = subprocess.Popen(
            [*self.program, *self.arguments],
            stdin=subprocess.DEVNULL if self.terminal is None else self.terminal,
            stdout=outputs,
            stderr=outputs,
            text=True,
            env=environment(**{MARK: self.mark, "TMPDIR": str(self.temporary), **self.changes}),
            start_new_session=True,
        )
        self.stdout = self.stderr = ""

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def read_until(self, text: str) -> str:
        """What it has printed up to the line that holds this."""
        assert self.process.stdout is not None
        said = ""
        while text not in said:
            line = self.process.stdout.readline()
            assert line, said
            said += line
        return said

    def wait(self, seconds: float = DEADLINE) -> int:
        """Its exit code, after at most that time."""
        out, err = self.process.communicate(timeout=seconds)
        self.stdout, self.stderr = out or "", err or ""
        return self.process.returncode

    def started(self, name: str) -> int | None:
        """The process id of the machine or debugger it has started, by the beginning of its name; None when there is
        none. A program that is only asked for its version or firmware is neither."""
        return next((pid for pid in marked(self.mark, name) if _works(pid)), None)

    def await_start(self, name: str, seconds: float = 30.0) -> int:
        """The process id of a program it starts, as soon as it is there."""
        until = time.monotonic() + seconds
        while (pid := self.started(name)) is None:
            assert time.monotonic() < until, f"no {name} was started"
            assert self.process.poll() is None, f"ended before it started a {name}"
            time.sleep(0.01)
        return pid

    def await_work(self, name: str, seconds: float = 0.3) -> int:
        """The process id of a program it starts, once that has computed for so long: a machine has booted by then, and
        works on its case."""
        pid = self.await_start(name)
        until = time.monotonic() + DEADLINE
        while computed(pid) < seconds:
            assert time.monotonic() < until, f"{name} does not work"
            assert self.process.poll() is None, f"ended while the {name} began"
            time.sleep(0.02)
        return pid

    def assert_nothing_left(self, *, files: bool = True) -> None:
        """No process of this run lives, and no temporary file of it is there."""
        until = time.monotonic() + 5
        # SIGKILL of kgen reaches its children by way of the kernel, which takes a moment.
        while (left := marked(self.mark)) and time.monotonic() < until:
            time.sleep(0.01)
        assert not left, f"processes outlived {self.arguments}: {left}"
        if files:
            assert not list(self.temporary.iterdir())


def in_gdb(join: str, *asked: str) -> subprocess.CompletedProcess[str]:
    """A person's gdb, joined by the line that --keep printed; it asks this and leaves the machine as it is."""
    commands = [word for each in (*asked, "disconnect") for word in ("-ex", each)]
    return subprocess.run(
        [*shlex.split(join), "-batch", "-nx", *commands],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def computed(pid: int) -> float:
    """Processor time of a process that is there, in seconds."""
    # proc(5): utime and stime are fields 14 and 15; the name, which is the second, may hold spaces.
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def marked(mark: str, name: str = "") -> dict[int, str]:
    """Living processes whose environment holds the mark: their names, which begin with ``name``, by process id."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # the name first: most processes have another one, and their environments are long
            called = (entry / "comm").read_text().strip()
            if not called.startswith(name) or wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it ended while we were looking, or is not ours to look at
            continue
        if state != "Z":
            found[int(entry.name)] = called
    return found


def _works(pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word in arguments for word in (b"-kernel", b"--interpreter=mi3", b"bochsrc"))


def kgen(temporary: Path, *arguments: str, seconds: float = DEADLINE, **changes: str) -> Run:
    """Run kgen to its end; it must have left nothing."""
    with Run(arguments, temporary, changes) as run:
        run.wait(seconds)
        run.assert_nothing_left()
    return run


def assert_one_line(run: Run, code: int, *parts: str) -> None:
    """It failed with that code and one clear line that has these parts, and said nothing else."""
    assert (run.process.returncode, run.stdout) == (code, ""), run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("kgen: error: "), lines[0]
    for part in parts:
        assert part in lines[0], lines[0]
