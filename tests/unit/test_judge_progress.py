"""How far kgen judge has come with a long log: on a terminal, on standard error, and only after a while."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from click.testing import CliRunner
from recordings import load
from rich.console import Console

from kgen.cli import _late, main
from kgen.cli._late import late
from kgen.offline.progress import Tell, untold
from kgen.offline.runs import Run, from_capture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudoterminals")


class Terminal:
    """A pseudoterminal: what is written to it can be read from it."""

    def __init__(self) -> None:
        self._mine, theirs = os.openpty()
        os.set_blocking(self._mine, False)
        self.file: TextIO = os.fdopen(theirs, "w", encoding="utf-8")
        self._seen = b""

    def shown(self) -> str:
        try:
            while part := os.read(self._mine, 65536):
                self._seen += part
        except OSError:
            pass
        return self._seen.decode()

    def close(self) -> None:
        self.file.close()
        os.close(self._mine)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    made = Terminal()
    yield made
    made.close()


def wait_for(terminal: Terminal, text: str) -> str:
    deadline = time.monotonic() + 20
    while text not in terminal.shown():
        assert time.monotonic() < deadline, terminal.shown()
        time.sleep(0.01)
    return terminal.shown()


def test_it_is_shown_late_and_nothing_stays(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_late, "LATE_SECONDS", 0.0)
    with late(Console(file=terminal.file)) as tell:
        assert terminal.shown() == ""
        # one step, however long
        tell("reading [b]lines", 1, 4)
        wait_for(terminal, "reading [b]lines")
        tell("judging runs", 0, 0)
        wait_for(terminal, "judging runs")
    # the line is cleared, and the cursor is there again
    shown = terminal.shown()
    assert shown.rindex("\x1b[2K") > shown.rindex("judging runs")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_what_is_done_soon_is_not_shown(terminal: Terminal) -> None:
    with late(Console(file=terminal.file)) as tell:
        tell("reading lines", 1, 4)
    with late(Console(file=terminal.file)):
        pass
    assert terminal.shown() == ""


def test_where_something_fails_nothing_stays(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_late, "LATE_SECONDS", 0.0)

    def interrupted() -> None:
        with late(Console(file=terminal.file)) as tell:
            tell("reading lines", 1, 4)
            wait_for(terminal, "reading lines")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.shown().rindex("\x1b[?25h") > terminal.shown().rindex("\x1b[?25l")


def test_elsewhere_it_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(_late, "LATE_SECONDS", 0.0)
    with (tmp_path / "stderr").open("w") as file, late(Console(file=file, force_terminal=True)) as tell:
        assert tell is untold


def test_a_long_log_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    log = b"some host's words\n" * 2500 + load("kvm-lost").log + load("tcg-atomic").log
    runs = from_capture(log, tell=lambda *what: told.append(what))
    assert runs == from_capture(log)
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["reading lines", "looking for runs", "reading runs"]
    lines = [(done, total) for what, done, total in told if what == "reading lines" and total]
    assert [done for done, _ in lines] == [0, 1000, 2000]
    assert {total > 2500 for _, total in lines} == {True}
    assert [(done, total) for what, done, total in told if what == "reading runs"] == [(0, 2), (1, 2)]
    # of one run alone it is unknown
    told.clear()
    from_capture(load("kvm-lost").log, tell=lambda *what: told.append(what))
    assert told[-1] == ("reading runs", 0, 0)


def test_the_command_shows_it_on_standard_error(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serial.txt"
    path.write_bytes(load("kvm-lost").log)
    plain = CliRunner().invoke(main, ["judge", str(path)])
    monkeypatch.setattr(_late, "LATE_SECONDS", 0.0)
    monkeypatch.setattr("kgen.cli.judge.Console", lambda **options: console(terminal, **options))
    monkeypatch.setattr("kgen.cli.judge.from_capture", lambda log, named, tell: slowly(terminal, log, tell))
    again = CliRunner().invoke(main, ["judge", str(path)])
    assert (again.exit_code, again.stdout) == (plain.exit_code, plain.stdout)
    assert "reading runs" in terminal.shown()


def console(terminal: Terminal, *, stderr: bool, **options: bool) -> Console:
    return Console(file=terminal.file) if stderr else Console(**options)


def slowly(terminal: Terminal, log: bytes, tell: Tell) -> tuple[Run, ...]:
    runs = from_capture(log, tell=tell)
    wait_for(terminal, "reading runs")
    return runs
