"""The web page: what is in it, that nothing in a result can do anything to it, that it refers to nothing outside."""

from __future__ import annotations

import copy
import json
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from draws import draws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import LONG, NASTY, NASTY_END, document, nasty, runs_of, with_scene

from kgen.cli import main
from kgen.errors import SpecError
from kgen.report.formats import formats
from kgen.report.html.heat import heat_maps
from kgen.report.html.page import render
from kgen.report.html.visible import LONGEST, excerpt, visible
from kgen.report.reproduce.steps import steps
from kgen.report.results import read

_VOID = {"meta", "link", "circle", "path", "rect", "br"}


class Page(HTMLParser):
    """A page read back: its elements with their attributes and texts. Raises AssertionError where it does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        """All that is to be read."""
        return " ".join(" ".join(data for tag, data in self.texts if tag != "style").split())

    def values(self, name: str) -> list[str]:
        """The values of an attribute, of whatever element."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]


PAGES = {
    "token": lambda: [document("kvm-lost")],
    "atomic": lambda: [document("tcg-atomic")],
    "scene": lambda: [with_scene()],
    "suites": lambda: [document("tcg-suite"), document("kvm-suite")],
    "mixed": lambda: [document("kvm-lost"), document("tcg-suite"), document("tcg-vga-none")],
    "nasty": lambda: [nasty(), nasty()],
}


def page_of(name: str) -> Page:
    return Page(render(runs_of(*PAGES[name]())))


@pytest.fixture(scope="module", params=sorted(PAGES))
def page(request: pytest.FixtureRequest) -> Page:
    return page_of(request.param)


def test_it_refers_to_nothing_outside(page: Page) -> None:
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    for name in ("src", "srcset", "xlink:href", "action", "poster", "data", "background"):
        assert page.values(name) == []
    style = "".join(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_there_is_nothing_that_runs(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "img", "form", "base", "foreignobject", "use", "animate"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]


def test_its_parts_have_names_and_lead_somewhere(page: Page) -> None:
    ids = page.values("id")
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for href in page.values("href"):
        assert href == "data:," or href[1:] in ids
    for names in page.values("aria-labelledby"):
        assert set(names.split()) <= set(ids)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("main") == tags.count("title") - tags.count("svg") == 1
    assert tags.count("svg") == tags.count("desc")
    assert tags.count("table") == tags.count("caption") + (1 if "verdicts" in page.values("class") else 0)
    cells = [attributes for tag, attributes in page.elements if tag == "th"]
    assert all("scope" in each for each in cells)
    for tag, attributes in page.elements:
        if "scroll" in attributes.get("class", "").split():
            assert (attributes["tabindex"], attributes["role"]) == ("0", "region"), tag
            assert attributes["aria-label"]


def test_headings_leave_no_level_out(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_verdict_and_its_evidence() -> None:
    (run,) = runs_of(document("kvm-lost"))
    (result,) = run.results
    page = Page(render([run]))
    assert f"NOT_ATOMIC {result.case} on {run.platform}" in page.text
    assert result.verdict.reason in page.text
    assert "the defect is in the target" in page.text
    record = result.observation.best
    assert record is not None
    for count in record.phases[-1].counts:
        role = "consumer" if count.cpu else "producer"
        assert f"CPU {count.cpu} {role} {count.puts} {count.takes} {count.tries}" in page.text
    for control in result.verdict.controls:
        assert control.label in page.text
    for witness in result.verdict.witnesses:
        assert f"{witness.round} {witness.cell} {witness.kind.name.lower()} {witness.token:08x}" in page.text
    for line in (*steps(run).with_kgen, *steps(run).by_hand):
        assert " ".join(line.split()) in page.text
    for text in ("host CPU A CPU of 2.80 GHz", "hypervisor QEMU emulator version 7.2.22", "kvm.ignore_msrs N"):
        assert text in page.text
    assert "kgen:0 boot version=" in page.text


def test_a_lane_for_each_cpu_and_a_mark_for_what_became_of_the_token() -> None:
    page = page_of("token")
    (result,) = runs_of(document("kvm-lost"))[0].results
    marks = Counter(name for name in page.values("class") if name.startswith("mark "))
    kinds = Counter(witness.kind.name for witness in result.verdict.witnesses)
    assert marks["mark m-put"] == len(result.verdict.witnesses)
    assert marks["mark m-gone"] == kinds["LOST"] > 0
    assert marks["mark m-again"] == kinds["DUPLICATE"]
    names = {data for tag, data in page.texts if tag == "text"}
    assert {"CPU 0", "cell"} <= names


def test_the_scene_and_what_the_hypervisor_did() -> None:
    text = page_of("scene").text
    for said in ("The scene of the first violation", "CPU 1 finds the cell empty", "cell at 0xb8004, 32 bits"):
        assert said in text
    assert "> 00100001 fa cli kernel.s:8 cli" in text
    assert "What the hypervisor did to the cell" in text
    assert "daa66d13 came between" in text
    assert "No rate:" in text


def test_the_heat_map_has_every_case_of_every_run() -> None:
    runs = runs_of(document("tcg-suite"), document("kvm-suite"))
    maps = heat_maps(runs, ["a", "b"], {(1, runs[1].results[0].case): "here"})
    cells = [cell for each in maps for row in each.rows for cell in row.cells if cell]
    assert len(cells) == sum(len(run.results) for run in runs)
    assert [cell.anchor for cell in cells if cell.anchor] == ["here"]
    for each in maps:
        assert sum(span for _, span in each.groups) == len(each.columns)
        assert sum(row.span for row in each.rows) == len(each.rows)
        assert all(len(row.cells) == len(each.columns) for row in each.rows)
    for cell in cells:
        bad = "v-not-atomic" in cell.colour
        assert cell.sign
        assert bad == (cell.sign == "NOT") == bool(cell.kinds)


def test_nothing_of_a_result_becomes_markup() -> None:
    page = page_of("nasty")
    assert page.text.count("</style></title><script>alert(1)</script>") > 20
    assert NASTY_END in page.text
    assert "{{7*7}}" in page.text
    assert "49" not in {data.strip() for _, data in page.texts}
    # the result's own text is not in there as it is
    assert not set("\x00\x1b\u202e\ud800") & set(page.text)


def test_the_page_is_ascii_and_the_same_each_time() -> None:
    runs = runs_of(nasty())
    text = render(runs)
    assert text.isascii()
    assert text == render(runs)
    assert text.endswith("\n")


def test_a_long_log_is_cut_and_says_so() -> None:
    found = document("kvm-lost")
    found["serial_log"] = "".join(f"line {number}\r\n" for number in range(100_000))
    text = render(runs_of(found))
    assert len(text) < 150_000
    page = Page(text)
    assert "line 0 line 1 " in page.text
    assert "line 99999" in page.text
    assert "lines," in page.text
    assert "are left out here" in page.text


PLAIN = with_scene()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, entry in inner for found in _places(entry, (*path, key)))]


