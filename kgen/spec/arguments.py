"""Check the arguments of the library's functions by their annotations."""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from kgen.errors import SpecError

P = ParamSpec("P")
R = TypeVar("R")

#: The longest time that is accepted, in seconds.
MAX_SECONDS = 1e6
#: What a type accepts, in words.
_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "text without NUL",
    bytes: "bytes",
    types.NoneType: "None",
}


def checked(names: Callable[[], Mapping[str, Any]]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function raise SpecError for arguments that do not fit its annotations. ``names`` returns the types that
    its module does not import. Missing and superfluous arguments are a TypeError, as always in Python."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checking(*arguments: P.args, **keywords: P.kwargs) -> R:
            # for each call, because modules may have been imported anew, as by tests of pytest plugins
            hints = get_type_hints(function, localns=dict(names()))
            for name, value in signature.bind(*arguments, **keywords).arguments.items():
                several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                for each in value if several else (value,):
                    check(name, each, hints[name])
            return function(*arguments, **keywords)

        return checking

    return decorate


def check_all(given: Mapping[str, Any], of: type) -> None:
    """Raise SpecError for values that do not fit the fields with their names in a dataclass. Other names are
    ignored."""
    hints = _hints(of)
    for name in given:
        if name in hints:
            check(name, given[name], hints[name])


@functools.cache
def _hints(of: type) -> Mapping[str, Any]:
    return get_type_hints(of)


def check(name: str, value: Any, hint: Any) -> None:
    """Raise SpecError for a value that is not of that type."""
    if not _fits(value, hint):
        what = f"{value!r:.60} is of type {type(value).__name__}"
        raise SpecError(what, where=name, hint=f"give {_wanted(hint)}")


def check_seconds(name: str, value: float | None, low: float) -> None:
    """Raise SpecError for a time outside ``low`` to MAX_SECONDS. None is accepted."""
    if value is not None and not low <= value <= MAX_SECONDS:
        raise SpecError(f"{value!r:.60} is not a time from {low:g} to {MAX_SECONDS:.0f} seconds", where=name)


def _fits(value: Any, hint: Any) -> bool:
    # the frequent types first, because a suite has hundreds of cases
    if hint is str:
        return isinstance(value, str) and _may_be_passed_on(value)
    if type(value) is hint and hint is not float:
        return True
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_fits(value, each) for each in inside)
    if kind is Literal:
        return isinstance(value, str) and value in inside
    if kind is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is os.PathLike:
        return isinstance(value, kind) and _may_be_passed_on(value)
    if inside and issubclass(kind, Collection):
        # a string is a sequence too, but no caller means its letters
        return (
            isinstance(value, kind) and not isinstance(value, (str, bytes)) and all(_fits(e, inside[0]) for e in value)
        )
    return isinstance(value, kind)


def _may_be_passed_on(text: str | os.PathLike[str]) -> bool:
    """Return whether the system accepts a text as a file's name or a program's argument."""
    try:
        return isinstance(os.fspath(text), str) and b"\0" not in os.fsencode(text)
    except (UnicodeEncodeError, TypeError):
        return False


def _wanted(hint: Any) -> str:
    kind, inside = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        # that a path may also be text need not be said
        several = dict.fromkeys(
            _wanted(each) for each in inside if each is not str or os.PathLike not in _kinds(inside)
        )
        return " or ".join(several)
    if kind is Literal:
        return " or ".join(map(repr, inside))
    if kind is os.PathLike:
        return "a file's name without NUL"
    if inside and issubclass(kind, Collection):
        return f"a list, each entry {_wanted(inside[0])}"
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _kinds(hints: tuple[Any, ...]) -> set[Any]:
    return {get_origin(each) or each for each in hints}
