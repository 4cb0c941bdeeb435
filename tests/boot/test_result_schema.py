"""docs/result-schema.md describes the documents that real runs give: every key, with its type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kgen.builder import build
from kgen.pipeline import Options, observe, platform_named
from kgen.platforms import LaunchRequest
from kgen.report.document import SCHEMA
from kgen.report.writing import run_of_case, to_json
from kgen.spec import Case, KernelSpec
from kgen.trial import carry_out
from kgen.verdict import VerdictKind, judge

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "result-schema.md").read_text(encoding="utf-8")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "object": (dict,),
    "list": (list,),
    "null": (type(None),),
}
Step = tuple[str, ...]
WORDS = ("kgen", "verify")
NO_BOCHS = platform_named("bochs").unavailable(LaunchRequest(kernel=None))


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


def suite_result() -> tuple[dict[str, Any], VerdictKind]:
    """Two cases that need not come to much."""
    cases = (Case("xadd", lock=False), Case("xchg", target="ram"))
    spec = KernelSpec(cases[0], more=cases[1:], rounds=200, suite="two", budget=4)
    run = carry_out(spec, platform_named("qemu-tcg"), Options(timeout=60), invocation=WORDS)
    return json.loads(to_json([run])), run.kind


@pytest.fixture(scope="module")
def results(no_lab: str) -> list[tuple[dict[str, Any], VerdictKind]]:
    """The unlocked form on VGA has witnesses, and is stopped at the first; a run on RAM has none; one in the lab has a
    trace, where there is one. And a suite."""
    unlocked = KernelSpec(Case("xchg", lock=False), rounds=400, controls=False)
    runs = [
        (replace(unlocked, rounds=4000), "qemu-tcg"),
        (KernelSpec(Case("xchg", target="ram"), rounds=200), "qemu-tcg"),
    ]
    runs += [] if no_lab else [(unlocked, "kvm-lab")]
    runs += [] if NO_BOCHS else [(KernelSpec(Case("xchg"), rounds=200), "bochs")]
    found: list[tuple[dict[str, Any], VerdictKind]] = [suite_result()]
    for spec, platform in runs:
        stop = (spec.case.lock, platform) == (False, "qemu-tcg")
        observation = observe(build(spec), platform_named(platform), Options(timeout=120, stop_on_violation=stop))
        verdict = judge(spec, observation)
        found.append((json.loads(to_json([run_of_case(spec, observation, verdict, invocation=WORDS)])), verdict.kind))
    return found


def test_the_table_was_read() -> None:
    assert len(DOCUMENTED) > 100
    assert ("observation", "memory", "phases", "[]", "lost") in DOCUMENTED
    assert {word for kind in DOCUMENTED.values() for word in kind.split(" or ")} <= set(_TYPES)
    assert f"now **{SCHEMA}**" in TEXT


def test_every_value_of_a_result_is_documented_with_its_type(results: list[tuple[dict[str, Any], VerdictKind]]) -> None:
    for document, kind in results:
        assert document["schema"] == SCHEMA
        assert document["verdict"]["kind"] == kind.name
        unknown = {".".join(path) for path, _ in _values(document) if _row(path) is None}
        assert not unknown, "not documented"
        for path, value in _values(document):
            kinds = DOCUMENTED[_row(path) or path]
            allowed = [one for word in kinds.split(" or ") for one in _TYPES[word]]
            # in Python a boolean is an integer, in JSON it is not
            assert type(value) in allowed, f"{'.'.join(path)} is {value!r}, documented as {kinds}"


def test_every_documented_key_exists(no_lab: str, results: list[tuple[dict[str, Any], VerdictKind]]) -> None:
    paths = [path for document, _ in results for path, _ in _values(document)]
    seen = set(paths) | {row for row in map(_row, paths) if row}
    # exceptions do not happen in a healthy run, nor do problems: their lists are there and empty
    empty = {("observation", "problems"), ("observation", "serial", "faults"), ("observation", "memory", "faults")}
    empty |= {("observation", "serial", "cpus")}
    assert empty <= seen
    if no_lab:
        # what only a lab shows
        empty |= {("observation", "trace"), ("observation", "kernel_log"), ("observation", "environment", "lab")}
    if NO_BOCHS:
        empty |= {("observation", "environment", "bochsrc"), ("observation", "environment", "in_turn")}
    # only where a run was repeated
    empty |= {("observation", "pooled")}
    if not any(document["observation"]["trace"] for document, _ in results if "observation" in document):
        empty |= {("observation", "trace")}
    # the kernel under QEMU need not have anything to say, and modules are only named where they are one's own
    empty |= {("observation", "kernel_log")}
    missing = [row for row in DOCUMENTED if row not in seen and not any(row[: len(base)] == base for base in empty)]
    assert not missing, [".".join(row) for row in missing]
