"""Bug reports, read by a published parser of Markdown; and every form of a report, whatever the result says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from damage import EVIL, damaged, everywhere, places
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pages import runs_of as scenes
from pages import with_scene
from recordings import NAMES
from test_reading import DOCUMENT, written

from kgen.errors import SpecError
from kgen.experiments import experiments
from kgen.report.bug import report
from kgen.report.bug.code_shown import loops
from kgen.report.formats import formats
from kgen.report.markdown import code, cut, fence, field, words
from kgen.report.reproduce.rebuilt import rebuilt
from kgen.report.results import read
from kgen.report.results.document import document
from kgen.report.text.case import summary
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import BUILT_IN
from kgen.verdict.model import Verdict, VerdictKind

SECTIONS = [
    "Environment",
    "Steps to reproduce",
    "Expected output",
    "Actual output",
    "Explanation",
    "Code",
    "Attachments",
]
BY_HAND = "The same by hand"


@cache
def runs_of(name: str) -> tuple[read.Run, ...]:
    return read.load(written(name).encode(), "x.json")


def runs_in(value: Any) -> tuple[read.Run, ...]:
    return read.load(json.dumps(value).encode(), "x.json")


def is_readable(value: Any) -> bool:
    try:
        runs_in(value)
    except SpecError:
        return False
    return True


def much_said() -> Any:
    """A result with all that a result may say."""
    value = json.loads(written("kvm-lost"))
    value["observation"]["environment"] = {
        "host": {"system": "", "kernel": "", "cpu": "", "cpus": 2, "microcode": ""},
        "versions": {"emulator": "", "gdb": ""},
        "lab": {"qemu": "", "linux": ""},
        "accel": "kvm",
        "kvm": {"kvm.mmio_caching": ""},
        "command": ["qemu", "", "-kernel", ""],
    }
    value["invocation"] = ["kgen", "verify", "", "--cpu", "", "--", ""]
    value["verdict"]["notes"] = [""]
    return value


@cache
def hostile() -> tuple[read.Run, ...]:
    """A result that says EVIL wherever a result may say anything."""
    return runs_in(everywhere(much_said(), is_readable))


@pytest.mark.soak
def test_the_hostile_result_leaves_out_no_text() -> None:
    assert everywhere(much_said(), is_readable) == everywhere(much_said(), is_readable, singly=True)


def with_verdict(kind: VerdictKind) -> tuple[read.Run, ...]:
    (run,) = runs_of("kvm-lost")
    result = replace(run.results[0], verdict=Verdict(kind, "because"))
    return (replace(run, results=(result,)),)


# --- Markdown ------------------------------------------------------------------------------------------------------


def headings(text: str) -> list[tuple[str, str]]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [(a.tag, b.content) for a, b in pairwise(tokens) if a.type == "heading_open"]


def blocks(text: str) -> dict[str, list[str]]:
    """The blocks of code of a report by the section they stand in."""
    found: dict[str, list[str]] = {}
    section = ""
    tokens = MarkdownIt("commonmark").parse(text)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            section = tokens[at + 1].content
        elif token.type == "fence":
            found.setdefault(section, []).append(token.content)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_report_has_its_sections(name: str) -> None:
    text = report.render(runs_of(name))
    found = headings(text)
    assert found[0][0] == "h1"
    assert [name for _, name in found[1:]] == [*SECTIONS[:2], BY_HAND, *SECTIONS[2:]]
    assert {tag for tag, _ in found[1:]} == {"h2"}
    kind = runs_of(name)[0].kind
    assert f"exit code {kind.value}: {kind.name}" in blocks(text)["Steps to reproduce"][0]
    assert kind.name in blocks(text)["Actual output"][0]


def test_a_lost_token_is_told_like_in_the_first_report() -> None:
    text = report.render(runs_of("kvm-lost"))
    assert text.startswith("# XCHG of 32 bits on vga-text is not atomic on qemu-kvm: ")
    parts = blocks(text)
    header = "counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\n"
    assert parts["Expected output"][0].startswith(header)
    assert re.search(r"^counts:\t(\d+)\tm\t\1-m\t0$", parts["Expected output"][0], re.MULTILINE)
    assert header in parts["Actual output"][0]
    assert "the token vanished" in parts["Actual output"][0]
    assert "**lost**" in text


def test_a_case_of_a_suite_is_told_as_itself() -> None:
    """The suite's last case counts operations, its first one rounds."""
    (run,) = runs_of("tcg-suite")
    text = report.render((replace(run, results=run.results[:1]),))
    first = run.results[0]
    assert f"N = {first.verdict.judged} live batches" in text
    told = text.partition("## Explanation")[2].partition("## Code")[0]
    # each control in the unit of its own experiment
    for control in first.verdict.controls:
        assert f"`{control.label}`: {summary(control.violations)} in {control.rounds} {control.unit}" in told
    assert {control.unit for control in first.verdict.controls} == {"rounds", "operations"}


