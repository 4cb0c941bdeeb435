"""What QEMU says on standard error, by structure, and its words that differ by release."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: A report is "PROGRAM: ERROR", "PROGRAM: -OPTION VALUE: ERROR", or one of both with "warning: " or "info: " before its
#: text (util/qemu-error.c of every release from 5.2 to 11.1). A warning is of something that goes on all the same: 11.1
#: warns of '-mon', others of a CPU's features.
_NO_CAUSE = re.compile(r"(?:^|: )(?:warning|info): ")
#: The words for a board and a CPU model, or a property of theirs, that QEMU does not know.
_NO_MACHINE = re.compile(r"unsupported machine type|-machine\.[^ ]+' not found")
_NO_CPU = re.compile(r"unable to find CPU model|-cpu\.[^ ]+' not found")
#: For a graphics adapter that this QEMU knows and whose device it lacks, with Debian's advice after it: "QXL VGA not
#: available. Perhaps you want to install qemu-system-modules-spice package?"
_NO_ADAPTER = re.compile(r": (?P<adapter>[^:]+) not available\b(?:.*\binstall (?P<package>\S+) package)?")

#: The monitor's answer to "info status", with the state where it is another than just stopped. So says every release
#: from 5.2 to 11.1. A debugger that connects leaves the state of a machine that stands still; one that ran is "paused",
#: as is one that its user had stopped, and from 8.1 on nothing distinguishes the two.
_PAUSED = re.compile(r"paused \((?P<state>[\w-]+)\)")
#: The states that only a reset ends (runstate_needs_reset() of QEMU): its stub confirms a command to go on, and does
#: nothing.
FOR_EVER = frozenset({"internal-error", "shutdown"})

#: The complaint by the option that it is of.
UNKNOWN = {"machine": _NO_MACHINE, "cpu": _NO_CPU}


def causes(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the lines that may say why QEMU ended or stopped: all that are neither warning nor information."""
    return tuple(line for line in lines if not _NO_CAUSE.search(line))


def stopped_by(status: str) -> str:
    """Return why a machine stands still, in the word of QEMU's "info status": ``internal-error``, ``prelaunch`` ...; ""
    where it runs, or where QEMU says only that it is paused."""
    found = _PAUSED.search(status)
    return found["state"] if found else ""


def lacking_adapter(line: str) -> tuple[str, str] | None:
    """Return which graphics adapter a QEMU lacks and the package that has it ("" where QEMU does not name one), None
    where the line says something else."""
    found = _NO_ADAPTER.search(line)
    return (found["adapter"], found["package"] or "") if found else None
