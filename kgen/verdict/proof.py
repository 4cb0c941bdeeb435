"""Decide whether the live batches of a case and of its power controls are a proof, and what is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kgen.evidence.records import PhaseRecord
from kgen.kernel.live import LEAST, PAIR_LEAST, Live, design, needed
from kgen.kernel.plan import Phase, may_be_silent
from kgen.kernel.results_block import Style
from kgen.spec import KernelSpec
from kgen.wording import plural

#: The finding that a control of one instruction may be silent: this machine never interrupts an access.
UNINTERRUPTED = "here an access is never interrupted, with LOCK or without"
#: The reason why a machine whose CPUs take turns proves nothing.
IN_TURN = (
    "this emulator's CPUs take turns, and no instruction of one is interrupted by another: nothing can be proven on it"
)


@dataclass(frozen=True)
class Weighed:
    """One of the phases that took turns, with its record."""

    phase: Phase
    record: PhaseRecord

    def live(self, style: Style) -> Live:
        """Return the counts of live batches of a style."""
        return self.record.live[style] if self.record.live else Live()

    @property
    def total(self) -> int:
        """Live batches of both styles."""
        return sum(each.live for each in self.record.live)


@dataclass(frozen=True)
class Group:
    """The phase that a verdict rests on, its power controls, and all phases that took turns with it."""

    spec: KernelSpec
    case: Weighed
    controls: tuple[Weighed, ...]
    everyone: tuple[Weighed, ...]
    #: TSC ticks a millisecond
    khz: int

    @property
    def silent(self) -> tuple[Weighed, ...]:
        """The controls that were not violated, and need not be.

        Such a control is one instruction. It was never violated in as many live batches as a proof needs, while a
        control that is a pair of instructions was violated.
        """
        pairs = [control for control in self.controls if not may_be_silent(self.spec, control.phase)]
        shown = any(sum(each.violated for each in pair.record.live) >= PAIR_LEAST for pair in pairs)
        return tuple(
            control
            for control in self.controls
            if shown and may_be_silent(self.spec, control.phase) and self.never_failed(control)
        )

    def never_failed(self, control: Weighed) -> bool:
        """Return whether a control was never violated in as many live batches as a proof needs."""
        return all(control.live(style).live >= LEAST and control.live(style).is_clean for style in Style)

    def missing(self, style: Style) -> int:
        """Return how many more live batches of a style the case needs by the controls' rates of violation."""
        asked = [needed(control.live(style)) for control in self.controls if control not in self.silent]
        return max([LEAST, *(number for number in asked if number)]) - self.case.live(style).live

    def seconds(self, style: Style, batches: int) -> float | None:
        """Return how long that many live batches would take here, None where there was none to measure."""
        live = self.case.live(style).live
        ticks = sum(each.record.ticks for each in self.everyone)
        return batches * ticks / (1000 * self.khz * live) if live and self.khz else None


def lacks(group: Group, *, in_turn: bool) -> Iterator[str]:
    """Yield why the live batches are no proof, one sentence each. Yield nothing where they are a proof."""
    silent = group.silent
    if in_turn and (silent or any(group.missing(style) > 0 for style in Style)):
        yield f"{IN_TURN} ({group.case.total} of {group.case.record.judged} batches were live)"
    for style in Style:
        for control in group.controls:
            live = control.live(style)
            if control not in silent and needed(live) is None:
                yield (
                    f"the power control {control.phase.label} was violated in {live.violated} of "
                    f"{plural(live.live, 'live batch')} ({style.name.lower()}), which is too seldom to tell how often "
                    f"a defect would show; {_advice_on(group, control)}"
                )
    yield from _too_few(group)


