"""Filling in texts, and what every README says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kgen.errors import KgenError
from kgen.kits import TITLE, Facts

_PLACE = re.compile(r"@([A-Z]+)@")


def fill(text: str, **values: object) -> str:
    """``text`` with every ``@NAME@`` replaced by the value of that name, in lower case.

    Raises KgenError where a place has no value, or a value no place.
    """
    wanted = {name.lower() for name in _PLACE.findall(text)}
    if wanted != set(values):
        raise KgenError(f"places {sorted(wanted)} and values {sorted(values)} are not the same", where="a kit's text")
    return _PLACE.sub(lambda place: str(values[place[1].lower()]), text)


def readme(facts: Facts, product: str, lines: Sequence[tuple[str, str]]) -> str:
    """``README.txt``: a title, then one line for each pair of what it is about and what to do."""
    rows = list(lines)
    rows.append(
        ("INCONCLUSIVE", "kgen judge says why; mostly more rounds help: build the kit again with --rounds 100000.")
    )
    if facts.unproven:
        rows.append(("ATOMIC", unproven(facts)))
    rows.append(("Files", "kernel.elf is for kgen inspect, kernel.s shows its instructions; no machine needs them."))
    if facts.left_out:
        rows.append(("Left out", f"{len(facts.left_out)} cases for which {product} has no device."))
    size = max(len(head) for head, _ in rows) + 2
    title = f"{TITLE}{product}: {facts.case}, {facts.cpus} CPUs."
    return "\n".join([title, "", *(f"{head + ':' if head else '':<{size}}{text}" for head, text in rows)]) + "\n"


def unproven(facts: Facts) -> str:
    """Which cases a kit never shows to be ATOMIC, and why."""
    which = "this case" if facts.total == 1 else f"{len(facts.unproven)} of the {facts.total} cases"
    return f"{which} can come out as NOT_ATOMIC, but not as ATOMIC: no guest can tell what lies at these cells."


def debugger(port: int, prefix: str = "") -> list[tuple[str, str]]:
    """The README's lines on a stub that listens on the machine's host alone."""
    return [
        ("Debugger", f"{prefix}kgen inspect kernel.elf localhost:{port} --serial serial.txt (Linux, macOS)"),
        ("", f"From another computer: ssh -L {port}:localhost:{port} HOST, then the same with copies of both files."),
    ]


#: How a log is judged, and what is left where there is none; for the README.
JUDGE = "kgen judge serial.txt; from the code on the screen: kgen judge --code CODE"
#: What a script takes from the environment; for the README.
WAIT = "KGEN_SECONDS=N in the environment waits N seconds for the end of the run."
