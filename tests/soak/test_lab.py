"""The lab, often: KVM's failure every time, and none of the same machine without KVM."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from running import kgen

from kgen.errors import PlatformUnavailable
from kgen.lab_build import Choice, Tools, build_lab
from kgen.verdict import CONFESSION

TIMES = 20


@pytest.fixture(scope="module", autouse=True)
def _lab() -> None:
    """Made in the user's cache if it is not there; skipped with the reason where it cannot be."""
    try:
        build_lab(Choice(), Tools(), lambda stage: print(stage.name))
    except PlatformUnavailable as error:
        pytest.skip(f"kvm-lab: {error.line}")


def test_twenty_of_twenty(tmp_path: Path) -> None:
    """Not atomic, with witnesses, the kernel's own word for it, and both channels equal (else it were ERROR)."""
    for number in range(TIMES):
        file = tmp_path / "r.json"
        start = time.monotonic()
        run = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--platform", "kvm-lab", "--json", str(file))
        seconds = time.monotonic() - start
        assert run.process.returncode == 3, run.stdout + run.stderr
        found = json.loads(file.read_text())
        print(f"{number + 1}: {found['verdict']['reason']}; {seconds:.1f} s")
        assert found["verdict"]["witnesses"]
        assert CONFESSION in found["verdict"]["cause"]
        assert any(CONFESSION in line for line in found["observation"]["kernel_log"])
        assert found["verdict"]["controls"][0]["violations"] == {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0}
        run.assert_nothing_left()


def test_without_kvm_the_lab_is_atomic(tmp_path: Path) -> None:
    """The lab's own control, with as many rounds as its power controls need."""
    file = tmp_path / "r.json"
    arguments = ("verify", "--instr", "xchg", "--platform", "tcg-lab", "--json", str(file), "--timeout", "1500")
    run = kgen(tmp_path / "tmp", *arguments, seconds=1800)
    assert run.process.returncode == 0, run.stdout + run.stderr
    assert not any(CONFESSION in line for line in json.loads(file.read_text())["observation"]["kernel_log"])