@settings(max_examples=draws(60), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    place=st.sampled_from(_places(PLAIN)[1:]),
    value=st.sampled_from([None, -1, 0, 10**40, "x", NASTY, [], {}, True, 1.5, float("inf"), float("nan")]),
)
def test_a_damaged_result_that_is_read_makes_a_page(place: tuple[Any, ...], value: Any) -> None:
    damaged = copy.deepcopy(PLAIN)
    inner = damaged
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        runs = read.load(json.dumps(damaged).encode(), "x.json")
    except SpecError:
        return
    Page(render(runs))


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert visible("plain <b>") == "plain <b>"
    assert visible("a\x00\x1b\x7f\n") == "a\u2400\u241b\u2421\u240a"
    assert visible("\x85\u202e\u200b\ud800\ufeff") == "\\u0085\\u202e\\u200b\\ud800\\ufeff"
    assert visible("caf\u00e9 \u4e2d") == "caf\u00e9 \u4e2d"
    # more than two marks on a letter would grow over the lines around it
    assert visible("e" + "\u0301" * 4) == "e\u0301\u0301\\u0301\\u0301"
    assert visible(LONG * 20) == f"{(LONG * 20)[:LONGEST]} ... ({400 * 20 - LONGEST} characters left out)"


def test_an_excerpt_has_both_ends() -> None:
    assert excerpt(["a", "b"], 4).head == ("a", "b")
    cut = excerpt([str(number) for number in range(10)], 8)
    assert (cut.head, cut.tail) == (("0", "1"), ("8", "9"))
    assert cut.left_out.startswith("6 lines, 12 characters,")
    assert excerpt(["x" * 100], 8).head == ()


def test_the_command_writes_it(tmp_path: Path) -> None:
    source, target = tmp_path / "x.json", tmp_path / "x.html"
    source.write_text(json.dumps(document("tcg-atomic")))
    done = CliRunner().invoke(main, ["report", str(source), "--format", "html", "-o", str(target)])
    assert (done.exit_code, done.output) == (0, "")
    text = target.read_text()
    assert text.startswith("<!doctype html>\n")
    assert text == formats()["html"].render(read.load(source.read_bytes(), str(source)))
