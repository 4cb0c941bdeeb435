"""Options that several commands share, their groups in the help, and the specification that they make."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

import click
from click.core import ParameterSource

from kgen.cli import INVOCATION
from kgen.errors import SpecError
from kgen.experiments import Poll
from kgen.files import check_program
from kgen.spec import Case, KernelSpec
from kgen.spec.arguments import MAX_SECONDS
from kgen.spec.defaults import DEFAULT_ROUNDS, PROOF_SECONDS, budget_seconds, case_spec, suite_spec

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., object])

#: The highest number of a host CPU; Linux has at most 8192 CPUs.
MAX_HOST_CPU = 8191


class Settings(TypedDict, total=False):
    """The arguments of click.option that are used here."""

    type: click.ParamType[object] | Callable[[str], object] | type[int]
    default: object
    show_default: bool
    multiple: bool
    is_flag: bool
    metavar: str
    help: str


class GroupedOption(click.Option):
    """An option that the help shows under ``group``. The names that ``entries`` returns come before its text.

    ``entries`` is called when the help is shown, because it reads a registry.
    """

    def __init__(
        self,
        param_decls: Sequence[str],
        group: str = "",
        entries: Callable[[], Iterable[str]] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(param_decls, **settings)
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
        """Accept arguments for QEMU only after a ``--``. Without it an argument is a mistake, such as a forgotten
        option."""
        words = list(args)  # click empties the list
        rest = super().parse_args(ctx, args)
        given = ctx.params.get("qemu_args", ())
        behind = [tuple(words[at + 1 :]) for at, word in enumerate(words) if word == "--"]
        if given and given not in behind:
            raise click.UsageError(f"unexpected argument {given[0]!r}; arguments for QEMU go after --", ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections. Options without a group come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "group", ""), []).append(record)
        for name, records in sorted(sections.items(), key=lambda section: not section[0]):
            with formatter.section(name or "Options"):
                formatter.write_dl(records)


def option(
    group: str, *names: str, entries: Callable[[], Iterable[str]] | None = None, **settings: Unpack[Settings]
) -> Callable[[F], F]:
    """Return a click option in a group of the help."""
    return click.option(*names, cls=GroupedOption, group=group, entries=entries, **settings)


def gathered(keyword: str, record: Callable[..., object], options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    """Return a decorator that adds these options to a command. The command's callback gets them as one argument
    ``keyword``: ``record`` called with the options by their names."""
    names = tuple(inspect.signature(record).parameters)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def callback(*arguments: object, **values: object) -> object:
            values[keyword] = record(**{name: values.pop(name) for name in names})
            return function(*arguments, **values)

        decorated = cast(F, callback)
        for each in reversed(options):
            decorated = each(decorated)
        return decorated

    return decorate


def number(text: str) -> int:
    """Parse an integer in decimal or, with 0x, in hex."""
    try:
        return int(text, 0)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number; write 1016 or 0x3f8") from error


def seconds_from(low: float) -> Callable[[str], float]:
    """Return the type of an option that takes a time of at least ``low`` seconds."""

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
    try:
        return budget_seconds(text)
    except SpecError as error:
        raise click.BadParameter(error.message) from error


def file_name(text: str) -> Path:
    """Return the type of an option that names a file or a directory. "" is refused: it would be the current
    directory."""
    if not text:
        raise click.BadParameter("it names nothing")
    return Path(text)


_CASE = "The case"
_KERNEL = "The kernel"

_CASE_OPTIONS = (
    option(_CASE, "--instr", "instruction", metavar="NAME", help="The instruction to test: xchg, xadd, cmpxchg ..."),
    option(_CASE, "--lock/--no-lock", default=True, show_default=True, help="The locked form, or its replacement."),
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
        help="Number of tokens or operations; 0: until stopped.  [default: 10000 tokens (virtualbox: 5000, kvm-lab: "
        "1000, xen-lab: 200), and operations until the proof is reached]",
    ),
    option(
        _CASE,
        "--proof-seconds",
        type=int,
        metavar="SECONDS",
        help="How long operations may go on until the proof is reached.  [default: 60, xen-lab: 5; with --rounds: 0]",
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
#: Options that belong to one case and have no meaning for a suite.
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


@dataclass(frozen=True)
class CaseOptions:
    """The options that name a kernel: one case's, or a suite's. None and "" stand for the default."""

    #: The instruction's name, None for a suite.
    instruction: str | None
    #: Whether the locked form is tested.
    lock: bool
    #: In bits; 0 is the instruction's usual width.
    width: int
    #: The kind of the other operand.
    source: str
    #: The name of the memory that holds the cells, or an address.
    target: str
    #: How far the cells are moved, in bytes.
    offset: int
    #: The experiment's name.
    experiment: str
    #: The number of the guest's CPUs.
    cpus: int
    #: The number of tokens or operations, 0 for no end.
    rounds: int | None
    #: How long operations may go on until the proof is reached.
    proof_seconds: int | None
    #: Whether the controls run before the case.
    controls: bool
    #: The name of a Poll, in lower case.
    poll: str
    #: In cells; 0 for the default.
    batch: int
    #: The distance in rounds between the table's rows, 0 for the default.
    print_every: int
    #: The I/O port of the serial port.
    serial_port: int
    #: In bits a second.
    baud: int
    #: The suite's name or file, None for a single case.
    suite: str | None
    #: Patterns on the ids of the suite's cases that run; empty for all.
    only: tuple[str, ...]
    #: Patterns on the ids of those that do not run.
    skip: tuple[str, ...]
    #: The time for all cases of the suite, in seconds.
    budget: int | None

    def spec(
        self, *, seconds: float | None = None, usual: int = DEFAULT_ROUNDS, usual_proof: int = PROOF_SECONDS
    ) -> KernelSpec:
        """Return the kernel that the options name. Its case is ended after ``seconds``, or has ``usual`` rounds where
        no number is given, and may go on for ``usual_proof`` seconds then. Raises SpecError and click.UsageError."""
        kernel = {
            "controls": self.controls,
            "batch": self.batch,
            "print_every": self.print_every,
            "serial_port": self.serial_port,
            "baud": self.baud,
            "poll": Poll[self.poll.upper()],
        }
        if self.suite is not None:
            self._check_suite()
            return suite_spec(
                self.suite,
                cpus=self.cpus,
                only=self.only,
                skip=self.skip,
                budget=self.budget,
                rounds=DEFAULT_ROUNDS if self.rounds is None else self.rounds,
                # how long a suite's cases go on depends on its budget
                proof_seconds=0,
                **kernel,
            )
        given = [name for name in ("only", "skip", "budget") if getattr(self, name)]
        if given:
            raise click.UsageError(f"--{given[0]} goes with --suite")
        if self.instruction is None:
            raise click.UsageError("give --instr NAME or --suite NAME; 'kgen list instructions' shows what there is")
        return case_spec(
            Case(
                self.instruction,
                self.width,
                self.lock,
                self.target,
                self.experiment,
                self.cpus,
                self.source,
                self.offset,
            ),
            rounds=self.rounds,
            proof=self.proof_seconds,
            seconds=seconds,
            usual=usual,
            usual_proof=usual_proof,
            **kernel,
        )

    def _check_suite(self) -> None:
        context = click.get_current_context()
        for name in _OF_A_CASE:
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option_name = {"instruction": "--instr"}.get(name, "--" + name.replace("_", "-"))
                raise click.UsageError(f"{option_name} is for one case, a suite has its own; narrow it with --only")


def case_options(function: F) -> F:
    """Return the options that name a kernel. The command gets them as ``asked``."""
    return gathered("asked", CaseOptions, (*_CASE_OPTIONS, *_SUITE_OPTIONS))(function)


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
    """Return the command line that is being carried out, so that it can be repeated."""
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
    (
        "--engine",
        "iem|iem-interpreter",
        "What carries the guest out in VirtualBox.  [default: VirtualBox's own choice]",
    ),
)


_RING3 = "virtualbox-lab: have VirtualBox's process, in ring 3, carry out what the guest does to the VGA device."


@dataclass(frozen=True)
class MachineOptions:
    """The parts of the machine that the user may choose; None leaves one to the platform."""

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


def machine_options(group: str) -> Callable[[F], F]:
    """Return the options that choose parts of the machine. The command gets them as ``board``."""
    return gathered(
        "board",
        MachineOptions,
        [
            *[option(group, name, metavar=metavar, help=text) for name, metavar, text in _MACHINE_OPTIONS],
            option(group, "--ring3", is_flag=True, help=_RING3),
        ],
    )


def parse_cpus(text: str | None) -> frozenset[int]:
    """Parse host CPUs such as ``0,2-3``. None is the empty set. Raises SpecError."""
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
