"""docs/result-schema.md, read: what a result may hold, and of which type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "result-schema.md").read_text(encoding="utf-8")
TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "object": (dict,),
    "list": (list,),
    "null": (type(None),),
}
Step = tuple[str, ...]
#: What only an emulator of another release has: tests/soak/soak_releases.py.
OF_A_RELEASE: tuple[Step, ...] = (
    ("observation", "environment", "release"),
    ("observation", "environment", "sources"),
)
#: What only a run in the lab shows.
OF_THE_LAB: tuple[Step, ...] = (
    ("observation", "trace"),
    ("observation", "kernel_log"),
    ("observation", "environment", "lab"),
    ("observation", "environment", "prepare"),
)


def _documented() -> dict[Step, str]:
    """Path to type. A section whose heading names objects in backticks holds paths relative to each of them."""
    found: dict[Step, str] = {}
    for section in TEXT.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        for base in re.findall(r"`([^`]+)`", heading) or [""]:
            for path, kind in re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", body, re.MULTILINE):
                full = f"{base}.{path}" if base else path
                found[tuple(full.replace("[]", ".[]").split("."))] = kind
    return found


DOCUMENTED = _documented()


def _values(value: Any, path: Step = ()) -> Iterator[tuple[Step, Any]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, entry in value.items():
            # what is keyed by the numbers of phases
            yield from _values(entry, (*path, "*" if key.isdigit() else key))
    elif isinstance(value, list):
        for entry in value:
            yield from _values(entry, (*path, "[]"))


def _row(path: Step) -> Step | None:
    """The table row for a path: the path itself, or the one with a wild card for its last key. A suite's document holds
    others: one for each boot, the verdict of one for each case."""
    if path[:2] == ("boots", "[]") or path[:3] == ("cases", "[]", "verdict"):
        path = path[2:] or path
    return next((row for row in (path, (*path[:-1], "*")) if row in DOCUMENTED), None)


def check(document: dict[str, Any]) -> None:
    """Every value is documented with its type."""
    unknown = {".".join(path) for path, _ in _values(document) if _row(path) is None}
    assert not unknown, "not documented"
    for path, value in _values(document):
        kinds = DOCUMENTED[_row(path) or path]
        allowed = [one for word in kinds.split(" or ") for one in TYPES[word]]
        # in Python a boolean is an integer, in JSON it is not
        assert type(value) in allowed, f"{'.'.join(path)} is {value!r}, documented as {kinds}"


def missing(rows: Iterable[Step], *documents: dict[str, Any]) -> list[str]:
    """Those of the rows of which no document has a value."""
    paths = [path for document in documents for path, _ in _values(document)]
    seen = set(paths) | {row for row in map(_row, paths) if row}
    return [".".join(row) for row in rows if row not in seen]


def below(*bases: Step) -> set[Step]:
    """The rows documented for these and for what they hold."""
    return {row for row in DOCUMENTED if any(row[: len(base)] == base for base in bases)}
