"""Test Anything Protocol, version 13 (https://testanything.org/tap-version-13-specification.html).

All of it is version 14, too, but readers of 13 (Perl's, which is prove's) refuse a stream that calls itself so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kgen.report.formats import ReportFormat
from kgen.report.formats._outcome import Outcome, facts_of, name_of, names_apart, outcome_of
from kgen.report.results.model import Result, Run, account


def render(runs: Sequence[Run]) -> str:
    """Return a test point a case, with what its verdict rests on as its diagnostics."""
    results = [result for run in runs for result in run.results]
    lines = ["TAP version 13", f"1..{len(results)}"]
    number = 0
    for run, name in zip(runs, names_apart(runs), strict=True):
        place = f"{run.platform}, {name}" if name else run.platform
        source = f", from {_line(run.where)}" if run.where else ""
        lines.append(f"# {_line(run.spec.name if run.spec else 'unknown')} on {_line(run.platform)}{source}")
        for result in run.results:
            number += 1
            lines += _point(number, place, result)
    return "\n".join(lines) + "\n"


def _point(number: int, place: str, result: Result) -> Iterator[str]:
    verdict, outcome = result.verdict, outcome_of(result.verdict.kind)
    ok = "ok" if outcome in (Outcome.PASSED, Outcome.SKIPPED) else "not ok"
    skipped = f" # SKIP {verdict.kind.name}: {_line(verdict.reason)}" if outcome is Outcome.SKIPPED else ""
    yield f"{ok} {number} - {_line(name_of(result))} on {_line(place)}{skipped}"
    yield "  ---"
    yield f"  verdict: {verdict.kind.name}"
    yield f"  message: {_scalar(verdict.reason)}"
    yield f"  rounds: {verdict.rounds}"
    yield f"  judged: {verdict.judged}"
    yield f"  chance: {_scalar(verdict.chance)}"
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
        # a block, not a list: readers of the small YAML that TAP allows take "- word: word" for a mapping
        yield "  account: |"
        for line in account(result).split("\n"):
            if line.strip():
                yield f"    {_plain(line)}"
    yield "  ..."


def _scalar(text: str) -> str:
    """Return a YAML scalar on one line, in double quotes and ASCII."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    code = ord("\ufffd") if "\ud800" <= character <= "\udfff" else ord(character)
    return character if " " <= character <= "~" else f"\\U{code:08x}"


def _plain(text: str) -> str:
    """Return a line of a block: ASCII, and nothing that ends a line or, as readers see it, the diagnostics."""
    text = text.replace("\t", " ")  # nothing in a block says that \\t would be one
    shown = "".join(character if " " <= character <= "~" else ascii(character)[1:-1] for character in text)
    indent = " " * (len(shown) - len(shown.lstrip()))
    return f"{indent}{shown[len(indent) :].lstrip('. ')}" if shown.lstrip().startswith("...") else shown


def _line(text: str) -> str:
    """Return text that stays a description: one line, no directive begins in it.

    ``\\#`` would do, but not every reader of TAP knows that, so both characters become blanks; the diagnostics have
    them.
    """
    shown = "".join(character if character.isprintable() and character not in "#\\" else " " for character in text)
    return " ".join(shown.split())


FORMAT = ReportFormat("tap", ".tap", "Test Anything Protocol, version 13", render)
