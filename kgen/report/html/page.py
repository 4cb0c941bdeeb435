"""The page as a whole: results in, one text out."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgen import __version__
from kgen.report.html.cases import CaseView, case_view
from kgen.report.html.environment import Place, place
from kgen.report.html.heat import heat_maps, style_of
from kgen.report.html.rates import LEVELS, percent
from kgen.report.html.visible import Excerpt, excerpt, visible
from kgen.report.reproduce.steps import steps
from kgen.report.results.model import Result, Run
from kgen.report.text.labels import labels
from kgen.report.text.suite import SIGNS
from kgen.verdict.model import SEVERITY, VerdictKind, worst
from kgen.wording import plural

if TYPE_CHECKING:
    from jinja2 import Environment

#: The most characters of one serial log, and of all logs in a page.
_LOG = 48_000
_LOGS = 384_000
#: How many cases of a suite are shown in full.
_DETAILS = 400
#: Verdicts whose cases are complete with their line in the table.
_PLAIN = frozenset({VerdictKind.ATOMIC, VerdictKind.SKIP, VerdictKind.RAM_BACKED})


@dataclass(frozen=True)
class LogView:
    """One serial log."""

    title: str
    #: The part of it that there is room for.
    text: Excerpt


@dataclass(frozen=True)
class Again:
    """Shell lines that make a result again."""

    with_kgen: tuple[str, ...]
    #: With the image, without kgen.
    by_hand: tuple[str, ...]
    #: Sentences on the lines.
    notes: tuple[str, ...]
    #: The command line that made the result, "" where the result does not have it.
    invocation: str


@dataclass(frozen=True)
class RunView:
    """One run, ready for the page."""

    anchor: str
    label: str
    where: str
    title: str
    platform: str
    kind: str
    style: str
    reason: str
    counts: tuple[tuple[str, str, int], ...]
    is_suite: bool
    #: Those that are shown in full.
    cases: tuple[CaseView, ...]
    #: Those of a suite, in one line each.
    summaries: tuple[CaseView, ...]
    more: int
    place: Place
    again: Again
    logs: tuple[LogView, ...]


def render(runs: Sequence[Run]) -> str:
    """Return the page in ASCII. Other characters are written as references, so that no encoding can change them."""
    names = labels([run.where for run in runs])
    room = min(_LOG, _LOGS // max(1, sum(len(run.boots) for run in runs)))
    views = [_run_view(number, run, names[number], room) for number, run in enumerate(runs)]
    anchors = {(number, case.name): case.anchor for number, view in enumerate(views) for case in view.cases}
    many = len(runs) > 1 or len(runs[0].results) > 1
    groups = [f"{run.platform} ({name})" for run, name in zip(runs, names, strict=True)]
    text = (
        environment()
        .get_template("page.html")
        .render(
            version=__version__,
            title=_title(runs),
            runs=views,
            maps=heat_maps(runs, groups, anchors) if many else (),
            signs=_signs(runs),
            levels=_levels(),
        )
    )
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


@functools.cache
def environment() -> Environment:
    """Return the templates. All that they print is escaped, after control characters in it were made visible."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(value: Any) -> Any:
    # text that a template has made is escaped already
    return value if hasattr(value, "__html__") else visible(value)


def _title(runs: Sequence[Run]) -> str:
    kinds = [result.verdict.kind for run in runs for result in run.results]
    what = runs[0].results[0].case if len(kinds) == 1 else plural(len(kinds), "case")
    return f"{worst(kinds).name}: {what or 'kgen'}"


def _signs(runs: Sequence[Run]) -> tuple[tuple[str, str, str], ...]:
    """Return the legend of the heat map: style, sign and verdict of the kinds in it."""
    used = {result.verdict.kind for run in runs for result in run.results}
    return tuple((style_of(kind), SIGNS[kind], kind.name) for kind in SEVERITY if kind in used)


def _levels() -> tuple[tuple[str, str], ...]:
    """Return the levels of the heat map's colours, with their limits in words."""
    limits = [percent(limit) for limit in LEVELS]
    words = (f"below {limits[0]}", *(f"{limit} or more" for limit in limits))
    return tuple((f"l{number}", word) for number, word in enumerate(words, 1))


def _is_shown(run: Run, result: Result) -> bool:
    """Return whether the page shows the case in full: always where it was run alone."""
    return not _is_suite(run) or result.verdict.kind not in _PLAIN


def _is_suite(run: Run) -> bool:
    return run.spec is not None and bool(run.spec.suite)


def _run_view(number: int, run: Run, label: str, room: int) -> RunView:
    first = run.results[0]
    kinds = [result.verdict.kind for result in run.results]
    total = run.kind
    counts = Counter(kinds)
    views = [case_view(result, f"r{number}c{at}") for at, result in enumerate(run.results)]
    told = [view for view, result in zip(views, run.results, strict=True) if _is_shown(run, result)]
    suite = _is_suite(run)
    tally = ", ".join(f"{counts[kind]} {kind.name}" for kind in SEVERITY if counts[kind])
    return RunView(
        anchor=f"r{number}",
        label=label,
        where=run.where,
        title=run.spec.name if run.spec else "(the request is unknown)",
        platform=run.platform,
        kind=total.name,
        style=style_of(total),
        reason=f"{plural(len(kinds), 'case')}: {tally}" if suite else first.verdict.reason,
        counts=tuple((kind.name, style_of(kind), counts[kind]) for kind in SEVERITY if counts[kind]) if suite else (),
        is_suite=suite,
        cases=tuple(told[:_DETAILS]),
        summaries=tuple(views) if suite else (),
        more=max(0, len(told) - _DETAILS),
        place=place(first.observation, first.kgen),
        again=_again(run),
        logs=tuple(_logs(run, room)),
    )


def _again(run: Run) -> Again:
    found = steps(run)
    return Again(found.with_kgen, found.by_hand, found.notes, shlex.join(run.results[0].invocation))


def _logs(run: Run, room: int) -> list[LogView]:
    seen = [each for each in run.boots if each.log]
    found = []
    for number, each in enumerate(seen, 1):
        lines = each.log.replace("\r\n", "\n").split("\n")
        size = f"{len(lines)} lines, {len(each.log)} characters"
        boot = f" of boot {number} of {len(seen)}" if len(seen) > 1 else ""
        found.append(LogView(f"Serial log{boot}: {size}", excerpt(lines, room)))
    return found
