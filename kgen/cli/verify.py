"""kgen verify: build, boot, watch, freeze, judge."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kgen.cli._errors import say_error
from kgen.cli._options import (
    GroupedCommand,
    case_options,
    check_gdb,
    exit_codes_option,
    gdb_option,
    invocation,
    json_option,
    lab_choice,
    lab_options,
    machine_options,
    make_spec,
    option,
    parse_cpus,
    seconds_from,
    suite_of,
)
from kgen.errors import DebuggerError, GuestCrash, KgenError, MachineError, PlatformUnavailable
from kgen.files import STDOUT, check_writable
from kgen.report.results.store import write_result
from kgen.wording import fitting

if TYPE_CHECKING:
    from rich.console import Console

    from kgen.evidence.observation import Observation
    from kgen.lab.recipe import Choice
    from kgen.machine.engine import Engine
    from kgen.machine.platform import Platform
    from kgen.run.follow import Progress
    from kgen.run.options import Options
    from kgen.spec import KernelSpec
    from kgen.verdict.model import VerdictKind

#: Before so many seconds of a phase its rate says nothing.
RATE_SECONDS = 0.5
#: Columns that the moving sign in front of the live line takes, and one that stays free.
SPINNER = 3
#: Exit code for a verdict other than the expected one where the verdict's own would be 0.
UNEXPECTED = 1

_RUN = "The run"
_MACHINE = "The machine"
_LAB = "The lab (--platform kvm-lab)"
_OUTPUT = "Output"
_EXAMPLES = """\b
Examples:
  kgen verify --instr xchg
  kgen verify --instr xchg --platform qemu-kvm --rounds 2000 --json x.json
  kgen verify --instr xchg --no-lock     the power control: must fail
  kgen verify --instr xchg --platform qemu-kvm --stop-on-violation
  kgen verify --instr xchg --seconds 60  what fits in a minute
  kgen verify --instr xchg --rounds 0    on a terminal: until Ctrl-C
  kgen verify --suite full               the whole table in one boot
  kgen verify --suite full --only xadd --platform qemu-kvm --budget 60s
  kgen verify --instr xchg --platform kvm-lab --kernel arch/x86/boot/bzImage
  kgen verify --instr xchg --machine q35 --vga virtio --cpu EPYC
  kgen verify --instr xchg --firmware ovmf --boot nvme
  kgen verify --instr xchg --qemu ./qemu-system-x86_64 -- -device edu

\b
Exit codes:
   0 ATOMIC         3 NOT_ATOMIC    4 INCONCLUSIVE
   5 RAM_BACKED     6 UNSUPPORTED   7 NO_STORAGE
   8 SKIP           9 ERROR        10 CRASH
   2 wrong usage    1 not what --expect says

Ctrl-C asks the kernel to park and judges what there is; a second one gives
up (130).
"""


@click.command(
    "verify", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Build, boot, freeze, read both channels, judge."
)
@case_options
@option(_RUN, "--platform", default="qemu-tcg", show_default=True, metavar="NAME", help="What runs the kernel.")
@option(
    _RUN,
    "--seconds",
    type=seconds_from(0.1),
    metavar="SECONDS",
    help="End the case after that time; without --rounds it has no other end.",
)
@option(
    _RUN,
    "--timeout",
    type=seconds_from(1),
    metavar="SECONDS",
    help="Give up on the whole run.  [default: 600, --seconds and --proof-seconds; none for --rounds 0]",
)
@option(_RUN, "--qemu", metavar="BINARY", help="The QEMU to run.")
@gdb_option(_RUN)
@option(_RUN, "--pin", metavar="CPUS", help="Host CPUs for QEMU, e.g. 0,2-3.")
@option(
    _RUN,
    "--stop-on-violation",
    is_flag=True,
    help="Freeze the machine at the case's first violation and describe the scene.",
)
@option(_RUN, "--keep", is_flag=True, help="Hold the frozen machine, with the command to join it, until Ctrl-C.")
@machine_options(_MACHINE)
@lab_options(_LAB)
@json_option
@exit_codes_option
@option(_OUTPUT, "--expect", metavar="VERDICT|known", help="Exit 0 exactly if the verdict is this one.")
@click.argument("qemu_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- QEMU-ARGS]")
@click.pass_context
def COMMAND(context: click.Context, /, **values: Any) -> int:
    """Build a kernel, boot it, freeze the machine, read both channels, state a verdict.

    The kernel runs the case and its controls in one boot. Arguments after -- go to QEMU as they are.
    """
    job = _job(context, values)
    return job.exit_code(_verify(job))


@dataclass(frozen=True)
class _Job:
    """What is to be done. ``expected`` is a verdict's name or ""; ``choice`` is what the lab is to be made of."""

    spec: KernelSpec
    platform: Platform
    options: Options
    choice: Choice
    expected: str
    bisect: bool
    keep: bool
    json_file: Path | None
    invocation: tuple[str, ...]

    def exit_code(self, kind: VerdictKind) -> int:
        """Return the exit code that was asked for."""
        from kgen.verdict.model import bisect_code

        if self.bisect:
            return bisect_code(kind)
        if not self.expected:
            return kind.value
        if kind.name == self.expected:
            return 0
        click.echo(f"kgen: expected {self.expected}, got {kind.name}", err=True)
        return kind.value or UNEXPECTED


