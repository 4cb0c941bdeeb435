"""Print a result on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kgen.evidence.kvm_trace import remarks
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.evidence.records import PhaseRecord, Record, Witness
from kgen.experiments import ORIGINAL, Experiment, experiments
from kgen.kernel.plan import Phase, experiment_of, phases, phases_of
from kgen.kernel.protocol import TABLE_HEADER
from kgen.kernel.results_block import BootPath, Decode, KernelState, Role, ViolationKind
from kgen.report.text.scene import scene_lines
from kgen.spec import KernelSpec
from kgen.spec.case import resolve_target
from kgen.verdict.model import POWER_MINIMUM, ControlResult, Verdict, VerdictKind
from kgen.wording import fact, plural, visible

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {VerdictKind.ATOMIC: "bold green", VerdictKind.NOT_ATOMIC: "bold red"}
_CELLS_A_LINE = 8
#: How many cells are printed; --json has all.
_CELLS = 16
#: How many witnesses of each kind are printed.
_WITNESSES = 4
_LOG_LINES = 4


def show(console: Console, spec: KernelSpec, observation: Observation, verdict: Verdict) -> None:
    """Print case, platform and verdict, then the evidence, then the verdict again with its explanation.

    Without a record there is no evidence to print, and the verdict is printed once.
    """
    say = Printer(console)
    record = observation.best
    say.line(f"{spec.case.id} on {observation.platform}", "bold")
    if record is not None:
        _verdict(say, verdict)
        _machine(say, record, observation)
        case = record.phase_at(len(phases(spec)) - 1)
        if case is not None:
            _counts(say, case, observation, experiment_of(phases(spec)[-1]))
            _cells(say, spec, case, observation)
        if record.state is not KernelState.TOO_FEW_CPUS:
            _path(say, observation, case)
        _controls(say, verdict, observation.scene is not None)
        _witnesses(say, verdict, experiment_told(spec, verdict.witnesses, phases(spec)[-1]))
        _trace(say, spec, record, observation)
        _scene(say, record, observation)
    say.line("")
    _verdict(say, verdict)
    for explanation in explanations(spec, verdict):
        say.line(f"  {explanation}")


def show_case(console: Console, spec: KernelSpec, number: int, observation: Observation, verdict: Verdict) -> None:
    """Print the verdict on one case of a suite, its evidence, and the verdict again with its explanation.

    ``number`` counts from 0.
    """
    say = Printer(console)
    case = phases_of(spec, number)[-1]
    say.line(f"{spec.cases[number].id} on {observation.platform}", "bold")
    if verdict.controls or verdict.witnesses:
        _verdict(say, verdict)
    _controls(say, verdict, observation.scene is not None)
    _witnesses(say, verdict, experiment_told(spec, verdict.witnesses, case))
    say.line("")
    _verdict(say, verdict)
    for explanation in explanations(spec, verdict, number):
        say.line(f"  {explanation}")


def show_unknown(console: Console, observation: Observation, verdict: Verdict) -> None:
    """Print the verdict on a run whose request is unknown, its table, and the verdict again."""
    say = Printer(console)
    if observation.rows:
        _verdict(say, verdict)
        say.line(TABLE_HEADER)
        for row in observation.rows[-2:]:
            say.line("counts:\t" + "\t".join(map(str, row)))
        say.line("")
    _verdict(say, verdict)
    for note in verdict.notes:
        say.line(f"  {note}")


def explanations(spec: KernelSpec, verdict: Verdict, number: int = -1) -> tuple[str, ...]:
    """Return the sentences that explain the verdict on a case, by default the last case."""
    found: list[str] = [f"the cause: {verdict.cause}"] if verdict.cause else []
    if verdict.bound is not None:
        found.append(f"N = {verdict.judged} {verdict.chance}: {bound_words(verdict.bound)}, for this machine as it was")
    sane = any(control.role == "sanity" and control.enough for control in verdict.controls)
    if verdict.kind is VerdictKind.NOT_ATOMIC and spec.cases[number].lock and sane:
        found.append("the sanity control, the same instruction on RAM, was never violated: the defect is in the target")
    found += verdict.notes
    return tuple(found)


def bound_words(bound: float) -> str:
    """Return the upper limit on the rate of violations, with its unit."""
    return f"at most {bound:.2g} per live batch, at 95 %"


def as_text(tell: Callable[[Console], None]) -> str:
    """Return what ``tell`` prints, without colours.

    A result may come from an untrusted source, so characters that a terminal would obey are made visible.
    """
    from rich.console import Console

    file = io.StringIO()
    tell(Console(file=file, width=120, color_system=None, highlight=False))
    return visible(file.getvalue())


class Printer:
    """Prints plain lines: markup is not interpreted, lines are not wrapped, and control characters are made visible."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, style: str | None = None) -> None:
        text = visible(text)
        if style is None:
            # written past rich, which would turn the table's tabs into blanks
            self._console.file.write(f"{text}\n")
            return
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _verdict(say: Printer, verdict: Verdict) -> None:
    say.line(f"{verdict.kind.name}: {verdict.reason}", STYLES.get(verdict.kind, "bold yellow"))


