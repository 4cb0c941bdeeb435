"""Xen in the lab: a real Xen, its dom0 and an HVM domain, where such a lab was built (kgen lab build xen)."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from running import Run, kgen

from kgen.lab import cache

SLOW = 600
ASK = ("verify", "--instr", "xchg", "--platform", "xen-lab")
#: The recorder is stopped at the first witness that is printed: now and then what it kept shows no whole exchange.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def one() -> str:
    made = [lab.name.removeprefix("xen-") for lab in cache.labs() if lab.system == "xen" and lab.name]
    if not made:
        pytest.skip("there is no lab of Xen; 'kgen lab build xen --release bookworm' makes one")
    return made[0]


def ask(directory: Path, *words: str, seconds: float = SLOW) -> Run:
    return kgen(directory / "tmp", *ASK, *words, seconds=seconds)


@pytest.mark.soak
@pytest.mark.timeout(ATTEMPTS * SLOW)
@pytest.mark.parametrize("release", ["bullseye", "bookworm", "trixie"])
def test_each_release_fails(release: str, tmp_path: Path) -> None:
    if cache.titled(f"xen-{release}") is None:
        pytest.skip(f"there is no lab of it; 'kgen lab build xen --release {release}' makes one")
    check_that_xen_fails(release, tmp_path)


@pytest.mark.timeout(ATTEMPTS * SLOW)
def test_xen_fails_and_its_own_trace_says_how(one: str, tmp_path: Path) -> None:
    check_that_xen_fails(one, tmp_path)


def check_that_xen_fails(release: str, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    for _ in range(ATTEMPTS):
        run = ask(tmp_path, "--release", release, "--json", str(file))
        assert run.process.returncode == 3, run.stdout + run.stderr
        run.assert_nothing_left()
        if "<- the other half of the exchange begun" in run.stdout:
            break
    else:
        pytest.fail(f"the record of the accesses shows no interleaving:\n{run.stdout}")
    assert "\n  the cause: the hypervisor carried the LOCKed exchange out as a read request" in run.stdout
    assert "\n  in the lab: Xen 4." in run.stdout
    found: dict[str, Any] = json.loads(file.read_text())
    seen = found["observation"]
    assert seen["path"]["kind"] == "io"
    assert seen["memory"] is not None
    assert {event["kind"] for event in seen["trace"]} >= {"read", "write"}
    assert {"xen", "tools", "qemu", "linux", "busybox"} <= set(seen["environment"]["lab"]["sources"])


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_ram_is_clean(one: str, tmp_path: Path) -> None:
    run = ask(tmp_path, "--release", one, "--target", "ram", "--no-controls", "--rounds", "100")
    assert run.process.returncode == 4, run.stdout + run.stderr
    assert "\nINCONCLUSIVE: no controls were run\n" in run.stdout
    assert "\ncounts:\t100\t" in run.stdout
    assert "witnesses (" not in run.stdout
    run.assert_nothing_left()


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_without_an_adapter_nothing_is_learnt_about_mmio(one: str, tmp_path: Path) -> None:
    run = ask(tmp_path, "--release", one, "--vga", "none", "--rounds", "20")
    assert run.process.returncode in (5, 7), run.stdout + run.stderr
    run.assert_nothing_left()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stop-on-violation",), "no breakpoint hits on xen-lab"),
        (("--keep",), "xen-lab has no stub"),
        (("--machine", "q35"), "xen-lab offers no choice of it"),
        (("--vga", "qxl"), "qxl"),
    ],
)
def test_what_xen_cannot_do_is_refused(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    run = ask(tmp_path, *words)
    assert run.process.returncode == 2, run.stdout + run.stderr
    assert said in run.stderr


def test_a_release_that_was_not_built(tmp_path: Path) -> None:
    run = ask(tmp_path, "--release", "buster", seconds=60)
    assert run.process.returncode == 8, run.stdout + run.stderr
    assert "kgen lab build xen --release buster" in run.stdout + run.stderr


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
@pytest.mark.parametrize("seconds", [0.5, 2.0, 6.0, 15.0])
def test_a_kill_at_any_moment_leaves_nothing(one: str, seconds: float, tmp_path: Path) -> None:
    with Run([*ASK, "--release", one], tmp_path / "tmp") as run:
        run.await_start("qemu")
        time.sleep(seconds)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
        # the files of a killed kgen are removed by the next one
        run.assert_nothing_left(files=False)
