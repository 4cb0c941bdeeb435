"""The real kernel, one access at a time: a small window gone through, and models that are wrong and are found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _kernel import needs
from click.testing import CliRunner
from running import kgen

from kgen.build import build
from kgen.cli import main
from kgen.experiments import Poll
from kgen.interleave.model import SHAPES, Kind, Outcome, Window, completed
from kgen.interleave.report import NO_EVIDENCE
from kgen.interleave.stepper import PLATFORM, Stepper, explore, opened, outcome_of, spec_of, window_of
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec

PAIR = spec_of(Case("xchg", lock=False), Poll.BOTH)
#: A token that is lost: CPU 1 has read before it is put, and writes after.
LOSING = (0, 1, 0, 1)
DOUBLING = (0, 0, 1, 2, 2, 1, 2)


@pytest.fixture(scope="module")
def stepper() -> Iterator[Stepper]:
    needs(PLATFORM)
    with opened(build(PAIR), Options()) as machine:
        yield machine


def window(spec: KernelSpec = PAIR, bound: int | None = None) -> Window:
    return window_of(spec, bound)


def test_the_smallest_window_is_exhausted_and_nobody_disagrees(stepper: Stepper) -> None:
    """No consumer begins before the token is there: only duplicates can come of that."""
    found = explore(stepper, window(bound=0))
    assert found.exhausted
    assert (found.total, dict(found.outcomes), found.disagreements) == (10, {"fine": 4, "duplicate": 6}, 0)
    assert found.first["duplicate"].verdict == "NOT_ATOMIC"
    assert found.first["fine"].verdict == "INCONCLUSIVE"


def test_a_schedule_loses_a_token_each_time_it_is_carried_out(stepper: Stepper) -> None:
    schedule = completed(window(), LOSING)
    first = stepper.carry_out(window(), schedule)
    assert (first.disagreements, first.expected.name, first.verdict) == ((), "lost", "NOT_ATOMIC")
    assert [step.point.kind for step in first.steps[:4]] == [Kind.READ, Kind.READ, Kind.WRITE, Kind.WRITE]
    other = stepper.carry_out(window(), DOUBLING)
    assert (other.disagreements, other.expected.name) == ((), "duplicate")
    # the whole machine is put back: to the last bit of the guest's log, in which there are times
    assert " witness " in first.log
    assert stepper.carry_out(window(), schedule) == first


def _claims(**fields: object) -> Callable[[Outcome], Outcome]:
    return lambda outcome: replace(outcome, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_claims(lost=0), "the model's verdict is INCONCLUSIVE, kgen's NOT_ATOMIC"),
        (_claims(duplicate=1), "duplicate: the model says 1, the guest's debugger record 0"),
        (_claims(stale=1), "stale: the model says 1, the guest's serial record 0"),
        (_claims(left=1), "left: the model says 1"),
        (
            _claims(takes=(0x9E3779B1, 0)),
            "the model says that CPU 1 took 0x9e3779b1, the guest's CPU table that no CPU took anything",
        ),
        (_claims(tries=(1, 1)), "tries: the model says (1, 1)"),
        (_claims(witnesses=()), "witnesses: the model says []"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_with_another_outcome_disagrees(
    stepper: Stepper, monkeypatch: pytest.MonkeyPatch, change: Callable[[Outcome], Outcome], words: str
) -> None:
    true = outcome_of
    monkeypatch.setattr("kgen.interleave.stepper.outcome_of", lambda model, world: change(true(model, world)))
    found = stepper.carry_out(window(), completed(window(), LOSING))
    assert any(words in sentence for sentence in found.disagreements), found.disagreements


@pytest.mark.parametrize(
    ("model", "begun", "words"),
    [
        (replace(window(), shape=SHAPES[0]), (0, 1), "step 1: the model says CPU 0 reads 0x0 and writes 0x9e3779b1"),
        (replace(window(), reads_first=(True, True)), LOSING, "the guest CPU 1 writes 0x0, cell 0x0"),
        (replace(window(), token=7), LOSING, "writes 0x7"),
    ],
    ids=["whole", "another poll", "another token"],
)
def test_a_model_of_other_accesses_disagrees(
    stepper: Stepper, model: Window, begun: tuple[int, ...], words: str
) -> None:
    found = stepper.carry_out(model, completed(model, begun))
    assert any(words in sentence for sentence in found.disagreements), found.disagreements


def test_the_command_says_that_a_locked_exchange_proves_nothing(tmp_path: Path) -> None:
    needs(PLATFORM)
    run = kgen(tmp_path / "tmp", "interleave", "--lock", "--target", "ram", "--json", str(tmp_path / "orders.json"))
    assert run.process.returncode == 0, run.stderr
    assert "tried 15 of 15 schedules: the window is exhausted" in run.stdout
    assert NO_EVIDENCE in run.stdout
    told = json.loads((tmp_path / "orders.json").read_text())
    assert (told["exhausted"], told["outcomes"], told["evidence_about_lock"]) == (True, {"fine": 15}, False)


@pytest.mark.parametrize(
    ("arguments", "change", "code", "words"),
    [
        (("--limit", "1"), lambda outcome: outcome, 4, "tried 1 of 500 schedules: --limit left 499 out"),
        (("--schedule", "0,0,1"), lambda outcome: outcome, 0, "model, guest and judge agree"),
        (("--schedule", "0,0,1"), _claims(tries=(7, 7)), 9, "tries: the model says (7, 7)"),
    ],
)
def test_what_the_exit_code_says(
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    change: Callable[[Outcome], Outcome],
    code: int,
    words: str,
) -> None:
    needs(PLATFORM)
    true = outcome_of
    monkeypatch.setattr("kgen.interleave.stepper.outcome_of", lambda model, world: change(true(model, world)))
    done = CliRunner().invoke(main, ["interleave", "--target", "ram", *arguments])
    assert done.exit_code == code, done.output
    assert words in done.output
