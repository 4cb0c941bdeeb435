"""Results held against each other: what got worse, what vanished, what is new, and what is chance."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from recordings import load as recording
from rich.console import Console
from test_reading import written as write

from kgen import __version__
from kgen.cli import main
from kgen.errors import PlatformUnavailable, SpecError
from kgen.report.compare.comparison import FATAL, Cell, Comparison, Difference, compare, difference
from kgen.report.compare.forms import MARKS, forms
from kgen.report.results import read
from kgen.report.results.model import Run
from kgen.report.results.write import to_json
from kgen.report.statistics import LEVEL, excess
from kgen.report.text.labels import labels
from kgen.run.verify import refused
from kgen.verdict.model import SEVERITY, VerdictKind

D, V = Difference, VerdictKind
XCHG = "xchg.32.vga-text.token"


@cache
def written(name: str) -> str:
    return write(name)


@cache
def run(name: str, where: str = "") -> Run:
    (found,) = read.load(written(name).encode(), where or f"{name}.json")
    return found


def altered(of: Run, where: str, **verdicts: Mapping[str, Any] | None) -> Run:
    """A run with other verdicts. The names are the instructions', None leaves the case out."""
    found = []
    for result in of.results:
        change = verdicts.get(result.case.partition(".")[0].rstrip("_"), {})
        if change is not None:
            found.append(replace(result, verdict=replace(result.verdict, **change)))
    return replace(of, where=where, results=tuple(found))


def cell(kind: VerdictKind, events: int = 0, judged: int = 1000, **violations: int) -> Cell:
    return Cell(kind, "because", violations, judged, judged, events, None, {}, "rounds")