def _job(context: click.Context, values: dict[str, Any]) -> _Job:
    """Return the job of a request. Whatever is wrong with the request is found here, before anything is built.

    Raises SpecError, OutputError and click.UsageError.
    """
    from kgen.machine.platform import CHOICES
    from kgen.platforms import platform_named
    from kgen.run.options import Options, check_choices, request_of
    from kgen.run.verify import check_arguments
    from kgen.spec.defaults import DEFAULT_TIMEOUT, PROOF_SECONDS

    seconds, timeout = values["seconds"], values["timeout"]
    platform = platform_named(values["platform"])
    if values["rounds"] is None and seconds:
        values["rounds"] = 0
    elif values["rounds"] is None and not suite_of(values):
        values["rounds"] = platform.rounds
        if values["proof_seconds"] is None:
            values["proof_seconds"] = PROOF_SECONDS
    endless = values["rounds"] == 0 and not seconds
    if endless and not (sys.stdin and sys.stdin.isatty()):
        raise click.UsageError("--rounds 0 has no end where there is no terminal for a Ctrl-C; give --seconds", context)
    if values["expect"] and values["exit_codes"] == "bisect":
        raise click.UsageError("--expect and --exit-codes bisect both decide the exit code; choose one", context)
    check_gdb(context, values["gdb"])
    check_arguments(platform, values["qemu"], values["qemu_args"])
    spec: KernelSpec = make_spec(values)
    if platform.supervise is None and any(values[name] is not None for name in ("kernel", "modules", "inner_qemu")):
        raise click.UsageError("--kernel, --modules and --inner-qemu are for a lab; give --platform kvm-lab", context)
    if values["keep"] and "gdb" not in platform.provides:
        raise click.UsageError(f"--keep is for a machine that gdb can join, and {platform.name} has no stub", context)
    if spec.suite:
        _check_suite(context, values)
    choice = lab_choice(values)
    if timeout is None and not endless:
        timeout = DEFAULT_TIMEOUT + (seconds or 0) + spec.proof_seconds
    check_writable(values["json_file"])
    options = Options(
        qemu=values["qemu"],
        gdb=values["gdb"],
        extra=values["qemu_args"],
        seconds=seconds,
        timeout=timeout,
        pin=parse_cpus(values["pin"]),
        stop_on_violation=values["stop_on_violation"],
        **{name: values[name] for name in CHOICES},
    )
    check_choices(platform, request_of(spec, options))
    return _Job(
        spec=spec,
        platform=platform,
        options=options,
        choice=choice,
        expected=_expected(values["expect"], spec, platform.known),
        bisect=values["exit_codes"] == "bisect",
        keep=values["keep"],
        json_file=values["json_file"],
        invocation=invocation(context),
    )


def _check_suite(context: click.Context, values: dict[str, Any]) -> None:
    """Raise click.UsageError for what has no meaning for a suite."""
    given = {
        "--keep": values["keep"],
        "--stop-on-violation": values["stop_on_violation"],
        "--seconds": values["seconds"],
        "--expect known": values["expect"] == "known",
    }
    for name, value in given.items():
        if value:
            instead = {"--seconds": "; give --budget", "--expect known": "; name the verdict"}.get(name, "")
            raise click.UsageError(f"{name} is for one case{instead}", context)


def _expected(text: str | None, spec: KernelSpec, known: str) -> str:
    """Return the name of the verdict that --expect names. Raises SpecError."""
    from kgen.errors import unknown
    from kgen.spec.defaults import known_verdict
    from kgen.verdict.model import VerdictKind

    if text is None:
        return ""
    if text == "known":
        return known_verdict(spec.case, known)
    name = text.upper().replace("-", "_")
    if name not in VerdictKind.__members__:
        raise unknown("verdict", text, [*VerdictKind.__members__, "known"])
    return name


