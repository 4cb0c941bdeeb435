"""Tests over products of registries: one test an entry goes through all that belong to it, and names what fails.

pytest takes longer to keep account of a small test than the test takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest


def name_of(value: object) -> str:
    """Return what a test is called after: the name of an entry, the value of an enumeration's member, the text."""
    return str(getattr(value, "name", value) if not hasattr(value, "value") else value.value)


def grouped(
    members: Iterable[Sequence[Any]], *, by: Callable[[Sequence[Any]], object] = lambda member: name_of(member[0])
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test whose arguments are a member: it becomes one test for all members with the same ``by``, the name
    of their first argument unless another is given. The first member that fails is named in the failure."""
    groups: dict[str, list[Sequence[Any]]] = {}
    for member in members:
        groups.setdefault(str(by(member)), []).append(member)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("members", list(groups.values()), ids=list(groups))
        def each(members: Sequence[Sequence[Any]]) -> None:
            for member in members:
                try:
                    test(*member)
                except Exception as error:
                    raise AssertionError(f"{', '.join(map(name_of, member))}: {error}") from error

        # not by functools.wraps: pytest would look for the arguments of what is wrapped
        each.__name__, each.__qualname__, each.__doc__ = test.__name__, test.__qualname__, test.__doc__
        each.__module__ = test.__module__
        return each

    return decorate
