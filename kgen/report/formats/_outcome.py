"""What a verdict is to a tool that knows only tests: passed, failed, broken, or not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from kgen.evidence.observation import Observation
from kgen.report.results.model import Result, Run
from kgen.report.text.labels import labels
from kgen.verdict.model import VerdictKind
from kgen.wording import fact


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
    """Return the verdicts that state nothing about atomicity are SKIPPED, with their reason."""
    return _OUTCOMES.get(kind, Outcome.SKIPPED)


def name_of(result: Result) -> str:
    """Return the case's id; "unknown" where the request is unknown."""
    return result.case or "unknown"


def names_apart(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return a name for each run that has a case on a platform where another run has it too, "" for all others.

    Servers take two tests of one name for one, and some look at the first of them only.
    """
    names = labels([run.where for run in runs])
    tests = [{(run.platform, name_of(result)) for result in run.results} for run in runs]
    seen = Counter(test for each in tests for test in each)
    return tuple(name if any(seen[test] > 1 for test in each) else "" for name, each in zip(names, tests, strict=True))


def seconds_of(result: Result) -> float:
    """Return how long the case itself ran, by the guest's clock; 0 where that is not known."""
    seen, record = result.observation.best, result.phase_record
    if seen is None or record is None or seen.khz <= 0:
        return 0.0
    return max(record.ticks, 0) / (1000.0 * seen.khz)


def facts_of(observation: Observation) -> Mapping[str, str]:
    """Return where it was seen, as names and values; what is not known is left out."""
    about = observation.environment
    found = {
        "platform": observation.platform,
        "hypervisor": fact(about, "versions", "emulator"),
        "host.cpu": fact(about, "host", "cpu"),
        "host.system": fact(about, "host", "system"),
        "host.kernel": fact(about, "host", "kernel"),
        "host.microcode": fact(about, "host", "microcode"),
    }
    return {name: value for name, value in found.items() if value}
