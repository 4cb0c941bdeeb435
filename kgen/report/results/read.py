"""Result documents (docs/result-schema.md) as the typed values they were made of. Documents are not trusted."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Union

from kgen.errors import KgenError, SpecError
from kgen.evidence.observation import Observation
from kgen.report.results.document import OLDEST_SCHEMA, SCHEMA
from kgen.report.results.model import Result, Run
from kgen.report.results.recheck import contradiction, said_atomic
from kgen.report.results.strict_json import Refused, parse
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind
from kgen.wording import one_line, quoted

_HINT = "name a file that 'kgen verify --json', 'kgen inspect --json' or 'kgen judge --json' wrote"
_CHANGED = "it was changed, or another kgen wrote it: give its log to 'kgen judge', or write it again with this kgen"
#: How much of what is the matter stands in an error's line: a file may hold anything, of any length.
_SHOWN = 300
#: Whose numbers may be below 0: -1 is no phase.
_LEAST = {"phase": -1}
#: What a file of an older version means that lacks a field.
_ABSENT: Mapping[type, Mapping[str, Any]] = {KernelSpec: {"rules": OLD_RULES}}


def load(data: bytes, where: str) -> tuple[Run, ...]:
    """Return the runs of one result file.

    Raises SpecError for what is none, is of another schema, or states a verdict that its own evidence does not come to.
    """
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
    """Raise SpecError where a document states another verdict than those of its runs come to, by these rules or by
    those of the version that wrote it."""
    from kgen.verdict.model import worst

    results = [result for run in runs for result in run.results]
    total, kind = worst([each.kind for each in results]), _value(VerdictKind, stated["kind"])
    before = worst([VerdictKind.ATOMIC if said_atomic(each.verdict) else each.kind for each in results])
    if kind not in (total, before):
        raise SpecError(f"states {kind.name}, and its cases come to {total.name}", hint=_CHANGED)
    if _value(int, stated["exit_code"]) != kind.value:
        text = f"states {kind.name} with exit code {stated['exit_code']}, and that of {kind.name} is {kind.value}"
        raise SpecError(text, hint=_CHANGED)


def _no_json(error: Exception) -> str:
    """Return what is the matter, where Python would speak of itself."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start}"
    return str(error)


def _run(document: Mapping[str, Any], where: str) -> Run:
    """Return one run. Raises what reading values of a wrong shape raises."""
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
    """Raise SpecError where the cases of a suite's document are not those that were asked for."""
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
