"""scripts/bootstrap.sh in a system of a few stand-ins: what it installs, and what it leaves out and says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the script installs packages on Linux")

SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap.sh"
#: Programs that are there, of which nothing is to be installed.
THERE = ("qemu-system-x86_64", "gdb", "readelf", "qemu-img", "shellcheck", "virsh", "bochs", "chromium")
#: Packages and their programs.
PROGRAMS = {"mtools": "mcopy", "xorriso": "xorriso"}


def install(directory: Path, *, has: str, lists: bool = True) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script for the tests where the distribution has these packages; also apt-get's command lines.

    Firmware is looked for on this host, whatever there is of it: those packages are not counted.
    """
    (directory / "scripts").mkdir()
    shutil.copy(SCRIPT, directory / "scripts")
    (directory / "pyproject.toml").touch()
    programs = directory / "programs"
    programs.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "env", "touch", "chmod"):
        (programs / name).symlink_to(shutil.which(name) or name)

    def program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
        path.chmod(0o755)

    for name in (*THERE, "dpkg-query"):
        program(programs / name, "echo installed")
    program(programs / "id", "echo 0")
    log, updated = directory / "apt.log", directory / "updated"
    if lists:
        updated.touch()
    program(programs / "apt-cache", f'[ -e {updated} ] || exit 0; case " {has} " in *" $2 "*) echo "$2 | 1 |" ;; esac')
    made = "".join(
        f"{package}) : >{programs / name}; chmod 755 {programs / name} ;; " for package, name in PROGRAMS.items()
    )
    program(
        programs / "apt-get",
        f'echo "$*" >>{log}; case " $* " in *" update "*) touch {updated} ;; *" -s "*) ;; '
        f"*) for name; do case $name in {made} esac; done ;; esac",
    )
    for name in ("python", "pip"):
        program(directory / ".venv/bin" / name, ":")
    (directory / ".venv/share").mkdir()
    (directory / ".venv/share/junit-10.xsd").touch()
    done = subprocess.run(
        ["sh", str(directory / "scripts/bootstrap.sh"), "test"],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done, log.read_text().splitlines() if log.exists() else []


ALL = "qemu-system-x86 mtools xorriso bochsbios vgabios ovmf ovmf-ia32 qemu-system-data"


def test_a_package_that_the_distribution_lacks_is_left_out_and_named(tmp_path: Path) -> None:
    done, commands = install(tmp_path, has=ALL.replace("mtools ", ""))
    assert done.returncode == 0, done.stderr
    assert "kgen: this system's package lists have no mtools; tests that need it will be skipped\n" in done.stderr
    assert any("install" in line and "xorriso" in line.split() for line in commands)
    assert not any("mtools" in line for line in commands)
    assert not any("update" in line for line in commands), "the lists are there"


def test_everything_that_the_distribution_has_is_installed(tmp_path: Path) -> None:
    done, commands = install(tmp_path, has=ALL)
    assert done.returncode == 0, done.stderr
    assert "will be skipped" not in done.stderr
    assert any({"install", "mtools", "xorriso"} <= set(line.split()) for line in commands)


def test_lists_are_fetched_before_a_package_is_called_lacking(tmp_path: Path) -> None:
    done, commands = install(tmp_path, has=ALL, lists=False)
    assert done.returncode == 0, done.stderr
    assert "will be skipped" not in done.stderr
    assert "update" in commands[0].split()


def test_a_package_that_apt_get_did_not_install_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PROGRAMS, "mtools")
    done, _ = install(tmp_path, has=ALL)
    assert done.returncode == 1
    assert done.stderr.endswith("kgen: still missing after apt-get: mtools\n")
