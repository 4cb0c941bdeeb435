"""Results as values and as the document that ``reading.load`` reads, whoever came to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kgen import __version__
from kgen.evidence.observation import Observation
from kgen.report.results.document import SCHEMA, document
from kgen.report.results.read import Result, Run
from kgen.report.text.suite import Outcome, suite_document, worst
from kgen.spec.kernel_spec import KernelSpec
from kgen.verdict.judge import Verdict

#: The verdict on one case of a suite: the boot it is of, the case's number in that boot's request, and the verdict.
Judged = tuple[tuple[KernelSpec, Observation], int, Verdict]


def run_of_case(
    spec: KernelSpec | None,
    observation: Observation,
    verdict: Verdict,
    *,
    invocation: Sequence[str] = (),
    where: str = "",
) -> Run:
    """A case that was run alone; ``spec`` is None where nobody can tell what was asked."""
    case = spec.name if spec else ""
    result = Result(where, case, spec, 0, observation, verdict, __version__, tuple(invocation))
    return Run(where, spec, observation.platform, (result,))


def run_of_suite(
    spec: KernelSpec, platform: str, judged: Sequence[Judged], *, invocation: Sequence[str] = (), where: str = ""
) -> Run:
    """A suite, in as many boots as it took."""
    words = tuple(invocation)
    results = [
        Result(where, boot.cases[number].id, boot, number, observation, verdict, __version__, words)
        for (boot, observation), number, verdict in judged
    ]
    return Run(where, spec, platform, tuple(results))


def run_of_one_boot(
    spec: KernelSpec | None,
    observation: Observation,
    verdicts: Sequence[Verdict],
    *,
    invocation: Sequence[str] = (),
    where: str = "",
) -> Run:
    """What one boot showed: a suite's cases, or the only one."""
    if spec is None or not spec.suite:
        return run_of_case(spec, observation, verdicts[0], invocation=invocation, where=where)
    boot = (spec, observation)
    judged = [(boot, number, verdict) for number, verdict in enumerate(verdicts)]
    return run_of_suite(spec, observation.platform, judged, invocation=invocation, where=where)


def outcomes_of(run: Run) -> tuple[Outcome, ...]:
    """The cases of a suite as the matrix shows them, with the number of the boot that each ran in."""
    boots = [id(seen) for seen in run.boots]
    cases = {case.id: case for case in run.spec.cases} if run.spec else {}
    return tuple(Outcome(cases[each.case], each.verdict, boots.index(id(each.observation))) for each in run.results)


def to_json(runs: Sequence[Run]) -> str:
    """The document with a final newline: that of the only run, or all of them with the worst verdict."""
    made = [_document(run) for run in runs]
    if len(made) == 1:
        return json.dumps(made[0], indent=2) + "\n"
    total = worst([run.kind for run in runs])
    whole = {
        "schema": SCHEMA,
        "kgen": __version__,
        "invocation": list(runs[0].results[0].invocation),
        "platform": runs[-1].platform,
        "verdict": {"kind": total.name, "exit_code": total.value},
        "runs": [{"where": run.where, **each} for run, each in zip(runs, made, strict=True)],
    }
    return json.dumps(whole, indent=2) + "\n"


def _document(run: Run) -> dict[str, Any]:
    first = run.results[0]
    if run.spec is None or not run.spec.suite:
        made = document(first.spec, first.observation, first.verdict, first.invocation)
    else:
        seen = {id(each.observation): (each.spec, each.observation) for each in run.results}
        boots = [(spec, observation) for spec, observation in seen.values() if spec is not None]
        made = suite_document(run.spec, run.platform, boots, outcomes_of(run), first.invocation)
    # whoever wrote the result, not who hands it on
    return made | {"kgen": first.kgen}
