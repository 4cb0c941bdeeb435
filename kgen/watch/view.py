"""What a watched machine does: a screen for a terminal, a line for other outputs. It contains no verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen.inspection.glance import CpuGlance, Glance
from kgen.kernel.plan import Phase, experiment_of, phases
from kgen.kernel.results_block import CpuState, Role
from kgen.spec import KernelSpec
from kgen.watch.pacing import Cost
from kgen.wording import plural

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
#: For terminals that cannot show the bars.
PLAIN = "_.:-=+*#"
#: How many CPUs have a line each. Of the others, the states are counted.
_CPU_LINES = 8
#: The width of the labels.
_LABEL = 12
#: On narrower terminals a CPU's counters are left out.
_WIDE = 64
REMARK = "watching shifts the CPUs in time: for a verdict use kgen verify or kgen inspect"


@dataclass(frozen=True)
class Sample:
    """One look."""

    #: When the machine was stopped for it, in seconds since kgen connected.
    at: float
    #: How long it was stopped, in seconds.
    pause: float
    seen: Glance


@dataclass(frozen=True)
class View:
    """Everything there is to show."""

    spec: KernelSpec
    address: str
    #: The part of the machine's time that the looks may take.
    budget: float
    samples: tuple[Sample, ...]
    #: Seconds since kgen connected.
    elapsed: float
    cost: Cost
    #: Why there will be no further look, "" while there will be one.
    ending: str = ""
    #: How the machine was left.
    left: str = ""

    @property
    def last(self) -> Glance | None:
        """The last look; None where the kernel has not begun."""
        return self.samples[-1].seen if self.samples else None


def rates(samples: Sequence[Sample]) -> tuple[float, ...]:
    """Rounds a second from the look before that found the same phase, pauses and other phases' turns included."""
    known = (_rate(before, after) for before, after in _pairs(samples))
    return tuple(rate for rate in known if rate is not None)


def _rate(before: Sample | None, after: Sample) -> float | None:
    """Rounds a second between two looks at one phase."""
    if before is None or after.at <= before.at:
        return None
    return (after.seen.rounds - before.seen.rounds) / (after.at - before.at)


def _pairs(samples: Sequence[Sample]) -> Iterator[tuple[Sample | None, Sample]]:
    """Yield each look but the first, with the last look before it that found the same phase: phases take turns."""
    latest: dict[int, Sample] = {}
    for number, sample in enumerate(samples):
        if number:
            yield latest.get(sample.seen.phase), sample
        latest[sample.seen.phase] = sample


def increments(samples: Sequence[Sample]) -> tuple[int, ...]:
    """The new violations that each look found; each phase counts from 0."""
    return tuple(after.seen.total - (before.seen.total if before else 0) for before, after in _pairs(samples))


def lost_rounds(view: View) -> float:
    """Return how many rounds the pauses have cost, if the machine would have run as fast in them as between them."""
    return view.cost.paused * (sum(known) / len(known)) if (known := rates(view.samples)) else 0.0


def line(view: View) -> str:
    """Return the last look as one line of plain text."""
    parts = [f"{view.elapsed:9.2f} s"]
    if (seen := view.last) is None:
        parts.append("the kernel has not begun")
    else:
        parts += [_phase(view, seen), _rounds(view, seen), f"violations {_violations(seen)}", _states(seen.cpus)]
    return "  ".join((*parts, _short_cost(view)))


