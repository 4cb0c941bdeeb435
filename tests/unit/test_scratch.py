"""Temporary directories go with their owner; what a killed one left goes when the next one comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment

from kgen.host import temporary as module
from kgen.host.temporary import scratch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")

OWNER = """
import sys; from kgen.host.temporary import scratch
with scratch(sys.argv[1]) as d: print(d, flush=True); input()
"""


@pytest.fixture(autouse=True)
def _a_new_process() -> None:
    """What a process does once it does once a test."""
    module._sweep_once.cache_clear()


def owner(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process with such a directory, and where that is."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_ours_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch(str(tmp_path)) as directory:
        assert directory.parent == tmp_path
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "file").touch()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_one_left_is_removed_and_the_living_ones_stay(tmp_path: Path) -> None:
    dead, left = owner(tmp_path)
    alive, kept = owner(tmp_path)
    with dead, alive:
        (left / "kernel.elf").write_bytes(b"x")
        dead.kill()
        dead.wait()
        assert left.is_dir()
        with scratch(str(tmp_path)) as ours:
            assert {*tmp_path.iterdir()} == {kept, ours}
        assert alive.stdin is not None
        alive.communicate("\n", timeout=30)
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Directories of that name without the file, other files, and what a link leads to."""
    (tmp_path / "kgen-notes").mkdir()
    (tmp_path / "kgen-file").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / module.LOCK).touch()
    (tmp_path / "kgen-link").symlink_to(elsewhere)
    with scratch(str(tmp_path)):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"kgen-notes", "kgen-file", "kgen-link", "elsewhere"}
    assert os.listdir(elsewhere) == [module.LOCK]


def test_a_daemon_thread_at_the_end_of_the_program_leaves_nothing(tmp_path: Path) -> None:
    program = """
import sys, threading
from kgen.host.temporary import scratch
entered = threading.Event()
def work():
    with scratch(sys.argv[1]):
        entered.set()
        threading.Event().wait()
threading.Thread(target=work, daemon=True).start()
entered.wait()
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment(), timeout=60, check=True)
    assert list(tmp_path.iterdir()) == []