def shown(comparison: Comparison, form: str = "text", everything: bool = False, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    forms()[form].show(console, comparison, everything)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- what is a difference ----------------------------------------------------------------------------------------

#: A row is what was, a column what is, in the order of SEVERITY: ERROR CRASH NOT INC UNSUP NO_ST RAM SKIP ATOMIC.
MATRIX = """
    =  ~  ~  +  +  +  +  x  +
    !  =  ~  +  +  +  +  x  +
    !  !  =  ~  ~  ~  ~  x  +
    !  !  !  =  ~  ~  ~  x  +
    !  !  !  ~  =  ~  ~  x  +
    !  !  !  ~  ~  =  ~  x  +
    !  !  !  ~  ~  ~  =  x  +
    !  !  !  ~  ~  ~  ~  =  +
    !  !  !  <  <  <  <  x  =
"""


def test_every_pair_of_verdicts() -> None:
    for before, line in zip(SEVERITY, MATRIX.split("\n")[1:-1], strict=True):
        for now, mark in zip(SEVERITY, line.split(), strict=True):
            found, why = difference(cell(before), cell(now))
            assert (MARKS[found] or "=") == mark, (before, now)
            assert bool(why) == (before is not now)
            if why:
                assert why.startswith(f"was {before.name}, is {now.name}")


def test_what_is_not_there() -> None:
    for kind in VerdictKind:
        assert difference(cell(kind), None) == (D.VANISHED, f"was {kind.name}, is not there")
        assert difference(None, cell(kind)) == (D.NEW, f"is {kind.name}, was not there")
    assert difference(None, None) == (D.SAME, "")


@pytest.mark.parametrize(
    ("events", "torn", "found"),
    [(20, 20, D.WORSE), (20, 1, D.SAME), (7, 7, D.WORSE), (6, 6, D.SAME), (2, 900, D.SAME), (900, 900, D.WORSE)],
)
def test_a_new_kind_of_violation_is_worse_unless_it_may_be_chance(events: int, torn: int, found: Difference) -> None:
    """As many violations as there may be in one cell: no more cells than showed anything can have shown it."""
    before, now = cell(V.NOT_ATOMIC, 50, lost=50, torn=0), cell(V.NOT_ATOMIC, events, lost=50, torn=torn)
    kind, why = difference(before, now)
    assert kind is found
    assert ("new kind: torn in" in why) == (found is D.WORSE)
    # what was seen before is not new, however rare it was
    assert difference(replace(before, violations={"lost": 50, "torn": 1}), now)[0] is D.SAME


@pytest.mark.parametrize(("lost", "said"), [(0, "torn in 40 of 60"), (2, "torn in at least 38 of 60"), (900, "")])
def test_of_what_comes_in_bursts_only_the_least_counts(lost: int, said: str) -> None:
    """All that is torn may be of one batch, unless what else was seen is too little for the others."""
    before, now = cell(V.NOT_ATOMIC, 50, lost=50, torn=0), cell(V.NOT_ATOMIC, 40, lost=lost, torn=900)
    kind, why = difference(*(replace(each, judged=60, chance="batches") for each in (before, now)))
    assert (kind, said in why) == (D.WORSE if said else D.SAME, True)


def test_chances_of_two_kinds_are_not_compared() -> None:
    """Tokens were lost before, now the chain alone is violated: its batches are no rounds."""
    before, now = cell(V.NOT_ATOMIC, 300, lost=300), cell(V.NOT_ATOMIC, 900, lost=900, torn=900)
    assert difference(before, now)[0] is D.WORSE
    assert difference(before, replace(now, chance="batches")) == (D.SAME, "")


def test_runs_that_were_in_no_file_have_names() -> None:
    assert labels(["", "a/x.json", ""]) == ("result", "x", "result (2)")


def _remarks(before: Run, now: Run) -> str:
    (row,) = compare((before, now)).rows
    return "; ".join(row.entries[1].remarks)


def test_remarks_decide_nothing() -> None:
    lost = run("kvm-lost")
    (result,) = lost.results
    record = result.observation.memory
    assert record is not None

    def again(events: int, **violations: int) -> Run:
        counts = dict.fromkeys(("lost", "duplicate", "torn", "stale"), 0) | violations
        phases = (*record.phases[:-1], replace(record.phases[-1], events=events, **counts))
        seen = replace(result.observation, memory=replace(record, phases=phases))
        verdict = replace(result.verdict, violations=counts)
        return replace(lost, results=(replace(result, observation=seen, verdict=verdict),))

    before = again(300, lost=300)
    assert _remarks(before, again(310, lost=310)) == ""
    assert _remarks(before, again(400, lost=400)) == (
        "violations show more often: in 400 of 1000 rounds (0.4), it was 300 of 1000 (0.3)"
    )
    assert "violations show less often: in 200 of 1000 rounds" in _remarks(before, again(200, lost=200))
    assert _remarks(before, again(300, lost=299, duplicate=1)) == "duplicate was not seen before; that may be chance"
    assert (
        _remarks(again(300, lost=200, duplicate=100), before)
        == "duplicate is no longer seen, and that is hardly chance"
    )
    assert _remarks(again(300, lost=299, duplicate=1), before) == ""
    for one, other in itertools.permutations((before, again(400, lost=400), again(300, lost=299, duplicate=1)), 2):
        assert not compare((one, other), FATAL).failed


def test_a_weaker_proof_and_another_request_are_remarked() -> None:
    good, without = run("tcg-atomic"), run("tcg-no-controls")
    weaker = altered(good, "w.json", xchg={"bound": 0.2})
    bound = good.results[0].verdict.bound
    assert _remarks(good, weaker) == f"the proof is weaker: at most 0.2 per live batch, at 95 %, it was {bound:.2g}"
    assert _remarks(weaker, good) == ""
    assert _remarks(good, altered(good, "w.json", xchg={"bound": 0.02})) == ""
    assert _remarks(good, without) == "asked with controls on before, off now"


# --- chance -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 30), st.integers(0, 12), st.integers(1, 30))
def test_the_test_of_two_counts_is_the_binomial_one(before: int, chances: int, now: int, chances_now: int) -> None:
    events, part = before + now, Fraction(chances_now, chances + chances_now)
    exact = sum(math.comb(events, k) * part**k * (1 - part) ** (events - k) for k in range(now, events + 1))
    expected = 1.0 if now <= events * part else float(exact)
    assert excess(before, chances, now, chances_now) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("numbers", "below"),
    [
        ((0, 10**6, 7, 10**6), LEVEL),
        ((10**9, 10**10, 10**9 + 10**6, 10**10), LEVEL),
        ((1, 10**18, 10**9, 10**18), 1e-100),
    ],
)
def test_large_counts(numbers: tuple[int, int, int, int], below: float) -> None:
    assert 0 <= excess(*numbers) < below


