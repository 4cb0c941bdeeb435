"""A gdb without Python: what kgen and gdb say in the place of its commands.

Such a gdb is the one that KGEN_TEST_GDB_MINIMAL names (Debian: the program in the package gdb-minimal), or that of the
system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kgen.machine.gdb import has_python
from kgen.machine.qemu_engine import QemuEngine
from kgen.resources import data_dir

SCRIPTS = data_dir("gdb_scripts")
MISSING = "kgen: this gdb has no Python, and kgen's commands need 3.10 or newer; name another gdb with --gdb\n"
ELF = Path("/a folder/kernel.elf")


def bare_gdb() -> str:
    """A real gdb without Python, for tests that need one."""
    named = os.environ.get("KGEN_TEST_GDB_MINIMAL") or shutil.which("gdb")
    if named is None or has_python(named):
        pytest.skip("no gdb without Python: KGEN_TEST_GDB_MINIMAL names none (Debian's package gdb-minimal has one)")
    return named


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def run(gdb: str, *commands: str) -> tuple[str, str]:
    """What a gdb prints that runs these commands after the scripts of the command that joins a machine."""
    words = [word for command in commands for word in ("-ex", command)]
    scripts = [word for name in ("attach.gdb", "no_python.gdb") for word in ("-x", str(SCRIPTS / name))]
    command = [gdb, "-nx", "-q", "-batch", *scripts, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr


def joined(gdb: str, wide: str | None = None) -> tuple[str, ...]:
    """The command that joins a machine of an engine with that gdb."""
    machine: Any = SimpleNamespace(
        supervisor=None, gdb_address="/x/gdb", gdb_architecture=lambda: wide, read_serial=lambda timeout: b""
    )
    session: Any = SimpleNamespace(connected=False)
    return QemuEngine(machine, session, 1.0, dict, contextlib.ExitStack(), gdb).join(ELF)


@pytest.mark.parametrize(
    ("script", "there"),
    [
        ("echo 'Python scripting is not supported in this copy of GDB.' >&2; exit 1", False),
        ("echo kgenkgen", True),
        ("exec sleep 60", True),  # no answer in time: nothing is known
    ],
)
def test_python_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, there: bool) -> None:
    monkeypatch.setattr("kgen.machine.gdb.COMMAND_SECONDS", 2.0)
    assert has_python(program(tmp_path / "gdb", script)) is there


def test_the_gdb_that_joins_is_the_one_that_was_named(tmp_path: Path) -> None:
    """With kgen's commands, or what stands for them."""
    gdb = program(tmp_path / "my gdb", "echo kgenkgen")
    words = joined(gdb, "i386:x86-64")
    assert words[0] == gdb
    assert words[1:4] == ("-d", str(ELF.parent), str(ELF))
    assert str(SCRIPTS / "kgen.py") in words
    assert "set architecture i386:x86-64" in words
    assert words[-1] == "target remote /x/gdb"
    bare = program(tmp_path / "bare", "exit 1")
    words = joined(bare)
    assert words[0] == bare
    assert str(SCRIPTS / "kgen.py") not in words
    assert str(SCRIPTS / "no_python.gdb") in words


def test_the_words_in_the_place_of_the_commands() -> None:
    """In any gdb: the script uses none of Python."""
    gdb = shutil.which("gdb")
    if gdb is None:
        pytest.skip("gdb is not installed")
    assert run(gdb, "kgen status", "kgen freeze-proof still", "kgen") == (3 * MISSING, "")


def test_a_real_gdb_without_python() -> None:
    said, errors = run(bare_gdb(), "kgen status", "help kgen")
    assert errors == ""
    assert said.startswith(MISSING)
    assert "Not there: this gdb has no Python" in said
