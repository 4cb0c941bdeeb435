"""Options that several commands share, their groups in the help, and their way into a specification."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from kgen.cli import INVOCATION
from kgen.errors import SpecError
from kgen.files import check_program
from kgen.spec.arguments import MAX_SECONDS

F = TypeVar("F", bound=Callable[..., Any])

#: Host CPUs that can be named; Linux has at most 8192.
MAX_HOST_CPU = 8191


class GroupedOption(click.Option):
    """An option that the help shows under ``group``. The names that ``entries`` returns follow its own text.

    ``entries`` is called when the help is shown, because it reads a registry.
    """

    def __init__(
        self, *args: Any, group: str = "", entries: Callable[[], Iterable[str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        self.entries = entries

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the two columns of the help."""
        record = super().get_help_record(ctx)
        if record is None or self.entries is None:
            return record
        return record[0], f"{', '.join(self.entries())}. {record[1]}".strip()


class GroupedCommand(click.Command):
    """A command whose help has one section for each group of options, in the order of their definition."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept arguments for QEMU only after a ``--``: without it one is a mistake, such as a forgotten option."""
        words = list(args)  # click empties the list
        rest = super().parse_args(ctx, args)
        given = ctx.params.get("qemu_args", ())
        behind = [tuple(words[at + 1 :]) for at, word in enumerate(words) if word == "--"]
        if given and given not in behind:
            raise click.UsageError(f"unexpected argument {given[0]!r}; arguments for QEMU go after --", ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; options without a group come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "group", ""), []).append(record)
        for name, records in sorted(sections.items(), key=lambda section: not section[0]):
            with formatter.section(name or "Options"):
                formatter.write_dl(records)