def test_the_code_is_that_of_the_kernel() -> None:
    (run,) = runs_of("kvm-lost")
    assert run.spec is not None
    kernel = rebuilt(run.spec).kernel
    assert kernel is not None
    (shown,) = blocks(report.render((run,)))["Code"]
    data = b"".join(line.data for line in kernel.assembly.code_of("exchange_xchg_32"))
    assert f"{kernel.assembly.address('exchange_xchg_32'):08x} {data[:2].hex()}" in shown
    for name in ("token_put", "consume_exchange", "consume_read"):
        assert f"\n{'':27}{name}:" in f"\n{shown}"
        # no instruction is missing
        assert all(f"{line.run_address:08x} {line.data[:8].hex()}" in shown for line in kernel.assembly.code_of(name))


@pytest.mark.parametrize("cpus", [3, 9])
def test_every_experiment_has_its_loops(cpus: int) -> None:
    full = list(BUILT_IN["full"](cpus))
    cases = [next(case for case in full if case.experiment == name) for name in experiments()]
    spec = KernelSpec(cases[0], more=tuple(cases[1:]), suite="each", budget=30)
    kernel = rebuilt(spec).kernel
    assert kernel is not None
    for number in range(len(cases)):
        found = loops(spec, number)
        for loop in found:
            assert all(kernel.assembly.code_of(name) for name in loop.routines), loop
        assert str(cpus - 1) in " ".join(loop.cpus for loop in found)


def test_a_kernel_that_is_another_is_not_passed_off_as_the_one_that_ran() -> None:
    (run,) = runs_of("kvm-lost")
    assert "by another version of kgen" in report.render((named(run, "00" * 20),))
    assert run.spec is not None
    kernel = rebuilt(run.spec).kernel
    assert kernel is not None
    (text,) = re.findall(
        "and is the one that was run.*",
        report.build_note(named(run, kernel.elf.build_id.hex()), kernel.elf.build_id.hex()),
    )
    assert kernel.elf.build_id.hex() in text
    assert "names no build id" in report.build_note(named(run, ""), "00")


def named(run: read.Run, build_id: str) -> read.Run:
    """As if the kernel that ran had that build id."""
    seen = run.results[0].observation
    named = replace(
        seen,
        serial=replace(seen.serial, build_id=build_id) if seen.serial else None,
        memory=replace(seen.memory, build_id=build_id) if seen.memory else None,
    )
    return replace(run, results=(replace(run.results[0], observation=named),))


@pytest.mark.parametrize("kind", VerdictKind)
def test_what_is_no_proof_says_so_first(kind: VerdictKind) -> None:
    text = report.render(with_verdict(kind))
    before = text.partition("## Environment")[0]
    if kind is VerdictKind.NOT_ATOMIC:
        assert "**" not in before
    else:
        assert f"**{kind.name}**: " in before
        assert not text.startswith("# XCHG")


