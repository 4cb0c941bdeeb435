"""Test Anything Protocol, version 14 (https://testanything.org/tap-version-14-specification.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from kgen.report.formats import ReportFormat
from kgen.report.outcome import Outcome, account_of, facts_of, name_of, outcome_of
from kgen.report.reading import Result, Run


def render(runs: Sequence[Run]) -> str:
    """A test point a case, with what its verdict rests on as its diagnostics."""
    results = [result for run in runs for result in run.results]
    lines = ["TAP version 14", f"1..{len(results)}"]
    number = 0
    for run in runs:
        lines.append(
            f"# {_line(run.spec.name if run.spec else 'unknown')} on {_line(run.platform)}, from {_line(run.where)}"
        )
        for result in run.results:
            number += 1
            lines += _point(number, run, result)
    return "\n".join(lines) + "\n"


def _point(number: int, run: Run, result: Result) -> Iterator[str]:
    verdict, outcome = result.verdict, outcome_of(result.verdict.kind)
    ok = "ok" if outcome in (Outcome.PASSED, Outcome.SKIPPED) else "not ok"
    skipped = f" # SKIP {verdict.kind.name}: {_line(verdict.reason)}" if outcome is Outcome.SKIPPED else ""
    yield f"{ok} {number} - {_line(name_of(result))} on {_line(run.platform)}{skipped}"
    yield "  ---"
    yield f"  verdict: {verdict.kind.name}"
    yield f"  message: {_scalar(verdict.reason)}"
    yield f"  rounds: {verdict.rounds}"
    if verdict.violations:
        yield "  violations:"
        for kind, count in verdict.violations.items():
            yield f"    {_scalar(kind)}: {count}"
    if verdict.bound is not None:
        yield f"  bound: {verdict.bound!r}"
    yield f"  kgen: {_scalar(result.kgen)}"
    for name, value in facts_of(result.observation).items():
        yield f"  {name}: {_scalar(value)}"
    if outcome is not Outcome.PASSED:
        yield "  account:"
        for line in account_of(result):
            yield f"    - {_scalar(line)}"
    yield "  ..."


def _scalar(text: str) -> str:
    """A YAML scalar on one line: YAML 1.2 takes every JSON string that holds ASCII alone."""
    return json.dumps(text.encode("utf-8", "replace").decode("utf-8"), ensure_ascii=True)


def _line(text: str) -> str:
    """Text that stays a description: one line, no directive begins in it."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.replace("\\", "\\\\").replace("#", "\\#").split())


FORMAT = ReportFormat("tap", ".tap", "Test Anything Protocol, version 14", render)
