"""Carry out a request: build it, run it, judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kgen.build import build
from kgen.errors import KgenError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.host.environment import environment
from kgen.report.results.model import Run, run_of_one_boot, run_of_suite
from kgen.run.follow import Watcher
from kgen.run.observe import Holder, observe
from kgen.run.request import Request
from kgen.run.suite import judge_cases, observe_suite
from kgen.spec import KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind


def carry_out(
    request: Request,
    *,
    watcher: Watcher | None = None,
    rebooted: Callable[[Observation, int], None] | None = None,
    holder: Holder | None = None,
    invocation: Sequence[str] = (),
) -> Run:
    """Run and judge a case or a suite. ``rebooted`` is called before each further boot of a suite, ``holder`` with the
    frozen machine of a case.

    Raises as ``observe`` does.
    """
    spec, platform, options = request.spec, request.platform, request.options
    if not spec.suite:
        seen = observe(build(spec), platform, options, watcher=watcher, holder=holder)
        return judged(spec, seen, invocation)
    boots = observe_suite(spec, platform, options, watcher=watcher, rebooted=rebooted)
    found = [
        ((boot.spec, boot.observation), boot.spec.cases.index(case), verdict)
        for case, boot, verdict in judge_cases(boots)
    ]
    return run_of_suite(spec, platform.name, found, invocation=invocation)


def judged(spec: KernelSpec, observation: Observation, invocation: Sequence[str] = ()) -> Run:
    """Return the verdicts on one boot."""
    verdicts = [judge(spec, observation, number) for number in range(len(spec.cases))]
    return run_of_one_boot(spec, observation, verdicts, invocation=invocation)


def refused(spec: KernelSpec, platform: str, error: KgenError, invocation: Sequence[str] = ()) -> Run:
    """Return the verdict on each case of a request that could not be run: that of the error."""
    verdict = Verdict(VerdictKind(error.exit_code), error.line)
    nothing = Observation(
        platform=platform,
        serial=None,
        memory=None,
        path=NOT_ASKED,
        problems=(error.line,),
        environment=environment(),
    )
    return run_of_one_boot(spec, nothing, [verdict] * len(spec.cases), invocation=invocation)
