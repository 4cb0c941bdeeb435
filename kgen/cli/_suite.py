"""The part of ``kgen verify`` that deals with suites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kgen.report.results.store import write_result

if TYPE_CHECKING:
    from rich.console import Console

    from kgen.evidence.observation import Observation
    from kgen.verdict.model import VerdictKind


def verify_suite(console: Console, job: Any, live: Any) -> VerdictKind:
    """Run a suite, judge each case, report. Returns the verdict of the whole."""
    from kgen.report.results.model import show_run
    from kgen.run.verify import carry_out

    def rebooted(seen: Observation, left: int) -> None:
        why = seen.crash or seen.cut or "the guest ended early"
        click.echo(f"kgen: {why}; starting again for the {left} cases that are left", err=True)

    run = carry_out(
        job.spec, job.platform, job.options, watcher=live.show, rebooted=rebooted, invocation=job.invocation
    )
    live.stop()
    show_run(console, run)
    console.file.flush()
    write_result(job.json_file, run)
    return run.kind
