"""The pytest plugin without a machine: what its options ask for, logs as tests, and that it keeps out of the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recordings import DIRECTORY

from kgen import api
from kgen.pytest_plugin import decide
from kgen.verdict.model import VerdictKind

pytest_plugins = ["pytester"]
XCHG = "xchg.32.vga-text.token"
CONFORMANCE = Path(__file__).resolve().parents[2] / "kgen" / "conformance.py"


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """The tests that kgen brings, in a pytest of their own."""
    pytester.makepyfile(test_conformance=CONFORMANCE.read_text(encoding="utf-8"))
    # hypothesis takes longer to be imported than all the rest
    plugins = ("-p", "kgen.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    return pytester.runpytest_inprocess(*plugins, "-rs", *options)


@pytest.mark.parametrize("kind", VerdictKind)
def test_every_verdict_passes_fails_or_skips(kind: VerdictKind) -> None:
    good, none = {"ATOMIC", "RAM_BACKED"}, {"SKIP", "UNSUPPORTED"}
    expected = "pass" if kind.name in good else "skip" if kind.name in none else "fail"
    assert decide(kind.name) == expected
    assert decide(kind.name, inconclusive="skip") == ("skip" if kind.name == "INCONCLUSIVE" else expected)
    assert decide(kind.name, kind.name) == "pass"
    assert decide(kind.name, "NO_STORAGE") == (
        "pass" if kind.name == "NO_STORAGE" else "skip" if kind.name in none else "fail"
    )


def test_a_log_of_a_defect_fails_with_its_evidence(pytester: pytest.Pytester) -> None:
    done = run(pytester, "--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-json", "lost.json")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [f"*test_lock_is_atomic?{XCHG}?*", "NOT_ATOMIC: *", "witnesses (*", "*the token vanished*"]
    )
    assert "Traceback" not in done.stdout.str()
    (written,) = api.load(pytester.path / "lost.json")
    assert written.result(XCHG).verdict == api.judge(DIRECTORY / "kvm-lost.log").result(XCHG).verdict


def test_the_verdict_that_was_expected_passes(pytester: pytest.Pytester) -> None:
    log = str(DIRECTORY / "kvm-lost.log")
    run(pytester, "--kgen-log", log, "--kgen-expect", "not-atomic").assert_outcomes(passed=1)
    done = run(pytester, "--kgen-log", str(DIRECTORY / "tcg-atomic.log"), "--kgen-expect", "NOT_ATOMIC")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["expected NOT_ATOMIC, got *"])


def test_a_suite_in_a_log_is_a_test_a_case(pytester: pytest.Pytester) -> None:
    kinds = [result.kind.name for result in api.judge(DIRECTORY / "tcg-suite.log").results]
    outcomes = [decide(kind) for kind in kinds]
    assert len(outcomes) > 1
    done = run(pytester, "--kgen-log", str(DIRECTORY / "tcg-suite.log"))
    done.assert_outcomes(passed=outcomes.count("pass"), failed=outcomes.count("fail"), skipped=outcomes.count("skip"))


def test_two_runs_in_one_log_are_told_apart(pytester: pytest.Pytester) -> None:
    logs = [DIRECTORY / name for name in ("kvm-lost.log", "tcg-no-lock.log")]
    (pytester.path / "both.log").write_bytes(b"".join(log.read_bytes() for log in logs))
    done = run(pytester, "--kgen-log", "both.log", "-v")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*?run 1 of 2: *FAILED*", "*?run 2 of 2: *FAILED*"])


def test_a_whole_suite_is_checked_case_by_case(pytester: pytest.Pytester) -> None:
    """Its worst verdict is the one that was expected, and a case of it has another."""
    pytester.makepyfile(
        "from kgen import api\n"
        "def test_all(kgen_check):\n"
        f"    kgen_check(api.judge({str(DIRECTORY / 'kvm-suite.log')!r}))\n"
    )
    log = str(DIRECTORY / "kvm-suite.log")
    done = pytester.runpytest_inprocess(
        "-p", "kgen.pytest_plugin", "-p", "no:cacheprovider", "--kgen-log", log, "--kgen-expect", "not-atomic"
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["expected NOT_ATOMIC, got INCONCLUSIVE"])


def test_an_empty_log_is_an_error(pytester: pytest.Pytester) -> None:
    (pytester.path / "empty.log").write_bytes(b"")
    done = run(pytester, "--kgen-log", "empty.log")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["ERROR: the log is empty*"])


def test_without_its_options_it_skips_and_says_what_to_give(pytester: pytest.Pytester) -> None:
    done = run(pytester)
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*give --kgen-platform NAME or --kgen-log FILE"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kgen-platform", "qemu-tgc"], "unknown platform 'qemu-tgc'; did you mean qemu-tcg?"),
        (["--kgen-suite", "smoke"], "give --kgen-platform NAME to run, or --kgen-log FILE to judge; one of them"),
        (["--kgen-budget", "60s"], "one of them"),
        (["--kgen-platform", "qemu-tcg", "--kgen-suite", "smkoe"], "unknown suite 'smkoe'; did you mean smoke?"),
        (["--kgen-platform", "qemu-tcg", "--kgen-budget", "soon"], "'soon' is not a time from 1s to 24h"),
        (["--kgen-platform", "qemu-tcg", "--kgen-only", "nope"], "no case of suite smoke matches 'nope'"),
        (["--kgen-platform", "qemu-tcg", "--kgen-expect", "fine"], "unknown verdict 'fine'"),
        (["--kgen-platform", "qemu-tcg", "--kgen-qemu", "./none"], "--kgen-qemu ./none: no such file"),
        (["--kgen-platform", "qemu-tcg", "--kgen-json", "no/such/file"], "no/such/file: cannot be written"),
        (["--kgen-platform", "qemu-tcg", "--kgen-rounds", "-3"], "-3 rounds asked for"),
        (
            ["--kgen-platform", "qemu-tcg", "--kgen-qemu-args", "'unbalanced"],
            "--kgen-qemu-args 'unbalanced: No closing quotation; quote as for a shell",
        ),
        (["--kgen-log", ""], "--kgen-log names nothing"),
        (["--kgen-platform", ""], "--kgen-platform names nothing"),
        (["--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-json", ""], "--kgen-json names nothing"),
        (["--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-json", "-"], "--kgen-json -: pytest keeps"),
        (["--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-rounds", "0"], "--kgen-rounds is for a run"),
        (["--kgen-log", "-"], "--kgen-log -: pytest keeps the standard streams; name a file"),
        (["--kgen-log", "none.log"], "none.log: No such file or directory"),
        (["--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-only", "xchg"], "--kgen-only is for a run"),
        (["--kgen-log", str(DIRECTORY / "kvm-lost.log"), "--kgen-expect", "known"], "name the verdict"),
        (
            ["--kgen-platform", "qemu-tcg", "-n", "2"],
            "a machine in each worker would change",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_line(pytester: pytest.Pytester, options: list[str], words: str) -> None:
    done = run(pytester, *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in done.errlines if line.strip()]
    assert line.startswith("ERROR: kgen: ")
    assert words in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_result_that_cannot_be_written_is_one_line_and_a_failure(pytester: pytest.Pytester) -> None:
    log = str(DIRECTORY / "kvm-lost.log")
    done = run(pytester, "--kgen-log", log, "--kgen-expect", "not-atomic", "--kgen-json", "/dev/full")
    done.assert_outcomes(passed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    (line,) = [line for line in done.outlines if "/dev/full" in line]
    assert line == ("ERROR: kgen: --kgen-json /dev/full: cannot be written: No space left on device; name another file")
    assert "Traceback" not in done.stdout.str()


def test_a_pytest_that_does_not_use_it_loads_nothing_of_kgen(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import sys\ndef test_mine():\n"
        "    assert sorted(name for name in sys.modules if name.startswith('kgen')) == ['kgen', 'kgen.pytest_plugin']\n"
        "    assert not {'rich', 'click', 'jinja2', 'keystone', 'capstone', 'qemu', 'pygdbmi'} & set(sys.modules)\n"
    )
    plugins = ("-p", "kgen.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-q", "--rootdir", tmp_path, "-c", "/dev/null", tmp_path],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
