"""A case that ends badly in the middle of a suite costs only its own verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from _kernel import built

from kgen.build import Kernel
from kgen.platforms import platforms
from kgen.run.options import Options
from kgen.run.suite import Boot, judge_cases, observe_suite
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import Verdict, VerdictKind

NAMES = ("add", "inc", "sub", "xadd")
#: What the routine of an instruction does instead; the instruction itself stays behind it, so that it is still the
#: kernel it was.
TRAPS = {
    "undefined": "    ud2\n",
    # a selector beyond the table
    "protection": "    mov eax, 0x7FF8\n    mov fs, ax\n",
    "triple": "    push 0\n    push 0\n    lidt [esp]\n    ud2\n",
    "hang": ".for_ever:\n    hlt\n    jmp .for_ever\n",
}


def run(traps: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Boot, ...], dict[str, Verdict]]:
    """The suite, with these traps by the names of instructions."""

    def edit(text: str) -> str:
        for name, trap in traps.items():
            text, count = re.subn(rf"^(step_{name}_32):\n", rf"\1:\n{TRAPS[trap]}", text, flags=re.MULTILINE)
            # the routine is not in the kernel of a boot that comes after it
            assert count <= 1
        return text

    def build(spec: KernelSpec) -> Kernel:
        return built(spec, edit)

    monkeypatch.setattr("kgen.run.suite.build", build)
    monkeypatch.setattr("kgen.run.follow.SUITE_STALL_SECONDS", 8.0)
    cases = tuple(Case(name, 32, target="ram") for name in NAMES)
    spec = KernelSpec(cases[0], more=cases[1:], suite="traps", budget=8, rounds=500)
    boots = observe_suite(spec, platforms()["qemu-tcg"], Options(timeout=110.0))
    return boots, {case.instruction: verdict for case, _, verdict in judge_cases(boots)}


def check_others(verdicts: dict[str, Verdict], *trapped: str) -> None:
    for name in set(NAMES) - set(trapped):
        # A budget so short may not hold enough live batches on RAM; nothing else may stand in the way.
        verdict = verdicts[name]
        told = verdict.kind is VerdictKind.ATOMIC or "live batch" in verdict.reason
        assert told, f"{name}: {verdict.kind.name}: {verdict.reason}"
        assert verdict.rounds > 0


def test_exceptions_end_their_cases_and_not_the_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, verdicts = run({"inc": "undefined", "sub": "protection"}, monkeypatch)
    assert len(boots) == 1
    for name, vector in (("inc", "#UD"), ("sub", "#GP")):
        assert verdicts[name].kind is VerdictKind.UNSUPPORTED
        assert vector in verdicts[name].reason
    check_others(verdicts, "inc", "sub")


def test_after_a_triple_fault_the_next_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, verdicts = run({"inc": "triple"}, monkeypatch)
    assert [boot.spec.case.instruction for boot in boots] == ["add", "sub"]
    assert verdicts["inc"].kind is VerdictKind.CRASH
    check_others(verdicts, "inc")


@pytest.mark.soak
def test_after_a_hang_the_next_boot_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    boots, verdicts = run({"inc": "hang"}, monkeypatch)
    assert [boot.spec.case.instruction for boot in boots] == ["add", "sub"]
    assert verdicts["inc"].kind in (VerdictKind.ERROR, VerdictKind.INCONCLUSIVE)
    check_others(verdicts, "inc")
