"""The text report: the verdict first and last, the original's table to the tab, the counters, the evidence."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from _changes import phase
from pages import document, runs_of, with_scene
from recordings import Recording, load
from rich.console import Console

from kgen.evidence.observation import Observation
from kgen.kernel.protocol import TABLE_HEADER
from kgen.report.results.model import account
from kgen.report.text.case import describe, explanations, show, show_unknown, summary
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind
from kgen.wording import plural

GOOD = load("tcg-atomic")
OLD = load("old-tcg-atomic")
BAD = load("kvm-lost")


def shown(run: Recording, observation: Observation) -> str:
    """The report as a file gets it."""
    text = io.StringIO()
    show(Console(file=text, width=60), run.spec, observation, judge(run.spec, observation))
    return text.getvalue()


@pytest.mark.parametrize("run", [GOOD, BAD], ids=["atomic", "lost"])
def test_the_table_keeps_its_tabs(run: Recording) -> None:
    observation = run.observed()
    lines = shown(run, observation).splitlines()
    at = lines.index("counts:\tcount0\tcount1\tcount2\tcount0-count1+count2")
    assert lines[at] == TABLE_HEADER
    last = observation.rows[-1]
    assert lines[at + 1] == f"counts:\t{last[0]}\t{last[1]}\t{last[2]}\t{last[3]}"


@pytest.mark.parametrize("run", [GOOD, BAD], ids=["atomic", "lost"])
def test_the_counters_of_every_cpu(run: Recording) -> None:
    observation = run.observed()
    text = shown(run, observation)
    assert observation.memory is not None
    counts = observation.memory.phases[-1].counts
    assert f"  CPU 0 (producer)  put {counts[0].puts}\n" in text
    for count in counts[1:]:
        assert f"  CPU {count.cpu} (consumer)  took {count.takes} in {count.tries} exchanges\n" in text


def test_the_words_at_the_cell() -> None:
    text = shown(GOOD, replace(GOOD.observed(), cells=tuple(range(16))))
    assert "memory at 0xb8000 (vga-text), read through the debugger:\n" in text
    assert "\n000b8000 00000000 00000001 00000002" in text
    assert "\n000b8020 00000008 00000009" in text


def test_more_cells_than_are_shown() -> None:
    text = shown(GOOD, replace(GOOD.observed(), cells=(0,) * 128))
    assert text.count("\n000b80") == 2
    assert "\n... and 112 more cells, all 0\n" in text
    text = shown(GOOD, replace(GOOD.observed(), cells=(0,) * 20 + (7,)))
    assert "\n... and 5 more cells, 1 of them not 0\n" in text


def test_numbers_of_things() -> None:
    assert [plural(count, "lab") for count in (0, 1, 2)] == ["0 labs", "1 lab", "2 labs"]
    assert [plural(count, "access") for count in (1, 2)] == ["1 access", "2 accesses"]


def test_an_atomic_run_states_its_bound() -> None:
    lines = shown(GOOD, GOOD.observed()).splitlines()
    live = judge(GOOD.spec, GOOD.observed()).judged
    verdict = f"ATOMIC: no violation in 1000 rounds, nor in {live} live batches of its chain"
    first, at = (number for number, line in enumerate(lines) if line == verdict)
    assert first == 1
    bound = f"at most {3 / live:.2g} per live batch, at 95 %, for this machine as it was"
    assert f"N = {live} live batches: {bound}" in lines[at + 1]
    assert any(line.startswith("path: io (") for line in lines)
    assert "witnesses" not in "\n".join(lines)


@pytest.mark.parametrize("run", [GOOD, OLD, BAD], ids=["atomic", "old", "lost"])
def test_the_first_lines_decide(run: Recording) -> None:
    """Case and platform, then the verdict and why; the verdict is repeated with its explanation at the end."""
    observation = run.observed()
    verdict = judge(run.spec, observation)
    told = f"{verdict.kind.name}: {verdict.reason}"
    lines = shown(run, observation).splitlines()
    assert lines[:2] == [f"{run.spec.case.id} on {observation.platform}", told]
    assert lines[lines.index("", 2) :].count(told) == 1
    explained = [f"  {line}" for line in explanations(run.spec, verdict)]
    assert lines[-1 - len(explained) :] == [told, *explained]


def test_the_first_lines_of_a_suites_case_decide() -> None:
    (run,) = runs_of(document("kvm-suite"))
    for result in run.results:
        lines = account(result).splitlines()
        assert lines[:2] == [f"{result.case} on {run.platform}", f"{result.verdict.kind.name}: {result.verdict.reason}"]


def test_the_first_line_decides_where_the_request_is_unknown() -> None:
    file = io.StringIO()
    verdict = Verdict(VerdictKind.INCONCLUSIVE, "there were no controls", notes=("a fact",))
    show_unknown(Console(file=file, width=60), replace(GOOD.observed(), rows=((6, 2, 4, 0),)), verdict)
    told = "INCONCLUSIVE: there were no controls"
    assert file.getvalue().splitlines() == [told, TABLE_HEADER, "counts:\t6\t2\t4\t0", "", told, "  a fact"]


def test_a_verdict_without_a_record_is_told_once() -> None:
    nothing = replace(GOOD.observed(), serial=None, memory=None, rows=(), cells=(), cut="silence")
    assert shown(GOOD, nothing).splitlines() == [f"{GOOD.spec.case.id} on {GOOD.platform}", "", "ERROR: silence"]


def test_a_run_that_lost_shows_its_witnesses() -> None:
    observation = BAD.observed()
    verdict = judge(BAD.spec, observation)
    text = shown(BAD, observation)
    assert f"NOT_ATOMIC: {verdict.reason}\n" in text
    assert f"witnesses ({len(verdict.witnesses)} recorded" in text
    first = min(verdict.witnesses, key=lambda witness: witness.round)
    assert f"  {describe(first)}\n" in text
    assert f"round {first.round}, cell {first.cell}, token {first.token:08x}" in describe(first)
    assert "never violated: the defect is in the target" in text


def test_a_controls_failure_is_not_the_verdict() -> None:
    """Violations of the controls stand under their labels; none of them looks like the case's."""
    text = shown(GOOD, GOOD.observed())
    verdict = judge(GOOD.spec, GOOD.observed())
    lines = text.splitlines()
    at = lines.index("controls (sanity must pass, power must fail):")
    for offset, control in enumerate(verdict.controls, 1):
        line = lines[at + offset]
        assert line.strip().startswith(f"{control.role}:")
        assert summary(control.violations) in line
        assert line.endswith(": ok")
    elsewhere = lines[:at] + lines[at + 1 + len(verdict.controls) : -3]
    assert not [line for line in elsewhere if "lost" in line or "duplicate" in line]