@pytest.mark.parametrize(
    "numbers", [(0, 0, 5, 10), (0, 10, 5, 0), (-1, 10, 5, 10), (0, 10, -5, 10), (0, 10**400, 9, 10**400), (5, 1, 5, 1)]
)
def test_what_cannot_be_told_is_chance(numbers: tuple[int, int, int, int]) -> None:
    assert excess(*numbers) == 1.0


# --- whole tables -------------------------------------------------------------------------------------------------

WORD = st.sampled_from(["xchg", "or", "xadd", "not"])
CHANGE = st.one_of(st.none(), st.sampled_from(list(VerdictKind)).map(lambda kind: {"kind": kind}))
CHANGES = st.dictionaries(WORD, CHANGE, max_size=3)


@settings(max_examples=40, deadline=None)
@given(CHANGES, CHANGES, st.frozensets(st.sampled_from(list(Difference)[:-1])))
def test_a_table_of_altered_results(one: Any, other: Any, fatal: frozenset[Difference]) -> None:
    before = altered(run("tcg-suite"), "a.json", **one)
    now = altered(run("kvm-suite"), "b.json", **other)
    found = compare((before, now), fatal)
    base, cells = ({result.case: result for result in each.results} for each in (before, now))
    # every case once, the baseline's in its order
    assert [row.case for row in found.rows][: len(base)] == list(base)
    assert sorted(row.case for row in found.rows) == sorted(base.keys() | cells.keys())
    back = {row.case: row.entries[1].difference for row in compare((now, before)).rows}
    for row in found.rows:
        old, entry = row.entries
        assert old.difference is D.SAME
        assert (entry.cell is not None) == (row.case in cells)
        assert (entry.difference is D.NEW) == (row.case not in base)
        if row.case not in cells:
            assert entry.difference is D.VANISHED
        if entry.difference is D.NEW:
            assert back[row.case] is D.VANISHED
        if entry.difference in (D.WORSE, D.UNPROVEN) and back[row.case] is not D.SAME:
            assert back[row.case] in (D.BETTER, D.CHANGED, D.VANISHED)
    kinds = [row.entries[1].difference for row in found.rows]
    assert bool(found.failed) == bool(fatal & set(kinds))
    assert found.counts(1) == {kind: kinds.count(kind) for kind in Difference if kind in kinds}
    for name in forms():
        text = shown(found, name, everything=True)
        assert text.endswith("\n")
        assert text == shown(found, name, everything=True)
    told = json.loads(shown(found, "json", everything=True))
    assert [row["case"] for row in told["rows"]] == [row.case for row in found.rows]
    assert [row["entries"][1]["difference"] for row in told["rows"]] == [kind.value for kind in kinds]
    assert told["failed"] == bool(found.failed)


@pytest.mark.parametrize("name", ["tcg-suite", "kvm-suite", "kvm-lost", "tcg-no-lock", "tcg-two-cpus"])
def test_a_run_is_the_same_as_itself(name: str) -> None:
    found = compare((run(name), run(name, "again.json")), list(Difference)[:-1])
    assert all(row.is_alike for row in found.rows)
    assert not found.failed
    text = shown(found)
    assert "alike in every column: " in text
    assert text.endswith(
        "passed: no case is worse or vanished or unproven or new or changed or better (that would fail)\n"
    )
    assert XCHG not in text.partition("alike")[0]
    assert re.search(r"^(xchg|or)\.32\.", shown(found, everything=True), re.MULTILINE)


