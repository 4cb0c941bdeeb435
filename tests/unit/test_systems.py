"""make systems without a distribution: what its script makes of other programs' words."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "systems.py"

#: The end of a run, as pytest 8 and 9 print it with -ra.
PYTEST = """\
=========================== short test summary info ============================
SKIPPED [2] tests/booting.py:72: /usr/share/OVMF/OVMF32_CODE_4M.secboot.fd is not there; install the package ovmf-ia32
SKIPPED [1] tests/unit/test_lab_pieces.py:27: there is no cpio; install it with 'apt install cpio'
SKIPPED [3] tests/booting.py:71: /usr/share/OVMF/OVMF32_CODE_4M.secboot.fd is not there; install the package ovmf-ia32
FAILED tests/boot/test_watch.py::test_how_it_was_found[None - x] - AssertionError: a - b
ERROR tests/boot/test_bochs.py::test_a_cd - kgen.errors.MachineError
====== 1 failed, 5012 passed, 6 skipped, 2 errors in 1234.56s (0:20:34) =======
"""
VERIFY = """\
[...]
=== make verify ===
  qemu-tcg   ATOMIC, as known
  qemu-kvm   SKIP, not available here
  kvm-lab    NOT_ATOMIC, as known
make: *** [Makefile:24: verify] Error 4
"""


@pytest.fixture(scope="module")
def systems() -> ModuleType:
    if sys.platform != "linux":
        pytest.skip("the script makes root directories of Linux distributions")
    spec = importlib.util.spec_from_file_location("systems", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["systems"] = module
    spec.loader.exec_module(module)
    return module


def test_what_a_run_of_pytest_came_to(systems: ModuleType) -> None:
    found = systems.tests_of(PYTEST)
    assert found.text == "1 failed, 5012 passed, 6 skipped, 2 errors"
    assert found.failures == (
        "tests/boot/test_watch.py::test_how_it_was_found[None - x]",
        "tests/boot/test_bochs.py::test_a_cd",
    )
    assert found.skips == (
        (5, "/usr/share/OVMF/OVMF32_CODE_4M.secboot.fd is not there; install the package ovmf-ia32"),
        (1, "there is no cpio; install it with 'apt install cpio'"),
    )


def test_a_run_without_an_end_has_no_numbers(systems: ModuleType) -> None:
    assert systems.tests_of(PYTEST.rpartition("======")[0].rpartition("\n")[0]).text == "did not run"
    assert systems.tests_of("").text == "did not run"
    assert systems.tests_of("12 passed in 3.4s\n").text == "12 passed"


def test_what_make_verify_said(systems: ModuleType) -> None:
    assert systems.verify_of(VERIFY) == (
        "qemu-tcg ATOMIC, as known; qemu-kvm SKIP, not available here; kvm-lab NOT_ATOMIC, as known"
    )
    assert systems.verify_of("kgen: apt-get update failed; is there a network?") == "did not run"


def test_the_archive_is_the_one_of_this_hosts_apt(systems: ModuleType) -> None:
    targets = "http://a/debian-security/\tDebian\tDebian-Security\nhttp://a/debian/\tDebian\tDebian\n"
    assert systems.archive(targets, "Debian") == "http://a/debian/"
    assert systems.archive(targets, "Ubuntu") is None
    assert systems.archive("", "Debian") is None


def test_apt_settings_that_reach_the_archive(systems: ModuleType) -> None:
    dump = 'Dir "/";\nAcquire::Check-Date "false";\nAcquire::http::Proxy "http://a:1";\nAcquire::https::Proxy "";\n'
    assert systems.apt_settings(dump) == ['Acquire::Check-Date "false"', 'Acquire::http::Proxy "http://a:1"']


def test_what_a_pip_configuration_has_on_disk(systems: ModuleType) -> None:
    text = (
        "[global]\ncert = /etc/ssl/ca.crt\nindex-url = https://a/b/simple\nextra-index-url = file:///opt/index/simple\n"
    )
    assert systems.paths_in([text, "/opt/wheels", "180"]) == [
        Path("/etc/ssl/ca.crt"),
        Path("/opt/index"),
        Path("/opt/wheels"),
    ]


@pytest.mark.parametrize(
    ("column", "text", "version"),
    [
        ("Python", "Python 3.13.5", "3.13.5"),
        ("QEMU", "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", "10.0.13"),
        ("gdb", "GNU gdb (Debian 16.3-1) 16.3", "16.3"),
        ("gdb", "GNU gdb (Ubuntu 15.0.50.20240403-0ubuntu1) 15.0.50.20240403-git", "15.0.50.20240403"),
        ("Bochs", "                        Bochs x86 Emulator 3.0", "3.0"),
    ],
)
def test_versions(systems: ModuleType, column: str, text: str, version: str) -> None:
    assert systems.version_of(column, f"first\n{text}\nlast\n") == version


def test_the_table(systems: ModuleType) -> None:
    rows = [
        systems.Row("Debian 13", "2026-11-30", {"Python": "3.13.5", "QEMU": "10.0.13"}, "x", systems.tests_of(PYTEST)),
        systems.Row("Ubuntu 24.04", "2026-11-30", verify="apt is configured for no archive of Ubuntu"),
    ]
    lines = systems.table(rows).splitlines()
    assert lines[:4] == [
        "| system | Python | QEMU | gdb | Bochs | make verify | make test | date |",
        "|---|---|---|---|---|---|---|---|",
        "| Debian 13 | 3.13.5 | 10.0.13 | - | - | x | 1 failed, 5012 passed, 6 skipped, 2 errors | 2026-11-30 |",
        "| Ubuntu 24.04 | - | - | - | - | apt is configured for no archive of Ubuntu | - | 2026-11-30 |",
    ]
    assert "- tests/boot/test_bochs.py::test_a_cd" in lines
    assert "- 1: there is no cpio; install it with 'apt install cpio'" in lines


def test_a_program_is_ended_after_its_time(systems: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert systems.run(["sh", "-c", "echo begun; sleep 60; echo late"], log, 0.5) == 124
    assert log.read_text() == "begun\n\nsystems: ended after 0.5 s\n"
    assert systems.run(["sh", "-c", "exit 3"], log, 10) == 3


def test_an_unknown_system_is_a_wrong_request(systems: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        systems.main(["no-such-system"])
    assert ended.value.code == 2
    assert "no such system: no-such-system" in capsys.readouterr().err
