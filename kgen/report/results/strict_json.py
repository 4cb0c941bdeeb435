"""JSON as a result may be: every key once, every number one that its reader can hold."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kgen.wording import quoted

#: The widest numbers of a result are 64 bits wide, with a sign or without.
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
#: The digits of the widest, and its sign.
_DIGITS = 20


class Refused(ValueError):
    """What a text holds that no result does, as the predicate of a sentence."""


def parse(data: bytes) -> Any:
    """Return the values in a JSON text.

    Raises ValueError and RecursionError where it is none, Refused where a key is there twice, where a number is none
    (``NaN``, ``Infinity``) or where nothing here could hold it.
    """
    return json.loads(
        data.decode("utf-8-sig"),
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=_number,
        parse_constant=_constant,
    )


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    # which of the two would count depends on who reads it
    counts = Counter(name for name, _ in pairs)
    twice = next(name for name, count in counts.items() if count > 1)
    raise Refused(f"has the key {quoted(twice)!r} more than once in one object")


def _integer(text: str) -> int:
    value = int(text) if len(text) <= _DIGITS else _MOST + 1
    if not _LEAST <= value <= _MOST:
        raise Refused(f"holds a number of more than 64 bits: {quoted(text)}")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Refused(f"holds a number that is too large: {quoted(text)}")
    return value


def _constant(text: str) -> Any:
    raise Refused(f"holds {text}, which is no number in JSON")
