"""Carry out a request: build it, run it, judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kgen.build import build
from kgen.errors import KgenError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.host.environment import environment
from kgen.machine.platform import Platform
from kgen.report.results.model import Judged, Run, run_of_one_boot, run_of_suite
from kgen.run.follow import Watcher
from kgen.run.observe import Holder, observe
from kgen.run.options import lacking, runnable
from kgen.run.request import Request
from kgen.run.suite import judge_cases, observe_suite
from kgen.spec import Case, KernelSpec
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
    frozen machine of a case. A case of a suite that the platform has no device for is not run: its verdict is SKIP.

    Raises as ``observe`` does.
    """
    spec, platform, options = request.spec, request.platform, request.options
    if not spec.suite:
        seen = observe(build(spec), platform, options, watcher=watcher, holder=holder)
        return judged(spec, seen, invocation)
    boots = observe_suite(runnable(spec, platform), platform, options, watcher=watcher, rebooted=rebooted)
    found: dict[Case, Judged] = {
        case: ((boot.spec, boot.observation), boot.spec.cases.index(case), verdict)
        for case, boot, verdict in judge_cases(boots)
    }
    found |= _left_out(spec, platform, [case for case in spec.cases if case not in found])
    return run_of_suite(spec, platform.name, [found[case] for case in spec.cases], invocation=invocation)


def _left_out(spec: KernelSpec, platform: Platform, cases: Sequence[Case]) -> dict[Case, Judged]:
    """Return the verdicts on cases that a platform has no device for."""
    if not cases:
        return {}
    part = replace(spec, case=cases[0], more=tuple(cases[1:]))
    why = {case: f"{platform.name}: the platform has {lacking(case, platform)}" for case in cases}
    nothing = _nothing(platform.name, tuple(dict.fromkeys(why.values())))
    return {case: ((part, nothing), at, Verdict(VerdictKind.SKIP, why[case])) for at, case in enumerate(cases)}


def judged(spec: KernelSpec, observation: Observation, invocation: Sequence[str] = ()) -> Run:
    """Return the verdicts on one boot."""
    verdicts = [judge(spec, observation, number) for number in range(len(spec.cases))]
    return run_of_one_boot(spec, observation, verdicts, invocation=invocation)


def refused(spec: KernelSpec, platform: str, error: KgenError, invocation: Sequence[str] = ()) -> Run:
    """Return the verdict on each case of a request that could not be run: that of the error."""
    verdict = Verdict(VerdictKind(error.exit_code), error.line)
    nothing = _nothing(platform, (error.line,))
    return run_of_one_boot(spec, nothing, [verdict] * len(spec.cases), invocation=invocation)


def _nothing(platform: str, problems: tuple[str, ...]) -> Observation:
    """Return the observation of what was not run."""
    return Observation(
        platform=platform,
        serial=None,
        memory=None,
        path=NOT_ASKED,
        problems=problems,
        environment=environment(),
    )