def _machine(say: Printer, record: Record, observation: Observation) -> None:
    path = "" if record.boot_path is BootPath.UNKNOWN else f", booted by {record.boot_path.name.lower()}"
    clock = f", TSC {record.khz / 1000:.0f} MHz ({record.clock.words})" if record.khz else ""
    build = f", build {record.build_id[:12]}" if record.build_id else ""
    say.line(f"  {record.cpus_found} CPU{'' if record.cpus_found == 1 else 's'}{path}{clock}{build}")
    emulator = fact(observation.environment, "versions", "emulator")
    lab = fact(observation.environment, "lab", "qemu")
    if lab:
        say.line(f"  in the lab: {lab}, on Linux {fact(observation.environment, 'lab', 'linux')}")
    if emulator:
        say.line(f"  {'outside: ' if lab else ''}{emulator}")
    for text in (observation.kernel_log or ())[:_LOG_LINES]:
        say.line(f"  the kernel under it logged: {text}")


def _counts(say: Printer, case: PhaseRecord, observation: Observation, experiment: Experiment) -> None:
    say.line("")
    rows = observation.rows
    if observation.scene and experiment.tabled and case.counts:
        # the guest printed its last row after an earlier batch, which had ended
        rows = (case.row,)
    if rows:
        say.line(TABLE_HEADER)
        say.line("counts:\t" + "\t".join(str(value) for value in rows[-1]))
    for count in case.counts[: _CELLS_A_LINE + 1]:
        if not experiment.tabled:
            took = f", {experiment.takes} {count.takes} times" if experiment.takes else ""
            say.line(f"  CPU {count.cpu}  did {count.puts} {experiment.units}{took}")
        elif count.cpu == 0:
            say.line(f"  CPU 0 (producer)  put {count.puts}")
        else:
            say.line(f"  CPU {count.cpu} (consumer)  took {count.takes} in {count.tries} exchanges")
    hidden = len(case.counts) - 1 - _CELLS_A_LINE
    if hidden > 0:
        say.line(f"  ... and {hidden} more")


def _cells(say: Printer, spec: KernelSpec, case: PhaseRecord, observation: Observation) -> None:
    if not observation.cells:
        return
    say.line("")
    say.line(f"memory at {case.address:#x} ({resolve_target(spec.case.target).name}), read through the debugger:")
    last = phases(spec)[-1]
    digits = last.form.width // 4
    for start in range(0, min(len(observation.cells), _CELLS), _CELLS_A_LINE):
        cells = observation.cells[start : min(start + _CELLS_A_LINE, _CELLS)]
        address = case.address + last.stride * start
        say.line(" ".join((f"{address:08x}", *(f"{cell:0{digits}x}" for cell in cells))))
    rest = observation.cells[_CELLS:]
    if rest:
        full = sum(map(bool, rest))
        say.line(f"... and {plural(len(rest), 'more cell')}, {f'{full} of them not 0' if full else 'all 0'}")


def _path(say: Printer, observation: Observation, case: PhaseRecord | None) -> None:
    path = observation.path
    say.line("")
    if path == NOT_ASKED and case is not None and case.decode is not Decode.UNKNOWN:
        say.line(f"path: {case.decode.name.lower()} (by the guest's own probe of VGA; there is no other source)")
    elif path.kind == "unknown":
        say.line(f"path: unknown ({path.line})")
    else:
        say.line(f"path: {path.kind} ({path.line.strip()})")


def summary(violations: Mapping[str, int]) -> str:
    """Return violations in words: ``3 lost, 1 duplicate``, or ``no violation``."""
    return ", ".join(f"{count} {kind}" for kind, count in violations.items() if count) or "no violation"


def mark(control: ControlResult, stopped: bool = False) -> str:
    """Return ``ok`` for a control that behaved as it must, otherwise what is wrong.

    ``stopped``: the case was ended at its first violation, so that its N cannot be compared with the power controls.
    """
    if control.enough:
        return "ok"
    if control.role == Role.SANITY.name.lower() and any(control.violations.values()):
        return "VIOLATED"
    if control.role == Role.POWER.name.lower() and control.ended:
        many = sum(control.violations.values()) >= POWER_MINIMUM
        if many and stopped:
            return "it failed, as it must; the case was stopped too soon to compare"
        if control.power:
            return "too few live batches were violated to tell how often a defect would show"
        # the rules for kernels that counted no live batches
        least = f"fewer than {POWER_MINIMUM} events"
        return f"by that rate, {least} in as few as the case ran" if many else f"{least} at the case's N"
    return "not comparable: it did not run to its end"