def _verify(job: _Job) -> VerdictKind:
    """Do it and tell; how it came out."""
    from rich.console import Console

    from kgen.build import build
    from kgen.run.observe import observe
    from kgen.run.options import check_available, request_of

    # What a machine reads must not be mixed with what a person reads.
    console = Console(stderr=str(job.json_file) == STDOUT, highlight=False)
    told: list[VerdictKind] = []

    def tell(observation: Observation) -> None:
        told.append(_tell(console, job, observation))

    def hold(machine: Engine, elf: Path, observation: Observation) -> None:
        live.stop()
        tell(observation)
        if not observation.crash:
            _hold(console, machine, elf)

    try:
        job = _with_lab(console, job)
        check_available(job.spec, job.platform, request_of(job.spec, job.options))
        with _Live(console, f"{job.spec.name} on {job.platform.name}") as live:
            if job.spec.suite:
                from kgen.cli._suite import verify_suite

                return verify_suite(console, job, live)
            holder = hold if job.keep else None
            observation = observe(build(job.spec), job.platform, job.options, watcher=live.show, holder=holder)
    except PlatformUnavailable as error:
        console.print(f"SKIP: {error.line}", markup=False, soft_wrap=True)
        return _refused(job, error)
    except (MachineError, DebuggerError, GuestCrash) as error:
        say_error(error.line)
        return _refused(job, error)
    if not told:
        tell(observation)
    return told[0]


def _with_lab(console: Console, job: _Job) -> _Job:
    """Return the job with the lab that was chosen, which is made if it is not there. Raises PlatformUnavailable."""
    if job.platform.supervise is None or job.choice.is_default:
        return job
    from dataclasses import replace

    from kgen.cli._progress import stages
    from kgen.lab.build import Tools, ensure
    from kgen.run.canary import canary

    with stages(console) as show:
        lab = ensure(job.choice, Tools(job.options.qemu, job.options.gdb), show, canary)
    return replace(job, options=replace(job.options, lab=lab.directory))


def _tell(console: Console, job: _Job, observation: Observation) -> VerdictKind:
    """Judge, and write the verdict down for people and for machines."""
    from kgen.report.text.case import show
    from kgen.run.verify import judged

    run = judged(job.spec, observation, job.invocation)
    show(console, job.spec, observation, run.verdict)
    console.file.flush()
    write_result(job.json_file, run)
    return run.kind


def _refused(job: _Job, error: KgenError) -> VerdictKind:
    """Report the verdict on a request that could not be run, as JSON as well. The error has been printed already."""
    from kgen.run.verify import refused

    run = refused(job.spec, job.platform.name, error, job.invocation)
    write_result(job.json_file, run)
    return run.kind


def live_line(title: str, progress: Progress, took: float, width: int) -> str:
    """Return what the live line shows ``took`` seconds after its phase began, on a terminal of ``width`` columns."""
    of = f" of {progress.limit}" if progress.limit else ""
    rate = f", {progress.rounds / took:.0f}/s" if took >= RATE_SECONDS else ""
    rounds = f"  {progress.rounds}{of} rounds{rate}" if progress.row else ""
    line = f"{title}: {progress.phase}{rounds}  violations {progress.violations}"
    return fitting(line, max(1, width - SPINNER))


class _Live:
    """The line that moves while the kernel is built and runs; only on a terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._status: Any = None
        self._phase = ""
        self._since = 0.0

    def __enter__(self) -> _Live:
        # A log with FORCE_COLOR set is no terminal.
        if self._console.is_terminal and self._console.file.isatty():
            self._status = self._console.status(f"{self._title}: building")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def show(self, progress: Progress) -> None:
        if self._status is None:
            return
        import time

        from rich.text import Text

        now = time.monotonic()
        if progress.phase != self._phase:
            self._phase, self._since = progress.phase, now
        took = now - self._since
        self._status.update(Text(live_line(self._title, progress, took, self._console.width)))


def _hold(console: Console, machine: Engine, elf: Path) -> None:
    """Keep the frozen machine: print how to join it, and wait for Ctrl-C."""
    import shlex

    from kgen.run.gdb_terminal import listen

    console.print("\nthe machine is frozen; join it from another terminal, Ctrl-C here ends it:", markup=False)
    console.print(f"  {shlex.join(machine.join(elf))}", markup=False, soft_wrap=True)
    console.file.flush()
    try:
        while machine.crashed() is None:
            listen(machine, lambda data: None)
    except KeyboardInterrupt:
        return
    console.print(f"the machine is gone: {machine.crashed()}", markup=False, soft_wrap=True)
