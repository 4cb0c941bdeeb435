"""The properties of the unit tests, with other examples than those of every `make test`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPEATS = 10


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("repeat", range(REPEATS))
def test_properties_hold_for_other_examples(repository: Path, repeat: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "random"]
    run = subprocess.run(
        [*command, "-m", "hypothesis", "tests/unit"], cwd=repository, capture_output=True, text=True, check=False
    )
    print(run.stdout[-20_000:])
    assert run.returncode == 0, f"repeat {repeat}: {run.stdout[-2000:]}"
