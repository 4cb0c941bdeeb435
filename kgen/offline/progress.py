"""How far the reading of something long has come."""

from __future__ import annotations

from collections.abc import Callable

#: Takes what is being done, how many parts of it are done, and of how many, 0 where that is unknown.
Tell = Callable[[str, int, int], None]


def untold(what: str, done: int, total: int) -> None:
    """Report nothing."""
