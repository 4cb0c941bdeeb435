"""Other releases of the distribution: KVM and QEMU down to the original report's pair, each by the one command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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


def test_a_lab_without_a_network(tmp_path: Path) -> None:
    """One line, and nothing half-made. The proxy is a port of loopback on which nothing listens."""
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get")
    settings = tmp_path / "apt.conf"
    settings.write_text('Acquire::http::Proxy "http://127.0.0.1:9"; Acquire::https::Proxy "http://127.0.0.1:9";\n')
    home = tmp_path / "cache"
    words = ("lab", "build", "qemu", "--release", "bookworm")
    run = kgen(tmp_path / "tmp", *words, APT_CONFIG=str(settings), XDG_CACHE_HOME=str(home), seconds=SLOW)
    assert run.process.returncode == 8
    assert len(run.stderr.splitlines()) == 1
    assert "; is there a network?" in run.stderr
    assert [*(home / "kgen/roots").iterdir()] == []


@pytest.mark.parametrize("mebibytes", [20, 120])
def test_a_lab_on_a_full_disk(tmp_path: Path, mebibytes: int) -> None:
    """While lists are downloaded, while packages are unpacked: one line, and nothing half-made."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("needs root for a small file system, and apt-get")
    home = tmp_path / "cache"
    home.mkdir()
    words = [sys.executable, "-m", "kgen", "lab", "build", "qemu", "--release", "bookworm"]
    script = f'mount -t tmpfs -o size={mebibytes}m tmpfs "$1"; shift; "$@"; echo "status $?"; '
    script += 'ls -A "$XDG_CACHE_HOME/kgen/roots"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(home), *words]
    environment = os.environ | {"XDG_CACHE_HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SLOW, check=False, env=environment)
    lines = done.stdout.splitlines()
    assert "status 2" in lines, done.stdout + done.stderr
    assert lines[-1] == "status 2", "nothing is in the directory of roots"
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device; free some space, or set XDG_CACHE_HOME" in done.stderr