def test_an_error_is_shown_as_one() -> None:
    broken = replace(GOOD.observed(), problems=("gdb died",))
    lines = shown(GOOD, broken).splitlines()
    assert "ERROR: gdb died" in lines
    assert not [line for line in lines if line.startswith("ATOMIC")]
    nothing = replace(GOOD.observed(), serial=None, memory=None, rows=(), cells=(), cut="silence")
    assert shown(GOOD, nothing).splitlines()[-3:][0] != ""
    assert "ERROR: silence" in shown(GOOD, nothing)


def test_a_control_that_is_not_as_it_must_be_says_so() -> None:
    observation = GOOD.observed()
    assert observation.memory is not None
    phases = list(observation.memory.phases)
    phases[0] = replace(phases[0], lost=3)
    text = shown(GOOD, replace(observation, memory=replace(observation.memory, phases=tuple(phases))))
    line = next(line for line in text.splitlines() if line.strip().startswith("sanity:"))
    assert line.endswith("3 lost in 1000 rounds: VIOLATED")


def test_each_control_has_its_own_unit_and_what_it_showed() -> None:
    lines = [line.strip() for line in shown(GOOD, GOOD.observed()).splitlines()]
    sanity, chain, power, _ = (line for line in lines if line.startswith(("sanity:", "power:")))
    assert sanity.endswith(" no violation in 1000 rounds: ok")
    told = judge(GOOD.spec, GOOD.observed()).controls
    assert chain.endswith(f" no violation in {told[1].rounds} operations: ok")
    assert " live batches free (design effect " in told[2].power
    assert power.endswith(f" duplicate in {told[2].rounds} operations, violated in {told[2].power}: ok")