def test_a_case_without_lock_is_no_defect() -> None:
    (run,) = with_verdict(VerdictKind.NOT_ATOMIC)
    spec = KernelSpec(Case("xchg", lock=False))
    run = replace(run, spec=spec, results=(replace(run.results[0], spec=spec, case=spec.case.id),))
    text = report.render((run,))
    assert text.startswith("# XCHG without LOCK of 32 bits on vga-text is not atomic on ")
    assert "no defect" in text.partition("## Environment")[0]


def test_a_suite_in_which_a_locked_case_fails_is_a_defect() -> None:
    (run,) = with_verdict(VerdictKind.NOT_ATOMIC)
    cases = (Case("xchg", lock=False), Case("xchg"))
    spec = KernelSpec(cases[0], more=cases[1:], suite="two", budget=30)
    results = [replace(run.results[0], spec=spec, case=case.id, number=at) for at, case in enumerate(cases)]
    both = report.render((replace(run, spec=spec, results=tuple(results)),))
    assert both.startswith("# NOT_ATOMIC: 1 of 2 cases of suite:two on ")
    assert "no defect" not in both
    assert "Cases without LOCK that are not atomic are left out" in both
    assert f"In case `{cases[1].id}`" in both
    assert f"In case `{cases[0].id}`" not in both
    proven = replace(results[1], verdict=Verdict(VerdictKind.ATOMIC, ""))
    assert "no defect" in report.render((replace(run, spec=spec, results=(results[0], proven)),))


def suite_of(*kinds: VerdictKind) -> read.Run:
    """The recorded suite with those verdicts."""
    (run,) = runs_of("kvm-suite")
    results = [
        replace(result, verdict=result.verdict if result.kind is kind else Verdict(kind, "because"))
        for result, kind in zip(run.results, kinds, strict=True)
    ]
    return replace(run, results=tuple(results))


@pytest.mark.parametrize("kind", [VerdictKind.ERROR, VerdictKind.CRASH])
def test_what_befell_one_case_takes_nothing_from_what_was_proven_of_others(kind: VerdictKind) -> None:
    proven = VerdictKind.NOT_ATOMIC
    text = report.render((suite_of(proven, VerdictKind.RAM_BACKED, proven, kind),))
    assert text.startswith(f"# NOT_ATOMIC: 2, {kind.name}: 1 of 4 cases of suite:recorded on ")
    assert f"**{kind.name}** in 1 case: " in text
    assert "The violations in the other cases are proven nevertheless." in text
    meaning = text.partition("## Explanation")[2].partition("## Code")[0]
    assert "carried out as a read and a separate write" in meaning
    for result in runs_of("kvm-suite")[0].results[::2]:
        assert f"`{result.case}`: NOT_ATOMIC" in meaning
        assert f"In case `{result.case}`" in text


def test_each_experiment_has_its_own_way_to_a_violation() -> None:
    text = report.render(runs_of("kvm-suite"))
    tokens, others = text.partition("Where tokens are passed on:")[2].split("In the other experiments:")
    assert "producer's token" in tokens
    assert "**duplicate**" not in tokens, "none was seen of it"
    assert "two operations were given the same old value" in others.partition("The argument")[0]


def test_what_has_no_lock_is_not_expected_to_be_atomic() -> None:
    text = report.render(runs_of("tcg-no-lock"))
    assert blocks(text)["Expected output"] == ["NOT_ATOMIC: without LOCK nothing else is promised\n"]


def test_of_many_runs_the_worst_are_told() -> None:
    text = report.render((*runs_of("tcg-atomic") * 100, *runs_of("kvm-lost")))
    assert text.startswith("# XCHG of 32 bits on vga-text is not atomic")
    told = sum(tag == "h1" for tag, _ in headings(text))
    assert f"[... {101 - told} more runs left out, none of them worse: ATOMIC: {101 - told} ATOMIC ...]" in text
    assert report.MAX_BYTES * 0.9 < len(text.encode()) <= report.MAX_BYTES


