"""VirtualBox with its driver in the lab, where it was built (kgen lab build virtualbox-lab)."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from _kernel import built, memory_of, needs, replaced, spec_of
from running import Run, assert_one_line, kgen
from test_kernel_faults import CONSUMER, before_the_call

from kgen.build import build
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind
from kgen.verdict.proof import UNINTERRUPTED

SLOW = 600
RUN = ("verify", "--instr", "xchg", "--platform", "virtualbox-lab")


@pytest.fixture(autouse=True)
def _there_is_a_lab() -> None:
    needs("virtualbox-lab")


def ask(directory: Path, *words: str, seconds: float = SLOW) -> Run:
    return kgen(directory / "tmp", *RUN, *words, seconds=seconds)


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_with_amd_v_no_access_is_interrupted(tmp_path: Path) -> None:
    """On a busy host a proof takes longer than its time: INCONCLUSIVE then, never NOT_ATOMIC."""
    file = tmp_path / "r.json"
    run = ask(tmp_path, "--expect", "known", "--json", str(file))
    found: dict[str, Any] = json.loads(file.read_text())
    seen = found["observation"]
    run.assert_nothing_left()
    assert found["verdict"]["kind"] in ("ATOMIC", "INCONCLUSIVE"), run.stdout + run.stderr
    assert seen["environment"]["virtualbox"]["engine"] == "HM, AMD-V"
    assert not seen["environment"]["virtualbox"]["ring3"]
    assert {"virtualbox", "driver", "linux", "compiler", "busybox"} == set(seen["environment"]["lab"]["sources"])
    assert (seen["path"]["kind"], seen["path"]["region"]) == ("io", "VGA - VGA Video Buffer")
    # both rings have a handler
    assert "R3+0" in seen["path"]["line"]
    assert "\n  in the lab: VirtualBox 7.2" in run.stdout
    if found["verdict"]["kind"] == "ATOMIC":
        assert run.process.returncode == 0
        assert UNINTERRUPTED in run.stdout
    else:
        assert "lost" not in found["verdict"]["reason"].partition(";")[0]


@pytest.mark.timeout(SLOW)
def test_in_ring_3_the_exchange_is_torn(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    run = ask(tmp_path, "--ring3", "--json", str(file))
    assert run.process.returncode == VerdictKind.NOT_ATOMIC.value, run.stdout + run.stderr
    run.assert_nothing_left()
    seen = json.loads(file.read_text())["observation"]
    assert seen["environment"]["virtualbox"]["engine"] == "HM, AMD-V"
    assert seen["environment"]["virtualbox"]["ring3"]
    assert "R3+0" not in seen["path"]["line"]


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_a_triple_fault_is_a_crash() -> None:
    kernel = built(
        spec_of(),
        replaced("debug_exit_port:\n", "no_idt:\n    .skip 8\ndebug_exit_port:\n"),
        before_the_call(CONSUMER, "lidt [no_idt]\n    ud2"),
    )
    seen = observe(kernel, needs("virtualbox-lab"), Options(timeout=SLOW))
    verdict = judge(spec_of(), seen)
    assert verdict.kind is VerdictKind.CRASH, verdict.reason
    assert "triple fault" in verdict.reason


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_ram_through_both_channels() -> None:
    spec = spec_of(target="ram", rounds=100)
    seen = observe(build(spec), needs("virtualbox-lab"), Options(timeout=SLOW, vga="vmsvga"))
    record = memory_of(seen)
    assert (seen.problems, seen.crash, seen.cut, seen.differences) == ((), "", "", ())
    assert record.complete
    assert [entry["cpu"] for entry in seen.registers] == [0, 1, 2]
    assert (seen.path.kind, judge(spec, seen).violations) == ("ram", {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--stop-on-violation",), "no breakpoint hits on virtualbox-lab"),
        (("--keep",), "virtualbox-lab has no stub"),
        (("--vga", "std"), "unknown graphics adapter 'std'"),
        (("--engine", "iem"), "--engine: virtualbox-lab offers no choice of it"),
        (("--boot", "usb"), "--boot: virtualbox-lab offers no choice of it"),
        (("--linux", "6.12"), "this is no part of virtualbox-lab"),
    ],
)
def test_what_it_does_not_offer_is_refused(tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    assert_one_line(ask(tmp_path, *words), 2, line)


def test_words_of_the_users_own_that_virtualbox_refuses(tmp_path: Path) -> None:
    assert_one_line(ask(tmp_path, "--", "--no-such-option"), 9, "VBoxManage modifyvm: ", "--no-such-option")


@pytest.mark.timeout(SLOW)
@pytest.mark.parametrize("seconds", [4.0, *(pytest.param(at, marks=pytest.mark.soak) for at in (0.5, 15.0))])
def test_a_kill_at_any_moment_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    with Run(RUN, tmp_path / "tmp") as run:
        run.await_start("qemu")
        time.sleep(seconds)
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
        # the files of a killed kgen are removed by the next one
        run.assert_nothing_left(files=False)
