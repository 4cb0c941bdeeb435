"""The verdicts hold, again and again: KVM always fails, TCG never does, not even on a machine that has no time."""

from __future__ import annotations

import functools
import random
import re

import pytest
from load import load

from kgen.build import Kernel, build
from kgen.evidence.channels import differences
from kgen.evidence.observation import Observation
from kgen.kernel.results_block import Role, ViolationKind
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

#: The forms of the question, as `kgen verify --instr NAME` asks it by default.
INSTRUCTIONS = ("xchg", "cmpxchg", "add")
ROUNDS = 10_000
PROOF_SECONDS = 60
#: Programs beside a run that want a whole processor each.
LOADS = {"idle": 0, "busy": 8}

pytestmark = pytest.mark.timeout(900)


@functools.cache
def kernel_of(instruction: str) -> Kernel:
    """The kernel of the default request."""
    return build(KernelSpec(Case(instruction), rounds=ROUNDS, proof_seconds=PROOF_SECONDS))


def verify(kernel: Kernel, platform: str) -> tuple[Observation, Verdict]:
    """As ``kgen verify`` does it; both channels are whole and agree to the last counter."""
    reason = platforms()[platform].unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"{platform}: {reason}")
    seen = observe(kernel, platforms()[platform], Options(timeout=800))
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


@pytest.mark.parametrize("time", range(60))
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize("host", LOADS)
def test_kvm_is_never_atomic(host: str, instruction: str, time: int) -> None:
    with load(LOADS[host]):
        _, verdict = verify(kernel_of(instruction), "qemu-kvm")
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert any(witness.kind is ViolationKind.LOST for witness in verdict.witnesses)


@pytest.mark.parametrize("time", range(200))
def test_few_rounds_on_kvm_are_never_atomic(time: int) -> None:
    """As many rounds as anybody may ask for: too few say INCONCLUSIVE."""
    rounds = random.randint(50, 10_000)
    with load(LOADS["busy"] if time % 2 else 0):
        _, verdict = verify(build(KernelSpec(Case("xchg"), rounds=rounds)), "qemu-kvm")
    assert verdict.kind in (VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE), verdict.reason


@pytest.mark.parametrize("time", range(20))
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_tcg_is_atomic(instruction: str, time: int) -> None:
    """On a host that has nothing else to do."""
    seen, verdict = verify(kernel_of(instruction), "qemu-tcg")
    assert_no_alarm(seen)
    assert verdict.kind is VerdictKind.ATOMIC, verdict.reason


@pytest.mark.parametrize("time", range(20))
@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_tcg_beside_two_programs(instruction: str, time: int) -> None:
    """Where the time was not enough, it says how much is."""
    with load(2):
        seen, verdict = verify(kernel_of(instruction), "qemu-tcg")
    assert_no_alarm(seen)
    if verdict.kind is not VerdictKind.ATOMIC:
        assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
        assert re.search(r"about \d+ s more here", verdict.reason)


def assert_no_alarm(seen: Observation) -> None:
    assert seen.memory is not None
    for phase in seen.memory.phases:
        assert phase.role is Role.POWER or phase.total == 0, "a false alarm"


@pytest.mark.parametrize("time", range(10))
def test_without_lock_tcg_is_never_atomic(time: int) -> None:
    spec = KernelSpec(Case("xchg", lock=False), rounds=ROUNDS, proof_seconds=PROOF_SECONDS)
    _, verdict = verify(build(spec), "qemu-tcg")
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
