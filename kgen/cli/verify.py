"""kgen verify: build, boot, freeze, read both channels, judge."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from kgen.cli._errors import say_error
from kgen.cli._lab_options import lab_options
from kgen.cli._options import (
    CaseOptions,
    GroupedCommand,
    MachineOptions,
    case_options,
    exit_codes_option,
    gdb_option,
    invocation,
    json_option,
    machine_options,
    option,
    parse_cpus,
    seconds_from,
)
from kgen.cli._progress import stages
from kgen.errors import DebuggerError, GuestCrash, MachineError, PlatformUnavailable, unknown
from kgen.evidence.observation import Observation
from kgen.files import STDOUT, check_writable
from kgen.lab.choice import Choice
from kgen.machine.engine import Engine
from kgen.platforms import platform_named
from kgen.report.results.model import Run, show_run
from kgen.report.results.store import write_result
from kgen.run.follow import Progress
from kgen.run.gdb_terminal import listen
from kgen.run.options import Options
from kgen.run.request import Request, check, ready
from kgen.run.verify import carry_out, judged, refused
from kgen.spec import KernelSpec, defaults
from kgen.verdict.model import VerdictKind, bisect_code
from kgen.wording import fitting, visible

#: The rate of a phase is shown only after this time, in seconds.
RATE_SECONDS = 0.5
#: The columns of the moving sign in front of the live line, and one that stays free.
SPINNER = 3
#: The exit code for a verdict other than the expected one where the verdict's own would be 0.
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


@click.command("verify", cls=GroupedCommand, epilog=_EXAMPLES)
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
def COMMAND(
    context: click.Context,
    /,
    asked: CaseOptions,
    board: MachineOptions,
    choice: Choice,
    platform: str,
    seconds: float | None,
    timeout: float | None,
    qemu: str | None,
    gdb: str,
    pin: str | None,
    stop_on_violation: bool,
    keep: bool,
    json_file: Path | None,
    exit_codes: str,
    expect: str | None,
    qemu_args: tuple[str, ...],
) -> int:
    """Build a kernel, boot it, freeze the machine, read both channels, state a verdict.

    The kernel runs the case and its controls in one boot. Arguments after -- go to QEMU as they are.
    """
    # errors in the request are reported before anything is built
    there = platform_named(platform)
    bisect = exit_codes == "bisect"
    if expect and bisect:
        raise click.UsageError("--expect and --exit-codes bisect both decide the exit code; choose one", context)
    spec = asked.spec(seconds=seconds, usual=there.rounds, usual_proof=there.proof_seconds)
    endless = spec.rounds == 0 and not seconds
    if endless and not (sys.stdin and sys.stdin.isatty()):
        raise click.UsageError("--rounds 0 has no end where there is no terminal for a Ctrl-C; give --seconds", context)
    if keep and "gdb" not in there.provides:
        raise click.UsageError(f"--keep is for a machine that gdb can join, and {platform} has no stub", context)
    if spec.suite:
        of_a_case = {
            "--keep": keep,
            "--stop-on-violation": stop_on_violation,
            "--seconds": seconds,
            "--expect known": expect == "known",
        }
        _check_suite(context, [name for name, given in of_a_case.items() if given])
    if timeout is None and not endless:
        timeout = defaults.timeout(spec, seconds)
    options = Options(
        qemu=qemu,
        gdb=gdb,
        extra=qemu_args,
        seconds=seconds,
        timeout=timeout,
        pin=parse_cpus(pin),
        stop_on_violation=stop_on_violation,
        **asdict(board),
    )
    request = Request(spec, there, options, choice)
    check(request)
    check_writable(json_file)
    _expected(expect, spec, there.known)
    run = _verify(request, keep, json_file, invocation(context))
    if bisect:
        return bisect_code(run.kind)
    return _exit_code(run.kind, _expected(expect, spec, there.known_on(run.results[0].observation.environment)))


def _check_suite(context: click.Context, given: list[str]) -> None:
    """Raise click.UsageError for options that have no meaning for a suite."""
    if given:
        instead = {"--seconds": "; give --budget", "--expect known": "; name the verdict"}.get(given[0], "")
        raise click.UsageError(f"{given[0]} is for one case{instead}", context)


def _expected(text: str | None, spec: KernelSpec, known: str) -> str:
    """Return the name of the verdict that --expect names, "" for none. Raises SpecError."""
    if text is None:
        return ""
    if text == "known":
        return defaults.known_verdict(spec.case, known)
    name = text.upper().replace("-", "_")
    if name not in VerdictKind.__members__:
        raise unknown("verdict", text, [*VerdictKind.__members__, "known"])
    return name


def _exit_code(kind: VerdictKind, expected: str) -> int:
    """Return the verdict's exit code or, with --expect, 0 only where the verdict is the expected one."""
    if not expected:
        return kind.value
    if kind.name == expected:
        return 0
    click.echo(f"kgen: expected {expected}, got {kind.name}", err=True)
    return kind.value or UNEXPECTED


