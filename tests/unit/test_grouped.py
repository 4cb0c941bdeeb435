"""A test of all that belongs to an entry goes through all of it, and names what fails."""

from __future__ import annotations

import pytest
from draws import DRAWS, draws
from grouped import grouped
from hypothesis import settings

SEEN: list[tuple[str, int]] = []
MEMBERS = [("a", 1), ("b", 2), ("a", 3)]


@grouped(MEMBERS)
def test_members(letter: str, number: int) -> None:
    SEEN.append((letter, number))


def test_every_member_was_tried() -> None:
    SEEN.clear()
    (mark,) = test_members.pytestmark  # type: ignore[attr-defined]
    assert mark.kwargs["ids"] == ["a", "b"]
    for (members,) in zip(mark.args[1], strict=True):
        test_members(members)
    assert sorted(SEEN) == sorted(MEMBERS)


def test_the_member_that_fails_is_named() -> None:
    def fails(letter: str, number: int) -> None:
        assert number != 3, "no threes"

    (mark,) = (decorated := grouped(MEMBERS)(fails)).pytestmark  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="a, 3: no threes"):
        decorated(mark.args[1][0])


def test_the_soak_draws_as_many_as_a_property_asks_for() -> None:
    before = settings.get_current_profile_name()
    try:
        settings.load_profile("random")
        assert draws(400) == 400
        settings.load_profile("kgen")
        assert (draws(400), draws(12)) == (DRAWS, 12)
        assert settings.default.max_examples == DRAWS
    finally:
        settings.load_profile(before)
