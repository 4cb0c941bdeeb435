"""Suites that prove nothing, or need not: without LOCK, broken off, and by the command. For proofs: test_proofs.py."""

from __future__ import annotations

import json
from pathlib import Path

from _kernel import run_until
from running import kgen

from kgen.build import build
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind


def test_without_lock_a_case_of_a_suite_fails() -> None:
    cases = (Case("xadd", lock=False), Case("bts", lock=False))
    spec = KernelSpec(cases[0], more=cases[1:], suite="unlocked", budget=30, rounds=20_000)
    kernel = build(spec)
    seen, _ = run_until(lambda seen, _: all(sum(judge(spec, seen, n).violations.values()) for n in (0, 1)), kernel)
    assert [judge(spec, seen, number).kind for number in (0, 1)] == [VerdictKind.NOT_ATOMIC] * 2


def test_stopped_in_the_middle_the_rest_is_told_as_not_begun() -> None:
    """--timeout is over: what was closed counts, what was not begun is INCONCLUSIVE and says so."""
    # so many tokens take ten times as long on the fastest host; a chain would end with its proof
    cases = (Case("xchg"), Case("xadd"))
    spec = KernelSpec(cases[0], more=cases[1:], suite="long", rounds=4_000_000, budget=600)
    seen = observe(build(spec), platforms()["qemu-tcg"], Options(timeout=4))
    assert "--timeout" in seen.cut
    last = judge(spec, seen, 1)
    assert last.kind is VerdictKind.INCONCLUSIVE
    assert "it was not begun" in last.reason


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[case]]\ninstr = ["xchg", "or"]\nwidth = [8, 32]\ntarget = "vga-text"\n', encoding="utf-8")
    result = tmp_path / "result.json"
    words = ("--suite", str(file), "--skip", "or.8", "--budget", "30s", "--json", str(result))
    done = kgen(tmp_path / "tmp", "verify", *words, seconds=110)
    # on a busy machine a power control may stay silent
    assert done.process.returncode in (VerdictKind.ATOMIC.value, VerdictKind.INCONCLUSIVE.value), done.stderr
    assert "suite:mine on qemu-tcg: 3 cases" in done.stdout
    found = json.loads(result.read_text(encoding="utf-8"))
    names = [entry["case"] for entry in found["cases"]]
    assert sorted(names) == ["or.32.vga-text.own-bits", "xchg.32.vga-text.token", "xchg.8.vga-text.token"]
    assert found["invocation"] == ["kgen", "verify", *words]
