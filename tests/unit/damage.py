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


def everywhere(document: Any, readable: Callable[[Any], bool]) -> Any:
    """The document with EVIL in every text that may hold anything, which is where it is still ``readable``."""
    for place in places(document):
        found = document
        for key in place:
            found = found[key]
        if isinstance(found, str) and readable(changed := damaged(document, place, EVIL)):
            document = changed
    return document
