"""The lab's cache: a lab is there whole or not at all, and what killed makers left is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kgen.cli import main
from kgen.errors import OutputError
from kgen.lab import cache
from kgen.lab.cache import Lab

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lab needs a POSIX system")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def made(key: str, *, is_default: bool = False, name: str = "", state_of: str = "qemu", text: str = "") -> Lab:
    """Make and publish a lab whose pieces are a few bytes."""
    with cache.making() as directory:
        name = cache.DEFAULT if is_default else name
        sources = {"linux": text}
        lab = Lab(
            key, "6.1", "QEMU 7.2", ("kvm",), ("bios",), sources, state_of=state_of, name=name, directory=directory
        )
        lab.kernel.write_bytes(b"kernel")
        lab.initramfs.write_bytes(b"files")
        lab.save()
        return cache.publish(lab)


def hidden() -> list[str]:
    return [path.name for path in cache.root().iterdir() if path.name.startswith(".")]


def test_a_published_lab_is_found_as_it_was_made() -> None:
    lab = made("0123", is_default=True, text="a package")
    assert lab.directory == cache.root() / "0123"
    assert cache.named("0123") == cache.default() == lab
    assert cache.labs() == (lab,)
    assert lab.size() > len(b"kernel" + b"files")
    assert hidden() == []


def test_a_lab_that_is_not_finished_is_none() -> None:
    with cache.making() as directory:
        lab = Lab("0123", "6.1", "QEMU", (), (), {}, directory=directory)
        lab.kernel.write_bytes(b"kernel")
        lab.save()
        assert cache.load(directory) is None  # no root file system
        assert cache.labs() == ()
    assert not directory.exists()
    assert cache.default() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "0123"}', '{"key": "0123", "further": 1}', "\x00"])
def test_a_damaged_lab_is_none(text: str) -> None:
    lab = made("0123", is_default=True)
    (lab.directory / "lab.json").write_text(text)
    assert cache.load(lab.directory) is None
    assert cache.default() is None
    assert made("0123", is_default=True) == cache.default(), "made again in its place"


@pytest.mark.parametrize("text", ["", "../..", "/", ".new-x", "nowhere", "\udcff"])
def test_a_default_that_names_no_lab(text: str) -> None:
    made("0123")
    (cache.root() / cache.DEFAULT).write_text(text, errors="surrogateescape")
    assert cache.default() is None


def test_the_first_of_two_equal_labs_stays() -> None:
    first = made("0123", text="first")
    assert made("0123", text="second") == first


def test_a_lab_of_another_qemu_replaces_the_one_that_cannot_be_restored() -> None:
    made("0123", state_of="old", text="first")
    found = made("0123", state_of="new", text="second")
    assert found.sources == {"linux": "second"}
    assert cache.named("0123") == found
    assert hidden() == []


def test_a_new_standard_lab_replaces_the_former() -> None:
    made("0123", is_default=True)
    assert made("4567", is_default=True) == cache.default()
    assert [lab.key for lab in cache.labs()] == ["4567"]


def test_a_lab_that_has_a_second_name_stays_when_the_first_gets_another() -> None:
    made("0123", name="kvm-bookworm")
    made("0123", name="kvm-bookworm-linux-6.1")
    assert cache.names("0123") == ("kvm-bookworm", "kvm-bookworm-linux-6.1")
    other = made("4567", name="kvm-bookworm")
    assert cache.titled("kvm-bookworm") == other
    assert cache.titled("kvm-bookworm-linux-6.1") == cache.named("0123")


def test_only_on_request_are_the_labs_removed_that_were_not_used_for_longest() -> None:
    for number in range(6):
        lab = made(f"own{number}", name=f"name{number}" if number < 3 else "")
        os.utime(lab.directory / "lab.json", (1000 + number, 1000 + number))
    assert len(cache.labs()) == 6
    found = cache.named("own0")
    assert found is not None
    found.touch()
    assert cache.clean(kept=2) > 0
    assert {lab.key for lab in cache.labs()} == {"own0", "own5"}
    assert cache.titled("name0") is not None
    assert not (cache.root() / "name1").exists()
    assert hidden() == []


def test_an_error_leaves_nothing() -> None:
    def fail() -> None:
        with cache.making() as directory:
            (directory / "half").write_bytes(b"a lab")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert hidden() == []
    with pytest.raises(OutputError, match="No space left"), cache.making():
        raise OSError(28, "No space left on device")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"), cache.making():
        pass


def test_a_cache_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "kgen").write_text("a file")
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"), cache.making():
        pass


def test_what_a_killed_maker_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    program = (
        "import time\nfrom kgen.lab import cache\nwith cache.making() as d:\n print(d, flush=True)\n time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        directory = Path(child.stdout.readline().strip())
        cache.sweep()
        assert directory.is_dir(), "its maker lives"
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert directory.is_dir()
        cache.sweep()
        assert not directory.exists()
    finally:
        child.kill()
        child.wait(10)
        if child.stdout is not None:
            child.stdout.close()


def test_what_was_left_between_two_steps_is_removed_once_it_is_old() -> None:
    cache.root().mkdir(parents=True)
    directory = cache.root() / ".new-x"
    directory.mkdir()
    cache.sweep()
    assert directory.exists(), "its maker may be about to lock it"
    os.utime(directory, (time.time() - 120,) * 2)
    cache.sweep()
    assert not directory.exists()


def test_clean_removes_every_lab_and_says_how_much() -> None:
    assert cache.clean() == 0
    made("0123", is_default=True)
    (cache.downloads("bookworm") / "a.deb").write_bytes(b"a package")
    (cache.roots() / "qemu-bookworm" / "bin").mkdir(parents=True)
    assert cache.clean() > len(b"kernel" + b"files")
    assert [*cache.root().iterdir(), *cache.roots().iterdir(), *cache.downloads("").iterdir()] == []
    assert cache.default() is None
    with cache.making() as directory:
        cache.clean()
        assert directory.is_dir(), "one that is being made stays"


def test_a_user_without_a_home_has_no_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither HOME nor an entry in the password database, as in a container that runs as some number."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 123_456_789)
    assert cache.default() is None
    assert cache.labs() == ()
    with pytest.raises(OutputError, match=r"no home directory.*XDG_CACHE_HOME"), cache.making():
        pytest.fail("it was made")
    for words in (["lab", "status"], ["lab", "clean"], ["lab", "build"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == OutputError.exit_code
        assert done.output.splitlines()[-1].startswith("kgen: error: this user has no home directory")
    for words in (["list", "platforms"], ["verify", "--instr", "xchg", "--platform", "kvm-lab"]):
        done = CliRunner().invoke(main, words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words


def test_a_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG Base Directory Specification: paths must be absolute, others are invalid and ignored."""
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert cache.root() == Path.home() / ".cache" / "kgen" / "labs"
