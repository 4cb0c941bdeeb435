"""The verdicts hold, again and again: KVM always fails, TCG never does, not even on a machine that has no time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from kgen.builder import Kernel, build
from kgen.observation import Observation, differences
from kgen.pipeline import Options, observe, platforms
from kgen.platforms import LaunchRequest
from kgen.process import spawn
from kgen.results import Role, ViolationKind
from kgen.spec import Case, KernelSpec
from kgen.verdict import Verdict, VerdictKind, judge

TIMES = range(10)
ROUNDS = 1000

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """XCHG on VGA text memory, with its controls."""
    return build(KernelSpec(Case("xchg"), rounds=ROUNDS))


@pytest.fixture
def load() -> Iterator[None]:
    """As many programs as there are cores, each of which wants a whole one."""
    busy = [spawn([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for child in busy:
            child.kill()


def verify(kernel: Kernel, platform: str) -> tuple[Observation, Verdict]:
    """As ``kgen verify`` does it; both channels are whole and agree to the last counter."""
    seen = observe(kernel, platforms()[platform], Options(timeout=240))
    verdict = judge(kernel.spec, seen)
    controls = "; ".join(f"{c.label} {dict(c.violations)} in {c.rounds}" for c in verdict.controls)
    print(f"{verdict.kind.name}: {verdict.reason}; {controls}; {seen.timings.get('run', 0):.1f} s")
    assert seen.serial is not None
    assert seen.serial.complete, seen.serial.gap
    assert seen.memory is not None
    assert seen.memory.complete, seen.memory.gap
    assert differences(seen.serial, seen.memory) == ()
    for theirs, ours in zip(seen.serial.phases, seen.memory.phases, strict=True):
        assert theirs.counts == ours.counts
    return seen, verdict


@pytest.mark.parametrize("time", TIMES)
def test_kvm_is_never_atomic(kernel: Kernel, time: int) -> None:
    reason = platforms()["qemu-kvm"].unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"qemu-kvm: {reason}")
    _, verdict = verify(kernel, "qemu-kvm")
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert any(witness.kind is ViolationKind.LOST for witness in verdict.witnesses)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.usefixtures("load")
def test_tcg_is_always_atomic_under_load(kernel: Kernel, time: int) -> None:
    seen, verdict = verify(kernel, "qemu-tcg")
    assert seen.memory is not None
    for phase in seen.memory.phases:
        if phase.role is not Role.POWER:
            assert (phase.rounds, phase.total) == (ROUNDS, 0), "a false alarm"
    assert verdict.kind is VerdictKind.ATOMIC, verdict.reason


@pytest.mark.parametrize("time", TIMES)
def test_without_lock_tcg_is_never_atomic(time: int) -> None:
    _, verdict = verify(build(KernelSpec(Case("xchg", lock=False), rounds=ROUNDS)), "qemu-tcg")
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
