"""What a suite comes to: the worst of its cases, the table, what stands out, and the document."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from recordings import Recording, load
from rich.console import Console

from kgen.report.results.document import suite_document
from kgen.report.results.model import run_of_one_boot
from kgen.report.results.write import to_json
from kgen.report.text.suite import Outcome, show_matrix
from kgen.verdict.judge import judge
from kgen.verdict.model import SEVERITY, VerdictKind, worst

RUNS = {name: load(name) for name in ("tcg-suite", "kvm-suite")}
ORDER = "ERROR > CRASH > NOT_ATOMIC > INCONCLUSIVE > UNSUPPORTED > NO_STORAGE > RAM_BACKED > SKIP > ATOMIC"


def outcomes(run: Recording) -> list[Outcome]:
    seen = run.observed()
    return [Outcome(case, judge(run.spec, seen, number), 0) for number, case in enumerate(run.spec.cases)]


def shown(run: Recording) -> list[str]:
    text = io.StringIO()
    show_matrix(Console(file=text, width=60), run.spec, run.platform, outcomes(run))
    return text.getvalue().splitlines()


def test_the_worst_case_decides() -> None:
    order = [VerdictKind[name] for name in ORDER.split(" > ")]
    assert list(SEVERITY) == order
    assert set(SEVERITY) == set(VerdictKind)
    for worse, better in itertools.combinations(order, 2):
        assert worst([better, worse, better]) is worst([worse, better]) is worse
        assert worst([better]) is better


@pytest.mark.parametrize(
    ("name", "total"),
    [("tcg-suite", "RAM_BACKED: 1 RAM_BACKED, 3 ATOMIC"), ("kvm-suite", "NOT_ATOMIC: 3 NOT_ATOMIC, 1 RAM_BACKED")],
)
def test_the_sum_comes_first_and_last(name: str, total: str) -> None:
    lines = shown(RUNS[name])
    assert lines[1] == lines[-1] == total
    assert lines[0] == f"suite:recorded on {RUNS[name].platform}: 4 cases"


@pytest.mark.parametrize("name", RUNS)
def test_whatever_is_not_atomic_stands_out(name: str) -> None:
    run = RUNS[name]
    lines = shown(run)
    for outcome in outcomes(run):
        line = f"{outcome.case.id}: {outcome.verdict.kind.name}: {outcome.verdict.reason}"
        assert (line in lines) == (outcome.verdict.kind is not VerdictKind.ATOMIC)


def test_what_is_atomic_has_its_bounds() -> None:
    run = RUNS["tcg-suite"]
    atomic = [each.verdict for each in outcomes(run) if each.verdict.kind is VerdictKind.ATOMIC]
    judged = [each.judged for each in atomic]
    (line,) = (line for line in shown(run) if "where ATOMIC, N is" in line)
    assert line == (
        f"where ATOMIC, N is {min(judged)} to {max(judged)} live batches: at most {3 / max(judged):.2g} to "
        f"{3 / min(judged):.2g} per live batch at 95 %, in the median {3 / sorted(judged)[1]:.2g}"
    )
    assert not [line for line in shown(RUNS["kvm-suite"]) if "where ATOMIC" in line]


def test_one_case_is_told_as_one() -> None:
    run = RUNS["tcg-suite"]
    (each, *_) = (each for each in outcomes(run) if each.verdict.kind is VerdictKind.ATOMIC)
    file = io.StringIO()
    show_matrix(Console(file=file, width=120), run.spec, run.platform, [each])
    assert ": 1 case\n" in file.getvalue()
    bound = f"{each.verdict.bound:.2g}"
    told = f"where ATOMIC, N is {each.verdict.judged} live batches: at most {bound} per live batch at 95 %\n"
    assert told in file.getvalue()


@pytest.mark.parametrize("name", RUNS)
def test_the_document_round_trips(name: str) -> None:
    run = RUNS[name]
    arguments = (run.spec, run.platform, [(run.spec, run.observed())], outcomes(run))
    text = to_json([run_of_one_boot(run.spec, run.observed(), [each.verdict for each in outcomes(run)])])
    assert text.endswith("}\n")
    value = json.loads(text)
    assert value == suite_document(*arguments)
    kinds = [each.verdict.kind for each in outcomes(run)]
    assert value["verdict"] == {"kind": worst(kinds).name, "exit_code": worst(kinds).value}
    assert [each["case"] for each in value["cases"]] == [case.id for case in run.spec.cases]
    assert [each["verdict"]["kind"] for each in value["cases"]] == [kind.name for kind in kinds]
    assert [boot["digest"] for boot in value["boots"]] == [run.spec.digest()]
