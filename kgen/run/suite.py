"""Run a suite, boot after boot, until every case has its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kgen.build import build
from kgen.evidence.observation import ASKED_FOR, Observation
from kgen.machine.platform import Platform
from kgen.run.follow import Watcher
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.verdict.case_run import was_run
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict


@dataclass(frozen=True)
class Boot:
    """One boot of a suite: the request and the observation."""

    spec: KernelSpec
    observation: Observation


def observe_suite(
    spec: KernelSpec,
    platform: Platform,
    options: Options,
    *,
    watcher: Watcher | None = None,
    rebooted: Callable[[Observation, int], None] | None = None,
) -> tuple[Boot, ...]:
    """Run a suite in one boot. Where a case ends the machine, run the cases after it in another boot.

    ``rebooted`` is called with the observation of a boot that ended early and the number of cases left. Raises as
    ``observe`` does.
    """
    boots: list[Boot] = []
    left = spec.cases
    spent = 0.0
    while left:
        seconds = max(len(left), round(spec.budget - spent))
        part = replace(spec, case=left[0], more=left[1:], budget=min(seconds, spec.budget))
        started = time.monotonic()
        seen = observe(build(part), platform, options, watcher=watcher)
        spent += time.monotonic() - started
        boots.append(Boot(part, seen))
        begun = [number for number in range(len(left)) if was_run(part, seen, number)]
        rest = left[len(begun) :]
        # After a boot that began no case, another boot would begin none either.
        if not rest or not begun or seen.cut_by in ASKED_FOR:
            break
        if rebooted:
            rebooted(seen, len(rest))
        left = rest
    return tuple(boots)


def case_of(boots: tuple[Boot, ...], case: Case) -> tuple[Boot, int] | None:
    """Return the boot in which a case was run, and the case's number there. For a case that was never run, return the
    last boot that had it."""
    having = [boot for boot in boots if case in boot.spec.cases]
    for boot in having:
        number = boot.spec.cases.index(case)
        if was_run(boot.spec, boot.observation, number):
            return boot, number
    return (having[-1], having[-1].spec.cases.index(case)) if having else None


def judge_cases(boots: tuple[Boot, ...]) -> tuple[tuple[Case, Boot, Verdict], ...]:
    """Return each case of a suite, the boot that its verdict is of, and the verdict. The first boot has all cases."""
    found = []
    for case in boots[0].spec.cases:
        where = case_of(boots, case)
        assert where is not None
        boot, number = where
        found.append((case, boot, judge(boot.spec, boot.observation, number)))
    return tuple(found)
