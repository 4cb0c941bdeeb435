"""Machines with a defect that was put there: found; kernels that lie in their own accounting: never called ATOMIC.

The long counts are in tests/soak/soak_mutants.py."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from _kernel import built, run, run_until
from mutants import LIES, MUTANTS

from kgen.evidence.observation import Observation
from kgen.kernel.results_block import Role
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import Verdict, VerdictKind

#: Tokens are few, so that it is the chain that finds what tokens cannot show.
SPEC = KernelSpec(Case("xchg"), rounds=100, proof_seconds=20)
#: What is no proof whatever it shows need not go on for long: for as long as an honest kernel's proof takes.
BRIEF = replace(SPEC, proof_seconds=3)
#: Of these the proof stays clean and it is the tokens that are lost: what comes before them may be short.
BY_TOKENS = frozenset({"neighbour"})
#: Those that show in hardly any batch are for the soak.
FREQUENT = ("split", "split-10", "split-puts", "split-one-cpu", "lost-500", "neighbour", "half")


@functools.cache
def found(name: str) -> tuple[Observation, Verdict]:
    """The run in which that defect showed; on a busy machine it may take more than one to get there."""
    spec = replace(SPEC, proof_seconds=1) if name in BY_TOKENS else SPEC
    return run_until(lambda _, verdict: verdict.kind is VerdictKind.NOT_ATOMIC, built(spec, MUTANTS[name]))


@pytest.mark.parametrize("name", FREQUENT)
def test_a_defect_is_found(name: str) -> None:
    """By tokens or by the chain of the same boot; the sanity control, the same exchange on RAM, stays clean."""
    seen, verdict = found(name)
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert seen.memory is not None
    assert all(not phase.total for phase in seen.memory.phases if phase.role is Role.SANITY)


def test_a_split_put_is_the_chain_s() -> None:
    """Only exchanges of a value that is not 0 are split, so no take is: tokens alone cannot show it."""
    seen, verdict = found("split-puts")
    assert verdict.kind is VerdictKind.NOT_ATOMIC
    assert "(chain)" in verdict.reason
    assert seen.memory is not None
    assert not seen.memory.phases[-1].total


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_never_atomic(name: str) -> None:
    _, verdict = run(built(BRIEF, LIES[name]))
    assert verdict.kind is not VerdictKind.ATOMIC, verdict.reason
    if name in ("swapped target", "unnoticed batches", "standing tickets"):
        assert verdict.kind is VerdictKind.ERROR, verdict.reason
    if name in ("foreign controls", "uncounted violations"):
        assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
