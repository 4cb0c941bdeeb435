"""Result documents (docs/result-schema.md) as the typed values they were made of, whoever wrote them."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Union

from kgen.errors import KgenError, SpecError
from kgen.evidence.observation import Observation, PhaseRecord
from kgen.kernel.plan import phases_of
from kgen.kernel.results_block import Role
from kgen.report.results.document import OLDEST_SCHEMA, SCHEMA
from kgen.report.results.recheck import contradiction, said_atomic
from kgen.report.results.strict_json import Refused, parse, quoted
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec, unknown
from kgen.verdict.judge import Verdict, VerdictKind, judge
from kgen.wording import one_line

_HINT = "name a file that 'kgen verify --json', 'kgen inspect --json' or 'kgen judge --json' wrote"
_CHANGED = "it was changed, or another kgen wrote it: give its log to 'kgen judge', or write it again with this kgen"
#: How much of what is the matter stands in an error's line: a file may hold anything, of any length.
_SHOWN = 300
#: Whose numbers may be below 0: -1 is no phase.
_LEAST = {"phase": -1}
#: What a file of an older version means that lacks a field.
_ABSENT: Mapping[type, Mapping[str, Any]] = {KernelSpec: {"rules": OLD_RULES}}


@dataclass(frozen=True)
class Result:
    """The verdict on one case, with what it rests on.

    ``where`` names the file and, of several runs in one, the run. ``case`` is the case's id, "" where nobody can tell
    what was asked; ``spec`` is then None. ``number`` counts the cases of ``spec`` from 0. ``kgen`` is the version that
    wrote the result, ``invocation`` its command line, () where the document does not say.
    """

    where: str
    case: str
    spec: KernelSpec | None
    number: int
    observation: Observation
    verdict: Verdict
    kgen: str
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
        """What was seen of the case itself, controls apart; None where it was not reached, or nobody can tell."""
        record = self.observation.best
        if self.spec is None or record is None:
            return None
        index = phases_of(self.spec, self.number)[-1].index
        return next((phase for phase in record.phases if phase.index == index), None)

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
        """What the verdict rests on, as text for people; it does nothing to a terminal."""
        from kgen.report.formats.text import explain

        return explain(self)

    def require(self, *kinds: VerdictKind | str) -> Result:
        """This result, where its verdict is one of ``kinds``. Raises AssertionError with the evidence, SpecError for
        what is no verdict."""
        if not kinds:
            raise SpecError("there is no verdict to require", hint="name one, such as ATOMIC")
        wanted = [kind_named(kind) for kind in kinds]
        if self.kind not in wanted:
            named = " or ".join(kind.name for kind in wanted)
            raise AssertionError(f"wanted {named}, got {self.kind.name}\n\n{self.explain()}")
        return self


@dataclass(frozen=True)
class Run:
    """One run of a kernel, or of a suite in as many boots as it took: its results in order.

    ``spec`` is the whole request, None where nobody can tell; ``platform`` is what ran it.
    """

    where: str
    spec: KernelSpec | None
    platform: str
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
        """How long the machines of all its boots ran, 0 where nobody knows."""
        total = sum(seen.timings.get("run", 0.0) for seen in self.boots)
        # the file may be damaged: neither negative, nor more than a year, nor no number
        return total if 0 <= total < 366 * 24 * 3600 else 0.0

    @property
    def kind(self) -> VerdictKind:
        """The verdict on the whole: the worst of its results'."""
        from kgen.report.text.suite import worst

        return worst([result.kind for result in self.results])

    @property
    def verdict(self) -> Verdict:
        """The verdict on its only case, or the worst of a suite's; the first of those that are alike."""
        return next(result.verdict for result in self.results if result.kind is self.kind)

    def result(self, case: str) -> Result:
        """The result of the case with that id. Raises SpecError where there is none."""
        for result in self.results:
            if result.case == case:
                return result
        raise unknown("case", str(case), [result.case for result in self.results])

    def explain(self) -> str:
        """The whole report as text for people, as ``kgen report`` prints it."""
        from kgen.report.formats.text import render

        return render([self])

    def require(self, *kinds: VerdictKind | str) -> Run:
        """This run, where the verdict on each of its cases is one of ``kinds``. Raises AssertionError with the evidence
        of those that are not, SpecError for what is no verdict."""
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
    """The verdict of that name, however it is written. Raises SpecError."""
    if isinstance(kind, VerdictKind):
        return kind
    name = str(kind).upper().replace("-", "_")
    if name not in VerdictKind.__members__:
        raise unknown("verdict", str(kind), VerdictKind.__members__)
    return VerdictKind[name]