def _verify(request: Request, keep: bool, json_file: Path | None, invocation: tuple[str, ...]) -> Run:
    """Carry out the request, report the result as text and as JSON, and return it."""
    # Output for programs must not be mixed with output for people.
    console = Console(stderr=str(json_file) == STDOUT, highlight=False)

    def tell(run: Run) -> None:
        live.stop()
        show_run(console, run)
        console.file.flush()
        write_result(json_file, run)

    def hold(machine: Engine, elf: Path, observation: Observation) -> None:
        tell(judged(request.spec, observation, invocation))
        if not observation.crash:
            _hold(console, machine, elf)

    def rebooted(seen: Observation, left: int) -> None:
        why = seen.crash or seen.cut or "the guest ended early"
        click.echo(f"kgen: {visible(why)}; starting again for the {left} cases that are left", err=True)

    try:
        if request.choice.is_default:
            request = ready(request)
        else:
            with stages(console) as show:
                request = ready(request, show)
        with _Live(console, f"{request.spec.name} on {request.platform.name}") as live:
            run = carry_out(
                request,
                watcher=live.show,
                rebooted=rebooted,
                holder=hold if keep else None,
                invocation=invocation,
            )
    except (PlatformUnavailable, MachineError, DebuggerError, GuestCrash) as error:
        if isinstance(error, PlatformUnavailable):
            console.print(f"SKIP: {visible(error.line)}", markup=False, soft_wrap=True)
        else:
            say_error(error.line)
        run = refused(request.spec, request.platform.name, error, invocation)
        write_result(json_file, run)
        return run
    if not keep:
        tell(run)
    return run


def live_line(title: str, progress: Progress, took: float, width: int) -> str:
    """Return the live line ``took`` seconds after its phase began, on a terminal of ``width`` columns."""
    of = f" of {progress.limit}" if progress.limit else ""
    rate = f", {progress.rounds / took:.0f}/s" if took >= RATE_SECONDS else ""
    rounds = f"  {progress.rounds}{of} rounds{rate}" if progress.row else ""
    line = f"{title}: {progress.phase}{rounds}  violations {progress.violations}"
    return fitting(line, max(1, width - SPINNER))


class _Live:
    """The live line while the kernel is built and runs; only on a terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._status: Status | None = None
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
        now = time.monotonic()
        if progress.phase != self._phase:
            self._phase, self._since = progress.phase, now
        took = now - self._since
        self._status.update(Text(live_line(self._title, progress, took, self._console.width)))


def _hold(console: Console, machine: Engine, elf: Path) -> None:
    """Keep the machine frozen: print how to join it, and wait for Ctrl-C."""
    try:
        command = visible(shlex.join(machine.join(elf)))
        console.print("\nthe machine is frozen; join it from another terminal, Ctrl-C here ends it:", markup=False)
        console.print(f"  {command}", markup=False, soft_wrap=True)
        console.file.flush()
        while machine.crashed() is None:
            listen(machine, lambda data: None)
    except KeyboardInterrupt:
        return
    console.print(f"the machine is gone: {visible(machine.crashed() or '')}", markup=False, soft_wrap=True)
