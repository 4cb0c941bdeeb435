"""The web page in a real browser: on a phone, on a desk and on paper, light and dark. And the checks themselves, on
pages whose faults are known.

What the browser showed is kept in build/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import browser
import pytest
from pages import document, nasty, runs_of, with_scene

from kgen.report.html.page import render

CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")
PHONE, DESK = 390, 1440
PAGES = {
    "violation": lambda: [document("kvm-lost")],
    "atomic": lambda: [document("tcg-atomic")],
    "scene": lambda: [with_scene()],
    "suites": lambda: [document("tcg-suite"), document("kvm-suite")],
    "nasty": lambda: [nasty()],
}
#: Those of which it is worth to keep a picture.
SHOWN = ("scene", "suites")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    program = browser.find()
    if not program:
        pytest.skip("no Chromium is installed (chromium-headless-shell or chromium); `make test` installs it on Debian")
    with browser.running(program, tmp_path_factory.mktemp("browser")) as running:
        yield running.page()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_it_fits_and_can_be_read(page: browser.Page, name: str, tmp_path: Path, repository: Path) -> None:
    path = tmp_path / f"{name}.html"
    path.write_text(render(runs_of(*PAGES[name]())), encoding="utf-8")
    kept = repository / "build" / "screenshots"
    page.show(DESK)
    page.open(path)
    if name in SHOWN:
        for width in (PHONE, DESK):
            for scheme in SCHEMES:
                page.show(width, scheme=scheme)
                page.screenshot(kept / f"{name}-{width}-{scheme}.png")
        page.show(DESK)
        page.pdf(kept / f"{name}.pdf")
    faults = {}
    for width in (PHONE, DESK):
        for scheme in SCHEMES:
            page.show(width, scheme=scheme)
            assert page.run("innerWidth") == width
            faults[width, scheme] = page.run(CHECKS)
    # paper is white whatever the screen is
    page.show(browser.PRINT_WIDTH, scheme="dark", media="print")
    faults[browser.PRINT_WIDTH, "print"] = page.run(CHECKS)
    assert {where: found for where, found in faults.items() if found} == {}
    assert page.said(path) == []


def test_a_cell_of_the_heat_map_leads_to_its_evidence(page: browser.Page, tmp_path: Path) -> None:
    path = tmp_path / "suites.html"
    path.write_text(render(runs_of(*PAGES["suites"]())), encoding="utf-8")
    page.show(PHONE)
    page.open(path)
    wanted = page.run("document.querySelector('.heat a').hash")
    assert not page.run(f"document.querySelector('{wanted}').checkVisibility()")
    page.run("document.querySelector('.heat a').click()")
    seen = f"(() => {{ const box = document.querySelector('{wanted}').getBoundingClientRect();"
    seen += " return document.querySelector('details:has(:target)').open && box.top >= 0 && box.top < innerHeight; })()"
    # the browser scrolls when it draws next
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(seen)


def test_a_script_that_came_in_all_the_same_does_not_run(page: browser.Page, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    text = render(runs_of(document("tcg-atomic")))
    harm = "<script>document.title = 'harmed'</script><img src='nowhere.png' onerror=\"document.title = 'harmed'\">"
    path.write_text(text.replace("<main>", f"<main>{harm}"), encoding="utf-8")
    page.open(path)
    assert page.run("document.title").startswith("ATOMIC")
    assert any("Content Security Policy" in said for said in page.said(path))


# --- the checks, on pages whose faults are known

_TALL = "style='background: #fff; color: #000'"
BAD = {
    "wide": ("<div style='width: 2000px; height: 1px'></div><p>x</p>", "overflow: the page is 2008"),
    "word": (f"<p style='width: 90px; white-space: nowrap'>{'word ' * 9}</p>", "overflow: what is in p"),
    "cut": (f"<p style='width: 90px; white-space: nowrap; overflow: hidden'>{'word ' * 9}</p>", "is cut off"),
    "left": ("<p style='position: relative; left: -40px'>x</p>", "overflow: p 'x' reaches from -"),
    "keyboard": (
        f"<div style='width: 90px; overflow: auto' aria-label='x'><p style='width: 200px'>{'word ' * 9}</p></div>",
        "scrolls and cannot be reached by keyboard",
    ),
    "name": ("<div style='width: 9px; overflow: auto' tabindex=0><p style='width: 200px'>x</p></div>", "has no name"),
    "folded": ("<p>x</p><details><summary>y</summary><p style='width: 2000px'>z</p></details>", "overflow: the page"),
    "grey": ("<p style='color: #888'>x</p>", "contrast: 3.54 of p"),
    "seen through": (
        "<div style='background: #000'><p style='background: #fff8; color: #888'>x</p></div>",
        "contrast:",
    ),
    "large": ("<p style='color: #999; font-size: 24px'>x</p>", "contrast: 2.85 of p"),
    "drawing": ("<svg width=90 height=30><text y=20 fill='#ccc'>x</text></svg>", "contrast: 1.61 of text"),
    "on a shape": (
        "<svg width=90 height=30><rect width=90 height=30 fill='#000'/><text y=20 fill='#333'>x</text></svg>",
        "contrast: 1.66 of text",
    ),
    "out of the drawing": ("<p>x</p><svg width=20 height=30><text y=20>much longer</text></svg>", "cut off by its"),
    "picture": ("<p style='background: linear-gradient(red, blue)'>x</p>", "nobody can tell"),
    "nothing": ("", "text: there is none"),
}


def _bad(body: str) -> str:
    return f"<!doctype html><html lang=en><meta name=viewport content='width=device-width'><body {_TALL}>{body}"


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_fault_is_found(page: browser.Page, name: str, tmp_path: Path) -> None:
    body, said = BAD[name]
    path = tmp_path / "bad.html"
    path.write_text(_bad(body), encoding="utf-8")
    page.show(DESK)
    page.open(path)
    faults = page.run(CHECKS)
    assert [fault for fault in faults if said in fault], faults


def test_what_is_fine_is_not_found(page: browser.Page, tmp_path: Path) -> None:
    body = "<p>x</p><p style='color: #767676'>x</p><p style='color: #949494; font-size: 24px'>x</p>"
    body += "<div style='width: 90px; overflow: auto' tabindex=0 aria-label='x'><p style='width: 200px'>x</p></div>"
    path = tmp_path / "good.html"
    path.write_text(_bad(body), encoding="utf-8")
    page.show(PHONE)
    page.open(path)
    assert page.run(CHECKS) == []
    assert page.said(path) == []


def test_what_scrolls_is_cut_off_on_paper(page: browser.Page, tmp_path: Path) -> None:
    body = "<div style='width: 90px; overflow: auto' tabindex=0 aria-label='x'><p style='width: 200px'>x</p></div>"
    path = tmp_path / "bad.html"
    path.write_text(_bad(body), encoding="utf-8")
    page.show(browser.PRINT_WIDTH, media="print")
    page.open(path)
    assert [fault for fault in page.run(CHECKS) if "is cut off on paper" in fault]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("console.error('oh')", "console.error: ['oh']"),
        ("throw new Error('oh')", "exception: Uncaught"),
        ("new Image().src = 'nowhere.png'", "request: file:///"),
    ],
)
def test_noise_is_heard(page: browser.Page, tmp_path: Path, script: str, said: str) -> None:
    path = tmp_path / "loud.html"
    path.write_text(_bad(f"<p>x</p><script>{script}</script>"), encoding="utf-8")
    page.open(path)
    assert [each for each in page.said(path) if said in each]