def load(data: bytes, where: str) -> tuple[Run, ...]:
    """The runs of one result file. Raises SpecError for what is none, is of another schema, or states a verdict that
    its own evidence does not come to."""
    try:
        document = parse(data)
    except Refused as error:
        raise SpecError(str(error), where=where, hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"is no JSON: {_no_json(error)}", where=where, hint=_HINT) from error
    if not isinstance(document, dict) or "schema" not in document or "kgen" not in document:
        raise SpecError("is no result of kgen", where=where, hint=_HINT)
    if "evidence_about_lock" in document:
        raise SpecError("is of 'kgen interleave', which states no verdict that could be told", where=where, hint=_HINT)
    schema = document["schema"]
    if type(schema) is not int or not OLDEST_SCHEMA <= schema <= SCHEMA:
        raise SpecError(
            f"has schema {quoted(one_line(str(schema)))}, and this kgen reads {OLDEST_SCHEMA} to {SCHEMA}",
            where=where,
            hint="write it again",
        )
    try:
        runs = _runs(document, where)
        if "verdict" in document and all(_attempts(run) <= 1 for run in document.get("runs", [document])):
            _check_whole(document["verdict"], runs)
        return runs
    except KgenError as error:
        raise SpecError(quoted(error.message, _SHOWN), where=where, hint=error.hint) from error
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged: {error}"
        raise SpecError(quoted(one_line(what), _SHOWN), where=where, hint=_HINT) from error


def _runs(document: Mapping[str, Any], where: str) -> tuple[Run, ...]:
    if "runs" not in document:
        return (_run(document, where),)
    if not document["runs"]:
        raise SpecError("holds no run", hint=_HINT)
    inherited = {name: document[name] for name in ("schema", "kgen", "invocation") if name in document}
    return tuple(
        _run(inherited | each, f"{where} ({_value(str, each['where']) or f'run {number}'})")
        for number, each in enumerate(document["runs"], 1)
    )


def _attempts(run: Mapping[str, Any]) -> int:
    """Return how many runs of the kernel the verdict was stated on. kgen once repeated a case whose power control was
    silent, and judged by the sum of all runs; the evidence is that of the last one."""
    attempts: int = _value(int, run.get("observation", {}).get("attempts", 1))
    return attempts


