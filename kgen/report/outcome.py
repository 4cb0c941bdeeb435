"""What a verdict is to a tool that knows only tests: passed, failed, broken, or not run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from enum import Enum

from kgen.observation import Observation
from kgen.report.reading import Result
from kgen.report.text import show_case, show_unknown
from kgen.verdict import VerdictKind


class Outcome(Enum):
    """The four ends of a test that JUnit and TAP know. ``SKIPPED``: nothing was learnt, so that nothing passed."""

    PASSED = "passed"
    FAILED = "failure"
    BROKEN = "error"
    SKIPPED = "skipped"


_OUTCOMES: Mapping[VerdictKind, Outcome] = {
    VerdictKind.ATOMIC: Outcome.PASSED,
    VerdictKind.NOT_ATOMIC: Outcome.FAILED,
    VerdictKind.ERROR: Outcome.BROKEN,
    VerdictKind.CRASH: Outcome.BROKEN,
}


def outcome_of(kind: VerdictKind) -> Outcome:
    """The verdicts that state nothing about atomicity are SKIPPED, with their reason."""
    return _OUTCOMES.get(kind, Outcome.SKIPPED)


def name_of(result: Result) -> str:
    """The case's id; "unknown" where nobody can tell what was asked."""
    return result.case or "unknown"


def account_of(result: Result) -> tuple[str, ...]:
    """The verdict and what it rests on, in lines: a case of its own as one of a suite."""
    from rich.console import Console

    console = Console(file=io.StringIO(), color_system=None)
    if result.spec is None:
        show_unknown(console, result.observation, result.verdict)
    else:
        show_case(console, result.spec, result.number, result.observation.platform, result.verdict)
    assert isinstance(console.file, io.StringIO)
    return tuple(console.file.getvalue().splitlines())


def seconds_of(result: Result) -> float:
    """How long the case itself ran, by the guest's clock; 0 where that is not known."""
    record = result.observation.best
    if record is None or result.spec is None or record.khz <= 0:
        return 0.0
    index = case_phase(result)
    ticks = next((phase.ticks for phase in record.phases if phase.index == index), 0)
    return max(ticks, 0) / (1000.0 * record.khz)


def case_phase(result: Result) -> int:
    """The index of the phase that is the case itself."""
    from kgen.plan import phases_of

    assert result.spec is not None
    return phases_of(result.spec, result.number)[-1].index


def facts_of(observation: Observation) -> Mapping[str, str]:
    """Where it was seen, as names and values; what is not known is left out."""
    about = observation.environment
    found = {
        "platform": observation.platform,
        "hypervisor": _word(about, "versions", "emulator"),
        "host.cpu": _word(about, "host", "cpu"),
        "host.system": _word(about, "host", "system"),
        "host.kernel": _word(about, "host", "kernel"),
        "host.microcode": _word(about, "host", "microcode"),
    }
    return {name: value for name, value in found.items() if value}


def _word(about: Mapping[str, object], group: str, name: str) -> str:
    entry = about.get(group)
    value = entry.get(name) if isinstance(entry, Mapping) else None
    return value if isinstance(value, str) else ""
