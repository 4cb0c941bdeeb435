"""The pytest plugin: a suite's cases as tests of a hypervisor, run once, in one boot (docs/api.md).

Without one of its options it does nothing. What is heavy is imported when a test asks for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from kgen.report.results.model import Result, Run
    from kgen.spec import KernelSpec

DEFAULT_SUITE = "smoke"
#: The name of a run whose request is unknown.
UNKNOWN_CASE = "unknown"
#: Options that are not empty where the user wants kgen's fixtures.
_OPTIONS = ("platform", "suite", "only", "budget", "rounds", "qemu", "qemu_args", "log", "json", "expect")
Outcome = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Asked:
    """What the options ask for."""

    #: "" where a log is judged.
    platform: str
    #: None where a kernel is run.
    log: Path | None
    #: The suite to be run.
    spec: KernelSpec | None
    #: What the log holds.
    runs: tuple[Run, ...]
    json_file: Path | None
    #: The name of a verdict, "known" or "".
    expect: str
    inconclusive: Outcome
    choices: Mapping[str, Any]

    def cases(self) -> list[str]:
        """Return a name for each case, each once."""
        if self.spec is not None:
            return [case.id for case in self.spec.cases]
        return list(self.results())

    def results(self) -> dict[str, Result]:
        """Return what the log holds, by those names."""
        several = len(self.runs) > 1
        return {
            f"{run.where}: {result.case or UNKNOWN_CASE}" if several else result.case or UNKNOWN_CASE: result
            for run in self.runs
            for result in run.results
        }


#: What the options ask for; None where they ask for nothing.
ASKED = pytest.StashKey["Asked | None"]()
#: The cases whose tests are left after all selection.
WANTED = pytest.StashKey[frozenset[str]]()
#: Why the result could not be written, where it could not.
UNWRITTEN = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options."""
    group = parser.getgroup("kgen", "kgen: are LOCKed read-modify-writes on memory-mapped I/O atomic?")
    add = group.addoption
    add("--kgen-platform", metavar="NAME", help="What runs the kernel: qemu-tcg, qemu-kvm, kvm-lab ...")
    add("--kgen-suite", metavar="NAME|FILE", help=f"The cases: smoke, full or a TOML file. Default: {DEFAULT_SUITE}.")
    add("--kgen-only", metavar="PATTERN", action="append", default=[], help="Only cases like this; may be repeated.")
    add("--kgen-budget", metavar="TIME", help="What all cases may take: 60s, 20m.")
    add("--kgen-rounds", metavar="N", type=int, help="The least number of rounds of a case.")
    add("--kgen-qemu", metavar="BINARY", help="The QEMU to run.")
    add("--kgen-qemu-args", metavar="ARGS", default="", help="More arguments for it, quoted as for a shell.")
    add("--kgen-log", metavar="FILE", help="Run nothing: judge this serial log.")
    add("--kgen-json", metavar="FILE", help="Write the result, for kgen report and kgen compare.")
    add("--kgen-expect", metavar="known|VERDICT", help="Pass exactly where this is the verdict.")
    add(
        "--kgen-inconclusive",
        choices=["fail", "skip"],
        default="fail",
        help="What an INCONCLUSIVE case is. Default: fail.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before anything is collected. Raises pytest.UsageError."""
    config.addinivalue_line("markers", "kgen: needs a machine that kgen runs, or a log that it judges")
    config.stash[ASKED] = None
    given = [name for name in _OPTIONS if _given(config, name)]  # each is looked at: any may be empty
    if not given:
        return
    from kgen.errors import KgenError

    try:
        config.stash[ASKED] = asked = _asked(config)
    except KgenError as error:
        raise pytest.UsageError(f"kgen: {error.line}") from error
    if not asked.log and config.getoption("numprocesses", 0):
        # not even --dist loadgroup helps: pytest-xdist 3.8 loses the groups under pytest 9.2
        raise pytest.UsageError("kgen: a machine in each worker would change what the others show; leave -n out")


def _given(config: pytest.Config, name: str) -> bool:
    """Return whether an option was given.

    Raises pytest.UsageError where it is empty, as where a variable is not set: else all tests would be skipped, and
    nothing would have failed.
    """
    value = config.getoption(f"kgen_{name}")
    if value == "" and name != "qemu_args":
        raise pytest.UsageError(f"kgen: --kgen-{name} names nothing; give it a value, or leave it out")
    return value not in (None, "", [])


def _asked(config: pytest.Config) -> Asked:
    """Return what the options ask for. Raises KgenError and pytest.UsageError."""
    from kgen import api
    from kgen.files import STDOUT, check_program, check_writable
    from kgen.platforms import platform_named
    from kgen.report.results.model import kind_named
    from kgen.spec.defaults import budget_seconds

    def given(name: str) -> Any:
        return config.getoption(f"kgen_{name}")

    platform, log = given("platform"), Path(given("log")) if given("log") else None
    if bool(platform) == bool(log):
        raise pytest.UsageError("kgen: give --kgen-platform NAME to run, or --kgen-log FILE to judge; one of them")
    for name in ("log", "json"):
        if given(name) == STDOUT:
            raise pytest.UsageError(f"kgen: --kgen-{name} {STDOUT}: pytest keeps the standard streams; name a file")
    json_file = Path(given("json")) if given("json") else None
    check_writable(json_file, log)
    runs: tuple[Run, ...] = ()
    spec: KernelSpec | None = None
    expect = given("expect") or ""
    if expect not in ("", "known"):
        expect = kind_named(expect).name
    if log is not None:
        idle = [name for name in ("suite", "only", "budget", "rounds", "qemu", "qemu_args") if _given(config, name)]
        if idle:
            name = idle[0].replace("_", "-")
            raise pytest.UsageError(f"kgen: --kgen-{name} is for a run, and --kgen-log judges one that is over")
        if expect == "known":
            raise pytest.UsageError("kgen: the machine that a log is of is not known; name the verdict")
        runs = api.judge_all(log)
    else:
        platform_named(platform)
        check_program("--kgen-qemu", given("qemu"))
        budget = budget_seconds(given("budget")) if given("budget") else None
        name = given("suite") or DEFAULT_SUITE
        spec = api.suites(name, only=given("only"), rounds=given("rounds"), budget=budget)
    return Asked(
        platform=platform or "",
        log=log,
        spec=spec,
        runs=runs,
        json_file=json_file,
        expect=expect,
        inconclusive=given("inconclusive"),
        choices={"qemu": given("qemu"), "extra": _words(given("qemu_args"))},
    )


def _words(text: str) -> list[str]:
    """Return the words of a shell's line. Raises pytest.UsageError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise pytest.UsageError(f"kgen: --kgen-qemu-args {text}: {error}; quote as for a shell") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Generate one test for each case where a test function takes ``kgen_case``."""
    if "kgen_case" not in metafunc.fixturenames:
        return
    asked = metafunc.config.stash[ASKED]
    if asked is None:
        skip = pytest.mark.skip(reason="give --kgen-platform NAME or --kgen-log FILE")
        metafunc.parametrize("kgen_case", [pytest.param("", marks=skip, id="kgen")])
        return
    metafunc.parametrize("kgen_case", asked.cases(), scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that need the machine or the log."""
    if {"kgen_run", "kgen_verify"} & set(getattr(item, "fixturenames", ())):
        item.add_marker("kgen")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember which cases are left, so that no other is run."""
    parameters = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    session.config.stash[WANTED] = frozenset(each["kgen_case"] for each in parameters if "kgen_case" in each)


def _needed(config: pytest.Config) -> Asked:
    """Return what the options ask for; the test is skipped where they ask for nothing."""
    asked = config.stash[ASKED]
    if asked is None:
        pytest.skip("give --kgen-platform NAME or --kgen-log FILE")
    return asked


@pytest.fixture(scope="session")
def kgen_platform(request: pytest.FixtureRequest) -> str:
    """Return the name of the chosen platform; "serial-log" for a log."""
    asked = _needed(request.config)
    return asked.platform or asked.runs[-1].platform


@pytest.fixture(scope="session")
def kgen_run(request: pytest.FixtureRequest) -> Mapping[str, Result]:
    """The result of each case by its name. The suite is run once, with the cases whose tests were selected."""
    from kgen import api

    asked = _needed(request.config)
    if asked.spec is None:
        _save(request.config, asked.runs)
        return asked.results()
    wanted = request.config.stash[WANTED]
    kept = [case for case in asked.spec.cases if not wanted or case.id in wanted]
    spec = replace(asked.spec, case=kept[0], more=tuple(kept[1:]))
    run = api.verify_suite(spec, platform=asked.platform, **asked.choices)
    _save(request.config, (run,))
    return {result.case: result for result in run.results}


def _save(config: pytest.Config, runs: Sequence[Run]) -> None:
    """Write what was asked for. Where that cannot be done the tests tell nevertheless what was found, and pytest fails:
    see pytest_sessionfinish."""
    from kgen import api
    from kgen.errors import KgenError

    asked = config.stash[ASKED]
    if asked is None or asked.json_file is None:
        return
    try:
        api.save(asked.json_file, *runs)
    except KgenError as error:
        config.stash[UNWRITTEN] = error.line


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the session where a result could not be written, though every test passed."""
    if UNWRITTEN in session.config.stash and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what could not be written."""
    if UNWRITTEN in config.stash:
        terminalreporter.write_line(f"ERROR: kgen: --kgen-json {config.stash[UNWRITTEN]}", red=True)


@pytest.fixture
def kgen_result(kgen_run: Mapping[str, Result], kgen_case: str) -> Result:
    """Return the result of the test's case."""
    return kgen_run[kgen_case]


@pytest.fixture
def kgen_check(request: pytest.FixtureRequest) -> Callable[[Result | Run], None]:
    """Return a function that passes, fails with the evidence, or skips, as the verdict and the options say."""
    asked = _needed(request.config)

    def expected(result: Result) -> str:
        if asked.expect != "known":
            return asked.expect
        from kgen.platforms import platform_named
        from kgen.spec.defaults import known_verdict

        of = result.spec.cases[result.number] if result.spec else None
        known = known_verdict(of, platform_named(asked.platform).known_on(result.observation.environment)) if of else ""
        # nothing was learnt about I/O, so nothing speaks against what is known of it
        return result.kind.name if result.kind.name == "RAM_BACKED" else known

    def check(result: Result | Run) -> None:
        __tracebackhide__ = True
        from kgen.report.results.model import Run

        # of a suite each case: what is known of one is not what is known of another
        cases = result.results if isinstance(result, Run) else (result,)
        each = [(decide(of.kind.name, expected(of), asked.inconclusive), of) for of in cases]
        for what, of in each:
            if what == "fail":
                kind, expect = of.kind.name, expected(of)
                # the first line is all that a summary shows
                first = f"expected {expect}, got {kind}" if expect else f"{kind}: {of.verdict.reason}"
                pytest.fail(f"{first}\n\n{of.explain()}", pytrace=False)
        for what, of in each:
            if what == "skip":
                pytest.skip(f"{of.kind.name}: {of.verdict.reason}")

    return check


@pytest.fixture
def kgen_verify(request: pytest.FixtureRequest) -> Callable[..., Run]:
    """``kgen.api.verify`` on the chosen platform and QEMU. The test is skipped where the platform is unavailable."""
    from kgen import api

    asked = _needed(request.config)
    if asked.log is not None:
        pytest.skip("it runs a machine, and --kgen-log runs none")

    def verify(instr: str, **keywords: Any) -> Run:
        __tracebackhide__ = True
        run = api.verify(instr, **{"platform": asked.platform, **asked.choices, **keywords})
        if run.kind.name == "SKIP":
            pytest.skip(run.verdict.reason)
        return run

    return verify


def decide(kind: str, expect: str = "", inconclusive: Outcome = "fail") -> Outcome:
    """Return what a test is whose case got the verdict ``kind``, where ``expect`` was expected ("": nothing in
    particular).
    """
    if expect:
        return "pass" if kind == expect else "skip" if kind in ("SKIP", "UNSUPPORTED") else "fail"
    by_kind: dict[str, Outcome] = {
        "ATOMIC": "pass",
        "RAM_BACKED": "pass",
        "SKIP": "skip",
        "UNSUPPORTED": "skip",
        "INCONCLUSIVE": inconclusive,
    }
    return by_kind.get(kind, "fail")