def extent(control: ControlResult) -> str:
    """Return how far a control ran, in its own experiment's unit, and how often a power control failed."""
    power = f", violated in {control.power}" if control.power else ""
    return f"{control.rounds} {control.unit}{power}"


def _control(control: ControlResult, stopped: bool) -> str:
    return f"  {control.label:<44} {summary(control.violations)} in {extent(control)}: {mark(control, stopped)}"


def _controls(say: Printer, verdict: Verdict, stopped: bool = False) -> None:
    if not verdict.controls:
        return
    say.line("controls (sanity must pass, power must fail):")
    for control in verdict.controls:
        say.line(_control(control, stopped))


def experiment_told(spec: KernelSpec, witnesses: Sequence[Witness], case: Phase) -> str:
    """Return the experiment of a verdict's witnesses: the case's, or the one that the verdict rests on."""
    planned = {phase.index: phase.experiment for phase in phases(spec)}
    return planned.get(witnesses[0].phase, case.experiment) if witnesses else case.experiment


def meaning(kind: ViolationKind, experiment: str = ORIGINAL) -> str:
    """Return the meaning of a violation of that kind, in words."""
    return experiments()[experiment].words[kind.name.lower()].meaning


def describe(witness: Witness, experiment: str = ORIGINAL) -> str:
    """Return one witness as one line."""
    who = " and ".join(f"CPU {cpu}" for cpu in (witness.cpu, witness.other) if cpu is not None)
    by = f" ({who})" if who else ""
    told = experiments()[experiment]
    if not told.tabled:
        place = f"about {told.unit} {witness.round}, cell {witness.cell}"
        found = f"{told.token_name} {witness.token:08x}, found {witness.value:08x}"
        if told.logs:
            found = f"{told.token_name} {witness.value if witness.kind is ViolationKind.TORN else witness.token:08x}"
        return f"{witness.kind.name.lower():<9} {place}, {found}{by}: {meaning(witness.kind, experiment)}"
    value = "" if witness.kind in (ViolationKind.LOST, ViolationKind.DUPLICATE) else f", found {witness.value:08x}"
    return (
        f"{witness.kind.name.lower():<9} {told.unit} {witness.round}, cell {witness.cell}, "
        f"{told.token_name} {witness.token:08x}{value}{by}: {meaning(witness.kind, experiment)}"
    )


def _first(witnesses: Sequence[Witness], kind: ViolationKind) -> Sequence[Witness]:
    """Return the earliest witnesses of one kind."""
    return sorted((entry for entry in witnesses if entry.kind is kind), key=lambda entry: entry.round)[:_WITNESSES]


def _witnesses(say: Printer, verdict: Verdict, experiment: str) -> None:
    if not verdict.witnesses:
        return
    say.line("")
    say.line(f"witnesses ({len(verdict.witnesses)} recorded; of each kind the earliest):")
    shown = [entry for kind in ViolationKind for entry in _first(verdict.witnesses, kind)]
    for witness in shown:
        say.line(f"  {describe(witness, experiment)}")
    hidden = len(verdict.witnesses) - len(shown)
    if hidden > 0:
        say.line(f"  ... and {hidden} more (--json)")


def _scene(say: Printer, record: Record, observation: Observation) -> None:
    if observation.scene:
        say.line("")
        for line in scene_lines(observation.scene, record.khz):
            say.line(line)


def _trace(say: Printer, spec: KernelSpec, record: Record, observation: Observation) -> None:
    """Print the hypervisor's accesses: the two halves of an exchange, with another CPU's access between them."""
    if not observation.trace:
        return
    written = {event.value for event in observation.trace if event.kind == "write"}
    around = [entry for entry in record.witnesses if entry.token in written]
    names = record.cpu_numbers
    first = observation.trace[0]
    say.line("")
    say.line(f"what the hypervisor did to the cell at {first.address:#x}, as it recorded it itself (ms):")
    for witness in around[:1]:
        say.line(f"  around {describe(witness, experiment_told(spec, around, phases(spec)[-1]))}")
    trace = observation.trace
    for at, (event, remark) in enumerate(zip(trace, remarks(trace), strict=True)):
        if at and event.index > trace[at - 1].index + 1:
            say.line(f"  {'...':>9}  {plural(event.index - trace[at - 1].index - 1, 'access')} left out")
        after = next((other for other in trace[at + 1 :] if other.cpu == event.cpu), None)
        if event.kind == "ask" and after is not None and after is trace[at + 1]:
            continue
        cpu = f"CPU {names[event.cpu]}" if event.cpu in names else f"vCPU {event.cpu}"
        begun = "write" if after is not None and after.kind == "write" else "read"
        did = {"ask": f"begins to {begun}", "read": f"reads  {event.value:08x}", "write": f"writes {event.value:08x}"}
        line = f"  {1000 * (event.seconds - first.seconds):9.3f}  {cpu:<7} {did[event.kind]}"
        say.line(f"{line}{f'   <- {remark}' if remark else ''}")