def test_a_suite_that_did_not_run_counts_for_all_its_cases() -> None:
    spec = recording("kvm-suite").spec
    text = to_json([refused(spec, "qemu-kvm", PlatformUnavailable("no /dev/kvm"))])
    found = compare((run("kvm-suite"), *read.load(text.encode(), "skip.json")), FATAL)
    assert found.counts(1) == {D.VANISHED: 4}
    assert [row.case for row in found.rows] == [case.id for case in spec.cases]
    assert found.rows[0].entries[1].why == "was NOT_ATOMIC, is SKIP: it is no longer run"
    assert shown(found, "github").count("::error title=vanished%3A ") == 4


def test_what_nobody_knows_what_was_asked_has_a_row_of_its_own() -> None:
    unknown = replace(run("kvm-lost").results[0], spec=None, case="")
    found = compare((run("kvm-lost"), Run("u.json", None, "serial-log", (unknown,))))
    assert [row.case for row in found.rows] == [XCHG, ""]
    assert "(case not known)" in shown(found)


def test_a_case_that_is_there_twice_is_refused() -> None:
    twice = replace(run("kvm-lost"), results=run("kvm-lost").results * 2)
    with pytest.raises(SpecError, match=f"kvm-lost.json: has {re.escape(XCHG)} twice"):
        compare((twice, twice))


@pytest.mark.parametrize(
    ("wheres", "expected"),
    [
        (("a.json", "b.json"), ("a", "b")),
        (("old/a.json", "new/a.json"), ("old/a", "new/a")),
        (("x/old/a.json", "y/new/b.json"), ("a", "b")),
        (("x/r/a.json", "y/r/a.json", "r/a.json"), ("x/r/a", "y/r/a", "r/a")),
        ((r"C:\old\a.json", r"C:\new\a.json"), ("old/a", "new/a")),
        (("a.json", "a.json"), ("a", "a (2)")),
        (("a.json", "a.json", "a (2).json"), ("a", "a (2) [2]", "a (2) [3]")),
        (("a.json (run 1)", "a.json (run 2)"), ("a.json (run 1)", "a.json (run 2)")),
        (("standard input",), ("standard input",)),
    ],
)
def test_a_label_is_short_and_its_own(wheres: Sequence[str], expected: Sequence[str]) -> None:
    assert labels(wheres) == expected


@settings(deadline=None)
@given(st.lists(st.text("ab/ ().json", max_size=8), max_size=6))
def test_no_two_labels_are_alike(wheres: list[str]) -> None:
    assert len(set(labels(wheres))) == len(wheres)


# --- what a person sees -------------------------------------------------------------------------------------------


def _three() -> Comparison:
    base = altered(run("tcg-suite"), "ci/known.json", xadd=None)
    base = replace(base, results=tuple(_at(result, "Debian 12's QEMU 7.2") for result in base.results))
    change = {"kind": V.NOT_ATOMIC, "reason": "1 torn in 4480 rounds", "violations": {"torn": 1}, "bound": None}
    first = altered(
        run("tcg-suite"), "ci/patched.json", xchg=change, **{"not": {"kind": V.INCONCLUSIVE, "bound": None}}
    )
    second = altered(run("tcg-suite"), "ci/today.json", **{"not": None})
    return compare((base, first, second), FATAL)


def _at(result: Any, emulator: str) -> Any:
    host = {"system": "Linux", "kernel": "6.1.0-18-amd64", "cpu": "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"}
    environment = {"host": host, "versions": {"emulator": emulator}}
    return replace(result, observation=replace(result.observation, environment=environment))


