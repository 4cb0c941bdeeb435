"""Machines with a defect that was put there: found; kernels that lie in their own accounting: never called ATOMIC.

The long counts are in tests/soak/soak_mutants.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _kernel import built, run, run_until
from mutants import LIES, MUTANTS

from kgen.kernel.results_block import Role
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import VerdictKind

#: Tokens are few, so that it is the chain that finds what tokens cannot show.
SPEC = KernelSpec(Case("xchg"), rounds=100, proof_seconds=20)
#: What is no proof whatever it shows need not go on for long.
BRIEF = replace(SPEC, proof_seconds=5)
#: Those that show in hardly any batch are for the soak.
FREQUENT = ("split", "split-10", "split-puts", "split-one-cpu", "lost-500", "neighbour", "half")


@pytest.mark.parametrize("name", FREQUENT)
def test_a_defect_is_found(name: str) -> None:
    """By tokens or by the chain of the same boot; the sanity control, the same exchange on RAM, stays clean."""
    seen, verdict = run_until(lambda _, found: found.kind is VerdictKind.NOT_ATOMIC, built(SPEC, MUTANTS[name]))
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert seen.memory is not None
    assert all(not phase.total for phase in seen.memory.phases if phase.role is Role.SANITY)


def test_a_split_put_is_the_chain_s() -> None:
    """Only exchanges of a value that is not 0 are split, so no take is: tokens alone cannot show it."""
    kernel = built(SPEC, MUTANTS["split-puts"])
    seen, verdict = run_until(lambda _, found: found.kind is VerdictKind.NOT_ATOMIC, kernel)
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
