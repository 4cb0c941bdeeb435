"""Memory that is read in pieces: each of them once, and never more than there is."""

from __future__ import annotations

import pytest

from kgen.machine.pieces import Pieces

DATA = bytes(range(100))


@pytest.fixture
def asked() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def pieces(asked: list[tuple[int, int]]) -> Pieces:
    def fetch(begin: int, length: int) -> bytes:
        asked.append((begin, length))
        return DATA[begin : begin + length]

    return Pieces(fetch, 16)


def test_a_piece_is_fetched_once(pieces: Pieces, asked: list[tuple[int, int]]) -> None:
    assert [pieces.read(20, 4), pieces.read(16, 16), pieces.read(31, 1)] == [DATA[20:24], DATA[16:32], DATA[31:32]]
    assert asked == [(16, 16)]
    assert pieces.read(10, 30) == DATA[10:40]
    # from the first that is missing to the last one
    assert asked == [(16, 16), (0, 48)]


def test_at_the_end_there_is_less(pieces: Pieces) -> None:
    assert pieces.read(90, 20) == DATA[90:]
    assert pieces.read(200, 4) == b""


def test_a_machine_that_ran_again_is_read_anew(pieces: Pieces, asked: list[tuple[int, int]]) -> None:
    pieces.read(0, 1)
    pieces.forget()
    pieces.read(0, 1)
    assert asked == [(0, 16), (0, 16)]
