"""Results as values and as the document that ``read.load`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kgen import __version__
from kgen.report.results.document import SCHEMA, document, suite_document
from kgen.report.results.model import Run, outcomes_of
from kgen.verdict.model import worst


def to_json(runs: Sequence[Run]) -> str:
    """Return the document with a final newline: that of the only run, or all of them with the worst verdict."""
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
    # the version that wrote the result, not the one that passes it on
    return made | {"kgen": first.kgen}
