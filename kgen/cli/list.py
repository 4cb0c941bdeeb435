"""kgen list: show what there is: instructions, targets, platforms ..."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import click

from kgen.cli._options import option
from kgen.experiments import experiments
from kgen.instructions import instructions
from kgen.kits import kits
from kgen.media import formats
from kgen.report.formats import formats as reports
from kgen.spec.suites import BUILT_IN, DEFAULT_BUDGET, load
from kgen.targets import targets

#: What is listed of one entry, by the columns' names.
Row = Mapping[str, object]

_WHAT = "instructions targets experiments platforms formats kits reports suites cases".split()


@click.command("list")
@click.argument("what", type=click.Choice(_WHAT))
@option("Output", "--json", "as_json", is_flag=True, help="As JSON, with all fields.")
@option("Output", "--suite", default="full", show_default=True, metavar="NAME|FILE.toml", help="Whose cases.")
def COMMAND(what: str, as_json: bool, suite: str) -> None:
    """Show what there is to choose from.

    The registries are the directories of the package: what is listed here is what can be used.
    """
    makers: dict[str, Callable[[], Sequence[Row]]] = {
        "instructions": _instructions,
        "targets": _targets,
        "experiments": _experiments,
        "platforms": _platforms,
        "formats": _formats,
        "reports": _reports,
        "kits": _kits,
        "suites": _suites,
        "cases": lambda: _cases(suite),
    }
    rows = makers[what]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = [[_text(value) for value in _brief(row).values()] for row in rows]
    sizes = [max(len(row[at]) for row in shown) for at in range(len(shown[0]))] if shown else []
    for row in shown:
        click.echo("  ".join(f"{text:<{size}}" for text, size in zip(row, sizes, strict=True)).rstrip())


#: Columns that a table leaves out: sentences, and values that are only for programs.
_LONG = frozenset({"argument", "unseen", "sdm", "requires", "qemu", "provides", "opcodes", "available", "page_offset"})


def _brief(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in _LONG}


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "lock" if value else "-"
    return str(value)


def _instructions() -> Sequence[Row]:
    rows = []
    for name, entry in sorted(instructions().items()):
        form = entry.form(entry.widths[-1], entry.sources[0], True)
        fitting = [each for each, it in experiments().items() if not it.refuses(entry, form, 3)]
        rows.append(
            {
                "name": name,
                "widths": list(entry.widths),
                "sources": [source.value for source in entry.sources],
                "lockable": entry.lockable,
                "experiments": sorted(fitting, key=lambda each, best=entry.experiment: each != best),  # type: ignore[misc]
                "summary": entry.summary,
                "sdm": entry.sdm,
                "opcodes": {
                    source.value: {str(width): list(codes) for width, codes in by_width.items()}
                    for source, by_width in entry.opcodes.items()
                },
                "unseen": entry.unseen,
            }
        )
    return rows


def _targets() -> Sequence[Row]:
    return [
        {
            "name": name,
            "address": f"{target.address:#x}" if target.address is not None else target.symbol or "found at run time",
            "size": target.size,
            "declared": target.declared,
            "widths": list(target.widths),
            "summary": target.summary,
            "requires": sorted(target.requires),
            "qemu": list(target.qemu),
        }
        for name, target in sorted(targets().items())
    ]


def _experiments() -> Sequence[Row]:
    return [
        {
            "name": name,
            "shows": list(entry.kinds),
            "unit": entry.units,
            "summary": entry.summary,
            "argument": entry.argument,
        }
        for name, entry in sorted(experiments().items())
    ]


def _platforms() -> Sequence[Row]:
    # not at the top: only this list needs POSIX, and the others must work on every system
    from kgen.machine.platform import LaunchRequest
    from kgen.platforms import platforms

    found = []
    for name, entry in sorted(platforms().items()):
        reason = entry.unavailable(LaunchRequest(kernel=None))
        found.append(
            {
                "name": name,
                "known": entry.known,
                "here": "yes" if reason is None else f"no: {reason}",
                "summary": entry.summary,
                "available": reason is None,
                "provides": sorted(entry.provides),
            }
        )
    return found


def _formats() -> Sequence[Row]:
    return [
        {"name": name, "file": f"kernel{entry.suffix}", "summary": entry.summary} for name, entry in formats().items()
    ]


def _reports() -> Sequence[Row]:
    return [{"name": name, "suffix": entry.suffix, "summary": entry.summary} for name, entry in reports().items()]


def _kits() -> Sequence[Row]:
    return [
        {
            "name": name,
            "formats": list(entry.formats),
            "summary": f"{entry.product}: {entry.summary}",
            "provides": sorted(entry.provides),
        }
        for name, entry in sorted(kits().items())
    ]


def _suites() -> Sequence[Row]:
    return [
        {"name": name, "cases": len(load(name)[1]), "budget": f"{DEFAULT_BUDGET[name]} s"} for name in sorted(BUILT_IN)
    ]


def _cases(suite: str) -> Sequence[Row]:
    return [{"name": case.id} for case in load(suite)[1]]
