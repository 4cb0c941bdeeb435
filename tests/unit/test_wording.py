"""Words that every report needs: numbers of things, and texts that are too long or not for a terminal."""

from __future__ import annotations

import pytest

from kgen.wording import fitting, plural, printable, quoted, visible


@pytest.mark.parametrize("length", range(8))
def test_what_fits_stays_and_what_does_not_is_cut_to_the_room(length: int) -> None:
    text = "abcdefg"[:length]
    assert fitting(text, 7) == text
    assert fitting("abcdefgh", 7) == "abcdef\u2026"
    assert fitting("abcdefgh", 7, "...") == "abcd..."


def test_a_quoted_text_is_cut_after_its_limit() -> None:
    assert quoted("a" * 40) == "a" * 40
    assert quoted("a" * 41) == "a" * 40 + "..."
    assert quoted("abc", 2) == "ab..."


def test_what_stands_for_a_control_character_may_be_chosen() -> None:
    assert printable("a\tb\x1b[2J\u202e") == "a\tb\ufffd[2J\ufffd"
    assert printable("a\tb\x1b[2J", lambda char: f"<{ord(char)}>") == "a\tb<27>[2J"


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (1, "live batch", "1 live batch"),
        (2, "live batch", "2 live batches"),
        (0, "witness", "0 witnesses"),
        (3, "operation", "3 operations"),
    ],
)
def test_a_number_of_things(count: int, what: str, said: str) -> None:
    assert plural(count, what) == said


def test_no_terminal_obeys_what_is_visible() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("\x1b[31mred\x07\x9b1m\r\u202e\udcff\U000e0001") == (
        r"\x1b[31mred\x07\x9b1m\x0d\u202e\udcff" + r"\U000e0001"
    )
    assert visible("caf\u00e9 \u2264 \U0001f600") == "caf\u00e9 \u2264 \U0001f600"