def _too_few(group: Group) -> Iterator[str]:
    short = {style: group.missing(style) for style in Style if group.missing(style) > 0}
    if not short:
        return
    had = " and ".join(f"{group.case.live(style).live} {style.name.lower()}" for style in Style)
    more = " and ".join(f"{number} {style.name.lower()}" for style, number in short.items())
    times = [group.seconds(style, number) for style, number in short.items()]
    known = [seconds for seconds in times if seconds is not None]
    # the styles take turns, so the longer time includes the shorter
    wait = f"about {max(known):.0f} s more here" if len(known) == len(times) else "how long that takes is not known"
    yield (
        f"the case had {had} live batches, and the proof needs {more} more: {wait} ({group.case.phase.label}); "
        f"{_advice(group)}"
    )


def _advice_on(group: Group, control: Weighed) -> str:
    """Return what to do about a control that was hardly ever violated. An instruction that is its own control, without
    LOCK, may never be interrupted here: then more batches do not help, and only XCHG has a control that finds out."""
    own = group.spec.cases[control.phase.case].unlocked == (control.phase.form,)
    if own and group.never_failed(control):
        return f"maybe no access is ever interrupted here, which --instr xchg finds out; otherwise {_advice(group)}"
    return _advice(group)


def _advice(group: Group) -> str:
    if group.spec.budget:
        return "try a larger --budget, or a less busy machine"
    if group.spec.proof_seconds:
        return "try --proof-seconds, or a less busy machine"
    return "leave --rounds out, so that the run goes on until its proof is reached, or try a less busy machine"


def findings(group: Group) -> Iterator[str]:
    """Yield what the batches showed besides the verdict."""
    for control in group.silent:
        yield (
            f"{UNINTERRUPTED}: {control.phase.label} was never violated in {plural(control.total, 'live batch')}, "
            "while a pair of instructions was"
        )
    for each in (group.case, *group.controls):
        if each.phase.target.declared == "ram" and any(live.blind for live in each.record.live):
            yield f"{each.phase.label}: {_with_and_without(each.record.live)}"


def _with_and_without(styles: Sequence[Live]) -> str:
    """Return how often batches were violated with tickets and without, because tickets may serialise what they
    measure."""
    struck, batches = sum(each.struck for each in styles), sum(each.batches for each in styles)
    blind, of = sum(each.blind_violated for each in styles), sum(each.blind for each in styles)
    return f"{struck} of {batches} batches with tickets were violated, and {blind} of {of} without"


def power(control: Weighed) -> str:
    """Return how often a power control failed, by style."""
    return ", ".join(
        f"{control.live(style).violated} of {plural(control.live(style).live, 'live batch')} {style.name.lower()}"
        + (f" (design effect {design(control.live(style)) / 16:.1f})" if control.live(style).violated else "")
        for style in Style
    )


def inconsistencies(record: PhaseRecord, *, counts: bool, abridged: bool) -> Iterator[str]:
    """Yield how the counts of live batches contradict each other.

    ``counts``: whether there must be any. An abridged record has them only where they may decide.
    """
    if abridged and not record.live:
        return
    if bool(record.live) != counts or (counts and len(record.live) != len(Style)):
        yield f"counts live batches of {len(record.live)} styles"
        return
    for style, live in zip(Style, record.live, strict=False):
        name = style.name.lower()
        if not live.violated <= live.live <= live.batches or live.blind_violated > live.blind:
            yield f"counts {live.violated} violated of {live.live} live of {live.batches} {name} batches"
        if not live.violated <= live.struck <= live.batches:
            yield f"counts {live.struck} violated batches of style {name}, and {live.violated} live ones"
        if live.switches > 2 * min(live.violated, live.live - live.violated) + 1:
            yield f"counts {live.switches} switches of {live.violated} violated in {live.live} live {name} batches"
    if counts and not abridged:
        batches = sum(live.batches + live.blind for live in record.live)
        struck = sum(live.struck + live.blind_violated for live in record.live)
        if (batches, struck) != (record.judged, record.events):
            yield f"counts {struck} of {batches} batches by style, and {record.events} of {record.judged} in all"