def test_a_suite_expects_what_can_be() -> None:
    """What lies on memory stays so on a machine without the defect, and what has no LOCK is no defect."""
    (run,) = with_verdict(VerdictKind.NOT_ATOMIC)
    cases = (Case("xchg", lock=False), Case("xchg"), Case("xchg", target="framebuffer"))
    spec = KernelSpec(cases[0], more=cases[1:], suite="three", budget=30)
    results = [replace(run.results[0], spec=spec, case=case.id, number=at) for at, case in enumerate(cases)]
    results[2] = replace(results[2], verdict=Verdict(VerdictKind.RAM_BACKED, "because"))
    text = report.render((replace(run, spec=spec, results=tuple(results)),))
    (expected,) = blocks(text)["Expected output"]
    assert expected == f"{cases[1].id}: ATOMIC\n\nNOT_ATOMIC: 1 NOT_ATOMIC, 1 RAM_BACKED, 1 ATOMIC\n"
    assert "Its entries: `NOT` NOT_ATOMIC, `ram` RAM_BACKED" in text
    assert "`?`" not in text


def test_a_scene_expects_a_whole_run() -> None:
    """The steps do not stop at the first violation, so what is expected of them is as many rounds as were asked for."""
    (run,) = scenes(with_scene())
    (result,) = run.results
    run = replace(run, results=(replace(result, verdict=replace(result.verdict, rounds=7)),))
    assert run.spec is not None
    (expected,) = blocks(report.render((run,)))["Expected output"]
    rounds = run.spec.rounds
    end = f"ATOMIC: no violation in {rounds} rounds, nor in L live batches of its chain"
    assert expected.endswith(f"counts:\t{rounds}\tm\t{rounds}-m\t0\n\n{end}\n")


def test_a_stranger_is_told_what_the_words_mean() -> None:
    text = report.render(runs_of("kvm-lost"))
    assert "- live batch: a batch in which operations of different CPUs overlapped, so that " in text
    before = text.partition("## Environment")[0]
    assert "\nThe target: `vga-text` is legacy VGA text memory at 0xb8000.\n" in before
    assert "kernel bug 216867" in before
    meant = text.partition("## Actual output")[2].partition("## Explanation")[0]
    for word in ("cell", "sanity control", "power control", "path"):
        assert f"\n- {word}: " in meant
    assert "m any number" in text
    assert "`timeout`" not in text or "ends a machine on which the kernel hangs" in text
    assert "216867" not in report.render(runs_of("tcg-atomic"))
    assert "216867" not in report.render(runs_of("tcg-suite"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("NOT_ATOMIC", "NOT_ATOMIC"), ("_a_", "\\_a\\_"), ("a__b", "a\\_\\_b"), ("a_ b", "a\\_ b"), ("a*b", "a\\*b")],
)
def test_only_what_means_something_is_escaped(text: str, shown: str) -> None:
    assert words(text) == shown


def test_nothing_in_a_result_breaks_out_of_the_report() -> None:
    text = report.render(hostile())
    assert [name for tag, name in headings(text) if tag == "h2"] == SECTIONS
    assert len(blocks(text)["Steps to reproduce"]) == 1
    tokens = MarkdownIt("commonmark").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert {token.type for token in [*tokens, *inline]}.isdisjoint({"html_block", "html_inline", "link_open", "image"})
    assert all(char.isprintable() or char in "\n\t\u200b" for char in text)
    shown = "".join(child.content for child in inline if child.type == "text")
    assert not re.search(r"[@#]\w", shown)
    assert "http://" not in shown
    assert "img src" in text


