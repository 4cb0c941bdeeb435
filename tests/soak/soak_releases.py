"""Other releases of the distribution: KVM and QEMU down to the original report's pair, each by the one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from running import kgen

SLOW = 900
#: KVM of these, by option: everything of a release, or a line of Linux.
KVM = (("--release", "bullseye"), ("--release", "trixie"), ("--linux", "6.12"), ("--linux", "7.3"))
QEMU = ("bullseye", "bookworm", "trixie", "sid")
#: What docs/interleave.md shows, on every QEMU.
OF_INTERLEAVE = (
    "     104  fine",
    "     288  lost",
    "     108  duplicate",
    "       0  on which model, guest and judge disagree",
)
BOCHS = ("bookworm", "trixie", "sid")


def build(tmp_path: Path, *words: str) -> None:
    """Make a lab in the user's cache, or use the one that is there; skip with the reason where it is unavailable."""
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get")
    run = kgen(tmp_path / "tmp", "lab", "build", *words, seconds=SLOW)
    if run.process.returncode == 8:
        pytest.skip(run.stderr.strip().splitlines()[-1])
    assert run.process.returncode == 0, run.stdout + run.stderr


@pytest.mark.timeout(2 * SLOW)
@pytest.mark.parametrize("words", KVM, ids=" ".join)
def test_kvm_fails(tmp_path: Path, words: tuple[str, ...]) -> None:
    build(tmp_path, *words)
    file = tmp_path / "r.json"
    ask = ("verify", "--instr", "xchg", "--platform", "kvm-lab", *words, "--json", str(file))
    run = kgen(tmp_path / "tmp", *ask, seconds=SLOW)
    assert run.process.returncode == 3, run.stdout + run.stderr
    lab = json.loads(file.read_text())["observation"]["environment"]["lab"]
    print(f"KVM {' '.join(words)}: Linux {lab['linux']}, {lab['qemu']}: {run.stdout.splitlines()[1]}")
    if words[0] == "--linux":
        assert lab["linux"].startswith(words[1])
    run.assert_nothing_left()


@pytest.mark.timeout(2 * SLOW)
@pytest.mark.parametrize("release", QEMU)
def test_qemu_translates_atomically(tmp_path: Path, release: str) -> None:
    """And every case of the full suite has its proof, and every order of a few accesses the same outcome."""
    build(tmp_path, "qemu", "--release", release)
    run = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--release", release, seconds=SLOW)
    assert run.process.returncode == 0, run.stdout + run.stderr
    file = tmp_path / "r.json"
    suite = kgen(tmp_path / "tmp", "verify", "--suite", "full", "--release", release, "--json", str(file), seconds=SLOW)
    assert suite.process.returncode == 0, suite.stdout + suite.stderr
    environment = json.loads(file.read_text())["observation"]["environment"]
    version = environment["versions"]["emulator"]
    stepped = kgen(tmp_path / "tmp", "interleave", "--qemu", environment["command"][0], seconds=SLOW)
    assert stepped.process.returncode == 0, stepped.stdout + stepped.stderr
    for line in OF_INTERLEAVE:
        assert line in stepped.stdout.splitlines(), stepped.stdout
    assert environment["prepare"] == ["kgen", "lab", "build", "qemu", "--release", release]
    assert environment["release"] == release
    assert environment["sources"]["qemu"].startswith("package qemu-system-x86 ")
    print(f"QEMU {release}: {version}: {suite.stdout.splitlines()[1]}")


@pytest.mark.timeout(2 * SLOW)
@pytest.mark.parametrize("release", BOCHS)
def test_bochs_takes_turns(tmp_path: Path, release: str) -> None:
    build(tmp_path, "bochs", "--release", release)
    ask = ("verify", "--instr", "xchg", "--platform", "bochs", "--release", release)
    run = kgen(tmp_path / "tmp", *ask, seconds=SLOW)
    assert run.process.returncode == 4, run.stdout + run.stderr
    print(f"Bochs {release}: {run.stdout.splitlines()[1]}")
