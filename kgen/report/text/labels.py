"""Short names for runs that are shown next to each other."""

from __future__ import annotations

from collections.abc import Sequence

#: The name of a run that was not read from a file.
UNNAMED = "result"


def labels(wheres: Sequence[str]) -> tuple[str, ...]:
    """Return a short name for each run: as much of the end of its path as distinguishes it from the others.

    Further runs with the same path, or without one, have a number.
    """
    paths = [(where or UNNAMED).replace("\\", "/").removesuffix(".json").split("/") for where in wheres]
    found: list[str] = []
    for number, path in enumerate(paths):
        others = [other for other in paths if other != path]
        parts = next(
            (count for count in range(1, len(path)) if path[-count:] not in [other[-count:] for other in others]),
            len(path),
        )
        again = paths[:number].count(path)
        found.append("/".join(path[-parts:]) + (f" ({again + 1})" if again else ""))
    # a name may contain anything, even a number in brackets
    return tuple(name if found.count(name) == 1 else f"{name} [{at}]" for at, name in enumerate(found, 1))
