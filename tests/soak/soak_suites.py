"""The whole table, on the platforms whose answers are known, and no false alarm in a million operations."""

from __future__ import annotations

import pytest

from kgen.build import build
from kgen.instructions import instructions
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.run.suite import Boot, judge_cases, observe_suite
from kgen.spec import KernelSpec
from kgen.spec.case import Case, alignment, resolve_target
from kgen.spec.suites import MAIN_TARGETS, load
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

OPERATIONS = 1_000_000
#: What is RAM behind the adapter or the device.
RAM_BACKED = frozenset({"framebuffer", "ivshmem", "vga-chained"})


def table(platform: str, budget: int) -> dict[Case, Verdict]:
    """Every case of ``full`` with its verdict, in one boot."""
    _, cases = load("full")
    spec = KernelSpec(cases[0], more=cases[1:], suite="full", budget=budget)
    boots: tuple[Boot, ...] = observe_suite(spec, platforms()[platform], Options(timeout=3.0 * budget))
    found = {case: verdict for case, _, verdict in judge_cases(boots)}
    for case, verdict in found.items():
        print(f"{case.id}: {verdict.kind.name}: {verdict.reason}")
    return found


@pytest.mark.timeout(3600)
def test_the_whole_table_on_tcg() -> None:
    for case, verdict in table("qemu-tcg", 1200).items():
        expected = VerdictKind.RAM_BACKED if case.target in RAM_BACKED else VerdictKind.ATOMIC
        assert verdict.kind is expected, f"{case.id}: {verdict.kind.name}: {verdict.reason}"
        if resolve_target(case.target).declared == "io" and expected is VerdictKind.ATOMIC:
            powers = [control for control in verdict.controls if control.role == "power"]
            assert powers
            assert all(any(control.violations.values()) for control in powers), case.id


@pytest.mark.timeout(3600)
def test_the_whole_table_on_kvm() -> None:
    reason = platforms()["qemu-kvm"].unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"qemu-kvm: {reason}")
    for case, verdict in table("qemu-kvm", 1200).items():
        if _faulty_on_ram(case) and verdict.kind is VerdictKind.ERROR:
            assert f"sanity:{case.instruction}" in verdict.reason, f"{case.id}: {verdict.reason}"
            continue
        entry = instructions()[case.instruction]
        if case.target in MAIN_TARGETS and entry.lockable and case.experiment == entry.experiment:
            allowed = {VerdictKind.NOT_ATOMIC, VerdictKind.UNSUPPORTED}
            assert verdict.kind in allowed, f"{case.id}: {verdict.kind.name}: {verdict.reason}"
        if case.target == "ram":
            assert verdict.kind is VerdictKind.ATOMIC, f"{case.id}: {verdict.kind.name}: {verdict.reason}"


def _faulty_on_ram(case: Case) -> bool:
    """What a KVM that emulates the whole guest gets wrong on RAM too: its sanity control fails (docs/suites.md)."""
    lies = alignment(resolve_target(case.target), case.offset, case.width)
    return lies == "page" or case.instruction in ("adc", "sbb") or case.experiment == "torn"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(name for name, entry in instructions().items() if entry.lockable))
def test_no_false_alarm_in_a_million_operations(name: str) -> None:
    """On TCG, which carries every LOCKed operation out alone."""
    kernel = build(KernelSpec(Case(name), rounds=OPERATIONS, controls=False))
    seen = observe(kernel, platforms()["qemu-tcg"], Options(timeout=800))
    verdict = judge(kernel.spec, seen)
    assert verdict.rounds >= OPERATIONS
    assert sum(verdict.violations.values()) == 0, verdict.reason
    assert verdict.reason == "no controls were run"
