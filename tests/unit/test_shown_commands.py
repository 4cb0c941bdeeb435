"""Every command in README and docs is run by a test, or stands in ``NOT_RUN`` with the reason.

Those of kgen that start no machine are run here, in a directory that holds the files they name. ``BY_HAND`` are run
by tests/boot/test_by_hand.py, on real machines. That every command of kgen parses is tested in test_readme.py.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import subprocess
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from recordings import load
from shown import GDB_PROMPT, REPOSITORY, shown, words
from test_judge_memory import machine

from kgen.build import build, write
from kgen.cli import main
from kgen.report.results.store import write_result
from kgen.run.verify import judged
from kgen.verdict.model import VerdictKind

#: What the commands exit with here, by their first words: the log and the dumps are of a recorded run on KVM, and so
#: are the results, except for those that show QEMU's translator or are a baseline.
RUN: Mapping[str, int] = {
    "kgen build": 0,
    "kgen kit": 0,
    "kgen list": 0,
    "kgen report": 0,
    "kgen compare": 0,
    "kgen compare --baseline": 1,
    "kgen judge": VerdictKind.NOT_ATOMIC.value,
    "kgen judge --exit-codes bisect": 1,
    "kgen gdb --script": 0,
    "sed": 0,
}
#: Beginnings of commands that tests/boot/test_by_hand.py runs.
BY_HAND = ("qemu-system-", "gdb -q", "kgen inspect kernel.elf 127.0.0.1:1234 --qmp", GDB_PROMPT)
#: Beginnings of commands that no test runs as they stand there, and why.
NOT_RUN: Mapping[str, str] = {
    "kgen verify": "boots a machine for seconds or minutes: tests/boot/test_cli_verify.py, tests/boot/test_suite.py",
    "kgen gdb --instr": "boots a machine and takes the terminal: tests/boot/test_gdb_commands.py",
    "kgen inspect kernel.elf 127.0.0.1:1234": "needs a machine at that port: tests/boot/test_inspect.py",
    "kgen watch": "needs a machine that runs for minutes: tests/boot/test_watch.py",
    "kgen interleave": "steps a machine through hundreds of schedules: tests/boot/test_interleave.py",
    "kgen doctor": "boots a canary on every platform: tests/boot/test_doctor.py",
    "kgen lab": "changes the user's cache, downloads packages: tests/boot/test_lab.py, tests/unit/test_lab_cache.py",
    "kgen freeze-proof": "exists in gdb alone: tests/boot/test_gdb_commands.py",
    "gdb -x gdb_scripts/kgen.py": "takes the terminal: tests/boot/test_gdb_commands.py",
    "gdb -iex": "takes the terminal: tests/boot/test_gdb_commands.py",
    "make": "installs packages, or runs every test: .ci/run calls make verify and make check",
    "pip install": "asks a package registry: tests/unit/test_wheel.py builds what it installs",
    "pytest --pyargs": "boots machines: tests/boot/test_api_docs.py runs these lines",
    "pytest test_hypervisor.py": "boots machines: tests/boot/test_api_docs.py runs this line",
    "pytest --lg-env": "needs labgrid: tests/soak/soak_ci_examples.py",
    "cd": "moves to where the next lines are run",
    "lsblk": "shows disks of this host, for the next line",
    "sudo dd": "overwrites a disk",
    "screen": "needs a second computer and its serial port",
}


def _matches(command: str, beginning: str) -> bool:
    """Tell whether a command has these words: the first two at its beginning, any option somewhere."""
    return command == beginning or command.startswith(f"{beginning} ")


def _exit_code(command: str) -> int | None:
    """Return what the command must exit with when it is run here, None where it is not run here."""
    codes = [
        code
        for start, code in RUN.items()
        if _matches(command, start.partition(" --")[0])
        and all(f" {option}" in f"{command} " for option in re.findall(r"--.*", start))
    ]
    if command.startswith("kgen gdb") and "--script" not in command:
        return None
    return codes[-1] if codes else None


#: Many of them are about the same kernel, which is built once.
BUILT = functools.cache(build)
HERE = tuple(command for command in shown() if _exit_code(command) is not None)


def test_every_command_is_run_or_has_its_reason() -> None:
    elsewhere = [command for command in shown() if command not in HERE]
    lost = [
        command
        for command in elsewhere
        if not command.startswith(BY_HAND) and not any(_matches(command, start) for start in NOT_RUN)
    ]
    assert lost == []


def test_no_reason_is_for_a_command_that_is_not_shown() -> None:
    commands = shown()
    assert [start for start in NOT_RUN if not any(_matches(command, start) for command in commands)] == []
    assert [start for start in BY_HAND if not any(command.startswith(start) for command in commands)] == []
    assert [start for start in NOT_RUN if any(_matches(command, start) for command in HERE)] == []


def test_a_reason_names_tests_that_exist() -> None:
    named = {path for reason in NOT_RUN.values() for path in re.findall(r"(?:tests|\.ci)/[\w/.]*\w", reason)}
    assert len(named) > 10
    assert [path for path in named if not (REPOSITORY / path).is_file()] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files that the commands name: a kernel, its log and dumps, results."""
    directory = tmp_path_factory.mktemp("shown")
    violated = machine("kvm-lost")
    write(violated.kernel, directory, ())
    (directory / "manifest.json").unlink()  # no result: the shell would find it for '*.json'
    for name in ("serial.txt", "serial.log"):
        (directory / name).write_bytes(violated.log)
    # a LAVA job's messages, as its server writes them
    (directory / "messages.txt").write_bytes(violated.log.replace(b'"', rb"\""))
    for name in ("guest.core", "vm.vmem"):
        (directory / name).write_bytes(violated.raw)
    results = {"tcg": "tcg-atomic", "known": "tcg-atomic", "suite": "kvm-suite", "full": "kvm-suite"}
    for name in ("tcg", "kvm", "lab", "known", "today", "result", "scene", "suite", "full"):
        recorded = load(results.get(name, "kvm-lost"))
        write_result(directory / f"{name}.json", judged(recorded.spec, recorded.observed()))
    return directory


@pytest.mark.parametrize("command", HERE)
def test_a_command_runs(command: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for name in ("build", "kit"):
        monkeypatch.setattr(f"kgen.cli.{name}.build", BUILT)
    if command.startswith("sed"):
        Path("serial.txt").unlink()
        subprocess.run(["sh", "-c", command], check=True, timeout=60)
        assert Path("serial.txt").read_bytes() == (files / "serial.log").read_bytes()
        return
    _, *arguments = words(command)
    expanded = [name for word in arguments for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    log = (files / "serial.txt").read_bytes()
    done = CliRunner().invoke(main, expanded, prog_name="kgen", input=log if "-" in expanded else None)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    assert done.exit_code == _exit_code(command), done.output
    assert done.stdout or "-o" in expanded
    for option, name in pairwise(expanded):
        if option in ("-o", "--json", "--bundle"):
            assert os.path.exists(name), f"{command} wrote no {name}"
