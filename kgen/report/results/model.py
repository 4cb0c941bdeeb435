"""Results as reports use them: a run, its cases, their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen import __version__
from kgen.errors import SpecError, unknown
from kgen.evidence.observation import Observation
from kgen.evidence.records import PhaseRecord
from kgen.kernel.plan import phases_of
from kgen.kernel.results_block import Role
from kgen.report.text.case import as_text, show, show_case, show_unknown
from kgen.report.text.suite import Outcome, show_matrix
from kgen.spec import KernelSpec
from kgen.verdict.model import Verdict, VerdictKind

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Result:
    """The verdict on one case, with what it rests on."""

    #: Names the file and, of several runs in one file, the run.
    where: str
    #: The case's id, "" where the request is unknown.
    case: str
    #: None where the request is unknown.
    spec: KernelSpec | None
    #: Counts the cases of ``spec`` from 0.
    number: int
    observation: Observation
    verdict: Verdict
    #: The version that wrote the result.
    kgen: str
    #: The command line that made the result, () where the document does not have it.
    invocation: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In short: everything that it holds fills a screen."""
        return f"<Result {self.case or '?'!r}: {self.kind.name}: {self.verdict.reason!r}>"

    @property
    def suite(self) -> str:
        """The name of the suite that the case was run in, "" where it was run alone."""
        return self.spec.suite if self.spec else ""

    @property
    def kind(self) -> VerdictKind:
        """Which of the nine verdicts it is."""
        return self.verdict.kind

    @property
    def phase_record(self) -> PhaseRecord | None:
        """The record of the case itself, controls apart; None where it was not reached or is unknown."""
        record = self.observation.best
        if self.spec is None or record is None:
            return None
        index = phases_of(self.spec, self.number)[-1].index
        return record.phase_at(index)

    @property
    def told_record(self) -> PhaseRecord | None:
        """What was seen of the phase whose violations the verdict counts: the case, or its proof where only that was
        violated."""
        record, seen = self.phase_record, self.observation.best
        if self.spec is None or seen is None or (record and record.total) or not any(self.verdict.violations.values()):
            return record
        proof = {phase.index for phase in phases_of(self.spec, self.number) if phase.role is Role.PROOF}
        return next((phase for phase in seen.phases if phase.index in proof and phase.total), record)

    def explain(self) -> str:
        """Return what the verdict rests on, as text for people; it does nothing to a terminal."""

        return explain(self)

    def require(self, *kinds: VerdictKind | str) -> Result:
        """Return this result, where its verdict is one of ``kinds``.

        Raises AssertionError with the evidence, SpecError for what is no verdict.
        """
        if not kinds:
            raise SpecError("there is no verdict to require", hint="name one, such as ATOMIC")
        wanted = [kind_named(kind) for kind in kinds]
        if self.kind not in wanted:
            named = " or ".join(kind.name for kind in wanted)
            raise AssertionError(f"wanted {named}, got {self.kind.name}\n\n{self.explain()}")
        return self


@dataclass(frozen=True)
class Run:
    """One run of a kernel, or of a suite in as many boots as it took."""

    where: str
    #: The whole request, None where it is unknown.
    spec: KernelSpec | None
    #: What ran it.
    platform: str
    #: In order.
    results: tuple[Result, ...]

    def __repr__(self) -> str:
        """In short, and of many results only how many they are."""
        some = ", ".join(map(repr, self.results[:1])) + (f", {len(self.results) - 1} more" if self.results[1:] else "")
        return f"<Run on {self.platform!r}: {self.kind.name}: {some}>"

    @property
    def boots(self) -> tuple[Observation, ...]:
        """What was seen, boot by boot, in the order of their first case."""
        return tuple({id(result.observation): result.observation for result in self.results}.values())

    @property
    def seconds(self) -> float:
        """How long the machines of all its boots ran, 0 where that is unknown."""
        total = sum(seen.timings.get("run", 0.0) for seen in self.boots)
        # the file may be damaged: neither negative, nor more than a year, nor no number
        return total if 0 <= total < 366 * 24 * 3600 else 0.0

    @property
    def kind(self) -> VerdictKind:
        """The verdict on the whole: the worst of its results'."""
        from kgen.verdict.model import worst

        return worst([result.kind for result in self.results])

    @property
    def verdict(self) -> Verdict:
        """The verdict on its only case, or the worst of a suite's; the first of those that are alike."""
        return next(result.verdict for result in self.results if result.kind is self.kind)

    def result(self, case: str) -> Result:
        """Return the result of the case with that id. Raises SpecError where there is none."""
        for result in self.results:
            if result.case == case:
                return result
        raise unknown("case", str(case), [result.case for result in self.results])

    def explain(self) -> str:
        """Return the whole report as text for people, as ``kgen report`` prints it."""
        return as_text(lambda console: show_run(console, self))

    def require(self, *kinds: VerdictKind | str) -> Run:
        """Return this run, where the verdict on each of its cases is one of ``kinds``.

        Raises AssertionError with the evidence of those that are not, SpecError for what is no verdict.
        """
        failed: list[str] = []
        for result in self.results:
            try:
                result.require(*kinds)
            except AssertionError as error:
                failed.append(str(error))
        if failed:
            raise AssertionError("\n\n".join(failed))
        return self


