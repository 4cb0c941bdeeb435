"""Result documents as a hostile or careless hand leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

#: What might end a block, begin a link, call somebody, colour a terminal, turn text round or be no text at all.
EVIL = "``` ````\n# x | @user #1 <img src=x> [a](http://b) `c` \\ --- "
EVIL += "\x1b[31m\u202e\x00\ud800 ]]> ' \" %s {{x}} ... \U0001f600"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document, as keys and indices from its top."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, entry in inner for found in places(entry, (*path, key)))]


def damaged(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with something else in that place."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


def everywhere(document: Any, readable: Callable[[Any], bool], *, singly: bool = False) -> Any:
    """The document with EVIL in every text that may hold anything, which is where it is still ``readable``.

    Texts in one place of every entry of a list are tried together, or ``singly``.
    """
    texts = [place for place in places(document) if isinstance(at(document, place), str)]
    alike: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for place in texts:
        alike.setdefault(tuple(key for key in place if singly or isinstance(key, str)), []).append(place)
    for group in alike.values():
        if readable(changed := all_damaged(document, group)):
            document = changed
    return document


def at(document: Any, place: tuple[Any, ...]) -> Any:
    """What stands in a place."""
    for key in place:
        document = document[key]
    return document


def all_damaged(document: Any, chosen: list[tuple[Any, ...]]) -> Any:
    """A copy with EVIL in all of these places."""
    copy = json.loads(json.dumps(document))
    for place in chosen:
        at(copy, place[:-1])[place[-1]] = EVIL
    return copy