def test_a_control_that_was_violated_too_seldom_says_so() -> None:
    observation = GOOD.observed()
    assert observation.memory is not None
    few = tuple(replace(live, violated=4) for live in observation.memory.phases[2].live)
    lines = shown(GOOD, phase(2, live=few)(observation)).splitlines()
    (line,) = (line for line in lines if line.strip().startswith("power:mov-mov"))
    assert f"violated in 4 of {few[0].live} live batches free" in line
    assert line.endswith(": too few live batches were violated to tell how often a defect would show")
    assert all("by that rate" not in line for line in lines)


def test_a_control_of_an_older_kernel_that_showed_enough_for_a_longer_run_says_so() -> None:
    """A case that was stopped early ran too few rounds for its controls to tell anything: that is not their silence."""
    observation = OLD.observed()
    assert observation.memory is not None
    last = len(observation.memory.phases) - 1
    short = phase(last, rounds=1, judged=1)(observation)
    lines = [line for line in shown(OLD, short).splitlines() if line.strip().startswith("power:")]
    assert lines
    assert all(line.endswith(": by that rate, fewer than 5 events in as few as the case ran") for line in lines)


def test_a_case_that_was_stopped_does_not_blame_its_controls() -> None:
    (run,) = runs_of(with_scene())
    (result,) = run.results
    enough = next(control for control in result.verdict.controls if control.role == "power")
    little = replace(enough, enough=False)
    assert sum(little.violations.values()) >= 5
    stopped = replace(result, verdict=replace(result.verdict, controls=(little,)))
    for text in (stopped.explain(), account(stopped)):
        assert ": it failed, as it must; the case was stopped too soon to compare\n" in text
        assert "by that rate" not in text


def test_the_table_of_a_case_that_was_stopped_is_that_of_its_counters() -> None:
    (run,) = runs_of(with_scene())
    (result,) = run.results
    case = result.phase_record
    assert case is not None
    count0, count1, *rest = case.counts
    row = (count0.puts, count1.takes, sum(count.takes for count in rest))
    # what the guest printed last is of an earlier batch
    seen = replace(result.observation, rows=((6, 2, 4, 0),))
    text = replace(result, observation=seen).explain()
    assert f"{TABLE_HEADER}\ncounts:\t{row[0]}\t{row[1]}\t{row[2]}\t{row[0] - row[1] - row[2]}\n" in text
    assert f"put {row[0]}\n" in text


@pytest.mark.parametrize("name", ["tcg-no-controls", "kvm-lost"])
def test_the_sanity_control_is_only_claimed_where_it_ran(name: str) -> None:
    run = load(name)
    verdict = replace(judge(run.spec, run.observed()), kind=VerdictKind.NOT_ATOMIC)
    claimed = any("sanity control" in line for line in explanations(run.spec, verdict))
    assert claimed == (name == "kvm-lost")


def test_nothing_is_taken_for_markup() -> None:
    text = shown(GOOD, replace(GOOD.observed(), problems=("[bold]gdb[/] [red]died",)))
    assert "ERROR: [bold]gdb[/] [red]died\n" in text


def test_words_for_violations() -> None:
    assert summary({"lost": 3, "duplicate": 0, "torn": 1, "stale": 0}) == "3 lost, 1 torn"
    assert summary({"lost": 0}) == "no violation"
