"""The examples for CI systems, as far as they can be tried without them: patterns on real logs, commands, names.

tests/soak/soak_ci_examples.py runs them in their own tools.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
import yaml
from recordings import load, signed

from kgen.cli import main
from kgen.kernel import protocol
from kgen.platforms import platforms
from kgen.report.compare.forms import forms

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
JOBS = sorted((EXAMPLES / "lava").glob("*.yaml"))
WORKFLOW = (EXAMPLES / "github-actions" / "kgen.yml").read_text(encoding="utf-8")
PIPELINE = (EXAMPLES / "gitlab-ci" / "kgen.yml").read_text(encoding="utf-8")


def _monitor(job: Path) -> Mapping[str, str]:
    """A LAVA job's monitor: its scalars, those in single quotes and the plain ones."""
    text = job.read_text(encoding="utf-8").partition("monitors:")[2]
    return {
        name: quoted or plain
        for name, quoted, plain in re.findall(r"^[ -]*([a-z ]+): (?:'(.*)'|([^'\n]+))$", text, re.MULTILINE)
    }


#: What a pattern may not have in it for a match in some text to be one in a longer text too.
_ENDS = re.compile(r"(?<!\[)[$^]|\\[AZbB]|\(\?<?!")


def _watched(job: Path, log: bytes, step: int) -> tuple[list[tuple[str, str]], bool]:
    """What LAVA makes of a log that comes ``step`` bytes at a time: results by case, and whether it saw the end.

    Like pexpect: whenever something has come, the pattern that matches first in what has not been used yet, and of two
    that match at one place the first; what was matched, and all before it, is used up. With which step there first is a
    match is found by halving: more text does not take one away.
    """
    monitor = _monitor(job)
    assert not any(_ENDS.search(monitor[name]) for name in ("start", "end", "pattern"))
    text = log.decode("latin-1")
    waiting = [re.compile(monitor["start"], re.DOTALL)]
    found: list[tuple[str, str]] = []
    used, steps, all_steps = 0, 1, -(-len(text) // step)

    def matches(steps: int) -> list[re.Match[str]]:
        return [match for each in waiting if (match := each.search(text, used, steps * step))]

    while True:
        steps = bisect_left(range(all_steps + 1), 1, lo=steps, key=lambda steps: bool(matches(steps)))
        if steps > all_steps:
            return found, False
        match = min(matches(steps), key=lambda each: each.start())
        used = match.end()
        if len(waiting) == 1:
            waiting = [re.compile(monitor[name], re.DOTALL) for name in ("end", "pattern")]
        elif match.re is waiting[0]:
            return found, True
        else:
            fields = match.groupdict()
            found.append((fields["test_case_id"], monitor[fields["result"]]))


def _expected(lines: list[str]) -> list[tuple[str, str]]:
    """The TAP lines of a log, taken apart with nothing of the job's."""
    tap = [line for line in lines if line.startswith(("ok ", "not ok "))]
    return [
        (line.split(" - ")[1].split(" ")[0], "skip" if "# SKIP" in line else "fail" if line[0] == "n" else "pass")
        for line in tap
    ]


@pytest.mark.parametrize("step", [1, 7, 4096])
@pytest.mark.parametrize("name", ["tcg-suite", "kvm-suite"])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_the_monitor_finds_every_case_in_a_real_log(job: Path, name: str, step: int) -> None:
    run = load(name)
    found, ended = _watched(job, b"SeaBIOS (version 1.16.2)\r\nok 1 - not-ours\r\n" + run.log, step)
    assert [case for case, _ in found] == [case.id for case in run.spec.cases]
    assert found == _expected(run.lines)
    assert ("kvm" in name) == ("fail" in dict(found).values())
    assert ended


@pytest.mark.parametrize("step", [1, 4096])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_the_monitor_knows_a_skipped_case(job: Path, step: int) -> None:
    lines = [re.sub(r"^(?:not )?ok 2 (.*)$", r"ok 2 \1 # SKIP", line) for line in load("kvm-suite").lines]
    assert protocol.parse_log(signed(lines)).intact
    found, ended = _watched(job, signed(lines), step)
    assert found == _expected(lines)
    assert [result for _, result in found] == ["fail", "skip", "fail", "fail"]
    assert ended


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_cut_log_has_no_end(job: Path) -> None:
    run = load("tcg-suite")
    last = run.log.rindex(b"kgen:")
    for end in (last, last + 8, len(run.log) - 2):
        found, ended = _watched(job, run.log[:end], 64)
        assert (len(found), ended) == (4, False)


def test_the_jobs_share_one_monitor() -> None:
    assert len(JOBS) == 2
    assert len({tuple(sorted(_monitor(job).items())) for job in JOBS}) == 1


def _words(line: str) -> list[str]:
    return re.split(r" (?:>>|\|\|) ", line.strip().removeprefix("- "))[0].replace('"', "").split()


def test_every_command_in_the_examples_parses() -> None:
    steps = [*WORKFLOW.splitlines(), *PIPELINE.splitlines()]
    lines = [_words(line) for line in steps if line.strip().removeprefix("- ").startswith("kgen ")]
    assert len([words for words in lines if words[1] == "compare"]) == 5
    for path in EXAMPLES.rglob("*.yaml"):
        lines += [
            line.split() for line in re.findall(r"# Before: (kgen build [^,\n]*)", path.read_text(encoding="utf-8"))
        ]
    assert {words[1] for words in lines} == {"verify", "report", "compare", "build"}
    for words in lines:
        name, command, rest = main.resolve_command(click.Context(main), words[1:])
        assert command is not None
        context = command.make_context(name, rest, parent=click.Context(main))
        if name == "compare":
            assert context.params["name"] in forms()


@pytest.mark.parametrize("text", [WORKFLOW, PIPELINE], ids=["GitHub", "GitLab"])
def test_the_platforms_of_the_examples_are_known(text: str) -> None:
    (names,) = re.findall(r"platform: \[(.*)\]", text, re.IGNORECASE)
    assert set(names.split(", ")) <= set(platforms())


def test_the_pipeline_keeps_what_its_steps_write() -> None:
    """Files that no step writes would be missing from the job's page without a word."""
    job = yaml.safe_load(PIPELINE)["kgen"]
    steps = "\n".join(job["script"])
    written = set(re.findall(r"(?:-o|--json) (\S+)", steps))
    reports = job["artifacts"]["reports"]
    assert written == {*job["artifacts"]["paths"], *reports.values()}
    assert f"--format junit -o {reports['junit']}" in steps
    assert f"--format gitlab -o {reports['codequality']}" in steps
    # the verdict of the comparison is the job's: no step after it, and nothing that hides its exit code
    assert job["script"][-1] == 'kgen compare result.json --baseline "$BASELINE"'


def test_the_strategy_knows_the_last_line() -> None:
    """Its expression, taken from its text: labgrid need not be there."""
    text = (EXAMPLES / "labgrid" / "strategy.py").read_text(encoding="utf-8")
    (pattern,) = re.findall(r'LAST_LINE = re\.compile\(rb"(.*)", re\.MULTILINE\)', text)
    last = re.compile(pattern.encode(), re.MULTILINE)
    for name in ("tcg-atomic", "kvm-suite"):
        log = load(name).log
        match = last.search(log)
        assert match is not None
        assert match.end() == len(log)
        assert last.search(log[:-1]) is None
