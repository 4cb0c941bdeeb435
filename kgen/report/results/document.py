"""The result as one JSON document. The schema is versioned and described in docs/result-schema.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from kgen import __version__
from kgen.evidence.observation import Observation
from kgen.kernel.plan import phases
from kgen.report.text.case import summary
from kgen.report.text.suite import OF_THE_WHOLE, Outcome
from kgen.spec import KernelSpec
from kgen.verdict.model import Verdict, worst

SCHEMA = 4
#: Documents from this version on are still read.
OLDEST_SCHEMA = 3
#: What stands elsewhere in the document, or is known only while kgen runs.
_ELSEWHERE = frozenset({"platform", "log", "cut_by"})


def document(
    spec: KernelSpec | None, observation: Observation, verdict: Verdict | None, invocation: Sequence[str] = ()
) -> dict[str, Any]:
    """Return everything that was asked, seen and concluded, as plain JSON values.

    ``spec`` is None where the request is unknown; ``invocation`` is the command line of the run.
    """
    seen = plain(observation)
    return {
        "schema": SCHEMA,
        "kgen": __version__,
        "invocation": list(invocation),
        "case": spec.name if spec else "",
        "spec": plain(spec),
        "digest": spec.digest() if spec else "",
        "phases": [phase.label for phase in phases(spec)] if spec else [],
        "platform": observation.platform,
        **({"verdict": plain(verdict) | {"exit_code": verdict.exit_code}} if verdict else {}),
        "observation": {name: value for name, value in seen.items() if name not in _ELSEWHERE},
        "serial_log": observation.log,
    }


def plain(value: Any) -> Any:
    """Dataclasses become objects, enumerations their lower-case names, tuples lists."""
    if value is None or type(value) in (str, int, bool, float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.name if value.__class__.__name__ == "VerdictKind" else value.name.lower()
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(entry) for entry in value]
    return value


def suite_document(
    spec: KernelSpec,
    platform: str,
    boots: Sequence[tuple[KernelSpec, Observation]],
    outcomes: Sequence[Outcome],
    invocation: Sequence[str] = (),
) -> dict[str, Any]:
    """Return everything that was asked, seen and concluded of a suite, as plain JSON values."""
    total = worst([outcome.verdict.kind for outcome in outcomes])
    return {
        "schema": SCHEMA,
        "kgen": __version__,
        "invocation": list(invocation),
        "suite": spec.suite,
        "spec": plain(spec),
        "platform": platform,
        "verdict": {"kind": total.name, "exit_code": total.value},
        "cases": [
            {
                "case": outcome.case.id,
                "boot": outcome.boot,
                "verdict": plain(outcome.verdict) | {"exit_code": outcome.verdict.exit_code},
                "violations": summary(outcome.verdict.violations),
            }
            for outcome in outcomes
        ],
        "boots": [
            {name: value for name, value in document(part, seen, None).items() if name not in OF_THE_WHOLE}
            for part, seen in boots
        ],
    }
