"""Fill in texts, and the sentences that every README has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kgen.errors import KgenError
from kgen.kits import TITLE, Facts

_PLACE = re.compile(r"@([A-Z]+)@")


def fill(text: str, **values: object) -> str:
    """Return ``text`` with every ``@NAME@`` replaced by the value of that name, in lower case.

    Raises KgenError where a place has no value, or a value no place.
    """
    wanted = {name.lower() for name in _PLACE.findall(text)}
    if wanted != set(values):
        raise KgenError(f"places {sorted(wanted)} and values {sorted(values)} are not the same", where="a kit's text")
    return _PLACE.sub(lambda place: str(values[place[1].lower()]), text)


#: The subjects that a user needs first, in order.
_FIRST = ("Write", "Start", "Serial log", "Screen", "Debugger", "Judge", "Stop")


def readme(facts: Facts, product: str, lines: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Return ``README.txt``, a title and a line for each subject that a user needs first, and ``NOTES.txt`` with all
    the rest.

    ``lines`` are pairs of what a line is about and what to do; a line about "" continues the one before it, in the
    notes only.
    """
    blocks: list[tuple[str, list[str]]] = []
    for head, text in lines:
        if head:
            blocks.append((head, [text]))
        else:
            blocks[-1][1].append(text)
    more = [block for block in blocks if block[0] not in _FIRST or len(block[1]) > 1]
    more.append(("INCONCLUSIVE", [f"kgen judge says why; where live batches are missing, {_more_time(facts)}."]))
    if facts.unproven:
        more.append(("ATOMIC", [unproven(facts)]))
    share = "kgen judge serial.txt --system 'PRODUCT VERSION, HOST, CPU' ends with lines to paste into a report."
    more.append(("Share", [share]))
    more.append(("Files", ["kernel.elf is for kgen inspect, kernel.s shows its instructions; no machine needs them."]))
    if facts.left_out:
        more.append(("Left out", [f"{len(facts.left_out)} cases for which {product} has no device."]))
    title = f"{TITLE}{product}: {facts.case}, {facts.cpus} CPUs. All the rest is in NOTES.txt."
    return {
        "README.txt": f"{title}\n\n" + _rows([(head, texts[:1]) for head, texts in blocks if head in _FIRST]),
        "NOTES.txt": f"Notes on {product}: {facts.case}\n\n" + _rows(more),
    }


def _more_time(facts: Facts) -> str:
    option = "--budget 30m" if facts.case.startswith("suite:") else "--proof-seconds 600"
    return f"build the kit again with {option}"


def _rows(blocks: Sequence[tuple[str, Sequence[str]]]) -> str:
    size = max(len(head) for head, _ in blocks) + 2
    rows = [(f"{head}:" if not at else "", text) for head, texts in blocks for at, text in enumerate(texts)]
    return "".join(f"{head:<{size}}{text}\n" for head, text in rows)


def unproven(facts: Facts) -> str:
    """Return which cases a kit never shows to be ATOMIC, and why."""
    which = "this case" if facts.total == 1 else f"{len(facts.unproven)} of the {facts.total} cases"
    return f"{which} can be NOT_ATOMIC, but never ATOMIC: the guest cannot find out what is at these cells."


def debugger(port: int, prefix: str = "") -> list[tuple[str, str]]:
    """Return the README's lines on a stub that listens on the machine's host only."""
    return [
        ("Debugger", f"{prefix}kgen inspect kernel.elf localhost:{port} --serial serial.txt (Linux, macOS)"),
        ("", f"From another computer: ssh -L {port}:localhost:{port} HOST, then the same with copies of both files."),
    ]


#: How to judge a log, or the code on the screen where there is no log; for the README.
JUDGE = "kgen judge serial.txt; from the code on the screen: kgen judge --code CODE"
#: For the README of a product on which its authors could not try a kit.
NEVER_RUN = "This kit was made from documentation; its authors never ran it. What it shows on your machine is news."
#: What a script reads from the environment; for the README.
WAIT = "KGEN_SECONDS=N in the environment: the script waits N seconds for the end of the run."
