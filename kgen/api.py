"""kgen as a library: verify, judge, inspect and compare from Python (docs/api.md has examples that run).

Importing this module is cheap, because the functions import what is heavy. They print nothing, raise kgen's own errors
(``kgen.errors``) and leave no process running. They may be called from any thread, but those that run a machine not
from several threads at a time: a second machine would change what the first one shows. Ctrl-C ends the machine and then
raises KeyboardInterrupt. SIGTERM and SIGHUP end the machine first too, in the main thread and where the program has no
handler for them. The functions return ``Run`` and ``Result``: frozen, with ``kind``, ``verdict``, ``explain()`` and
``require(...)``. Arguments that do not fit the annotations, and all other invalid requests, raise ``SpecError``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from kgen.spec.arguments import check_all, check_seconds, checked

if TYPE_CHECKING:
    from kgen.lab.choice import Choice
    from kgen.machine.platform import Platform
    from kgen.report.compare.comparison import Comparison, Difference
    from kgen.report.results.model import Result, Run
    from kgen.spec import Case, KernelSpec
    from kgen.verdict.model import Verdict, VerdictKind

__all__ = (
    "Case",
    "Comparison",
    "KernelSpec",
    "Result",
    "Run",
    "Verdict",
    "VerdictKind",
    "build",
    "cases",
    "compare",
    "inspect",
    "judge",
    "judge_all",
    "load",
    "platforms",
    "report",
    "save",
    "suites",
    "verify",
    "verify_suite",
)

#: Types that are exported here too, with the modules that define them.
_TYPES = {
    "Case": "kgen.spec.kernel_spec",
    "Comparison": "kgen.report.compare.comparison",
    "KernelSpec": "kgen.spec.kernel_spec",
    "Result": "kgen.report.results.read",
    "Run": "kgen.report.results.read",
    "Verdict": "kgen.verdict.judge",
    "VerdictKind": "kgen.verdict.judge",
}

PathLike = str | os.PathLike[str]


def __getattr__(name: str) -> Any:
    """Import and return a type when it is first used. Raises AttributeError."""
    if name not in _TYPES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_TYPES[name]), name)


def _names() -> dict[str, Any]:
    """Return the types of annotations, by name."""
    from kgen.report.compare.comparison import Difference

    return {"Difference": Difference, **{name: __getattr__(name) for name in _TYPES}}


_checked = checked(_names)


class _Choices(TypedDict, total=False):
    """The keywords that choose the machine. None leaves a choice to the platform."""

    #: The program to run as QEMU.
    qemu: str | None
    #: Its further arguments.
    extra: Sequence[str]
    #: The program to run as gdb.
    gdb: str
    #: The board, as QEMU calls it.
    machine: str | None
    #: The graphics adapter.
    vga: str | None
    #: The firmware that starts the machine.
    firmware: str | None
    #: The CPU model.
    cpu: str | None
    #: What is booted: the ELF, or an image on a bus.
    boot: str | None
    #: The part of the hypervisor that carries the guest out.
    engine: str | None
    #: Whether ring 3 alone carries accesses to the device out.
    ring3: bool
    #: The host CPUs that QEMU may use; empty: all.
    pin: Collection[int]
    #: The lab's Linux kernel, in place of the distribution's.
    kernel: PathLike | None
    #: The tree with that kernel's modules.
    modules: PathLike | None
    #: The QEMU inside the lab.
    inner_qemu: str | None
    #: The Xen inside the lab.
    xen: PathLike | None
    #: The release of the distribution that lab or emulator are of.
    release: str | None
    #: The line of Linux inside the lab: "6.12".
    linux: str | None


@_checked
def verify(
    instr: str,
    *,
    width: int = 0,
    lock: bool = True,
    source: str = "",
    target: str = "vga-text",
    offset: int = 0,
    experiment: str = "",
    cpus: int = 3,
    rounds: int | None = None,
    proof_seconds: int | None = None,
    controls: bool = True,
    platform: str = "qemu-tcg",
    seconds: float | None = None,
    timeout: float | None = None,
    stop_on_violation: bool = False,
    **choices: Any,
) -> Run:
    """Verify one case: build the kernel, boot it, read the frozen machine, judge. The run's ``results`` has one entry.

    The keywords are the options of ``kgen verify``. ``width`` is in bits (0: the instruction's usual one), ``offset``
    in bytes. ``rounds`` is None for the default of ``kgen verify``. ``proof_seconds`` is how long the case may go on
    until its proof is reached (None: 60, and 0 where ``rounds`` is given). ``seconds`` ends the case after that time.
    ``timeout`` is for the whole run, in seconds (None: 600 plus both of these). ``choices`` are ``qemu`` (a program),
    ``extra`` (its further arguments), ``gdb``, ``pin`` (host CPUs), ``machine``, ``vga``, ``firmware``, ``cpu``,
    ``boot``, ``engine`` and ``ring3``; for the platform kvm-lab also ``kernel``, ``modules`` and ``inner_qemu``.

    An unavailable platform results in SKIP, a failing machine in ERROR or CRASH: these are verdicts, not exceptions.
    Raises SpecError for an invalid request, KeyboardInterrupt after a Ctrl-C, once the machine has ended.
    """
    from kgen.errors import SpecError
    from kgen.platforms import platform_named
    from kgen.spec import Case
    from kgen.spec.defaults import case_spec

    case = Case(instr, width, lock, target, experiment, cpus, source, offset)
    there = platform_named(platform)
    check_seconds("seconds", seconds, 0.1)
    spec = case_spec(
        case,
        rounds=rounds,
        proof=proof_seconds,
        seconds=seconds,
        usual=there.rounds,
        usual_proof=there.proof_seconds,
        controls=controls,
    )
    if spec.rounds == 0 and not seconds:
        raise SpecError("0 rounds have no end", where="rounds", hint="give seconds too")
    return _run(spec, there, choices, timeout=timeout, seconds=seconds, stop_on_violation=stop_on_violation)


@_checked
def verify_suite(
    suite: str | KernelSpec = "smoke",
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    cpus: int = 3,
    rounds: int | None = None,
    budget: int | None = None,
    platform: str = "qemu-tcg",
    timeout: float | None = None,
    **choices: Any,
) -> Run:
    """Verify many cases in one boot: a suite's name, a TOML file, or what ``suites`` returned. One result a case.

    ``only`` and ``skip`` are patterns on case ids, ``budget`` is in seconds. The rest is as for ``verify``.
    """
    from kgen.platforms import platform_named

    spec = suites(suite, only=only, skip=skip, cpus=cpus, rounds=rounds, budget=budget)
    return _run(spec, platform_named(platform), choices, timeout=timeout)


@_checked
def suites(
    suite: str | KernelSpec,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    cpus: int = 3,
    rounds: int | None = None,
    budget: int | None = None,
) -> KernelSpec:
    """Return the specification of a suite without running it. Its ``cases`` are those of the suite.

    A specification is returned as it is. Raises SpecError.
    """
    from kgen.spec.defaults import DEFAULT_ROUNDS, suite_spec

    if not isinstance(suite, str):
        return suite
    least = DEFAULT_ROUNDS if rounds is None else rounds
    return suite_spec(suite, cpus=cpus, only=only, skip=skip, budget=budget, rounds=least)


@_checked
def cases(suite: str | KernelSpec, **choices: Any) -> tuple[str, ...]:
    """Return the ids of a suite's cases, in order; ``choices`` as for ``suites``."""
    return tuple(case.id for case in suites(suite, **choices).cases)


def platforms() -> tuple[str, ...]:
    """Return the names of all platforms, whether or not they are available here."""
    from kgen.platforms import platforms as known

    return tuple(sorted(known()))


@_checked
def build(
    directory: PathLike, instr: str, *, formats: Sequence[str] = ("img",), rounds: int | None = None, **case: Any
) -> tuple[Path, ...]:
    """Write the kernel of a case into a directory: ELF, listing, manifest, and a disk image for each format. Return the
    paths.

    ``case`` are those keywords of ``verify`` that name a case. Raises SpecError, OutputError and MediaError.
    """
    from kgen import build, media
    from kgen.errors import unknown
    from kgen.spec import Case
    from kgen.spec.defaults import case_spec

    check_all(case, Case)
    asked = Case(instr, **case)
    known = media.formats()
    for name in formats:
        if name not in known:
            raise unknown("image format", name, known)
    return build.write(build.build(case_spec(asked, rounds=rounds)), Path(directory), tuple(formats))


@_checked
def judge(log: bytes | PathLike | None = None, *, memory: PathLike | None = None, elf: PathLike | None = None) -> Run:
    """Judge a run that kgen did not make, from its serial log (the bytes, or a file's name), a dump of its memory, or
    both. ``elf`` names its kernel where the log or the dump has lost the request.

    Of several runs in one log, the last is returned; ``judge_all`` returns all of them. Raises SpecError for a file
    that cannot be read, or that is no log.
    """
    return judge_all(log, memory=memory, elf=elf)[-1]


@_checked
def judge_all(
    log: bytes | PathLike | None = None, *, memory: PathLike | None = None, elf: PathLike | None = None
) -> tuple[Run, ...]:
    """Judge all runs that a log or a dump holds, in order."""
    from kgen.errors import SpecError
    from kgen.files import read_bytes
    from kgen.offline.inputs import open_dump, read_log
    from kgen.offline.runs import from_capture, from_dump, from_elf, results

    if log is None and memory is None:
        raise SpecError("there is nothing to judge", hint="give a log, or memory")
    named = from_elf(read_bytes(Path(elf)), str(elf)) if elf is not None else None
    found = from_capture(log if isinstance(log, bytes) else read_log(Path(log)), named) if log is not None else ()
    if memory is not None:
        with open_dump(Path(memory)) as file:
            dumped = from_dump(file, Path(memory).name, named, found[-1] if found else None)
        found = (*found[:-1], *dumped)
    return tuple(results(run) for run in found)


@_checked
def inspect(
    elf: PathLike,
    address: str,
    *,
    qmp: str | None = None,
    serial: PathLike | None = None,
    after: Literal["found", "resume", "stop"] = "found",
    gdb: str = "gdb",
    timeout: float = 20.0,
) -> Run:
    """Read and judge a machine that another program started, through its gdb stub at HOST:PORT or a socket.

    ``qmp`` is QEMU's control socket, to attest what backs the cells. ``serial`` is the log so far, ``after`` how to
    leave the machine, ``timeout`` the longest time for an answer of the stub, in seconds. Raises SpecError, LinkError,
    DebuggerError and MachineError.
    """
    from kgen.files import read_bytes
    from kgen.host.signals import tidy_end
    from kgen.run.attach import Attachment, attach
    from kgen.run.verify import judged

    check_seconds("timeout", timeout, 1)
    log = read_bytes(Path(serial)) if serial is not None else None
    wanted = Attachment(address=address, qmp=qmp, log=log, after=after, gdb=gdb, timeout=timeout)
    with tidy_end():
        spec, observation, _ = attach(read_bytes(Path(elf)), str(elf), wanted)
    return judged(spec, observation)


@_checked
def load(*paths: PathLike) -> tuple[Run, ...]:
    """Return the runs that result files hold, in order. Raises SpecError."""
    from kgen.report.results.store import read_runs

    return read_runs([Path(path) for path in paths])


@_checked
def save(path: PathLike, *runs: Run) -> None:
    """Write runs as a result file, whole or not at all. Raises OutputError, SpecError where there is no run."""
    from kgen.errors import SpecError
    from kgen.report.results.store import write_result

    if not runs:
        raise SpecError("there is no run to write", where=str(path))
    write_result(Path(path), *runs)


@_checked
def report(*runs: Run, form: str = "text") -> str:
    """Return runs as a report in one of the forms of ``kgen list reports``. Raises SpecError."""
    from kgen.errors import SpecError, unknown
    from kgen.report.formats import formats

    if not runs:
        raise SpecError("there is no run to report", where="report")
    if form not in formats():
        raise unknown("report format", form, formats())
    return formats()[form].render(runs)


@_checked
def compare(baseline: Run, *others: Run, fatal: Collection[Difference] | None = None) -> Comparison:
    """Compare runs with the first one. ``failed`` of the result has the differences that must not pass: those of the
    kinds ``fatal``, by default worse, vanished and unproven. Raises SpecError for a run that has one case twice."""
    from kgen.report.compare import comparison

    return comparison.compare((baseline, *others), comparison.FATAL if fatal is None else fatal)


#: The choices that name parts of a lab.
_OF_A_LAB = ("kernel", "modules", "inner_qemu", "xen", "release", "linux")


def _run(
    spec: KernelSpec,
    platform: Platform,
    choices: Mapping[str, Any],
    *,
    timeout: float | None,
    seconds: float | None = None,
    stop_on_violation: bool = False,
) -> Run:
    """Check, run and judge a request. Raises SpecError for an invalid one, KeyboardInterrupt after a Ctrl-C."""
    from kgen.errors import DebuggerError, GuestCrash, MachineError, PlatformUnavailable
    from kgen.evidence.observation import Cut
    from kgen.host.signals import tidy_end
    from kgen.run.options import Options
    from kgen.run.request import Request, check, ready
    from kgen.run.verify import carry_out, refused
    from kgen.spec import defaults

    check_seconds("timeout", timeout, 1)
    choice = _checked_choices(choices)
    options = Options(
        seconds=seconds,
        timeout=defaults.timeout(spec, seconds) if timeout is None else timeout,
        stop_on_violation=stop_on_violation,
        extra=tuple(choices.get("extra", ())),
        pin=frozenset(choices.get("pin", ())),
        **{name: value for name, value in choices.items() if name not in ("extra", "pin", *_OF_A_LAB)},
    )
    request = Request(spec, platform, options, choice)
    check(request)
    try:
        with tidy_end():
            run = carry_out(ready(request))
    except (PlatformUnavailable, MachineError, DebuggerError, GuestCrash) as error:
        return refused(spec, platform.name, error)
    if any(result.observation.cut_by is Cut.USER for result in run.results):
        # the command line judges what was seen; the caller of a library expects KeyboardInterrupt
        raise KeyboardInterrupt
    return run


def _checked_choices(choices: Mapping[str, Any]) -> Choice:
    """Return the chosen parts of the lab. Raises SpecError for an unknown keyword, and for a value of the wrong
    type."""
    from kgen.errors import unknown
    from kgen.lab.choice import Choice

    for name in choices:
        if name not in _Choices.__annotations__:
            raise unknown("choice", name, _Choices.__annotations__)
    check_all(choices, _Choices)
    files = {name: Path(choices[name]) for name in ("kernel", "modules", "xen") if choices.get(name)}
    return Choice(**files, qemu=choices.get("inner_qemu"), release=choices.get("release"), linux=choices.get("linux"))