@given(text=st.text(), other=st.text())
def test_marks_hold(text: str, other: str) -> None:
    tokens = MarkdownIt("commonmark").parse("\n".join(fence([text, other], "sh")))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content.count("\n") == 2
    paragraph = MarkdownIt("commonmark").enable("table").parse(f"x {words(text)} y {code(other)} z")
    assert [token.type for token in paragraph] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in paragraph[1].children or ()} <= {"text", "code_inline"}
    table = (
        MarkdownIt("commonmark")
        .enable("table")
        .parse(f"| a | b |\n|---|---|\n| {field(words(text))} | {field(code(other))} |")
    )
    assert sum(token.type == "td_open" for token in table) == 2


@given(lines=st.lists(st.text(max_size=30), max_size=40), limit=st.integers(0, 400))
def test_what_is_too_long_loses_its_middle(lines: list[str], limit: int) -> None:
    shown = cut(lines, limit)
    whole = sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)
    if whole <= limit:
        assert shown == lines
        return
    (at,) = [at for at, line in enumerate(shown) if re.fullmatch(r"\[\.\.\. \d+ lines? left out \.\.\.\]", line)]
    assert shown[:at] == lines[:at]
    tail = shown[at + 1 :]
    assert tail == lines[len(lines) - len(tail) :]
    assert sum(len(line.encode("utf-8", "replace")) + 1 for line in shown[:at] + tail) <= limit


@pytest.mark.parametrize("count", [1, 4, 40])
def test_a_report_fits_a_tracker(count: int) -> None:
    """Bugzilla takes 65535 characters in a comment."""
    runs = runs_of("kvm-lost") * count
    text = report.render(runs, [report.Enclosed("x" * 50, 1, "0" * 64, "y")] * 30)
    assert len(text.encode()) <= report.MAX_BYTES
    assert ("left out" in text) is (count > 4)
    assert text.count("\n# ") + text.startswith("# ") >= min(count, 4)


def test_attachments_are_listed() -> None:
    text = report.render(runs_of("kvm-lost"), [report.Enclosed("kernels/a|b.img", 17, "ab" * 32, "an image")])
    assert f"- `kernels/a|b.img`: an image, 17 bytes, SHA-256 `{'ab' * 32}`" in text


# --- every form, whatever the file says ----------------------------------------------------------------------------

SMALL = json.loads(json.dumps(DOCUMENT))
VALUES: list[Any] = [None, -1, 1 << 70, EVIL, "", [], {}, True, 1.5, float("inf"), [None], {"x": None}]


@settings(max_examples=draws(80))
@given(place=st.sampled_from(places(SMALL)[1:]), value=st.sampled_from(VALUES))
def test_a_damaged_result_is_told_or_refused(place: tuple[Any, ...], value: Any) -> None:
    try:
        runs = runs_in(damaged(SMALL, place, value))
    except SpecError:
        return
    for form in formats().values():
        form.render(runs).encode()


@settings(max_examples=draws(60))
@given(data=st.data())
def test_a_damaged_environment_is_told(data: st.DataObject) -> None:
    """It holds whatever was found, so reading does not check it."""
    value = json.loads(written("kvm-lost"))
    names = ["host", "versions", "lab", "command", "accel", "kvm", "cpu", "emulator", "qemu", "gdb"]
    leaf = st.sampled_from([*VALUES, "kvm", ["qemu", "-smp", 3, None]])
    value["observation"]["environment"] = data.draw(
        st.dictionaries(st.sampled_from(names), leaf | st.dictionaries(st.sampled_from(names), leaf, max_size=3))
    )
    value["observation"]["timings"] = {"run": data.draw(st.floats())}
    try:
        runs = runs_in(value)
    except SpecError:
        # a number that nothing could hold
        return
    for form in formats().values():
        form.render(runs).encode()


def test_a_hostile_result_is_told() -> None:
    for form in formats().values():
        text = form.render(hostile())
        assert text.isascii() or text.encode()
        assert "\x1b" not in text


def test_what_nobody_knows_what_was_asked_is_told() -> None:
    (run,) = runs_of("kvm-lost")
    value = document(None, run.results[0].observation, Verdict(VerdictKind.ERROR, "no log"))
    for form in formats().values():
        assert "no log" in form.render(runs_in(value))
