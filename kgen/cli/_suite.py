"""The part of ``kgen verify`` that deals with suites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgen.cli._files import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from kgen.observation import Observation
    from kgen.report.matrix import Outcome
    from kgen.spec import KernelSpec
    from kgen.verdict import VerdictKind


def verify_suite(console: Console, job: Any, live: Any) -> VerdictKind:
    """Run a suite, judge each case, tell; how the whole came out."""
    from kgen.pipeline import judge_cases, observe_suite
    from kgen.report.matrix import Outcome

    def rebooted(seen: Observation, left: int) -> None:
        why = seen.crash or seen.cut or "the guest came to its end early"
        click.echo(f"kgen: {why}; starting again for the {left} cases that are left", err=True)

    boots = observe_suite(job.spec, job.platform, job.options, watcher=live.show, rebooted=rebooted)
    live.stop()
    outcomes = [Outcome(case, verdict, boots.index(boot)) for case, boot, verdict in judge_cases(boots)]
    pairs = [(boot.spec, boot.observation) for boot in boots]
    return _tell(console, job.spec, job.platform.name, pairs, outcomes, job.json_file, job.invocation)


def tell_suite(
    console: Console,
    spec: KernelSpec,
    observation: Observation,
    json_file: Path | None,
    invocation: tuple[str, ...] = (),
) -> VerdictKind:
    """Judge every case of a suite that somebody else has run, and tell; how the whole came out."""
    from kgen.report.matrix import Outcome
    from kgen.verdict import judge

    outcomes = [Outcome(case, judge(spec, observation, number), 0) for number, case in enumerate(spec.cases)]
    return _tell(console, spec, observation.platform, [(spec, observation)], outcomes, json_file, invocation)


def _tell(
    console: Console,
    spec: KernelSpec,
    platform: str,
    boots: list[tuple[KernelSpec, Observation]],
    outcomes: list[Outcome],
    json_file: Path | None,
    invocation: tuple[str, ...] = (),
) -> VerdictKind:
    from kgen.report.matrix import show_matrix, suite_json, worst

    show_matrix(console, spec, platform, outcomes)
    console.file.flush()
    if json_file is not None:
        write_text(json_file, suite_json(spec, platform, boots, outcomes, invocation))
    return worst([outcome.verdict.kind for outcome in outcomes])
