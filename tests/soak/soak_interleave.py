"""Whole windows, one access at a time: every schedule ends as the model says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import kgen

from kgen.build import build
from kgen.experiments import Poll
from kgen.interleave.stepper import explore, opened, spec_of, window_of
from kgen.run.options import Options
from kgen.spec import Case

WIDE = "qemu-system-x86_64"


def test_the_default_window_loses_and_duplicates_tokens_and_nobody_disagrees(tmp_path: Path) -> None:
    run = kgen(tmp_path / "tmp", "interleave", seconds=600)
    assert run.process.returncode == 0, run.stdout + run.stderr
    assert "tried 500 of 500 schedules: the window is exhausted" in run.stdout
    counts = {
        line.split(None, 1)[1]: int(line.split()[0]) for line in run.stdout.splitlines() if line[:8].strip().isdigit()
    }
    assert counts["fine"] == 104
    assert counts["lost"] == 288
    assert counts["duplicate"] == 108
    assert counts["on which model, guest and judge disagree"] == 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("case", "poll", "bound", "total", "failing"),
    [
        (Case("xchg", lock=False), Poll.EXCHANGE, 1, 874, {"lost", "duplicate"}),
        (Case("xchg", lock=False), Poll.READ, 1, 220, {"duplicate"}),
        (Case("xchg", lock=False), Poll.BOTH, 2, 6070, {"lost", "duplicate"}),
        (Case("xchg", width=8, lock=False, target="ram", offset=1), Poll.READ, 1, 220, {"duplicate"}),
        (Case("xchg", width=16, lock=False, cpus=4), Poll.BOTH, 0, 938, {"duplicate"}),
        (Case("xchg"), Poll.BOTH, 3, None, set()),
        (Case("cmpxchg"), Poll.BOTH, 2, 190, set()),
        (Case("cmpxchg", lock=False), Poll.EXCHANGE, 2, 114, set()),
    ],
    ids=lambda value: value.id if isinstance(value, Case) else "",
)
def test_a_window_is_exhausted_and_nobody_disagrees(
    case: Case, poll: Poll, bound: int, total: int | None, failing: set[str]
) -> None:
    spec = spec_of(case, poll)
    with opened(build(spec), Options()) as stepper:
        found = explore(stepper, window_of(spec, bound))
    assert found.exhausted
    assert found.total == (total or found.total)
    assert found.disagreements == 0, [trial.disagreements for trial in found.disagreeing]
    assert set(found.outcomes) - {"fine"} == failing


def test_a_64_bit_machine_is_stepped_as_well() -> None:
    """Its stub has other registers."""
    if shutil.which(WIDE) is None:
        pytest.skip(f"there is no {WIDE}")
    spec = spec_of(Case("xchg", lock=False), Poll.BOTH)
    with opened(build(spec), Options(qemu=WIDE)) as stepper:
        found = explore(stepper, window_of(spec, 0))
    assert (found.exhausted, dict(found.outcomes), found.disagreements) == (True, {"fine": 4, "duplicate": 6}, 0)