GOLDEN = """\
known    qemu-tcg; Debian 12's QEMU 7.2; Intel(R) Xeon(R) Gold 6338 CPU @
         2.00GHz, Linux 6.1.0-18-amd64; kgen VERSION; the baseline
patched  qemu-tcg; kgen VERSION
today    qemu-tcg; kgen VERSION

                          known  patched     today
xchg.32.vga-text.token    ok     ! NOT torn  ok
not.32.vga-text.parity    ok     < ?         x vanished
xadd.32.vga-text.counter         * ok        * ok

! worse  x vanished  < unproven  * new
ok ATOMIC  NOT NOT_ATOMIC  ? INCONCLUSIVE

alike in every column: 1 RAM_BACKED (--all shows them)

worse: xchg.32.vga-text.token in patched: was ATOMIC, is NOT_ATOMIC
  known    ATOMIC: no violation in 2688 rounds, nor in 229 live batches of its
           chain; at most 0.013 per live batch, at 95 %
  patched  NOT_ATOMIC: 1 torn in 4480 rounds

vanished: not.32.vga-text.parity in today: was ATOMIC, is not there

unproven: not.32.vga-text.parity in patched: was ATOMIC, is INCONCLUSIVE: the
  proof is gone
  known    ATOMIC: no violation in 40704 operations, nor in 317 live batches; at
           most 0.0095 per live batch, at 95 %
  patched  INCONCLUSIVE: no violation in 40704 operations, nor in 317 live
           batches

new: xadd.32.vga-text.counter in patched: is ATOMIC, was not there
  patched  ATOMIC: no violation in 15312 operations, nor in 203 live batches; at
           most 0.015 per live batch, at 95 %

new: xadd.32.vga-text.counter in today: is ATOMIC, was not there
  today  ATOMIC: no violation in 15312 operations, nor in 203 live batches; at
         most 0.015 per live batch, at 95 %

patched: 1 worse, 1 unproven, 1 new, 1 same
today: 1 vanished, 1 new, 2 same
FAILED: 1 worse, 1 vanished, 1 unproven
"""


def test_the_text_at_80_columns() -> None:
    assert shown(_three()) == GOLDEN.replace("VERSION", __version__)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    names = [f"host-{number}.json" for number in range(6)]
    found = compare([replace(run("kvm-suite" if at % 2 else "tcg-suite"), where=name) for at, name in enumerate(names)])
    lines = shown(found, width=width).splitlines()
    # a name is not broken, and a table has the case, the baseline and one more
    assert max(map(len, lines)) <= max(width, 26 + 2 + 6 + 2 + 20)
    tables = [line for line in lines if line.startswith("  ") and "host-0 " in line and ":" not in line]
    assert [name for line in tables for name in line.split() if name != "host-0"] == [f"host-{n}" for n in range(1, 6)]
    assert len(tables) == {40: 5, 60: 5, 80: 3, 120: 1}[width]


