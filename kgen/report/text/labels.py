"""Short names for runs that are shown beside each other."""

from __future__ import annotations

from collections.abc import Sequence

#: What a run is called that was not read from a file.
UNNAMED = "result"


def labels(wheres: Sequence[str]) -> tuple[str, ...]:
    """Return a short name for each: as much of the end of its path as tells it from the others.

    One that was never in a file has a number.
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
    # what is in a name may be anything, a number in brackets too
    return tuple(name if found.count(name) == 1 else f"{name} [{at}]" for at, name in enumerate(found, 1))
