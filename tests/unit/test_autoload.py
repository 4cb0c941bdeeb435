"""The file that gdb runs beside a kernel: which checkout's commands it takes."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from kgen.resources import data_dir

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners of files here")
PARTS = ("", "gdb_scripts", "gdb_scripts/kgen.py", "kgen", "kgen/__init__.py", "kgen/gdbside")


class Command:
    """gdb's, as far as a command without subcommands needs it."""

    known: ClassVar[dict[str, Command]] = {}

    def __init__(self, name: str, kind: int) -> None:
        Command.known[name] = self

    def invoke(self, argument: str, from_tty: bool) -> None:
        raise NotImplementedError


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a kernel below it, as a gdb that loads the kernel sees it."""
    root = tmp_path / "a checkout"
    for folder in ("gdb_scripts", "kgen/gdbside", "build/case"):
        (root / folder).mkdir(parents=True)
    (root / "gdb_scripts" / "kgen.py").write_text("print('its commands')\n")
    (root / "kgen" / "__init__.py").write_text("")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)
    gdb = ModuleType("gdb")
    gdb.__dict__.update(Command=Command, COMMAND_DATA=1)
    gdb.__dict__["current_objfile"] = lambda: SimpleNamespace(filename=str(root / "build" / "case" / "kernel.elf"))
    monkeypatch.setitem(sys.modules, "gdb", gdb)
    monkeypatch.delitem(sys.modules, "kgen.gdbside.register", raising=False)
    monkeypatch.delenv("KGEN_GDB_SCRIPT", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(Command, "known", {})
    return root


def loaded(capsys: pytest.CaptureFixture[str]) -> str:
    runpy.run_path(str(data_dir("gdb_scripts") / "autoload.py"))
    return capsys.readouterr().out


def test_the_users_own_is_taken(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded(capsys) == "its commands\n"


@pytest.mark.parametrize("bits", [0o020, 0o002])
@pytest.mark.parametrize("part", PARTS)
def test_one_that_others_may_change_is_not(
    checkout: Path, capsys: pytest.CaptureFixture[str], part: str, bits: int
) -> None:
    """A group's members are others, too."""
    path = checkout / part
    path.chmod(0o755 | bits)
    said = loaded(capsys)
    assert "its commands\n" not in said
    assert f"a group may change {str(path)!r}\n" in said
    assert "let KGEN_GDB_SCRIPT name" in said


def test_another_users_is_not(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4711 + checkout.stat().st_uid)
    if checkout.stat().st_uid == 0:  # root's is everybody's
        os.chown(checkout / "kgen", 4712, -1)
    assert "its commands" not in loaded(capsys).splitlines()


def test_a_command_says_what_is_missing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In place of gdb's "Undefined command"."""
    (checkout / "gdb_scripts" / "kgen.py").unlink()
    said = loaded(capsys)
    assert said.startswith("kgen: its commands were not found")
    Command.known["kgen"].invoke("status", True)
    assert capsys.readouterr().out == said


def test_a_script_that_fails_is_said_at_each_command(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "gdb_scripts" / "kgen.py").write_text("1 / 0\n")
    said = loaded(capsys)
    assert said.endswith("kgen.py could not be run: division by zero\n")
    Command.known["kgen"].invoke("status", True)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 6, 8)])
def test_an_old_python_is_one_line_now_and_at_each_command(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    """Before anything is imported that such a Python cannot read."""
    monkeypatch.setattr(sys, "version_info", version)
    runpy.run_path(str(data_dir("gdb_scripts") / "kgen.py"))
    said = capsys.readouterr().out
    assert said == "kgen: the commands could not be loaded: this gdb's Python is older than 3.10\n"
    Command.known["kgen"].invoke("freeze-proof still", True)
    assert capsys.readouterr().out == said
