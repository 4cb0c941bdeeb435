"""The kernel's own font: every printable character, each another one, none touching its neighbour."""

from __future__ import annotations

from kgen.kernel.font import FIRST, HEIGHT, LAST, WIDTH, glyphs, picture


def test_every_printable_character_has_a_glyph_of_its_own() -> None:
    assert (chr(FIRST), chr(LAST)) == (" ", "~")
    assert len(glyphs()) == LAST - FIRST + 1
    assert len(set(glyphs())) == len(glyphs())
    assert [code for code, glyph in enumerate(glyphs(), FIRST) if not any(glyph)] == [ord(" ")]


def test_there_is_a_gap_between_neighbours() -> None:
    assert all(row & 0b10000011 == 0 for glyph in glyphs() for row in glyph)


def test_only_descenders_reach_the_lowest_row() -> None:
    assert {chr(code) for code, glyph in enumerate(glyphs(), FIRST) if glyph[-1]} <= set("gjpqy_,;")


def test_a_picture_fills_its_place() -> None:
    assert len(picture("A")) == HEIGHT
    assert all(0 <= row < 1 << WIDTH for row in picture("A"))
    assert picture("A")[::2] == picture("A")[1::2] == glyphs()[ord("A") - FIRST]
