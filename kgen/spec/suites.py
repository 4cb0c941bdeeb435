"""Suites: ordered lists of cases that run in one kernel, built in or from a TOML file."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kgen.errors import SpecError, unknown
from kgen.experiments import experiments
from kgen.instructions import Instruction, Source, instructions
from kgen.spec.case import LINE, MIN_CPUS, PAGE, Case, alignment, resolve_target
from kgen.targets import targets

#: The targets of the large table: emulated I/O that takes every width.
MAIN_TARGETS = ("vga-text", "pc-testdev")
#: The instructions that are tested in every alignment, on every target, in every experiment that takes them.
MAIN_INSTRUCTIONS = ("xchg", "xadd", "cmpxchg")


def lockable() -> list[Instruction]:
    """Return every instruction that may have LOCK, by name."""
    return [entry for _, entry in sorted(instructions().items()) if entry.lockable]


def fitting(entry: Instruction, width: int, source: Source, cpus: int) -> str:
    """Return the strongest experiment that takes a form with this many CPUs, "" where none does: the proof of the
    instruction's own experiment, otherwise that experiment, otherwise any other."""
    form = entry.form(width, source, True)
    own = (*experiments()[entry.experiment].proofs, entry.experiment)
    best = sorted(experiments(), key=lambda name: own.index(name) if name in own else len(own))
    return next((name for name in best if not experiments()[name].refuses(entry, form, cpus)), "")


def strongest(name: str, width: int, target: str, cpus: int, offset: int = 0) -> Case:
    """Return the case of an instruction's default form in its strongest experiment. Raises SpecError."""
    entry = instructions()[name]
    experiment = fitting(entry, width, entry.sources[0], cpus)
    return Case(name, width, target=target, experiment=experiment, cpus=cpus, offset=offset)


def forms() -> Iterator[tuple[Instruction, int, Source]]:
    """Yield every form of every lockable instruction."""
    for entry in lockable():
        for source, widths in entry.opcodes.items():
            for width in sorted(widths):
                yield entry, width, source


def offsets(target: str, width: int) -> tuple[int, ...]:
    """Return offsets that place an operand misaligned within a line, across a line, and across a page."""
    half = width // 16
    found = (1, LINE - half, PAGE - half)
    place = resolve_target(target)
    return tuple(
        offset
        for offset in found
        if offset + width // 8 <= place.reach and alignment(place, offset, width) != "aligned"
    )


def _full(cpus: int) -> Iterator[Case]:
    """Yield the cases of the suite "full" (docs/suites.md)."""
    for target in MAIN_TARGETS:
        for entry, width, source in forms():
            experiment = fitting(entry, width, source, cpus)
            if experiment:
                yield Case(entry.name, width, target=target, experiment=experiment, cpus=cpus, source=source.value)
    for target in MAIN_TARGETS:
        for name, width in itertools.product(MAIN_INSTRUCTIONS, (16, 32)):
            for offset in offsets(target, width):
                yield strongest(name, width, target, cpus, offset)
    for target in sorted(set(targets()) - set(MAIN_TARGETS)):
        for name in MAIN_INSTRUCTIONS:
            for width in instructions()[name].widths:
                if width in resolve_target(target).widths:
                    yield strongest(name, width, target, cpus)
    # experiments that take an instruction and are not the one that tests it best
    for name, experiment in itertools.product(sorted(instructions()), sorted(experiments())):
        entry = instructions()[name]
        width = entry.usual_width
        main = entry.lockable and experiment == fitting(entry, width, entry.sources[0], cpus)
        form = entry.form(width, entry.sources[0], True)
        if not main and not experiments()[experiment].refuses(entry, form, cpus):
            yield Case(name, width, target=MAIN_TARGETS[0], experiment=experiment, cpus=cpus)


def _smoke(cpus: int) -> Iterator[Case]:
    """Yield a few cases of every kind, which take seconds."""
    for name in ("xchg", "xadd", "cmpxchg", "cmpxchg8b", "add", "or", "not"):
        entry = instructions()[name]
        width = entry.usual_width
        experiment = fitting(entry, width, entry.sources[0], cpus)
        if experiment:
            yield Case(name, width, target="vga-text", experiment=experiment, cpus=cpus)
    yield strongest("xchg", 8, "pc-testdev", cpus)
    yield strongest("xchg", 32, "vga-text", cpus, LINE - 2)
    yield strongest("xchg", 32, "framebuffer", cpus)


