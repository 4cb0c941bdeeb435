"""Bochs, the third machine: the whole pipeline without QEMU and gdb."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from _kernel import DEADLINE, END, built, memory_of, needs, replaced, run, spec_of
from running import Run, assert_one_line, kgen
from test_kernel_faults import CONSUMER, before_the_call

from kgen.build import build
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.kernel.live import PAIR_LEAST
from kgen.kernel.plan import phases
from kgen.kernel.protocol import parse_log
from kgen.kernel.results_block import BootPath, Decode, KernelState
from kgen.machine import bochs
from kgen.machine.engine import Engine
from kgen.machine.platform import LaunchRequest
from kgen.media import formats
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind
from kgen.verdict.proof import IN_TURN

#: Without an end.
ENDLESS = ("verify", "--instr", "xchg", "--platform", "bochs", "--no-controls", "--rounds", "4000000000")


@pytest.fixture(autouse=True)
def _there_is_a_bochs() -> None:
    needs("bochs")


def test_the_case_through_both_channels() -> None:
    """In one boot: record and memory agree, the guest's own probe attests the path, no instruction was torn apart,
    and a control of one instruction is not either, so that this is as far as a verdict can go."""
    spec = spec_of(target="vga-text", rounds=4000, controls=True)
    sockets: list[str] = []

    def hold(machine: Engine, elf: Path, seen: Observation) -> None:
        assert machine.join(elf) == ()
        descriptors = Path(f"/proc/{machine.pid}/fd")  # type: ignore[attr-defined]
        sockets.extend(link for link in map(os.readlink, descriptors.iterdir()) if link.startswith("socket:"))

    seen = observe(build(spec), needs("bochs"), Options(timeout=DEADLINE, gdb="no-such-gdb"), holder=hold)
    verdict = judge(spec, seen)
    # its display would listen on every address
    assert sockets == []
    record = memory_of(seen)
    assert (seen.problems, seen.crash, seen.cut) == ((), "", "")
    assert (record.state, record.boot_path) == (KernelState.FINISHED, BootPath.DISK)
    assert seen.path == NOT_ASKED
    assert [phase.decode for phase in record.phases] == [Decode.UNKNOWN] * 2 + [Decode.IO] * 4
    sanity, chain, pair, single, proof, case = record.phases
    assert sanity.rounds == case.rounds == 4000
    # chains end with the batch in which they come to it
    assert all(4000 <= phase.rounds < 4100 for phase in (chain, pair, single, proof))
    assert [phase.total for phase in (sanity, chain, single, proof, case)] == [0] * 5
    # CPUs take turns between instructions, so what is two instructions is torn apart
    assert all(live.violated >= PAIR_LEAST for live in pair.live)
    assert all(live.live and live.is_clean for phase in (chain, single, proof) for live in phase.live)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.reason.startswith(IN_TURN)
    assert [entry["cpu"] for entry in seen.registers] == [0, 1, 2]
    code = next(part for part in build(spec).elf.sections if part.name == ".text")
    assert all(code.address <= entry["eip"] < code.address + code.size for entry in seen.registers)
    assert seen.cells == (0,) * phases(spec)[-1].cells
    assert seen.environment["versions"]["emulator"].startswith("Bochs x86 Emulator ")
    assert "clock: sync=none, time0=946684800" in seen.environment["bochsrc"]


def test_without_lock() -> None:
    _, verdict = run(build(spec_of(target="vga-text", lock=False, rounds=2000)), "bochs")
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert verdict.witnesses


def test_a_triple_fault() -> None:
    """Bochs ends, and says why."""
    seen, verdict = run(
        built(
            spec_of(),
            replaced("debug_exit_port:\n", "no_idt:\n    .skip 8\ndebug_exit_port:\n"),
            before_the_call(CONSUMER, "lidt [no_idt]\n    ud2"),
        ),
        "bochs",
    )
    assert verdict.kind is VerdictKind.CRASH
    assert "triple fault" in verdict.reason
    assert "case:xchg.32@ram" in seen.log


@pytest.mark.soak
def test_killing_bochs_or_us_leaves_nothing(tmp_path: Path) -> None:
    with Run(ENDLESS, tmp_path / "tmp") as mine:
        emulator = mine.await_start("bochs")
        time.sleep(1)
        os.kill(emulator, signal.SIGKILL)
        assert mine.wait(30) == VerdictKind.CRASH.value
        mine.assert_nothing_left()
    assert "\nCRASH: Bochs was killed by SIGKILL" in mine.stdout
    with Run(ENDLESS, tmp_path / "tmp") as mine:
        mine.await_start("bochs")
        time.sleep(0.5)
        mine.process.kill()
        mine.wait(30)
        mine.assert_nothing_left(files=False)


def test_from_a_cd(tmp_path: Path) -> None:
    if "iso" not in formats():
        pytest.skip("this kgen makes no iso image")
    image = tmp_path / "kernel.iso"
    formats()["iso"].write(build(spec_of(rounds=100)).payload, image)
    request = LaunchRequest(kernel=None, boot="cdrom", image=image)
    until = time.monotonic() + DEADLINE
    heard = b""
    with bochs.start(needs("bochs"), request, gdb="", pinned=contextlib.nullcontext()) as machine:
        while not END.search(heard):
            assert time.monotonic() < until, heard
            heard += machine.read_serial(1.0)
    record = from_log(parse_log(heard))
    assert record is not None
    assert record.complete, record.gap


def test_a_model_that_bochs_does_not_know(tmp_path: Path) -> None:
    done = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--platform", "bochs", "--cpu", "nosuch")
    assert_one_line(done, 2, "--cpu nosuch: Bochs knows no such model; '")


def test_a_target_that_bochs_has_not_is_a_skip(tmp_path: Path) -> None:
    done = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--platform", "bochs", "--target", "edu")
    assert done.process.returncode == VerdictKind.SKIP.value
    assert done.stdout == "SKIP: bochs: the platform has no edu device; choose another target\n"


def test_a_suite_runs_without_the_cases_that_bochs_has_no_device_for(tmp_path: Path) -> None:
    suite, result, again = tmp_path / "s.toml", tmp_path / "r.json", tmp_path / "again.json"
    suite.write_text('[[case]]\ninstr = "xchg"\ntarget = ["pc-testdev", "vga-text", "edu"]\n')
    words = ("--suite", str(suite), "--platform", "bochs", "--budget", "4s", "--json", str(result))
    done = kgen(tmp_path / "tmp", "verify", *words)
    assert done.process.returncode == VerdictKind.INCONCLUSIVE.value, done.stdout + done.stderr
    assert "\nINCONCLUSIVE: 1 INCONCLUSIVE, 2 SKIP\n" in done.stdout
    assert "\nxchg.32.pc-testdev.token: SKIP: bochs: the platform has no pc-testdev device\n" in done.stdout
    assert "\nxchg.32.edu.token: SKIP: bochs: the platform has no edu device\n" in done.stdout
    reported = kgen(tmp_path / "tmp", "report", str(result))
    assert reported.stdout == done.stdout
    taps = kgen(tmp_path / "tmp", "report", str(result), "--format", "tap").stdout
    assert "\nok 1 - xchg.32.pc-testdev.token on bochs # SKIP SKIP: " in taps
    # what is compared with itself has not changed
    assert kgen(tmp_path / "tmp", "compare", str(result), str(result)).process.returncode == 0
    none = kgen(tmp_path / "tmp", "verify", *words[:-1], str(again), "--only", "*edu*")
    assert none.process.returncode == VerdictKind.SKIP.value
    assert none.stdout == "SKIP: bochs: the platform has no edu device; choose another target\n"


def test_no_bochs_is_a_skip(tmp_path: Path) -> None:
    done = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--platform", "bochs", PATH=str(tmp_path))
    assert done.process.returncode == VerdictKind.SKIP.value
    assert done.stdout.startswith("SKIP: bochs: bochs-debugger or bochs is not to be found; install it with")
    assert len(done.stdout.splitlines()) == 1
