"""All of kgen's commands in gdb; ``register`` makes them known."""

from __future__ import annotations

import gdb

from kgen.gdbside import printers
from kgen.gdbside.base import Command, printable
from kgen.gdbside.cell import Cell
from kgen.gdbside.freeze_proof import FreezeProof
from kgen.gdbside.status import Cpus, Judge, Status, Witnesses
from kgen.gdbside.step import Step, UntilViolation

_COMMANDS: tuple[type[Command], ...] = (
    Status,
    Cpus,
    Cell,
    Witnesses,
    FreezeProof,
    Judge,
    Step,
    UntilViolation,
)


class Kgen(gdb.Command):
    """Look at a machine that runs a kgen kernel, and move it.

    Start with 'kgen status'; 'help kgen COMMAND' describes each command."""

    def __init__(self) -> None:
        super().__init__("kgen", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """List the commands. Raises gdb.GdbError for a command that does not exist."""
        if argument.strip():
            name = printable(argument.split(maxsplit=1)[0])
            raise gdb.GdbError(f"kgen: there is no command '{name}'; 'help kgen' lists them")
        gdb.execute("help kgen")


def register() -> None:
    """Make the commands known to gdb. May be called twice."""
    Kgen()
    for command in _COMMANDS:
        command()
    printers.register()