def kind_named(kind: VerdictKind | str) -> VerdictKind:
    """Return the verdict of that name, however it is written. Raises SpecError."""
    if isinstance(kind, VerdictKind):
        return kind
    name = str(kind).upper().replace("-", "_")
    if name not in VerdictKind.__members__:
        raise unknown("verdict", str(kind), VerdictKind.__members__)
    return VerdictKind[name]


#: The verdict on one case of a suite: the boot it is of, the case's number in that boot's request, and the verdict.
Judged = tuple[tuple[KernelSpec, Observation], int, Verdict]


def run_of_case(
    spec: KernelSpec | None,
    observation: Observation,
    verdict: Verdict,
    *,
    invocation: Sequence[str] = (),
    where: str = "",
) -> Run:
    """Return the run of one case; ``spec`` is None where the request is unknown."""
    case = spec.name if spec else ""
    result = Result(where, case, spec, 0, observation, verdict, __version__, tuple(invocation))
    return Run(where, spec, observation.platform, (result,))


def run_of_suite(
    spec: KernelSpec, platform: str, judged: Sequence[Judged], *, invocation: Sequence[str] = (), where: str = ""
) -> Run:
    """Return a suite, in as many boots as it took."""
    words = tuple(invocation)
    results = [
        Result(where, boot.cases[number].id, boot, number, observation, verdict, __version__, words)
        for (boot, observation), number, verdict in judged
    ]
    return Run(where, spec, platform, tuple(results))


def run_of_one_boot(
    spec: KernelSpec | None,
    observation: Observation,
    verdicts: Sequence[Verdict],
    *,
    invocation: Sequence[str] = (),
    where: str = "",
) -> Run:
    """Return what one boot showed: a suite's cases, or the only one."""
    if spec is None or not spec.suite:
        return run_of_case(spec, observation, verdicts[0], invocation=invocation, where=where)
    boot = (spec, observation)
    judged = [(boot, number, verdict) for number, verdict in enumerate(verdicts)]
    return run_of_suite(spec, observation.platform, judged, invocation=invocation, where=where)


def outcomes_of(run: Run) -> tuple[Outcome, ...]:
    """Return the cases of a suite as the matrix shows them, with the number of the boot that each ran in."""
    boots = [id(seen) for seen in run.boots]
    cases = {case.id: case for case in run.spec.cases} if run.spec else {}
    return tuple(Outcome(cases[each.case], each.verdict, boots.index(id(each.observation))) for each in run.results)


def show_run(console: Console, run: Run) -> None:
    """Print one run: a suite's table, or everything about its only case."""
    first = run.results[0]
    if run.spec is None:
        show_unknown(console, first.observation, first.verdict)
    elif run.spec.suite:
        show_matrix(console, run.spec, run.platform, outcomes_of(run))
    else:
        show(console, run.spec, first.observation, first.verdict)


def explain(result: Result) -> str:
    """Return one result, with all it rests on; of a suite its case alone."""
    spec = result.spec
    if spec is None or spec.suite:
        return account(result)
    return as_text(lambda console: show(console, spec, result.observation, result.verdict))


def account(result: Result) -> str:
    """Return a verdict with its controls and witnesses, in the form of a suite's case."""
    spec, seen = result.spec, result.observation
    if spec is None:
        return as_text(lambda console: show_unknown(console, seen, result.verdict))
    return as_text(lambda console: show_case(console, spec, result.number, seen, result.verdict))
