"""kgen interleave: drive the CPUs one access at a time, in every order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kgen.build import build
from kgen.cli._options import GroupedCommand, invocation, json_option, option
from kgen.errors import SpecError
from kgen.experiments import ORIGINAL, Poll
from kgen.files import STDOUT, check_program, check_writable, write_text
from kgen.interleave.model import Exploration, Window, completed, count
from kgen.interleave.report import NO_EVIDENCE, disagreement, examples, heading, listing, summary, to_json
from kgen.interleave.stepper import explore, opened, spec_of, window_of
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec

#: Exit codes: all agreed and nothing was left out; all agreed and something was left out; they disagreed.
AGREED = 0
LEFT_OUT = 4
DISAGREED = 9
#: The most schedules that are run without --limit.
MOST = 100_000
#: Longer than any schedule.
MOST_STEPS = 1000

_CASE = "The case"
_WINDOW = "The window"
_RUN = "The run"
_EXAMPLES = """\b
Examples:
  kgen interleave                   MOV/MOV: how a split exchange fails
  kgen interleave --lock            XCHG: no schedule fails
  kgen interleave --schedule 1,0,0,1
  kgen interleave --vain 2 --limit 1000 --json orders.json

\b
Exit codes:
   0 model, guest and judge agree, and no schedule was left out
   4 they agree on what was tried; --limit left schedules out
   9 they disagree, or it could not be tried
"""


@click.command("interleave", cls=GroupedCommand, epilog=_EXAMPLES)
@option(_CASE, "--instr", "mnemonic", default="xchg", show_default=True, metavar="NAME", help="xchg or cmpxchg.")
@option(_CASE, "--lock/--no-lock", default=False, help="The locked form, or its replacement.  [default: no-lock]")
@option(_CASE, "--width", type=int, default=32, show_default=True, metavar="BITS", help="Operand width: 8, 16 or 32.")
@option(_CASE, "--target", default="vga-text", show_default=True, metavar="NAME|0xADDR", help="Where the cell lives.")
@option(_CASE, "--offset", type=int, default=0, metavar="BYTES", help="Moves the cell.")
@option(_CASE, "--cpus", type=int, default=3, show_default=True, metavar="N", help="One producer, the rest consumers.")
@option(
    _CASE,
    "--poll",
    type=click.Choice(["exchange", "read", "both"]),
    default="both",
    show_default=True,
    help="How consumers look for a token: exchange at once, read first, or alternately.",
)
@option(
    _WINDOW,
    "--vain",
    type=click.IntRange(0, 16),
    default=1,
    metavar="N",
    help="How often a consumer may find the cell empty before the token is put: 0 to 16.  [default: 1]",
)
@option(_WINDOW, "--schedule", metavar="CPU,CPU,...", help="Only this one; the rest runs in the order of the CPUs.")
@option(_WINDOW, "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N schedules.")
@option(_RUN, "--qemu", metavar="BINARY", help="The QEMU to run.")
@json_option
@click.pass_context
def COMMAND(
    context: click.Context,
    /,
    mnemonic: str,
    lock: bool,
    width: int,
    target: str,
    offset: int,
    cpus: int,
    poll: str,
    vain: int,
    schedule: str | None,
    limit: int | None,
    qemu: str | None,
    json_file: Path | None,
) -> int:
    """Drive the CPUs of a real kernel one access to the cell at a time, in every order there is.

    One round of the token experiment on QEMU's translator: for every schedule of its accesses, what the guest records
    and the verdict on it are compared with a model. The first schedule that loses a token and the first that duplicates
    one are listed. Stepping makes every single instruction atomic: this is no evidence about LOCK.
    """
    check_program("--qemu", qemu)
    check_writable(json_file)
    case = Case(mnemonic, width, lock, target, ORIGINAL, cpus, offset=offset)
    spec = spec_of(case, Poll[poll.upper()])
    given = _schedule(schedule) if schedule is not None else None
    if given is not None and limit is not None:
        raise click.UsageError("--schedule is one schedule, --limit is for all of them")
    window = window_of(spec, None if given is not None else vain)
    job = _job(window, given, limit)
    console = Console(stderr=str(json_file) == STDOUT, highlight=False)
    _say(console, heading(spec, spec.case.form.name, window, job.total, job.limit))
    found = _explored(console, spec, window, job, qemu)
    _tell(console, found, given is not None)
    if json_file is not None:
        write_text(json_file, to_json(spec, window, found, invocation(context)))
    _say(console, NO_EVIDENCE)
    if found.disagreements:
        return DISAGREED
    return AGREED if found.exhausted else LEFT_OUT


def _schedule(text: str) -> tuple[int, ...]:
    """Parse CPUs such as ``0,1,2``. Raises SpecError."""
    if not re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", text) or text.count(",") >= MOST_STEPS:
        raise SpecError("that is no schedule", where=f"--schedule {text}", hint="give CPUs such as 0,1,1,0,2")
    return tuple(map(int, text.split(",")))


@dataclass(frozen=True)
class _Job:
    """The schedules to try."""

    #: The only schedule; None where all are enumerated.
    given: tuple[int, ...] | None
    #: How many schedules there are.
    total: int
    #: How many of them are tried, from the first on.
    limit: int


def _job(window: Window, given: tuple[int, ...] | None, limit: int | None) -> _Job:
    """Raise SpecError for too many schedules, and for an impossible one."""
    if given is not None:
        return _Job(completed(window, given), 1, 1)
    total = count(window)
    wanted = min(total, limit or total)
    if wanted > MOST:
        hint = f"give fewer --cpus, a smaller --vain, or --limit N up to {MOST}"
        raise SpecError(f"there are {total} schedules", hint=hint)
    return _Job(None, total, wanted)


def _explored(console: Console, spec: KernelSpec, window: Window, job: _Job, qemu: str | None) -> Exploration:
    """Carry out the request."""
    with opened(build(spec), Options(qemu=qemu)) as stepper:
        if job.given is not None:
            return Exploration(total=1).having(stepper.carry_out(window, job.given))
        if not (console.is_terminal and console.file.isatty()):
            return explore(stepper, window, job.limit)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bars:
            task = bars.add_task("schedules", total=job.limit)
            return explore(stepper, window, job.limit, lambda found: bars.update(task, completed=found.tried))


def _tell(console: Console, found: Exploration, single: bool) -> None:
    if single:
        for trial in found.disagreeing:
            _say(console, disagreement(trial))
        for trial in found.first.values():
            _say(console, listing(trial))
        if not found.disagreements:
            _say(console, "model, guest and judge agree")
        return
    _say(console, summary(found))
    for example in examples(found):
        _say(console, example)


def _say(console: Console, text: str) -> None:
    console.print(text + "\n", markup=False, soft_wrap=True)
