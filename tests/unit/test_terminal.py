"""Nothing from elsewhere reaches a terminal raw: names of files, a stub's words, what a log holds."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recordings import load
from rich.console import Console

from kgen.cli import _errors, _paths
from kgen.cli.verify import _hold
from kgen.errors import KgenError
from kgen.offline.runs import from_capture, results
from kgen.report.results.model import show_run
from kgen.report.text.case import Printer

#: Sets a title, a colour, and turns the direction of text.
EVIL = "\x1b]0;title\x07\x1b[31mred\x9b32m\u202e"
SHOWN = r"\x1b]0;title\x07\x1b[31mred\x9b32m\u202e"


def test_an_error_is_visible_in_all_its_parts() -> None:
    error = KgenError(f"what {EVIL}", where=f"where {EVIL}", hint=f"hint {EVIL}")
    assert error.line == f"where {SHOWN}: what {SHOWN}; hint {SHOWN}"


def test_every_error_line_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    _errors.say_error(f"no such option {EVIL}")
    assert capsys.readouterr().err == f"kgen: error: no such option {SHOWN}\n"


@pytest.mark.parametrize("style", [None, "bold"])
def test_every_line_of_a_report_is_visible(style: str | None) -> None:
    file = io.StringIO()
    Printer(Console(file=file, color_system=None, width=200)).line(f"run {EVIL}:", style)
    assert file.getvalue() == f"run {SHOWN}:\n"


def test_what_a_log_holds_is_visible() -> None:
    """A name in front of every line, lines between, and a file's name."""
    lines = load("kvm-lost").log.decode("latin-1").splitlines()
    for text in (
        "".join(f"host\x9b31m {line}\n" for line in lines),
        "\n".join([*lines[:5], "\x9b31m odd", *lines[5:]]),
    ):
        file = io.StringIO()
        for run in from_capture(text.encode("latin-1")):
            show_run(Console(file=file, color_system=None, width=200), results(run))
        assert all(char.isprintable() or char in "\n\t" for char in file.getvalue())


def test_names_of_files_are_visible_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(f"out/{EVIL}")
    assert _paths.named(path) == str(path)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert _paths.named(path) == f"out/{SHOWN}"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
@pytest.mark.parametrize("words", [["judge"], ["judge", "--memory"], ["report"], ["inspect"], ["verify", "--platform"]])
def test_a_file_with_an_odd_name_on_a_real_terminal(words: list[str], tmp_path: Path) -> None:
    """Through click, which takes escapes out everywhere else."""
    import pty

    control, terminal = pty.openpty()
    name = tmp_path / EVIL.replace("/", "_")
    name.write_bytes(b"nothing of kgen\n")
    more = ["localhost:1"] if words == ["inspect"] else []
    done = subprocess.run(
        [sys.executable, "-m", "kgen", *words, str(name), *more],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    os.close(terminal)
    said = os.read(control, 1 << 16).decode()
    os.close(control)
    assert done.returncode in (2, 9)
    assert said.startswith("kgen: error: ")
    assert all(char.isprintable() or char in "\r\n" for char in said), repr(said)


def test_the_last_words_of_a_kept_machine_are_visible() -> None:
    """QEMU's own, of which a guest may have a part; and the names in the command to join it."""
    machine: Any = SimpleNamespace(crashed=lambda: f"QEMU {EVIL}", join=lambda elf: ("gdb", str(elf)))
    file = io.StringIO()
    _hold(Console(file=file, color_system=None, width=40), machine, Path(EVIL))
    assert file.getvalue().splitlines()[-2:] == [f"  gdb '{SHOWN}'", f"the machine is gone: QEMU {SHOWN}"]
