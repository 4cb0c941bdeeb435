"""What is known of every target, asked there, with the controls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from _kernel import built, decided, needs, run, run_until
from _places import BACKED_BY_RAM, IO, check_place, spec_of, suite_of

from kgen.spec import Case
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

#: Every place, with other instructions and widths besides.
CASES = (
    *(Case("xchg", target=target.name) for target in IO),
    Case("xadd", target="pc-testdev"),
    Case("xchg", 8, target="vga-graphics"),
    Case("bts", target="edu"),
)
#: For all cases of a boot, in seconds: on an idle host many times what a control needs until it fails.
BUDGET = 6


def is_seen(case: Case, verdict: Verdict) -> bool:
    """Whether a boot has shown of a case what it must show of every one: each power control was violated, and batches
    of the case were judged. Of what RAM backs nothing is to be learnt."""
    failed = all(any(control.violations.values()) for control in verdict.controls if control.role == "power")
    return case.target in BACKED_BY_RAM or (failed and bool(verdict.judged))


@pytest.mark.timeout(400)
def test_tcg() -> None:
    """What QEMU's translator is known to get at every target, and QEMU's own word on what there is. On a device the
    controls fail, and the case does not: that is a proof, or all of one but its length.

    The CPUs of a busy machine may not meet in one boot: what was not seen in it is left to the next one.
    """
    left: Sequence[Case] = CASES
    for _ in range(10):
        spec = suite_of(*left, budget=BUDGET, rounds=400, controls=True)
        seen, _ = run(built(spec), timeout=200.0)
        verdicts = {case: judge(spec, seen, number) for number, case in enumerate(left)}
        for number, (case, verdict) in enumerate(verdicts.items()):
            check(case, verdict)
            check_place(spec, seen, number)
        left = [case for case, verdict in verdicts.items() if not is_seen(case, verdict)]
        if not left:
            break
    assert not left, [(case.id, verdicts[case].reason) for case in left]


def check(case: Case, verdict: Verdict) -> None:
    """What holds of a case in every run."""
    where = f"{case.id}: {verdict.reason}"
    if case.target in BACKED_BY_RAM:
        assert verdict.kind is VerdictKind.RAM_BACKED, where
    else:
        assert verdict.kind in (VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE), where
        assert "live batch" in verdict.reason, where
    assert not any(verdict.violations.values()), where
    sanity = [control for control in verdict.controls if control.role == "sanity"]
    assert sanity, where
    assert not any(any(control.violations.values()) for control in sanity), where


def test_kvm() -> None:
    """The least device there is, and KVM loses or doubles tokens in it."""
    spec = spec_of("pc-testdev", rounds=500)
    seen, verdict = run_until(decided, built(spec), platform=needs("qemu-kvm"))
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    check_place(spec, seen)
