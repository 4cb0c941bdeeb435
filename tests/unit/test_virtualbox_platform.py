"""Platform and system virtualbox without a machine: which VirtualBox is taken, what is refused, what is made."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kgen.errors import SpecError
from kgen.lab.choice import Choice
from kgen.lab.programs import build_programs, load
from kgen.lab.recipe import HERE
from kgen.lab.root import ELF
from kgen.lab.system import Programs, System, check, title
from kgen.machine.platform import LaunchRequest
from kgen.machine.virtualbox import INSIDE
from kgen.platforms import platform_named, virtualbox
from kgen.systems import system_named

REQUEST = LaunchRequest(kernel=None)
SYSTEM = system_named("virtualbox")


@pytest.fixture(autouse=True)
def _nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No VirtualBox in the PATH, none in the cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_without_any_it_says_how_to_get_one() -> None:
    reason = platform_named("virtualbox").unavailable(REQUEST)
    assert reason is not None
    assert reason.startswith("there is no VBoxManage")
    assert "'kgen lab build virtualbox'" in reason


def test_the_installed_one_is_taken(tmp_path: Path) -> None:
    program = executable(tmp_path / "bin" / "VBoxManage")
    assert virtualbox.command(REQUEST) == (str(program),)
    assert virtualbox.unavailable(REQUEST) is None


def test_a_chosen_release_is_taken_although_one_is_installed(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "VBoxManage")
    starter = executable(tmp_path / "root" / INSIDE)
    assert virtualbox.command(replace(REQUEST, programs=starter.parent)) == (str(starter),)


def test_a_root_without_namespaces_is_unavailable(tmp_path: Path) -> None:
    request = replace(REQUEST, programs=executable(tmp_path / "root" / INSIDE).parent)
    assert "no unshare" in (virtualbox.unavailable(request) or "")
    unshare = executable(tmp_path / "bin" / "unshare")
    unshare.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    assert (virtualbox.unavailable(request) or "").endswith(
        "private root: unshare: unshare failed: Operation not permitted"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"cpus": 65}, "at most 64 CPUs"), ({"serial_port": 0x1000}, "serial ports are not at 0x1000")],
)
def test_what_its_machines_do_not_have(tmp_path: Path, change: dict[str, int], reason: str) -> None:
    executable(tmp_path / "bin" / "VBoxManage")
    assert reason in (virtualbox.unavailable(replace(REQUEST, **change)) or "")  # type: ignore[arg-type]


def test_windows_has_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "kgen kit virtualbox" in (virtualbox.unavailable(REQUEST) or "")


def test_choices() -> None:
    for choice in ({}, {"vga": "vmsvga"}, {"vga": "none", "engine": "iem"}, {"engine": "iem-interpreter"}):
        assert virtualbox.medium(replace(REQUEST, **choice)) == "vdi"
    for choice, words in (
        ({"vga": "cirrus"}, "unknown graphics adapter 'cirrus'"),
        ({"engine": "tcg"}, "unknown engine 'tcg'"),
        ({"boot": "usb"}, "from an IDE disk"),
    ):
        with pytest.raises(SpecError, match=words):
            virtualbox.medium(replace(REQUEST, **choice))


def test_the_release_that_has_it_is_the_default() -> None:
    check(SYSTEM, Choice())
    assert title(SYSTEM, Choice()) == title(SYSTEM, Choice(release="sid")) == "virtualbox-sid"
    assert title(SYSTEM, Choice(release="forky")) == "virtualbox-forky"
    with pytest.raises(SpecError, match="needs a release"):
        check(replace(SYSTEM, release=None), Choice())


def made_of(made: Programs) -> System:
    return replace(SYSTEM, name="imagined", gather=lambda gathering: made, made_by=lambda choice: "x")


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_a_script_finds_the_roots_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Programs(
        files={"/usr/lib/x/program": ELF + b"...", "/usr/lib/x/data": b"data"},
        scripts={
            "show": f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <'{HERE}/usr/lib/x/data'\necho end\n"
        },
    )
    found = build_programs(made_of(made), Choice(), lambda stage: None)
    assert found == load("imagined-sid")
    assert subprocess.run([found.programs / "show"], capture_output=True, check=True).stdout == b"end\n"
    root = found.programs.parent / "root"
    assert (root / "usr/lib/x/program").stat().st_mode & 0o777 == 0o755
    assert (root / "usr/lib/x/data").stat().st_mode & 0o777 == 0o644
