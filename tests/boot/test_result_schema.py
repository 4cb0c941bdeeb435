"""docs/result-schema.md describes the documents that real runs give: every key, with its type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from _schema import DOCUMENTED, OF_A_RELEASE, OF_THE_LAB, TEXT, TYPES, below, check, missing

from kgen.build import build
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platform_named
from kgen.report.results.document import SCHEMA
from kgen.report.results.model import run_of_case
from kgen.report.results.write import to_json
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.run.request import Request
from kgen.run.verify import carry_out
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

WORDS = ("kgen", "verify")
NO_BOCHS = platform_named("bochs").unavailable(LaunchRequest(kernel=None))
NO_VIRTUALBOX = platform_named("virtualbox").unavailable(LaunchRequest(kernel=None))
#: Exceptions do not happen in a healthy run, nor do problems: their lists are there and empty.
EMPTY = (
    ("observation", "problems"),
    ("observation", "serial", "faults"),
    ("observation", "memory", "faults"),
    ("observation", "serial", "cpus"),
)


def suite_result() -> tuple[dict[str, Any], VerdictKind]:
    """Two cases that need not come to much."""
    cases = (Case("xadd", lock=False), Case("xchg", target="ram"))
    spec = KernelSpec(cases[0], more=cases[1:], rounds=200, suite="two", budget=4)
    run = carry_out(Request(spec, platform_named("qemu-tcg"), Options(timeout=60)), invocation=WORDS)
    return json.loads(to_json([run])), run.kind


@pytest.fixture(scope="module")
def results() -> list[tuple[dict[str, Any], VerdictKind]]:
    """The unlocked form on VGA has witnesses, and is stopped at the first; a run on RAM has none. And a suite."""
    runs = [
        (KernelSpec(Case("xchg", lock=False), rounds=4000, controls=False), "qemu-tcg"),
        (KernelSpec(Case("xchg", target="ram"), rounds=200), "qemu-tcg"),
    ]
    runs += [] if NO_BOCHS else [(KernelSpec(Case("xchg"), rounds=200), "bochs")]
    runs += [] if NO_VIRTUALBOX else [(KernelSpec(Case("xchg"), rounds=200), "virtualbox")]
    found: list[tuple[dict[str, Any], VerdictKind]] = [suite_result()]
    for spec, platform in runs:
        observation = observe(
            build(spec), platform_named(platform), Options(timeout=120, stop_on_violation=not spec.case.lock)
        )
        verdict = judge(spec, observation)
        found.append((json.loads(to_json([run_of_case(spec, observation, verdict, invocation=WORDS)])), verdict.kind))
    return found


def test_the_table_was_read() -> None:
    assert len(DOCUMENTED) > 100
    assert ("observation", "memory", "phases", "[]", "lost") in DOCUMENTED
    assert {word for kind in DOCUMENTED.values() for word in kind.split(" or ")} <= set(TYPES)
    assert f"now **{SCHEMA}**" in TEXT


def test_every_value_of_a_result_is_documented_with_its_type(results: list[tuple[dict[str, Any], VerdictKind]]) -> None:
    for document, kind in results:
        assert document["schema"] == SCHEMA
        assert document["verdict"]["kind"] == kind.name
        check(document)


def test_every_documented_key_exists(results: list[tuple[dict[str, Any], VerdictKind]]) -> None:
    """But for those of a lab and of another release, for which tests/boot/test_lab.py and the soak have the run."""
    documents = [document for document, _ in results]
    assert not missing(EMPTY, *documents)
    elsewhere = below(*EMPTY, *OF_THE_LAB, *OF_A_RELEASE)
    if NO_BOCHS:
        elsewhere |= below(("observation", "environment", "bochsrc"), ("observation", "environment", "in_turn"))
    if NO_VIRTUALBOX:
        elsewhere |= below(("observation", "environment", "virtualbox"))
    assert not missing([row for row in DOCUMENTED if row not in elsewhere], *documents)
