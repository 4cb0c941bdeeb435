"""Filling in texts, and what every README says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kgen.errors import KgenError
from kgen.kits import Facts

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
    if facts.left_out:
        rows.append(("Left out", f"{len(facts.left_out)} cases for which {product} has no device."))
    size = max(len(head) for head, _ in rows) + 2
    title = f"kgen on {product}: {facts.case}, {facts.cpus} CPUs."
    return "\n".join([title, "", *(f"{head + ':' if head else '':<{size}}{text}" for head, text in rows)]) + "\n"


#: How a log is judged, and what is left where there is none; for the README.
JUDGE = "kgen judge serial.txt; from the code on the screen: kgen judge --code CODE"
