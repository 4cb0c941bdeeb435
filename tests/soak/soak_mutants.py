"""The bound that ATOMIC states against machines of which the defect's rate is known, and lies, many times each."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
from mutants import LIES, MUTANTS

from kgen.kernel.results_block import Role
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import VerdictKind

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from _kernel import built, run

pytestmark = pytest.mark.soak

RUNS = 40
#: In so many of them a bound at 95 % must hold: fewer than 34 of 40 would be a matter of 2 in 10 000.
HOLD = 34
#: A run by default has about so many operations of the chain; the rate is measured in a hundred times as many.
OPERATIONS = 25_000


@functools.cache
def rate(name: str) -> float:
    """Violated live batches by live batches, of a run 100 times as long as one by default."""
    spec = KernelSpec(Case("xchg", experiment="chain"), rounds=100 * OPERATIONS, controls=False)
    seen, _ = run(built(spec, MUTANTS[name]), timeout=3600)
    assert seen.memory is not None, seen.problems
    live = [each for phase in seen.memory.phases if phase.role is Role.CASE for each in phase.live]
    return sum(each.violated for each in live) / sum(each.live for each in live)


@pytest.mark.parametrize("name", MUTANTS)
def test_caught_or_below_the_bound(name: str) -> None:
    kernel = built(KernelSpec(Case("xchg"), proof_seconds=60), MUTANTS[name])
    verdicts = [run(kernel)[1] for _ in range(RUNS)]
    missed = [verdict.bound for verdict in verdicts if verdict.kind is VerdictKind.ATOMIC]
    wrong = [bound for bound in missed if bound is not None and bound < rate(name)]
    print(f"{name}: {RUNS - len(missed)} of {RUNS} not ATOMIC, {len(wrong)} bounds below the rate")
    assert len(wrong) <= RUNS - HOLD


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_never_atomic(name: str) -> None:
    kernel = built(KernelSpec(Case("xchg"), rounds=200, proof_seconds=10), LIES[name])
    kinds = [run(kernel)[1].kind for _ in range(RUNS)]
    assert VerdictKind.ATOMIC not in kinds
