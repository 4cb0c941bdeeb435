"""The result for machines: plain JSON, whole, and the same when read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from recordings import NAMES, load

from kgen.report.results.document import SCHEMA, document
from kgen.report.results.model import run_of_one_boot
from kgen.report.results.write import to_json
from kgen.verdict.judge import judge


def made(name: str) -> tuple[dict[str, Any], str]:
    """The document of one boot, and the text of the result that it is written in."""
    run = load(name)
    observation = run.observed()
    verdicts = [judge(run.spec, observation, number) for number in range(len(run.spec.cases))]
    text = to_json([run_of_one_boot(run.spec, observation, verdicts)])
    return document(run.spec, observation, verdicts[-1]), text


@pytest.mark.parametrize("name", NAMES)
def test_it_round_trips(name: str) -> None:
    value, text = made(name)
    if load(name).spec.suite:
        # what is said once for all boots, and the verdicts, stand beside them
        shared = ("schema", "kgen", "invocation", "verdict")
        assert json.loads(text)["boots"] == [{key: each for key, each in value.items() if key not in shared}]
    else:
        assert json.loads(text) == value
    assert text.endswith("}\n")
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize("name", NAMES)
def test_what_was_asked_seen_and_concluded(name: str) -> None:
    value, _ = made(name)
    run = load(name)
    verdict = judge(run.spec, run.observed())
    assert value["schema"] == SCHEMA
    assert value["case"] == run.spec.name == (f"suite:{run.spec.suite}" if run.spec.suite else run.spec.case.id)
    assert value["digest"] == run.spec.digest()
    assert value["platform"] == run.platform
    assert value["verdict"]["kind"] == verdict.kind.name
    assert value["verdict"]["exit_code"] == verdict.kind.value
    assert value["verdict"]["bound"] == verdict.bound
    assert value["phases"][-1].startswith("case:")
    assert {"serial", "memory", "path", "cells", "rows", "registers", "environment", "timings"} <= set(
        value["observation"]
    )


def test_counters_and_witnesses_are_plain_numbers() -> None:
    value, _ = made("kvm-lost")
    memory = value["observation"]["memory"]
    case = memory["phases"][-1]
    assert case["status"] == "done"
    assert case["counts"][0]["puts"] == 1000
    witness = value["verdict"]["witnesses"][0]
    assert witness["kind"] in ("lost", "duplicate", "torn", "stale")
    assert isinstance(witness["token"], int)
    assert value["verdict"]["violations"]["lost"] == case["lost"] > 0


def test_the_spec_can_be_taken_from_it_again() -> None:
    value, _ = made("tcg-atomic")
    assert value["spec"]["case"]["instruction"] == "xchg"
    assert value["spec"]["rounds"] == load("tcg-atomic").spec.rounds