BUILT_IN: Mapping[str, Callable[[int], Iterable[Case]]] = {"full": _full, "smoke": _smoke}

#: The default budget of a suite, in seconds.
DEFAULT_BUDGET: Mapping[str, int] = {"full": 560, "smoke": 30}

_FIELDS = {"instr": "instruction", "width": "width", "lock": "lock", "target": "target", "experiment": "experiment"}
_FIELDS |= {"source": "source", "offset": "offset"}
_TYPES: Mapping[str, type] = {"width": int, "offset": int, "lock": bool}


def load(
    name: str, *, cpus: int = MIN_CPUS, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[str, tuple[Case, ...]]:
    """Return the name and the cases of a built-in suite or of a TOML file, without those that the patterns exclude.

    A file holds ``[[case]]`` tables with ``instr``, ``width``, ``lock``, ``target``, ``experiment``, ``source`` and
    ``offset``. A list in place of a value stands for one case with each of its values. ``only`` and ``skip`` are
    shell-style patterns on case ids. Raises SpecError.
    """
    if name in BUILT_IN:
        title, cases = name, list(BUILT_IN[name](cpus))
    elif name.endswith(".toml") or "/" in name:
        title, cases = _from_file(Path(name), cpus)
    else:
        raise unknown("suite", name, [*BUILT_IN, "FILE.toml"])
    cases = list(dict.fromkeys(cases))
    for pattern in (*only, *skip):
        if not any(_matches(case, pattern) for case in cases):
            raise SpecError(f"no case of suite {title} matches '{pattern}'", hint="see 'kgen list cases'")
    kept = [
        case
        for case in cases
        if (not only or any(_matches(case, pattern) for pattern in only))
        and not any(_matches(case, pattern) for pattern in skip)
    ]
    if not kept:
        raise SpecError(f"nothing is left of suite {title}", hint="check --only and --skip")
    return title, tuple(kept)


def _matches(case: Case, pattern: str) -> bool:
    """Return whether a pattern matches a whole id, or a part of it between dots: ``xchg``, ``xchg.32``,
    ``*.vga-text.*``."""
    return fnmatch.fnmatchcase(case.id, pattern) or fnmatch.fnmatchcase(case.id, f"{pattern}.*")


def _from_file(path: Path, cpus: int) -> tuple[str, list[Case]]:
    import tomli  # the same as tomllib, for Python 3.10

    try:
        data = tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(error.strerror or str(error), where=str(path)) from error
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"is not TOML: {error}", where=str(path)) from error
    tables = data.get("case")
    stray = set(data) - {"case", "name"}
    if stray or not isinstance(tables, list) or not tables or not isinstance(data.get("name", ""), str):
        what = f"unknown key '{min(stray)}'" if stray else "holds no [[case]]"
        raise SpecError(what, where=str(path), hint="a suite is a name and [[case]] tables, see docs/suites.md")
    cases: list[Case] = []
    for number, table in enumerate(tables, 1):
        try:
            cases += _from_table(table, cpus)
        except SpecError as error:
            raise SpecError(error.message, where=f"{path}: case {number}", hint=error.hint) from error
    return data.get("name") or path.stem, cases


def _from_table(table: Mapping[str, Any], cpus: int) -> Iterator[Case]:
    stray = set(table) - set(_FIELDS)
    if stray or "instr" not in table:
        raise SpecError(f"unknown key '{min(stray)}'" if stray else "has no instr", hint=f"keys: {', '.join(_FIELDS)}")
    lists = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
    for key, values in lists.items():
        kind = _TYPES.get(key, str)
        if not values or any(type(value) is not kind for value in values):
            raise SpecError(f"{key} is not of type {kind.__name__}, or a list of such")
    for choice in itertools.product(*lists.values()):
        named = {_FIELDS[key]: value for key, value in zip(lists, choice, strict=True)}
        yield Case(cpus=cpus, **named)
