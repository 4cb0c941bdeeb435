"""Carry out a request: check it, build it, run it, judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kgen.build import build
from kgen.errors import KgenError, SpecError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.files import check_program
from kgen.host.environment import environment
from kgen.machine.platform import Platform
from kgen.report.results.model import Run, run_of_one_boot, run_of_suite
from kgen.run.follow import Watcher
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.run.suite import judge_cases, observe_suite
from kgen.spec import KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

#: QEMU's arguments by which kgen would lose control of the machine; of several gdb stubs the last one counts.
_OURS = {
    f"{dashes}{name}": why
    for dashes in ("-", "--")
    for name, why in (
        ("daemonize", "QEMU must stay ours to watch and to end"),
        ("gdb", "the gdb stub is how kgen reads the machine; --keep leaves it to you"),
        ("s", "the gdb stub is how kgen reads the machine; --keep leaves it to you"),
    )
}


def check_arguments(platform: Platform, qemu: str | None, extra: Sequence[str]) -> None:
    """Raise SpecError for a QEMU that does not exist or is not used, and for arguments that kgen sets itself."""
    check_program("--qemu", qemu)
    for argument in extra:
        if argument in _OURS:
            raise SpecError(_OURS[argument], where=argument, hint="leave it out")
    if platform.engine != "qemu" and qemu:
        raise SpecError(f"--qemu is for QEMU, and {platform.name} is none", hint="leave it out")


def carry_out(
    spec: KernelSpec,
    platform: Platform,
    options: Options,
    *,
    watcher: Watcher | None = None,
    rebooted: Callable[[Observation, int], None] | None = None,
    invocation: Sequence[str] = (),
) -> Run:
    """Run a case or a suite and judge it. ``rebooted`` is called before each further boot.

    Raises as ``observe`` does.
    """
    if not spec.suite:
        return judged(spec, observe(build(spec), platform, options, watcher=watcher), invocation)
    boots = observe_suite(spec, platform, options, watcher=watcher, rebooted=rebooted)
    found = [
        ((boot.spec, boot.observation), boot.spec.cases.index(case), verdict)
        for case, boot, verdict in judge_cases(boots)
    ]
    return run_of_suite(spec, platform.name, found, invocation=invocation)


def judged(spec: KernelSpec, observation: Observation, invocation: Sequence[str] = ()) -> Run:
    """Return the verdicts on what one boot showed."""
    verdicts = [judge(spec, observation, number) for number in range(len(spec.cases))]
    return run_of_one_boot(spec, observation, verdicts, invocation=invocation)


def refused(spec: KernelSpec, platform: str, error: KgenError, invocation: Sequence[str] = ()) -> Run:
    """Return the verdict on each case of a request that could not be run: the error's."""
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
