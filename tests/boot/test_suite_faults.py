"""A case that ends badly in the middle of a suite costs only its own verdict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _kernel import built

from kgen.build import Kernel
from kgen.platforms import platforms
from kgen.run.options import Options
from kgen.run.suite import Boot, judge_cases, observe_suite
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import Verdict, VerdictKind

NAMES = ("add", "inc", "sub", "xadd")
#: What the routine of INC does instead; the instruction itself stays behind it, so that it is still the kernel it was.
TRAPS = {
    "undefined": "    ud2\n",
    # a selector beyond the table
    "protection": "    mov eax, 0x7FF8\n    mov fs, ax\n",
    "triple": "    push 0\n    push 0\n    lidt [esp]\n    ud2\n",
    "hang": ".for_ever:\n    hlt\n    jmp .for_ever\n",
}


def run(trap: str, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Boot, ...], dict[str, Verdict]]:
    def edit(text: str) -> str:
        changed, count = re.subn(r"^(step_inc_32):\n", rf"\1:\n{TRAPS[trap]}", text, flags=re.MULTILINE)
        # the routine is not in the kernel of a boot that comes after it
        assert count <= 1
        return changed

    def build(spec: KernelSpec) -> Kernel:
        return built(spec, edit)

    monkeypatch.setattr("kgen.run.suite.build", build)
    monkeypatch.setattr("kgen.run.follow.SUITE_STALL_SECONDS", 8.0)
    cases = tuple(Case(name, 32, target="ram") for name in NAMES)
    spec = KernelSpec(cases[0], more=cases[1:], suite="traps", budget=8, rounds=500)
    boots = observe_suite(spec, platforms()["qemu-tcg"], Options(timeout=110.0))
    return boots, {case.instruction: verdict for case, _, verdict in judge_cases(boots)}


def check_others(verdicts: dict[str, Verdict]) -> None:
    for name in set(NAMES) - {"inc"}:
        # A budget so short may not hold enough live batches on RAM; nothing else may stand in the way.
        verdict = verdicts[name]
        told = verdict.kind is VerdictKind.ATOMIC or "live batch" in verdict.reason
        assert told, f"{name}: {verdict.kind.name}: {verdict.reason}"
        assert verdict.rounds >= 500


@pytest.mark.parametrize(("trap", "vector"), [("undefined", "#UD"), ("protection", "#GP")])
def test_an_exception_ends_the_case_and_not_the_boot(
    trap: str, vector: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boots, verdicts = run(trap, monkeypatch)
    assert len(boots) == 1
    assert verdicts["inc"].kind is VerdictKind.UNSUPPORTED
    assert vector in verdicts["inc"].reason
    check_others(verdicts)


def test_after_a_triple_fault_the_next_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, verdicts = run("triple", monkeypatch)
    assert [boot.spec.case.instruction for boot in boots] == ["add", "sub"]
    assert verdicts["inc"].kind is VerdictKind.CRASH
    check_others(verdicts)


@pytest.mark.soak
def test_after_a_hang_the_next_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, verdicts = run("hang", monkeypatch)
    assert [boot.spec.case.instruction for boot in boots] == ["add", "sub"]
    assert verdicts["inc"].kind in (VerdictKind.ERROR, VerdictKind.INCONCLUSIVE)
    check_others(verdicts)