def test_differences_have_a_colour_and_a_sign() -> None:
    console = Console(file=io.StringIO(), width=80, color_system="standard", force_terminal=True, highlight=False)
    forms()["text"].show(console, _three(), False)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[1;31m! NOT torn" in text
    assert "\x1b[1;31mx vanished" in text
    assert "\x1b[1;33m< ?" in text
    assert "\x1b[1;36m* ok" in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == GOLDEN.replace("VERSION", __version__)


def test_markdown() -> None:
    text = shown(_three(), "markdown")
    assert text.startswith("**FAILED: 1 worse, 1 vanished, 1 unproven**\n\n- patched: 1 worse")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[:3] == [
        "| case | known | patched | today |",
        "|---|---|---|---|",
        r"| xchg.32.vga-text.token | ok | **\! NOT torn** | ok |",
    ]
    hostile = altered(run("kvm-lost"), "a|b<img>.json", xchg={"reason": "`x` | <script>\n# y\x1b[2J"})
    text = shown(compare((run("tcg-atomic"), hostile)), "markdown")
    assert r"a\|b\<img\>" in text
    assert "\x1b" not in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<td>xchg.32.vga-text.token</td>\n<td>ok</td>\n<td><strong>! NOT duplicate+lost</strong></td>" in html
    assert "<li>a|b&lt;img&gt;: NOT_ATOMIC: `x` | &lt;script&gt; # y [2J</li>" in html
    assert html.count("<th>") == html.count("<td>") == 3


def test_annotations() -> None:
    lines = shown(_three(), "github").splitlines()
    assert all(re.fullmatch(r"::(error|warning|notice) title=[^:,]*::.+", line) for line in lines)
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 3 + ["::notice"] * 2 + ["::error"]
    assert lines[0].startswith(
        "::error title=worse%3A xchg.32.vga-text.token in patched%3A was ATOMIC%2C is NOT_ATOMIC::"
    )
    assert lines[0].endswith("at 95 %25%0ANOT_ATOMIC: 1 torn in 4480 rounds")
    only = compare((run("tcg-atomic"), run("kvm-lost")))
    assert [line.split(" ")[0] for line in shown(only, "github").splitlines()] == ["::warning", "::notice"]


def findings(found: Comparison) -> list[dict[str, Any]]:
    """A Code Quality report, with the fields that GitLab demands."""
    read = json.loads(shown(found, "gitlab"))
    for each in read:
        assert set(each) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert each["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert each["location"]["lines"]["begin"] == 1
        assert not each["location"]["path"].startswith(("./", "/"))
    assert len({each["fingerprint"] for each in read}) == len(read)
    assert isinstance(read, list)
    return read


def test_findings_of_a_merge_request() -> None:
    found = findings(_three())
    # what is new or better is no degradation, and GitLab would call it one
    assert [each["check_name"] for each in found] == ["kgen-worse", "kgen-vanished", "kgen-unproven"]
    assert {each["severity"] for each in found} == {"critical"}
    assert {each["location"]["path"] for each in found} == {_three().columns[0].where}
    start = "worse: xchg.32.vga-text.token in patched: was ATOMIC, is NOT_ATOMIC (NOT_ATOMIC: 1 torn in 4480 rounds"
    assert found[0]["description"].startswith(start)
    assert found == findings(_three())


def test_findings_by_what_fails() -> None:
    good, bad = run("tcg-atomic"), run("kvm-lost")
    assert [each["severity"] for each in findings(compare((good, bad)))] == ["major"]
    assert findings(compare((good, replace(good, where="again.json")))) == []
    assert findings(compare((bad, good))) == []
    (better,) = findings(compare((bad, good), (Difference.BETTER,)))
    assert (better["check_name"], better["severity"]) == ("kgen-better", "critical")
    # of two jobs that each have their baseline
    (one,), (other,) = (findings(compare((replace(good, where=f"./known/{n}.json"), bad))) for n in (1, 2))
    assert one["location"]["path"] == "known/1.json"
    assert one["fingerprint"] != other["fingerprint"]


def test_a_long_list_is_cut_and_says_so() -> None:
    names = [f"{number}.json" for number in range(12)]
    found = compare([run("tcg-suite"), *(replace(run("kvm-suite"), where=name) for name in names)], FATAL)
    text = shown(found)
    assert text.count("\nworse: ") == 21
    assert "\nworse: and 16 more (--all shows them)\n" in text
    assert shown(found, everything=True).count("\nworse: ") == 36


@pytest.mark.parametrize("form", sorted(forms()))
def test_nothing_in_a_file_reaches_the_terminal(form: str) -> None:
    hostile = altered(run("kvm-lost"), "\x1b]0;x\x07.json", xchg={"reason": "a\x1b[2J\x9bb\u202e"})
    hostile = replace(hostile, platform="\x1b[31m", results=tuple(_at(each, "\x1b[5m") for each in hostile.results))
    text = shown(compare((run("tcg-atomic"), hostile)), form)
    assert not [char for char in text if not char.isprintable() and char != "\n"]


# --- the command --------------------------------------------------------------------------------------------------


def invoke(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["compare", *map(str, words)], prog_name="kgen")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("tcg-atomic", "kvm-lost", "tcg-no-controls", "tcg-suite", "kvm-suite"):
        (tmp_path / f"{name}.json").write_text(written(name), encoding="utf-8")
    runs = [{"where": f"run {number}", **json.loads(written("kvm-lost"))} for number in (1, 2)]
    (tmp_path / "two.json").write_text(json.dumps({"schema": 3, "kgen": "0", "runs": runs}), encoding="utf-8")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    (tmp_path / "empty.json").write_text('{"schema": 3, "kgen": "0", "runs": []}', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("tcg-atomic.json kvm-lost.json", 0, "kvm-lost: 1 worse\n"),
        ("kvm-lost.json --baseline tcg-atomic.json", 1, "\nFAILED: 1 worse\n"),
        (
            "tcg-atomic.json --baseline kvm-lost.json",
            0,
            "\npassed: no case is worse or vanished or unproven (that would fail)\n",
        ),
        ("tcg-atomic.json kvm-lost.json --baseline tcg-atomic.json", 1, "kvm-lost: 1 worse\nFAILED: 1 worse\n"),
        ("tcg-no-controls.json --baseline tcg-atomic.json", 1, "FAILED: 1 unproven"),
        (
            "tcg-no-controls.json --baseline tcg-atomic.json --fail-on worse",
            0,
            "passed: no case is worse (that would fail)\n",
        ),
        ("kvm-lost.json --baseline tcg-suite.json", 1, "FAILED: 1 worse, 3 vanished"),
        (
            "kvm-lost.json --baseline tcg-suite.json --fail-on new,changed",
            0,
            "passed: no case is new or changed (that would fail)\n",
        ),
        ("tcg-suite.json --baseline tcg-atomic.json", 0, "3 new, 1 same"),
        ("tcg-suite.json --baseline tcg-atomic.json --fail-on worse,new", 1, "FAILED: 3 new"),
        ("two.json", 0, "two.json (run 2): 1 same"),
        ("two.json --baseline tcg-atomic.json", 1, "FAILED: 2 worse"),
    ],
)
def test_exit_codes(files: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, said: str) -> None:
    monkeypatch.chdir(files)
    found, out, err = invoke(*words.split())
    assert (found, err) == (code, "")
    assert said in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "missing argument"),
        ("tcg-atomic.json", "there is one result only; give another one, or --baseline FILE"),
        ("tcg-atomic.json --baseline ./tcg-atomic.json", "is the baseline itself, which counts once; name another one"),
        ("tcg-atomic.json empty.json", "empty.json: holds no run; name a file"),
        ("tcg-atomic.json --baseline empty.json", "empty.json: holds no run; name a file"),
        ("tcg-atomic.json kvm-lost.json --fail-on worse", "--fail-on goes with --baseline"),
        ("kvm-lost.json --baseline tcg-atomic.json --fail-on worst", "unknown difference 'worst'; did you mean worse?"),
        ("kvm-lost.json --baseline tcg-atomic.json --fail-on worse,", "unknown difference ''; known: better, changed"),
        ("kvm-lost.json --baseline tcg-atomic.json --fail-on same", "unknown difference 'same'"),
        (
            "kvm-lost.json tcg-atomic.json --format xml",
            "unknown format 'xml'; known: github, gitlab, json, markdown, text",
        ),
        ("kvm-lost.json --baseline two.json", "two.json: holds 2 runs; a baseline is one run"),
        ("kvm-lost.json bad.json", "bad.json: is no result of kgen"),
        ("kvm-lost.json none.json", "none.json: No such file"),
        ("kvm-lost.json --baseline none.json", "none.json: No such file"),
        ("kvm-lost.json tcg-atomic.json -o kvm-lost.json", "kvm-lost.json: is what is to be read"),
        ("kvm-lost.json --baseline tcg-atomic.json -o tcg-atomic.json", "tcg-atomic.json: is what is to be read"),
        ("kvm-lost.json tcg-atomic.json -o .", "is a directory"),
    ],
)
def test_wrong_usage(files: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str) -> None:
    monkeypatch.chdir(files)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    code, out, err = invoke(*words.split())
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("kgen: error: ")
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_a_file_is_what_goes_to_standard_output(files: Path) -> None:
    for form in forms():
        words = (files / "kvm-lost.json", files / "tcg-atomic.json", "--format", form)
        assert invoke(*words, "-o", files / "out") == (0, "", "")
        assert (files / "out").read_text(encoding="utf-8") == invoke(*words)[1]
