"""A broken module of a registry is an error with its name, never a missing entry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kgen.errors import KgenError
from kgen.machine.platform import Platform
from kgen.registry import discover
from kgen.resources import data_dir


class Entry:
    """What the test's modules contribute."""

    def __init__(self, name: str) -> None:
        self.name = name


GOOD = "from test_registry import Entry\nENTRY = Entry({name!r})\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package with two good modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "test_registry", sys.modules[__name__])
    directory = tmp_path / "probe"
    directory.mkdir()
    (directory / "__init__.py").write_text("")
    (directory / "b_two.py").write_text(GOOD.format(name="b-two"))
    (directory / "a_one.py").write_text(GOOD.format(name="a-one"))
    yield directory
    for name in [name for name in sys.modules if name.split(".")[0] == "probe"]:
        del sys.modules[name]


def found() -> dict[str, Entry]:
    return discover("probe", "ENTRY", Entry)


def test_entries_come_by_name_in_module_order(package: Path) -> None:
    (package / "_helper.py").write_text("raise RuntimeError('helpers are not imported')\n")
    entries = found()
    assert list(entries) == ["a-one", "b-two"]
    assert entries["b-two"].name == "b-two"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no ENTRY"),
        ("ENTRY = 3\n", "ENTRY is a int, not a Entry"),
        (GOOD.format(name="a-one"), "ENTRY repeats the name 'a-one' of probe.a_one"),
        (GOOD.format(name=""), "ENTRY has no name"),
        ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
        ("def broken(:\n", "SyntaxError"),
        ("raise ValueError('boom')\n", "boom"),
    ],
)
def test_a_broken_module_is_named(package: Path, text: str, complaint: str) -> None:
    (package / "c_three.py").write_text(text)
    with pytest.raises(KgenError) as caught:
        found()
    assert caught.value.where == "probe.c_three"
    assert complaint in caught.value.line


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(KgenError, match="no_such_package"):
        discover("kgen.no_such_package", "ENTRY", Entry)


def test_the_platforms_are_what_the_directory_holds() -> None:
    platforms = discover("kgen.platforms", "PLATFORM", Platform)
    directory = Path(__file__).parents[2] / "kgen" / "platforms"
    files = {path.stem.replace("_", "-") for path in directory.glob("[!_]*.py")}
    assert set(platforms) == files
    assert {"qemu-tcg", "qemu-kvm"} <= files


def test_data_directories() -> None:
    assert (data_dir("gdb_scripts") / "attach.gdb").is_file()
    with pytest.raises(KgenError, match="no-such-data"):
        data_dir("no-such-data")