def _check_whole(stated: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Raises SpecError where a document states another verdict than those of its runs come to, by these rules or by
    those of the version that wrote it."""
    from kgen.report.text.suite import worst

    results = [result for run in runs for result in run.results]
    total, kind = worst([each.kind for each in results]), _value(VerdictKind, stated["kind"])
    before = worst([VerdictKind.ATOMIC if said_atomic(each.verdict) else each.kind for each in results])
    if kind not in (total, before):
        raise SpecError(f"states {kind.name}, and its cases come to {total.name}", hint=_CHANGED)
    if _value(int, stated["exit_code"]) != kind.value:
        text = f"states {kind.name} with exit code {stated['exit_code']}, and that of {kind.name} is {kind.value}"
        raise SpecError(text, hint=_CHANGED)


def _no_json(error: Exception) -> str:
    """What is the matter, where Python would speak of itself."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    return str(error)


def _run(document: Mapping[str, Any], where: str) -> Run:
    """One run. Raises what reading values of a wrong shape raises."""
    invocation = _value(tuple[str, ...], document.get("invocation", []))
    spec = _value(KernelSpec | None, document["spec"])
    platform = _value(str, document["platform"])

    def result(
        boot: tuple[KernelSpec | None, Observation], case: str, number: int, stated: Mapping[str, Any]
    ) -> Result:
        verdict = _value(Verdict, stated)
        if boot[0] is not None and (attempts := _attempts(document)) > 1:
            verdict = judge(boot[0], boot[1], number)
            note = f"of {attempts} runs only the last is in this document"
            verdict = dataclasses.replace(verdict, notes=(*verdict.notes, note))
        elif wrong := contradiction(verdict, boot[0], number, boot[1]):
            raise SpecError(f"{case}: {wrong}" if "boots" in document else wrong, hint=_CHANGED)
        elif boot[0] is not None and boot[0].rules == OLD_RULES and boot[1].best is not None:
            # an older version's: what is no proof by these rules, and what a chance is, and the controls' units
            found = judge(boot[0], boot[1], number)
            same = dataclasses.replace(verdict, chance=found.chance, controls=found.controls)
            verdict = same if verdict.kind is found.kind else found
        return Result(
            where=where,
            case=case,
            spec=boot[0],
            number=number,
            observation=boot[1],
            verdict=verdict,
            kgen=_value(str, document["kgen"]),
            invocation=invocation,
        )

    if "boots" not in document:
        case = _value(str, document["case"])
        if spec is not None and spec.suite:
            raise SpecError("is of a suite and has no boots", hint=_HINT)
        if case != (spec.name if spec else ""):
            raise SpecError(f"says that its case is {case!r:.60}, and its request is another's", hint=_CHANGED)
        return Run(where, spec, platform, (result((spec, _observation(document)), case, 0, document["verdict"]),))
    _check_cases(spec, [entry["case"] for entry in document["cases"]])
    # a boot holds the record of hundreds of cases
    boots = [(_value(KernelSpec, boot["spec"]), _observation(boot)) for boot in document["boots"]]
    ids = [[case.id for case in asked.cases] for asked, _ in boots]
    found = []
    for entry in document["cases"]:
        boot = _value(int, entry["boot"])
        # in Python -1 is the last one
        if not 0 <= boot < len(boots):
            raise ValueError(f"case {entry['case']!r:.60} is of boot {boot}, and there are {len(boots)} from 0")
        number = ids[boot].index(entry["case"])
        found.append(result(boots[boot], entry["case"], number, entry["verdict"]))
        _check_whole(entry["verdict"], [Run(where, boots[boot][0], platform, (found[-1],))])
    return Run(where, spec, platform, tuple(found))


def _check_cases(spec: KernelSpec | None, found: Sequence[str]) -> None:
    """Raises SpecError where the cases of a suite's document are not those that were asked for."""
    if spec is None or not spec.suite:
        raise SpecError("has the boots of a suite, and its request names none", hint=_CHANGED)
    asked = [case.id for case in spec.cases]
    if not found:
        raise SpecError(f"holds no case, and {len(asked)} were asked for", hint=_HINT)
    if list(found) != asked:
        other = next((case for case in found if case not in asked), None)
        what = f"has the case {other!r:.60}, which was not asked for" if other is not None else ""
        missing = next((case for case in asked if case not in found), None)
        what = what or (f"lacks the case {missing}" if missing is not None else "has its cases in another order")
        raise SpecError(what, hint=_CHANGED)


def _observation(document: Mapping[str, Any]) -> Observation:
    seen = document["observation"] | {"platform": document["platform"], "log": document["serial_log"]}
    found: Observation = _value(Observation, seen)
    return found


@functools.cache
def _fields(kind: type) -> Mapping[str, tuple[Any, bool]]:
    """Type of each field of a dataclass, and whether it may be left out."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is not missing or field.default_factory is not missing)
        for field in dataclasses.fields(kind)
    }


def _value(kind: Any, value: Any) -> Any:
    """``value``, as ``document.plain`` left it, as a value of the type ``kind``. Raises TypeError, ValueError and
    KeyError where it cannot be one; keys that are not known are left out."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (each for each in arguments if each is not type(None))
        return _value(kind, value)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r:.60} is none of {arguments}")
        return value
    if origin is tuple:
        entries = _typed(list, value)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_value(arguments[0], entry) for entry in entries)
        return tuple(_value(each, entry) for each, entry in zip(arguments, entries, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        key, entry_kind = arguments
        return {(int(name) if key is int else name): _value(entry_kind, entry) for name, entry in value.items()}
    if dataclasses.is_dataclass(kind):
        of = typing.cast(type, kind)
        given, fields = {**_ABSENT.get(of, {}), **_typed(dict, value)}, _fields(of)
        taken = {
            name: _value(each, given[name])
            for name, (each, optional) in fields.items()
            if name in given or not optional
        }
        for name, each in taken.items():
            if type(each) is int and each < _LEAST.get(name, 0):
                raise ValueError(f"{name} is {each}")
        return of(**taken)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[_typed(str, value) if kind is VerdictKind else _typed(str, value).upper()]
    if kind is float and type(value) is int:
        return float(value)
    return _typed(kind, value)


def _typed(kind: type, value: Any) -> Any:
    # in Python a boolean is an integer, in JSON it is not
    if type(value) is not kind:
        raise TypeError(f"{value!r:.60} is no {kind.__name__}")
    return value
