"""The wheel alone, outside the checkout: the command runs and finds its templates. No registry is asked."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from kgen import __version__

#: Data directories: at the top of the checkout, inside the package once installed.
_DATA = ("kernel_templates", "gdb_scripts")
_KERNEL_FILES = ("kernel.elf", "kernel.elf-gdb.py", "kernel.img", "kernel.s", "manifest.json")


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a program to its end, outside the checkout's import path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that pyproject.toml names."""
    directory = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=repository)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs in a fresh environment that has the wheel.

    Its dependencies are those of the environment that runs this test, through a path file: a path file adds
    the directory without processing the path files in it, so an editable kgen there stays out of sight.
    """
    home = tmp_path_factory.mktemp("wheel env")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    _run(
        *(sys.executable, "-m", "pip", "--python", programs / "python", "install"),
        *("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", wheel),
        cwd=home,
    )
    where = _run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    Path(where.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return programs


def _data_files(repository: Path) -> set[str]:
    return {
        f"{name}/{path.relative_to(repository / name).as_posix()}"
        for name in _DATA
        for path in (repository / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_its_data(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (repository / "kgen").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    modules = {path.relative_to(repository).as_posix() for path in files}
    assert "kgen/systems/kvm.sh" in modules
    data = {f"kgen/{name}" for name in _data_files(repository)}
    assert any(name.endswith(".asm") for name in data)
    assert {*modules, *data, "kgen/py.typed"} <= names
    assert {name.partition("/")[0] for name in names} == {"kgen", f"kgen-{__version__}.dist-info"}


def test_the_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert _run(installed / "kgen", "--version", cwd=tmp_path) == f"kgen {__version__}\n"
    assert "Usage: kgen" in _run(installed / "kgen", "--help", cwd=tmp_path)


def test_the_installed_package_finds_its_data(installed: Path, tmp_path: Path, repository: Path) -> None:
    program = (
        "import kgen.resources, sys\n"
        f"for name in {_DATA}:\n"
        "    root = kgen.resources.data_dir(name)\n"
        "    for path in root.rglob('*'):\n"
        "        if path.is_file() and '__pycache__' not in path.parts:\n"
        "            print(f'{name}/{path.relative_to(root).as_posix()}')\n"
        "print(kgen.resources.__file__)\n"
    )
    *found, module = _run(installed / "python", "-c", program, cwd=tmp_path).splitlines()
    assert set(found) == _data_files(repository)
    assert repository not in Path(module).parents


def test_the_installed_command_builds_the_checkouts_bytes(installed: Path, tmp_path: Path, repository: Path) -> None:
    for name, python in (("installed", installed / "python"), ("checkout", sys.executable)):
        # -m puts the working directory on the path: the checkout's kgen in the checkout, else the wheel's.
        where = repository if name == "checkout" else tmp_path
        printed = _run(python, "-m", "kgen", "build", "--instr", "xchg", "-o", tmp_path / name, cwd=where)
        assert set(printed.split()) == {str(tmp_path / name / file) for file in _KERNEL_FILES}
    for file in _KERNEL_FILES:
        built, expected = tmp_path / "installed" / file, tmp_path / "checkout" / file
        assert expected.stat().st_size > 0
        assert filecmp.cmp(built, expected, shallow=False), file


def test_an_editable_install_copies_nothing(tmp_path: Path, repository: Path) -> None:
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable", "-d", tmp_path, cwd=repository)
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        (path_file,) = [name for name in wheel.namelist() if ".dist-info/" not in name]
        assert wheel.read(path_file).decode().split("\n") == [str(repository)]
