"""A release's compiler on this host: what its programs are replaced by, and what make says when it fails. The build of
a real module is in tests/soak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the roots are for Linux", allow_module_level=True)

from kgen.errors import MachineError, SpecError
from kgen.lab.compiler import complaint, module
from kgen.lab.recipe import host_program
from kgen.lab.root import Root, put

TARGET = "x86_64-linux-gnu"
PARTS = f"/usr/libexec/gcc/{TARGET}/16"
TOOLS = "/usr/lib/linux-kbuild-7"
HEADERS, SOURCE = "/usr/src/linux-headers-7", "/usr/src/driver"
#: make, compiler and linker are this host's env, which prints what it was started with and starts what it is given.
PROGRAMS = (
    *("/usr/bin/make", f"/usr/bin/{TARGET}-as", f"/usr/bin/{TARGET}-gcc-16", f"/usr/bin/{TARGET}-ld"),
    *(f"{PARTS}/cc1", f"{PARTS}/collect2"),
    *(f"{TOOLS}/scripts/fixdep", f"{TOOLS}/scripts/modpost", f"{TOOLS}/scripts/modpost.real-lsb-64"),
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    there = Path("/usr/bin/env")
    files = host_program(there) if there.is_file() else {}
    if not any("ld-linux-x86-64" in name for name in files):
        pytest.skip("this host's env is no dynamic program for x86-64")
    env = files.pop("/usr/bin/env")
    files |= dict.fromkeys(PROGRAMS, env)
    files |= {f"{HEADERS}/Makefile": b"include /usr/src/linux-common/Makefile\n", f"{SOURCE}/driver.c": b""}
    (tmp_path / "root").mkdir()
    return put(files, PROGRAMS, tmp_path / "root")


def test_a_build_that_fails_is_one_line_and_everything_runs_from_the_root(root: Root) -> None:
    # env takes make's words for settings and programs of its own
    with pytest.raises(MachineError, match=r"driver\.ko cannot be built: .*") as raised:
        module(root, HEADERS, SOURCE, "driver")
    assert "\n" not in raised.value.line
    assert (root.directory / HEADERS[1:] / "Makefile").read_text() == (
        f"include {root.directory}/usr/src/linux-common/Makefile\n"
    )
    place = root.directory / "kgen-compiler"
    assert {path.name for path in place.iterdir()} == {
        *("make", "as", "ld", "cc1", "collect2"),
        *(f"{TARGET}-{name}" for name in ("as", "gcc-16", "ld")),
    }
    # the compiler is told where its parts are
    assert f"-B {place}/" in (place / f"{TARGET}-gcc-16").read_text()
    for script in (place / "cc1", root.directory / TOOLS[1:] / "scripts/fixdep"):
        done = subprocess.run([script, "-i", "x=1"], capture_output=True, text=True, check=True)
        assert done.stdout == "x=1\n"
    # a program that chooses the real one by its name is left out
    assert "modpost.real-lsb-64" in (root.directory / TOOLS[1:] / "scripts/modpost").read_text()


def test_what_is_missing_is_named(root: Root) -> None:
    (root.directory / PARTS[1:] / "cc1").unlink()
    with pytest.raises(SpecError, match="the release's packages have no cc1"):
        module(root, HEADERS, SOURCE, "driver")


def test_make_works_in_no_directory_with_a_blank(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    with pytest.raises(SpecError, match="make works in no directory with such a name"):
        module(Root(place), HEADERS, SOURCE, "driver")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "make: Entering directory 'x'\nSUPDrv.c:12:3: error: unknown type name 'a'\nmake: *** [x] Error 1\n",
            "SUPDrv.c:12:3: error: unknown type name 'a'",
        ),
        ("sh: 1: gcc: not found\nmake: *** [x] Error 127\n", "sh: 1: gcc: not found"),
        ("nothing\n", "nothing"),
        ("", "no reason given"),
    ],
)
def test_the_first_error_is_the_one_that_is_shown(text: str, line: str) -> None:
    assert complaint(text) == line