def option(group: str, *names: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option in a group of the help."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)


def number(text: str) -> int:
    """Return an integer in decimal or, with 0x, in hex."""
    try:
        return int(text, 0)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number; write 1016 or 0x3f8") from error


def seconds_from(low: float) -> Callable[[str], float]:
    """Return the type of an option that takes at least ``low`` seconds."""

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= MAX_SECONDS:
            raise click.BadParameter(f"{text!r} is not a time from {low:g} to {MAX_SECONDS:.0f} seconds")
        return value

    return seconds


def budget(text: str) -> int:
    """Return the type of an option that takes a time in seconds, minutes or hours."""
    from kgen.spec.defaults import budget_seconds

    try:
        return budget_seconds(text)
    except SpecError as error:
        raise click.BadParameter(error.message) from error


def file_name(text: str) -> Path:
    """Return the type of an option that names a file or a directory; "" would be the current one."""
    if not text:
        raise click.BadParameter("it names nothing")
    return Path(text)


#: What makes a case, by the names of spec.Case.
CASE_FIELDS = ("instruction", "width", "lock", "target", "experiment", "cpus", "source", "offset")
_CASE = "The case"
_KERNEL = "The kernel"

_CASE_OPTIONS = (
    option(_CASE, "--instr", "instruction", metavar="NAME", help="The instruction to test: xchg, xadd, cmpxchg ..."),
    option(_CASE, "--lock/--no-lock", default=True, show_default=True, help="The locked form, or what stands in."),
    option(_CASE, "--width", type=int, default=0, metavar="BITS", help="Operand width.  [default: 32; cmpxchg8b: 64]"),
    option(_CASE, "--source", default="", metavar="reg|imm", help="The other operand.  [default: the instruction's]"),
    option(
        _CASE, "--target", default="vga-text", show_default=True, metavar="NAME|0xADDR", help="Where the cells live."
    ),
    option(
        _CASE, "--offset", type=int, default=0, metavar="BYTES", help="Moves the cells: 1, 63 (line), 4095 (page) ..."
    ),
    option(_CASE, "--experiment", default="", metavar="NAME", help="What the CPUs do.  [default: what suits it best]"),
    option(
        _CASE,
        "--cpus",
        type=int,
        default=3,
        show_default=True,
        metavar="N",
        help="3 to 255: one producer, the rest consumers.",
    ),
    option(
        _CASE,
        "--rounds",
        type=int,
        metavar="N",
        help="So many tokens, or operations; 0: until stopped.  [default: 10000 tokens (kvm-lab: 1000), and operations "
        "until the proof is reached]",
    ),
    option(
        _CASE,
        "--proof-seconds",
        type=int,
        metavar="SECONDS",
        help="For how long operations may go on until the proof is reached.  [default: 60; with --rounds: 0]",
    ),
    option(_KERNEL, "--controls/--no-controls", default=True, show_default=True, help="Run the control cases first."),
    option(
        _KERNEL,
        "--poll",
        type=click.Choice(["exchange", "read", "both"]),
        default="both",
        show_default=True,
        help="How consumers look for a token: exchange at once, read first, or alternately.",
    ),
    option(
        _KERNEL,
        "--batch",
        type=int,
        default=0,
        metavar="CELLS",
        help="Cells in one handshake of the case.  [default: for tokens 128, otherwise by experiment; or what fits]",
    ),
    option(
        _KERNEL,
        "--print-every",
        type=int,
        default=0,
        metavar="N",
        help="A row every N rounds.  [default: the first 20, then 10 a second]",
    ),
    option(
        _KERNEL,
        "--serial-port",
        type=number,
        default="0x3f8",
        show_default=True,
        metavar="PORT",
        help="I/O port of the 16550.",
    ),
    option(
        _KERNEL,
        "--baud",
        type=int,
        default=115_200,
        show_default=True,
        metavar="RATE",
        help="Serial speed in bits a second.",
    ),
)

_SUITE = "A suite, in place of --instr"
_SUITE_OPTIONS = (
    option(_SUITE, "--suite", metavar="smoke|full|FILE.toml", help="Many cases in one kernel."),
    option(_SUITE, "--only", multiple=True, metavar="PATTERN", help="Only cases like this: xchg, '*.ram.*'."),
    option(_SUITE, "--skip", multiple=True, metavar="PATTERN", help="No cases like this."),
    option(
        _SUITE,
        "--budget",
        type=budget,
        metavar="TIME",
        help="What all cases may take: 60s, 20m.  [default: 560s; smoke: 30s]",
    ),
)
#: What belongs to one case and has no meaning for a suite.
_OF_A_CASE = (
    "instruction",
    "width",
    "lock",
    "target",
    "experiment",
    "source",
    "offset",
    "batch",
    "print_every",
    "proof_seconds",
)


def case_options(function: F) -> F:
    """Return the options that name a kernel."""
    for each in reversed((*_CASE_OPTIONS, *_SUITE_OPTIONS)):
        function = each(function)
    return function


def json_option(function: F) -> F:
    """Return the option that names the file for the result as JSON."""
    return option(
        "Output",
        "--json",
        "json_file",
        type=file_name,
        metavar="FILE",
        help="Write the result; - is stdout.",
    )(function)


def invocation(context: click.Context) -> tuple[str, ...]:
    """Return the command line that is being carried out, with which it can be done again."""
    return tuple(context.meta.get(INVOCATION, ()))


def exit_codes_option(function: F) -> F:
    """Return the option that chooses the exit codes."""
    return option(
        "Output",
        "--exit-codes",
        type=click.Choice(["verdict", "bisect"]),
        default="verdict",
        show_default=True,
        help="bisect: 0 ATOMIC, 1 NOT_ATOMIC, 125 for all else.",
    )(function)


def check_gdb(context: click.Context, gdb: str) -> None:
    """Raise SpecError where the named gdb does not exist."""
    check_program("--gdb", gdb if context.get_parameter_source("gdb") is not ParameterSource.DEFAULT else None)


def gdb_option(group: str) -> Callable[[F], F]:
    """Return the option that names gdb."""
    return option(group, "--gdb", default="gdb", show_default=True, metavar="BINARY", help="The gdb to run.")


_MACHINE_OPTIONS = (
    ("--machine", "pc|q35|microvm", "The board, as QEMU calls it.  [default: pc]"),
    (
        "--vga",
        "std|cirrus|qxl|vmware|virtio|none",
        "The graphics adapter; with none, text memory is RAM.  [default: std]",
    ),
    ("--firmware", "auto|qboot|seabios|ovmf|FILE", "What starts the machine.  [default: auto, the fastest]"),
    ("--cpu", "MODEL", "The CPU model: qemu64, max, EPYC ...  [default: the platform's]"),
    (
        "--boot",
        "kernel|ide|ahci|nvme|usb|virtio|cdrom",
        "What it boots: the ELF, or kgen's own image on that bus.  [default: kernel; ovmf: usb]",
    ),
)


def machine_options(group: str) -> Callable[[F], F]:
    """Return the options that choose the parts of the machine that a platform leaves open."""

    def decorate(function: F) -> F:
        for name, metavar, text in reversed(_MACHINE_OPTIONS):
            function = option(group, name, metavar=metavar, help=text)(function)
        return function

    return decorate


def lab_options(group: str) -> Callable[[F], F]:
    """Return the options that replace parts of the lab's distribution."""

    def decorate(function: F) -> F:
        path = click.Path(path_type=Path)
        for each in (
            option(group, "--inner-qemu", metavar="BINARY", help="The QEMU inside, on the inner Linux's KVM."),
            option(
                group, "--modules", type=path, metavar="DIR", help="Tree with kvm.ko and kvm-amd.ko for that kernel."
            ),
            option(
                group, "--kernel", type=path, metavar="BZIMAGE", help="The Linux inside, instead of the distribution's."
            ),
        ):
            function = each(function)
        return function

    return decorate


def lab_choice(values: dict[str, Any]) -> Any:
    """Take the lab's options out of a command's values. Raises SpecError for pieces that are not what they must be."""
    from kgen.lab.recipe import Choice, check

    choice = Choice(kernel=values.pop("kernel"), modules=values.pop("modules"), qemu=values.pop("inner_qemu"))
    check_program("--inner-qemu", choice.qemu)
    check(choice)
    return choice


def make_spec(values: dict[str, Any]) -> Any:
    """Take the case and suite options out of a command's values. Raises SpecError and click.UsageError."""
    from kgen.experiments import Poll
    from kgen.spec import Case, KernelSpec
    from kgen.spec.defaults import DEFAULT_ROUNDS, proof_seconds

    case = {name: values.pop(name) for name in CASE_FIELDS}
    names = ("rounds", "proof_seconds", "controls", "batch", "print_every", "serial_port", "baud")
    rest = {name: values.pop(name) for name in names}
    rest["poll"] = Poll[values.pop("poll").upper()]
    rounds = rest["rounds"]
    if rounds is None:
        rest["rounds"] = DEFAULT_ROUNDS
    suite = {name: values.pop(name) for name in ("suite", "only", "skip", "budget")}
    if suite["suite"] is not None:
        # a suite's cases go on by its budget
        return _suite_spec(suite, case["cpus"], rest | {"proof_seconds": 0})
    given = [f"--{name}" for name in ("only", "skip", "budget") if suite[name]]
    if given:
        raise click.UsageError(f"{given[0]} goes with --suite")
    if case["instruction"] is None:
        raise click.UsageError("give --instr NAME or --suite NAME; 'kgen list instructions' shows what there is")
    asked = Case(**case)
    if rest["proof_seconds"] is None:
        rest["proof_seconds"] = proof_seconds(asked, rounds)
    return KernelSpec(case=asked, **rest)


def suite_of(values: dict[str, Any]) -> bool:
    """Return whether a suite was asked for."""
    return values["suite"] is not None


def _suite_spec(suite: dict[str, Any], cpus: int, rest: dict[str, Any]) -> Any:
    from kgen.spec.defaults import suite_spec

    context = click.get_current_context()
    for name in _OF_A_CASE:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option_name = {"instruction": "--instr"}.get(name, "--" + name.replace("_", "-"))
            raise click.UsageError(f"{option_name} is for one case, a suite has its own; narrow it with --only")
    return suite_spec(suite["suite"], cpus=cpus, only=suite["only"], skip=suite["skip"], budget=suite["budget"], **rest)


def parse_cpus(text: str | None) -> frozenset[int]:
    """``0,2-3`` as a set of host CPUs; None is the empty set. Raises SpecError."""
    found: set[int] = set()
    for part in text.split(",") if text is not None else ():
        low, dash, high = part.strip().partition("-")
        ends = (low, high if dash else low)
        if not all(end.isascii() and end.isdigit() and int(end) <= MAX_HOST_CPU for end in ends) or int(ends[0]) > int(
            ends[1]
        ):
            raise SpecError(f"--pin '{text}' names no CPUs", hint="give host CPUs such as 0,2-3")
        found |= set(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(found)
