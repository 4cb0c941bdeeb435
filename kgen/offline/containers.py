"""Logs whose lines are packed into JSON objects or arrays: Docker, Kubernetes, LAVA, journalctl, asciinema.

A line is unpacked only if it parses as JSON; otherwise it stays as it is. No text that looks like the guest's is left
out, except LAVA's own messages about the device's output.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kgen.offline.escapes import as_bytes

#: How many levels of JSON below an object are searched for a message.
_DEPTH = 3
#: A line that may be one object or array, after the dash of a list or a prefix that a tool has added.
_PACKED = re.compile(r"([^{\[]{0,200}?)(\{\".*\}|\[ ?[0-9].*\]),?[ \t\r]*")
_OURS = re.compile(r"kgen:[0-9]|counts:")
_NATIVE = re.compile(r"kgen:[0-9]+ [a-z]+ ")
#: "kgen:" as a list of byte values, which is journalctl's form of a message that is not plain text.
_NUMBERS = re.compile(r"107, ?103, ?101, ?110, ?58")
#: LAVA: the level of the device's output, and the levels of LAVA's own messages about it.
_LEVEL, _TARGET = "lvl", "target"
#: asciinema: the kind of an event that is output.
_OUTPUT, _EVENT = "o", "output"


def unpacked(text: str) -> tuple[str, str]:
    """Return the unpacked log and a note, or the log as it is and "" where its lines are not packed."""
    if not (_OURS.search(text) or _NUMBERS.search(text)) or ("{" not in text and "[" not in text):
        return text, ""
    lines = text.split("\n")
    objects = [_object(line) for line in lines]
    count = sum(found is not None for found in objects)
    keys = _keys(objects)
    if not keys:
        return text, ""
    made = "".join(_pieces(lines, objects, keys))
    return made, f"{count} lines were packed in JSON; the text was taken from {keys[0]!r}"


def _object(line: str) -> Any:
    """Return a line's JSON value, None where it is not packed."""
    match = _PACKED.fullmatch(line)
    if match is None or _OURS.search(match[1]):
        return None
    try:
        return json.loads(match[2])
    except (ValueError, RecursionError):
        return None


def _keys(objects: Sequence[Any]) -> tuple[str, ...]:
    """Return the keys under which the guest's lines are, the most frequent first."""
    counts: Counter[str] = Counter()
    for found in objects:
        if found is not None:
            counts.update(name for name, value in _texts(found) if _NATIVE.search(value))
    return tuple(name for name, _ in counts.most_common())


def _texts(found: Any, name: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """Yield the texts in an object, each with the path of names to it."""
    if isinstance(found, str):
        yield name, as_bytes(found)
    elif isinstance(found, list) and found and all(isinstance(each, int) and 0 <= each < 256 for each in found):
        yield name, bytes(found).decode("latin-1")
    elif isinstance(found, list) and len(found) == 3 and found[1] == _OUTPUT and isinstance(found[2], str):
        yield _EVENT, as_bytes(found[2])
    elif isinstance(found, dict) and depth:
        for key, value in found.items():
            yield from _texts(value, f"{name}.{key}" if name else str(key), depth - 1)


def _pieces(lines: Sequence[str], objects: Sequence[Any], keys: Sequence[str]) -> Iterator[str]:
    """Yield the messages, each with its own line end, if it has one."""
    named = [None if found is None else dict(_texts(found)) for found in objects]
    ends = {key for key in keys for texts in named if texts is not None and texts.get(key, "").endswith("\n")}
    ends.add(_EVENT)
    lava = any(
        texts is not None and texts.get(_LEVEL) == _TARGET and any(_NATIVE.search(each) for each in texts.values())
        for texts in named
    )
    goes_on = False
    for at, (line, texts) in enumerate(zip(lines, named, strict=True)):
        key = None if texts is None else next((key for key in keys if key in texts), None)
        if texts is None or (key is None and _LEVEL not in texts):
            yield ("\n" if goes_on else "") + line + ("\n" if at < len(lines) - 1 else "")
            goes_on = False
        elif not lava or texts.get(_LEVEL, _TARGET) == _TARGET:
            if key is not None:
                yield texts[key] if key in ends else texts[key] + "\n"
                goes_on = key in ends and not texts[key].endswith("\n")
            # other text that looks like the guest's must not be lost
            yield from (f"\n{value}\n" for name, value in texts.items() if name != key and _OURS.search(value))
