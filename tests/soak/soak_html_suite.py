"""The web page of a whole suite, in a real browser: on KVM, where there is one, nearly every case has its evidence."""

from __future__ import annotations

import os
import time
from pathlib import Path

import browser
import pytest
from running import Run

CHECKS = Path(__file__).resolve().parents[1] / "unit" / "page_checks.js"
#: Bytes; what a phone loads at once.
MOST = 3_000_000


@pytest.mark.timeout(1200)
def test_a_full_suite_is_small_and_can_be_read(tmp_path: Path, repository: Path) -> None:
    program = browser.find()
    if not program:
        pytest.skip("no Chromium is installed (chromium-headless-shell or chromium)")
    platform = "qemu-kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "qemu-tcg"
    result, path = tmp_path / "full.json", tmp_path / "full.html"
    with Run(
        ["verify", "--suite", "full", "--budget", "10m", "--platform", platform, "--json", str(result)], tmp_path / "a"
    ) as run:
        run.wait(1000)
    assert result.exists(), run.stderr
    with Run(["report", str(result), "--format", "html", "-o", str(path)], tmp_path / "b") as run:
        assert run.wait() == 0, run.stderr
    assert path.stat().st_size < MOST
    with browser.running(program, tmp_path) as running:
        page = running.page()
        page.show(390)
        begun = time.monotonic()
        page.open(path)
        print(f"{path.stat().st_size} bytes, loaded in {time.monotonic() - begun:.1f} s")
        page.screenshot(repository / "build" / "screenshots" / "full-390-light.png")
        assert page.run(CHECKS.read_text(encoding="utf-8")) == []
        page.show(1440, scheme="dark")
        assert page.run(CHECKS.read_text(encoding="utf-8")) == []
        assert page.said(path) == []
