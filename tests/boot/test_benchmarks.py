"""`make bench` in its short form: what no test runs breaks unseen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from running import DEADLINE, environment

ROWS = (
    "kgen build --instr xchg, a process of its own",
    "kgen --help",
    "  with nothing in the cache",
    "qemu-tcg, qboot: start to first serial byte",
    "token experiment, qemu-tcg thread=multi",
    "the original's loop, beside it",
)


def test_the_short_form(repository: Path) -> None:
    """One run of the quick rows, the original's loop among them; each has a figure."""
    command = [sys.executable, repository / "tests" / "benchmarks" / "run.py", "--short"]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=repository
    )
    assert done.returncode == 0, done.stderr
    for row in ROWS:
        found = re.search(rf"^{re.escape(row)} +([0-9.e+]+) ", done.stdout, re.MULTILINE)
        assert found, done.stdout
        assert float(found[1]) > 0


def test_a_group_that_is_none(repository: Path) -> None:
    command = [sys.executable, repository / "tests" / "benchmarks" / "run.py", "speed"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2
    assert "no such group: speed" in done.stderr
