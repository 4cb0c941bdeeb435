"""Options that several commands share, their groups in the help, and their way into a specification."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kgen.errors import SpecError

F = TypeVar("F", bound=Callable[..., Any])

#: Host CPUs that can be named; Linux has at most 8192.
MAX_HOST_CPU = 8191
#: About eleven days, in seconds.
MAX_SECONDS = 1e6


class GroupedOption(click.Option):
    """An option that the help shows under ``group``."""

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help has one section for each group of options, in the order of their definition."""

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
    """A click option in a group of the help."""
    return click.option(*names, cls=GroupedOption, group=group, **settings)


def number(text: str) -> int:
    """An integer in decimal or, with 0x, in hex."""
    try:
        return int(text, 0)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number; write 1016 or 0x3f8") from error


def seconds_from(low: float) -> Callable[[str], float]:
    """The type of an option that takes at least ``low`` seconds."""

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= MAX_SECONDS:
            raise click.BadParameter(f"{text!r} is not a time from {low:g} to {MAX_SECONDS:.0f} seconds")
        return value

    return seconds


_CASE = "The case"
_KERNEL = "The kernel"

_CASE_OPTIONS = (
    option(_CASE, "--instr", "instruction", required=True, metavar="NAME", help="The instruction to test, e.g. xchg."),
    option(_CASE, "--lock/--no-lock", default=True, show_default=True, help="The locked form, or what stands in."),
    option(_CASE, "--width", type=int, default=32, show_default=True, metavar="BITS", help="Operand width."),
    option(
        _CASE, "--target", default="vga-text", show_default=True, metavar="NAME|0xADDR", help="Where the cells live."
    ),
    option(_CASE, "--experiment", default="token", show_default=True, metavar="NAME", help="What the CPUs do."),
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
        default=10_000,
        metavar="N",
        help="Tokens to put; 0 runs until stopped.  [default: 10000; verify --platform kvm-lab: 1000]",
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
        help="Cells in one handshake.  [default: 128, or what fits]",
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


def case_options(function: F) -> F:
    """Everything that names a kernel."""
    for each in reversed(_CASE_OPTIONS):
        function = each(function)
    return function


def json_option(function: F) -> F:
    """Where the result goes for machines."""
    return option(
        "Output",
        "--json",
        "json_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the result; - is stdout.",
    )(function)


def gdb_option(group: str) -> Callable[[F], F]:
    """Which gdb."""
    return option(group, "--gdb", default="gdb", show_default=True, metavar="BINARY", help="The gdb to run.")


def lab_options(group: str) -> Callable[[F], F]:
    """What goes into the lab instead of the distribution's."""

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
    """Take the lab's options out of a command's values."""
    from kgen.lab.recipe import Choice

    return Choice(kernel=values.pop("kernel"), modules=values.pop("modules"), qemu=values.pop("inner_qemu"))


def make_spec(values: dict[str, Any]) -> Any:
    """Take the case options out of a command's values. Raises SpecError."""
    from kgen.experiments import Poll
    from kgen.spec import Case, KernelSpec

    case = {name: values.pop(name) for name in ("instruction", "width", "lock", "target", "experiment", "cpus")}
    names = ("rounds", "controls", "batch", "print_every", "serial_port", "baud")
    rest = {name: values.pop(name) for name in names}
    return KernelSpec(case=Case(**case), poll=Poll[values.pop("poll").upper()], **rest)


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
