"""Users of Windows and macOS build kernels and judge what other machines have left: what only POSIX systems have is
taken away, and the commands for them must work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from recordings import load

from kgen.report.results.model import run_of_case
from kgen.report.results.write import to_json
from kgen.verdict.judge import judge

REPOSITORY = Path(__file__).resolve().parents[2]
#: For a command, in seconds, on a loaded machine.
DEADLINE = 100.0
#: Modules that Windows does not have, and attributes of others.
MODULES = ("crypt", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty")
ATTRIBUTES = {
    "os": (
        *("chroot", "fork", "forkpty", "getpgid", "getuid", "geteuid", "kill", "killpg", "mkfifo", "openpty", "pipe2"),
        *("posix_spawn", "sched_getaffinity", "sched_setaffinity", "setsid", "sysconf", "uname", "wait3", "wait4"),
    ),
    "select": ("poll", "epoll", "kqueue"),
    "signal": ("SIGHUP", "SIGKILL", "SIGCHLD", "SIGALRM", "SIGUSR1", "alarm", "setitimer", "pthread_sigmask"),
    "socket": ("AF_UNIX", "socketpair", "send_fds", "recv_fds"),
    "time": ("tzset",),
}
#: Runs kgen where none of that is there. The interpreter's own start is over by then.
POOR = f"""
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {MODULES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in {MODULES!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
for name, attributes in {ATTRIBUTES!r}.items():
    module = importlib.import_module(name)
    for attribute in attributes:
        if hasattr(module, attribute):
            delattr(module, attribute)
from kgen.cli import main
main()
"""


@dataclass(frozen=True)
class Command:
    """A command line. ``prepare`` puts into the working directory what it needs, ``code`` is its exit code, ``check``
    looks at what it left there and what it printed."""

    line: Sequence[str]
    code: int = 0
    prepare: Callable[[Path], object] = field(default=lambda directory: None)
    check: Callable[[Path, str], object] = field(default=lambda directory, out: None)


def _log(directory: Path) -> None:
    (directory / "serial.txt").write_bytes(load("tcg-atomic").log)
    (directory / "suite.txt").write_bytes(load("kvm-suite").log)
    (directory / "empty.bin").write_bytes(bytes(4096))


def _result(directory: Path) -> None:
    run = load("kvm-lost")
    seen = run.observed()
    (directory / "x.json").write_text(to_json([run_of_case(run.spec, seen, judge(run.spec, seen))]))


def _reported(directory: Path, out: str) -> None:
    assert "\nNOT_ATOMIC: " in out


def _compared(directory: Path, out: str) -> None:
    assert out.endswith("\nx (2): 1 same\n")


def _verdict(kind: str) -> Callable[[Path, str], object]:
    def check(directory: Path, out: str) -> None:
        assert f"\n{kind}: " in out
        assert json.loads((directory / "x.json").read_text())["verdict"]["kind"] == kind

    return check


def _built(directory: Path, out: str) -> None:
    assert {path.name for path in (directory / "out").iterdir()} >= {"kernel.elf", "manifest.json"}


def _kit(directory: Path, out: str) -> None:
    assert {path.name for path in (directory / "out").iterdir()} >= {"kernel.vhdx", "run.cmd", "run.ps1", "README.txt"}


#: What must work there.
PORTABLE = (
    Command(("judge", "serial.txt", "--json", "x.json"), 0, _log, _verdict("ATOMIC")),
    Command(("judge", "suite.txt", "--json", "x.json"), 3, _log, _verdict("NOT_ATOMIC")),
    Command(("judge", "serial.txt", "--memory", "empty.bin"), 9, _log),
    Command(("build", "--instr", "xchg", "-o", "out"), 0, check=_built),
    Command(("kit", "hyperv", "--instr", "xchg", "-o", "out"), 0, check=_kit),
    Command(("report", "x.json"), 0, _result, _reported),
    Command(("compare", "x.json", "x.json"), 0, _result, _compared),
    Command(("list", "instructions")),
    Command(("--help",)),
)


def _run(directory: Path, *words: str, program: str = POOR) -> subprocess.CompletedProcess[str]:
    paths = [str(REPOSITORY), *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize("command", PORTABLE, ids=[" ".join(command.line) for command in PORTABLE])
def test_a_command_works_without_what_only_posix_has(command: Command, tmp_path: Path) -> None:
    command.prepare(tmp_path)
    done = _run(tmp_path, *command.line)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == command.code, done.stderr
    command.check(tmp_path, done.stdout)


def test_a_command_that_needs_posix_says_so(tmp_path: Path) -> None:
    done = _run(tmp_path, "verify", "--instr", "xchg")
    assert done.returncode == 9
    assert re.fullmatch(
        r"kgen: error: kgen verify: it needs the Python module \w+, which is missing; "
        r"commands that start or join a machine need a POSIX system\n",
        done.stderr,
    )


@pytest.mark.parametrize("use", ["import fcntl", "import pty", "import os; os.fork", "import select; select.poll"])
def test_what_is_taken_away_is_gone(use: str, tmp_path: Path) -> None:
    """The test above would fail if a command used it."""
    program = POOR.replace("from kgen.cli import main\nmain()", use)
    done = _run(tmp_path, program=program)
    assert done.returncode == 1
    assert "Error" in done.stderr