def screen(view: View, width: int, bars: str = BARS) -> RenderableType:
    """Return the whole screen, for a terminal of ``width`` columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 1))
    rows.add_column(width=_LABEL - 1, no_wrap=True, style="bold")
    rows.add_column(no_wrap=True, overflow="ellipsis", max_width=max(1, width - _LABEL))

    def say(label: str, text: str, style: str = "") -> None:
        rows.add_row(label, Text(text, style))

    say("kernel", view.spec.name)
    say("stub", view.address)
    room = max(1, width - _LABEL)
    if (seen := view.last) is None:
        say("state", "the kernel has not begun")
    else:
        say("state", seen.state.name)
        say("phase", _phase(view, seen))
        say("rounds", _rounds(view, seen))
        say("", sparkline(rates(view.samples), room, bars), "cyan")
        found = _expected(view, seen)
        say(
            "violations", _violations(seen) + (f"  {found}" if found else ""), "red" if seen.total and not found else ""
        )
        say("", sparkline(increments(view.samples), room, bars), "red")
        if seen.cells:
            digits = _now(view, seen).form.width // 4
            say("cells", " ".join(f"{cell:0{digits}x}" for cell in seen.cells))
        for label, text in _cpu_rows(seen, wide=width >= _WIDE):
            say(label, text)
    say("cost", _cost(view), "yellow" if view.cost.share > view.budget and not _single(view) else "")
    say("", _pauses(view))
    last = "; ".join(part for part in (view.ending, view.left) if part)
    # The cursor is on the last line. What a terminal echoes there, such as ^C, must not fill the line: the next screen
    # would be drawn one line too low.
    return Group(rows, Text(REMARK, "dim", no_wrap=True, overflow="ellipsis"), Text(last, "bold"))


def _cpu_rows(seen: Glance, *, wide: bool) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each CPU; CPUs beyond _CPU_LINES share one."""
    for cpu in seen.cpus[:_CPU_LINES]:
        text = f"{cpu.state.name:<8} batch {cpu.batch}"
        if wide:
            text += f"  puts {cpu.puts}" if cpu.puts else f"  takes {cpu.takes}  tries {cpu.tries}"
        yield f"CPU {cpu.cpu}", text
    if rest := seen.cpus[_CPU_LINES:]:
        yield f"CPU {rest[0].cpu}-{rest[-1].cpu}", _states(rest)


def _now(view: View, seen: Glance) -> Phase:
    return phases(view.spec)[max(0, seen.phase)]


def _phase(view: View, seen: Glance) -> str:
    if seen.phase < 0:
        return "none has begun"
    return f"{seen.phase + 1} of {len(phases(view.spec))} {_now(view, seen).label} {seen.status.name}"


def _rounds(view: View, seen: Glance) -> str:
    limit = _now(view, seen).rounds
    text = f"{seen.rounds} of {limit}" if limit else f"{seen.rounds}"
    text += f" {experiment_of(_now(view, seen)).units}"
    pairs = list(_pairs(view.samples))
    rate = _rate(*pairs[-1]) if pairs else None
    return text if rate is None else f"{text}  {rate:.0f}/s"


def _violations(seen: Glance) -> str:
    kinds = " ".join(f"{kind.name.lower()} {count}" for kind, count in seen.violations.items() if count)
    return f"{seen.total} ({kinds})" if kinds else "0"


def _expected(view: View, seen: Glance) -> str:
    return "as a power control must" if seen.total and _now(view, seen).role is Role.POWER else ""


def _states(cpus: Sequence[CpuGlance]) -> str:
    counted = {state: sum(cpu.state is state for cpu in cpus) for state in CpuState}
    return "CPUs " + ", ".join(f"{count} {state.name.lower()}" for state, count in counted.items() if count)


def _single(view: View) -> bool:
    """Return whether there is only one look: then there is no time of which its pause could be a share."""
    return view.cost.looks < 2 and bool(view.ending)


def _short_cost(view: View) -> str:
    if _single(view):
        return f"stood still for {1000 * view.cost.paused:.1f} ms"
    return f"cost {100 * view.cost.share:.2f} %"


def _cost(view: View) -> str:
    cost = view.cost
    if _single(view):
        return _short_cost(view)
    text = f"{100 * cost.share:.2f} % of its time (allowed: {100 * view.budget:g} %)"
    return text + (f", about {plural(round(lost_rounds(view)), 'round')}" if len(view.samples) > 1 else "")


def _pauses(view: View) -> str:
    cost = view.cost
    mean = 1000 * cost.paused / max(1, cost.looks)
    return f"{plural(cost.looks, 'look')} of {mean:.1f} ms, the longest {1000 * cost.longest:.1f} ms"


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """Return the last ``width`` values, a character each: the lowest bar is 0 only, the highest the greatest value."""
    shown = [max(0.0, value) for value in values[-width:]] if width > 0 else []
    most = max(shown, default=0.0)
    return "".join(bars[_height(value, most, len(bars))] if most > 0 else bars[0] for value in shown)


def _height(value: float, most: float, bars: int) -> int:
    return max(1, round(value / most * (bars - 1))) if value > 0 else 0
