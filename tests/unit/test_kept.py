"""What is kept from one process to the next is whole and ours, or made anew; a kernel is never among it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import environment

from kgen.build import build, write
from kgen.kernel import render
from kgen.spec import Case, KernelSpec
from kgen.toolchain import kept

SPEC = KernelSpec(Case("xchg"))
BUILD = (sys.executable, "-m", "kgen", "build", "--instr", "xchg", "-o")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache; templates are compiled again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept._make_room.cache_clear()
    render.environment.cache_clear()
    yield tmp_path / "cache" / "kgen" / "parts"
    kept._make_room.cache_clear()
    render.environment.cache_clear()


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_kept_comes_back(cache: Path) -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"some bytes")
        return made[-1]

    key = kept.key_of("what", b"it is made from")
    assert kept.load(key) is None
    assert [kept.kept(key, make) for _ in range(3)] == [b"some bytes"] * 3
    assert len(made) == 1
    assert [path.name for path in cache.iterdir()] == [key]
    assert kept.key_of("what", b"it is made fro", b"m") != key


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "directory"])
def test_a_damaged_entry_is_made_anew(cache: Path, damage: str) -> None:
    key = kept.key_of("damaged")
    kept.save(key, b"some bytes")
    entry = cache / key
    data = entry.read_bytes()
    entry.unlink()
    if damage == "directory":
        entry.mkdir()
    else:
        entry.write_bytes({"cut": data[:-1], "changed": data[:-1] + b"!", "empty": b""}[damage])
    assert kept.load(key) is None
    assert kept.kept(key, lambda: b"some bytes") == b"some bytes"
    if damage != "directory":
        assert kept.load(key) == b"some bytes"
    assert [path.name for path in cache.iterdir()] == [key]


def test_an_entry_of_another_user_is_not_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = kept.key_of("theirs")
    kept.save(key, b"some bytes")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(cache).st_uid + 1, raising=False)
    assert kept.load(key) is None


@pytest.mark.parametrize("obstacle", ["a file in its place", "no home"])
def test_a_cache_that_cannot_be_used_costs_only_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    if obstacle == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        assert kept.directory() is None
    else:
        (tmp_path / "cache").write_text("in the way")
    kept.save("key", b"some bytes")
    assert kept.load("key") is None
    assert kept.kept("key", lambda: b"made") == b"made"
    write(build(SPEC), tmp_path / "out")


def test_the_oldest_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", 3)
    for number in range(5):
        kept.save(f"entry{number}", b"")
        os.utime(cache / f"entry{number}", (number, number))
    (cache / ".new-of-a-killed-process").write_bytes(b"half")
    os.utime(cache / ".new-of-a-killed-process", (0, 0))
    kept._make_room.cache_clear()
    kept.save("newest", b"")
    assert sorted(path.name for path in cache.iterdir()) == ["entry2", "entry3", "entry4", "newest"]


def test_many_at_once_leave_whole_entries(cache: Path) -> None:
    data = bytes(range(256)) * 400
    keep = [threading.Thread(target=kept.save, args=("same", data)) for _ in range(8)]
    for thread in keep:
        thread.start()
    for thread in keep:
        thread.join()
    assert kept.load("same") == data
    assert [path.name for path in cache.iterdir()] == ["same"]


def test_the_bytes_are_the_same_with_and_without(cache: Path, tmp_path: Path) -> None:
    """Cold, warm, with every entry damaged, and where nothing can be kept; nothing of the kernel is in the cache."""
    for name in ("cold", "warm"):
        run(tmp_path / name)
    entries = files(cache)
    assert entries
    for name in entries:
        (cache / name).write_bytes(entries[name][:-3] + b"bad")
    run(tmp_path / "damaged")
    assert files(cache) == entries
    run(tmp_path / "nowhere", XDG_CACHE_HOME=str(tmp_path / "cold" / "kernel.elf"))
    built = files(tmp_path / "cold")
    for name in ("warm", "damaged", "nowhere"):
        assert files(tmp_path / name) == built
    code = build(SPEC).elf
    text = max((part.data for part in code.sections if part.flags == "ax"), key=len)
    assert not any(text[:64] in data or text[:64].hex().encode() in data for data in entries.values())
    assert not any(b"\x7fELF" in data or code.build_id in data for data in entries.values())


def run(directory: Path, **changes: str) -> None:
    done = subprocess.run([*BUILD, str(directory)], env=environment(**changes), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
