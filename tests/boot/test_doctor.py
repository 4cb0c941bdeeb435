"""kgen doctor: what is here, what is missing, how to get it, and whether a machine boots."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from _asked import asked
from click.testing import Result
from running import Run, kgen

from kgen import __version__
from kgen.platforms import platforms


def findings(run: Run | Result) -> dict[str, tuple[str, str]]:
    """State and detail by subject."""
    rows = (line.split(maxsplit=2) for line in run.stdout.splitlines())
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.soak
def test_everything_is_named_and_the_translator_works(tmp_path: Path) -> None:
    run = kgen(tmp_path / "tmp", "doctor", XDG_CACHE_HOME=str(tmp_path))
    assert (run.process.returncode, run.stderr) == (0, "")
    found = findings(run)
    assert set(found) == {"kgen", "host", "qemu", "gdb", "kvm", *platforms()}
    assert found["kgen"][1].startswith(__version__)
    assert found["qemu"][0] == found["gdb"][0] == "ok"
    assert "QEMU emulator version" in found["qemu"][1]
    assert found["qemu-tcg"][0] == "ok", run.stdout
    assert "a canary passed 200 tokens in" in found["qemu-tcg"][1]


def test_without_qemu_no_platform_works(tmp_path: Path) -> None:
    """With a gdb, and nothing else in the path."""
    gdb = shutil.which("gdb")
    assert gdb
    run = asked(tmp_path / "tmp", "doctor", "--gdb", gdb, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert (run.exit_code, run.stderr) == (9, "")
    found = findings(run)
    assert found["qemu"][0] == "missing"
    assert "qemu-system-x86_64 is not to be found; install it with" in found["qemu"][1]
    assert {found[name][0] for name in platforms()} == {"unavailable"}


def test_without_anything_in_the_path(tmp_path: Path) -> None:
    run = asked(tmp_path / "tmp", "doctor", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert (run.exit_code, run.stderr) == (9, "")
    found = findings(run)
    assert found["qemu"][0] == found["gdb"][0] == "missing"
    assert "apt install gdb" in found["gdb"][1]


def test_without_gdb_platforms_are_broken(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-i386") or shutil.which("qemu-system-x86_64")
    assert qemu
    run = asked(tmp_path / "tmp", "doctor", "--qemu", qemu, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert run.exit_code == 9
    found = findings(run)
    assert found["gdb"][0] == "missing"
    assert found["qemu-tcg"][0] == "broken"
    assert "'gdb' is not to be found" in found["qemu-tcg"][1]


def test_programs_that_are_something_else(tmp_path: Path) -> None:
    true = shutil.which("true") or ""
    run = asked(
        tmp_path / "tmp", "doctor", "--qemu", true, "--gdb", true, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)
    )
    assert (run.exit_code, run.stderr) == (9, "")
    assert findings(run)["qemu-tcg"][0] == "broken"
