"""A chart with a lane for each CPU, as coordinates: events go from left to right and are wrapped into strips.

A strip has the width of a sheet of paper; strips stand beside or below each other. All coordinates are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kgen.wording import fitting

Shape = Literal["put", "take", "again", "gone", "wrong", "full", "empty", "rest", "note"]

#: Columns of a strip.
_COLUMNS = 8
_COLUMN = 74
_LANE = 30
#: Left of the first column, above the first lane and below the last one.
_NAMES = 52
_HEAD = 22
_FOOT = 34
#: From a column's left edge to its marks, and from a mark to its text.
_MARK = 14
_TEXT = 10
#: The width of a small letter. A text that is wider than its column is cut; the table has all of it.
_LETTER = 6


@dataclass(frozen=True)
class Mark:
    """Something that happened in a lane."""

    #: Counted from 0, like ``lane``.
    column: int
    lane: int
    shape: Shape
    #: A word for it.
    text: str


@dataclass(frozen=True)
class Link:
    """A line between two lanes in one column."""

    column: int
    first: int
    last: int
    #: Whether what it stands for did not arrive.
    broken: bool


@dataclass(frozen=True)
class Chart:
    """What to draw."""

    title: str
    #: What the chart shows, in words.
    story: str
    lanes: tuple[str, ...]
    #: The text above each column.
    heads: tuple[str, ...]
    #: The two lines of text below each column.
    feet: tuple[tuple[str, str], ...]
    marks: tuple[Mark, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True)
class Drawn:
    """A text or a mark at its place."""

    x: int
    y: int
    text: str
    #: "" for a text.
    shape: str = ""


@dataclass(frozen=True)
class Line:
    """An upright line."""

    x: int
    top: int
    bottom: int
    broken: bool


@dataclass(frozen=True)
class Strip:
    """A part of a chart, ready to be drawn."""

    title: str
    story: str
    width: int
    height: int
    names: tuple[Drawn, ...]
    #: The heights of the lanes.
    rails: tuple[int, ...]
    heads: tuple[Drawn, ...]
    feet: tuple[Drawn, ...]
    marks: tuple[Drawn, ...]
    links: tuple[Line, ...]


def strips(chart: Chart) -> tuple[Strip, ...]:
    """Return the chart in as many strips as it takes."""
    return tuple(_strips(chart))


def _strips(chart: Chart) -> Iterator[Strip]:
    for start in range(0, len(chart.heads), _COLUMNS):
        columns = range(start, min(start + _COLUMNS, len(chart.heads)))
        bottom = _HEAD + _LANE * len(chart.lanes)
        part = f", columns {start + 1} to {columns[-1] + 1}" if len(chart.heads) > _COLUMNS else ""

        def x(column: int, start: int = start) -> int:
            return _NAMES + _COLUMN * (column - start) + _MARK

        yield Strip(
            title=f"{chart.title}{part}",
            story=chart.story,
            width=_NAMES + _COLUMN * len(columns),
            height=bottom + _FOOT,
            names=tuple(Drawn(0, _middle(lane), name) for lane, name in enumerate(chart.lanes)),
            rails=tuple(_middle(lane) for lane in range(len(chart.lanes))),
            heads=tuple(Drawn(x(at) - _MARK // 2, _HEAD - 8, _cut(chart.heads[at])) for at in columns),
            feet=tuple(
                Drawn(x(at) - _MARK // 2, bottom + 10 + 14 * row, _cut(text))
                for at in columns
                for row, text in enumerate(chart.feet[at])
            ),
            marks=tuple(
                Drawn(x(mark.column), _middle(mark.lane), _cut(mark.text, _TEXT + _MARK), mark.shape)
                for mark in chart.marks
                if mark.column in columns
            ),
            links=tuple(
                Line(x(link.column), _middle(link.first), _middle(link.last), link.broken)
                for link in chart.links
                if link.column in columns
            ),
        )


def _middle(lane: int) -> int:
    return _HEAD + _LANE * lane + _LANE // 2


def _cut(text: str, used: int = _MARK // 2) -> str:
    room = (_COLUMN - used) // _LETTER
    return fitting(text, room)


def lane_names(cpus: Sequence[int | None], most: int) -> tuple[tuple[int, ...], int]:
    """Return the CPUs that have a lane, in order, at most ``most``, and the number of the others."""
    known = sorted({cpu for cpu in cpus if cpu is not None})
    return tuple(known[:most]), max(0, len(known) - most)
