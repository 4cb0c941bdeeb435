"""What is known of every target, asked there, with the controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from _kernel import built, decided, needs, run, run_until
from _places import BACKED_BY_RAM, IO, check_place, spec_of

from kgen.evidence.observation import Observation
from kgen.spec.case import resolve_target
from kgen.targets import MemoryTarget
from kgen.verdict.model import Verdict, VerdictKind


def failed_as_they_must(_: Observation, verdict: Verdict) -> bool:
    """Whether each power control was violated; for ``run_until``."""
    return all(any(control.violations.values()) for control in verdict.controls if control.role == "power")


def check(target: MemoryTarget, *, rounds: int = 400, **case: Any) -> None:
    """What QEMU's translator is known to get there, and QEMU's own word on what there is. On a device the run says all
    that a proof needs but for its length: the controls failed, the case did not."""
    kernel = built(spec_of(target.name, rounds=rounds, controls=True, **case))
    if target.name in BACKED_BY_RAM:
        seen, verdict = run(kernel)
        assert verdict.kind is VerdictKind.RAM_BACKED, verdict.reason
    else:
        seen, verdict = run_until(failed_as_they_must, kernel)
        assert failed_as_they_must(seen, verdict)
        assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
        assert "live batch" in verdict.reason
        assert verdict.judged
    assert not any(verdict.violations.values())
    assert not any(any(control.violations.values()) for control in verdict.controls if control.role == "sanity")
    check_place(target, seen)


@pytest.mark.parametrize("target", IO, ids=lambda target: target.name)
def test_tcg(target: MemoryTarget) -> None:
    check(target)


@pytest.mark.parametrize(
    ("target", "case"),
    [
        ("pc-testdev", {"instruction": "xadd", "rounds": 2000}),
        ("vga-graphics", {"width": 8}),
        ("edu", {"instruction": "bts", "rounds": 2000}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_other_instructions(target: str, case: dict[str, Any]) -> None:
    check(resolve_target(target), **case)


@pytest.mark.parametrize(
    ("target", "case"),
    [("edu", {"width": 32}), ("hpet", {"instruction": "cmpxchg8b"}), ("pc-testdev", {"width": 16})],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_proven(target: str, case: dict[str, Any]) -> None:
    """One device each of one cell, of 64 bits, and of many cells, for as long as the proof takes."""
    spec = replace(spec_of(target, controls=True, experiment="chain", **case), proof_seconds=60)
    seen, verdict = run_until(decided, built(spec))
    assert verdict.kind is VerdictKind.ATOMIC, verdict.reason
    check_place(resolve_target(target), seen)


def test_kvm() -> None:
    """The least device there is, and KVM loses or doubles tokens in it."""
    kernel = built(spec_of("pc-testdev", rounds=500))
    kvm = needs("qemu-kvm")
    for _ in range(5):
        seen, verdict = run(kernel, kvm)
        if verdict.kind is VerdictKind.NOT_ATOMIC:
            break
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    check_place(resolve_target("pc-testdev"), seen)
