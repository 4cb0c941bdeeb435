"""kgen judge: judge a serial log or a memory dump."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from kgen.cli._errors import say_error
from kgen.cli._late import late
from kgen.cli._options import GroupedCommand, exit_codes_option, invocation, json_option, option
from kgen.files import STDOUT, check_writable, read_bytes
from kgen.offline.inputs import open_dump, read_log
from kgen.offline.progress import Tell
from kgen.offline.result_code import decode, rebuild
from kgen.offline.runs import Named, Run, from_capture, from_dump, from_elf, from_manifest, of_code, results
from kgen.offline.share import pasted
from kgen.report.results.model import Run as ResultRun
from kgen.report.results.model import show_run
from kgen.report.results.store import write_result
from kgen.report.text.case import STYLES, Printer
from kgen.verdict.model import VerdictKind, bisect_code, worst

_EXAMPLES = """\b
Examples:
  kgen judge serial.txt
  kgen judge - < serial.txt
  kgen judge serial.txt --memory guest.core --json result.json
  kgen judge --memory vm.vmem --elf kernel.elf
  kgen judge --code XXXXX-XXXXX

\b
Exit codes:
   0 ATOMIC         3 NOT_ATOMIC    4 INCONCLUSIVE
   5 RAM_BACKED     6 UNSUPPORTED   7 NO_STORAGE
   8 SKIP           9 ERROR        10 CRASH
   2 wrong usage

Of several runs in one log, or several kernels in one dump, the worst decides.
"""
#: The most runs that are listed one by one; more are counted by their verdicts.
_LISTED = 16
_SEEN = "What was seen"
_KERNEL = "The kernel, where the log or the dump has lost the request"


@click.command("judge", cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("log", type=click.Path(path_type=Path), metavar="[LOG|-]", required=False)
@option(_SEEN, "--memory", type=click.Path(path_type=Path), metavar="FILE", help="Dump of the machine's memory.")
@option(_SEEN, "--code", metavar="TEXT", help="The result code from the screen.")
@option(_KERNEL, "--elf", type=click.Path(path_type=Path), metavar="FILE", help="Its kernel.elf.")
@option(_KERNEL, "--manifest", type=click.Path(path_type=Path), metavar="FILE", help="Its manifest.json.")
@option(_SEEN, "--system", default="", metavar="TEXT", help="What ran it: hypervisor, version, host; for the report.")
@json_option
@exit_codes_option
@click.pass_context
def COMMAND(
    context: click.Context,
    /,
    log: Path | None,
    memory: Path | None,
    code: str | None,
    elf: Path | None,
    manifest: Path | None,
    system: str,
    json_file: Path | None,
    exit_codes: str,
) -> int:
    """Judge a run that was made anywhere, from its serial log, a dump of its memory, or its result code.

    LOG is a serial log as it was captured, - is standard input. With a log and --memory the two are compared with each
    other. The guest's own verdict is not used: everything is computed again. The last lines are for a mail or a bug
    tracker.
    """
    given = _Given(log, memory, code, elf, manifest)
    _check(context, given)
    check_writable(json_file, log, memory, elf, manifest)
    with late(Console(stderr=True, highlight=False)) as tell:
        runs = _runs(given, tell)
        judged: list[ResultRun] = []
        for run in runs:
            tell("judging runs", len(judged), len(runs))
            judged.append(results(run, invocation(context)))
    # Output for programs must not be mixed with output for people.
    console = Console(stderr=str(json_file) == STDOUT, highlight=False)
    if len(judged) == 1 and judged[0].spec is None and judged[0].kind is VerdictKind.ERROR:
        # nothing was judged: the cause is reported like any other error
        say_error(judged[0].verdict.reason)
    else:
        for run, found in zip(runs, judged, strict=True):
            _tell(console, found, run.notes)
    if len(judged) > 1:
        _tell_all(console, judged)
    _tell_pasted(console, pasted(judged, system, code or ""))
    console.file.flush()
    write_result(json_file, *judged)
    total = worst([run.kind for run in judged])
    return bisect_code(total) if exit_codes == "bisect" else total.value


@dataclass(frozen=True)
class _Given:
    """What the user has of a run."""

    log: Path | None
    memory: Path | None
    code: str | None
    elf: Path | None
    manifest: Path | None


def _check(context: click.Context, given: _Given) -> None:
    """Raise click.UsageError for options that exclude each other, before anything is read."""
    if given.code is not None:
        others = {"LOG": given.log, "--memory": given.memory, "--elf": given.elf, "--manifest": given.manifest}
        names = [name for name, value in others.items() if value is not None]
        if names:
            raise click.UsageError(f"--code says everything by itself; leave {names[0]} out", context)
    elif given.log is None and given.memory is None:
        raise click.UsageError("give a serial log (- is standard input), --memory FILE or --code TEXT", context)
    if given.elf is not None and given.manifest is not None:
        raise click.UsageError("--elf and --manifest both name the kernel; choose one", context)


def _runs(given: _Given, tell: Tell) -> tuple[Run, ...]:
    """Return what is to be judged.

    Raises SpecError for a file that cannot be read or is no log, and for an ELF that is not kgen's; ProtocolError for
    an invalid code.
    """
    if given.code is not None:
        return (of_code(*rebuild(decode(given.code))),)
    named = _named(given)
    runs: tuple[Run, ...] = ()
    if given.log is not None:
        runs = from_capture(read_log(given.log), named, tell)
    if given.memory is not None:
        with open_dump(given.memory) as file:
            # the memory is of the log's last run
            found = from_dump(file, given.memory.name, named, runs[-1] if runs else None)
        runs = (*runs[:-1], *found)
    return runs


def _named(given: _Given) -> Named | None:
    if given.elf is not None:
        return from_elf(read_bytes(given.elf), str(given.elf))
    if given.manifest is not None:
        return from_manifest(read_bytes(given.manifest), str(given.manifest))
    return None


def _tell(console: Console, run: ResultRun, notes: Sequence[str]) -> None:
    """Print one run for people. ``notes`` say what was done to the input."""
    say = Printer(console)
    if run.where:
        say.line(f"{run.where}:", "bold")
    show_run(console, run)
    if run.spec is not None and run.spec.suite:
        # elsewhere they are among the verdict's own notes
        for note in notes:
            say.line(f"  {note}")
    if run.where:
        say.line("")


def _tell_pasted(console: Console, lines: Sequence[str]) -> None:
    """Print the lines to be sent to others."""
    say = Printer(console)
    if lines:
        say.line("")
        say.line("to share this result, paste:", "bold")
    for line in lines:
        say.line(f"  {line}")


def _tell_all(console: Console, runs: Sequence[ResultRun]) -> None:
    """Print a summary of several runs."""
    total = worst([run.kind for run in runs])
    each = ", ".join(f"{run.where} {run.kind.name}" for run in runs)
    if len(runs) > _LISTED:
        kinds = Counter(run.kind for run in runs)
        first = next(run for run in runs if run.kind is total)
        each = f"{', '.join(f'{count} {kind.name}' for kind, count in kinds.items())}; first {first.where}"
    Printer(console).line(f"{total.name}: the worst of {each}", STYLES.get(total, "bold yellow"))
