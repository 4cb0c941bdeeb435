"""Report on schedules of the token experiment: what was tried, the results, and one schedule step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from kgen import __version__
from kgen.interleave.model import PRODUCER, Access, Exploration, Kind, Step, Trial, Window
from kgen.report.results.document import plain
from kgen.spec import KernelSpec

SCHEMA = 1
#: What stepping can show and what it cannot. Every report has it.
NO_EVIDENCE = """\
This is no evidence about LOCK. A CPU that is stepped carries out each single
instruction whole, locked or not, on any hypervisor, because no other CPU runs
meanwhile. What is shown here is what can happen between the instructions, and
whether kgen's judge sees it. Whether a LOCKed instruction is atomic where CPUs
run at the same time, only 'kgen verify' can tell."""
#: The outcomes of which an example is shown, in this order.
_SHOWN = ("lost", "duplicate", "stale")


def heading(spec: KernelSpec, form: str, window: Window, total: int, limit: int) -> str:
    """Return what is tried: the instruction, what each CPU does, where the window ends, and the number of schedules."""
    ways = (
        f"CPU {cpu} {'looks before it exchanges' if reads else 'exchanges at once'}"
        for cpu, reads in enumerate(window.reads_first, start=1)
    )
    lines = [f"{spec.name}: {form}, one token ({window.token:x}); CPU {PRODUCER} puts it, {', '.join(ways)}"]
    if window.bound is not None:
        ways_to_wait = {
            0: "waits for the token before its first try",
            1: "may find the cell empty once, then waits for the token",
        }
        more = f"may find the cell empty {window.bound} times, then waits for the token"
        said = ways_to_wait.get(window.bound, more)
        lines.append(f"each consumer {said}: {total} schedules" + ("" if limit == total else f", the first {limit}"))
    return "\n".join(lines)


def summary(found: Exploration) -> str:
    """Return the number of schedules, how many were tried, and their results."""
    left_out = found.total - found.tried
    how = "the window is exhausted" if found.exhausted else f"--limit left {left_out} out"
    lines = [f"tried {found.tried} of {found.total} schedules: {how}"]
    lines += [f"  {found.outcomes.get(name, 0):6}  {name}" for name in ("fine", *_SHOWN[:2])]
    lines += [f"  {found.outcomes[name]:6}  {name}" for name in _SHOWN[2:] if name in found.outcomes]
    lines.append(f"  {found.disagreements:6}  on which model, guest and judge disagree")
    return "\n".join(lines)


def examples(found: Exploration) -> Iterator[str]:
    """Yield listings of the first schedule with each kind of violation, and of the first ones with disagreement."""
    for name in _SHOWN:
        if name in found.first:
            yield f"{name}:\n{listing(found.first[name])}"
    for trial in found.disagreeing:
        yield disagreement(trial)


def disagreement(trial: Trial) -> str:
    """Return the listing of a trial with disagreement, and what the disagreement is about."""
    return "\n".join(["disagreement:", listing(trial), *(f"  {sentence}" for sentence in trial.disagreements)])


def listing(trial: Trial) -> str:
    """Return one schedule, step by step."""
    rows = [("step", "CPU", "address", "instruction", "reads", "writes", "cell", "")]
    for number, (step, remark) in enumerate(zip(trial.steps, remarks(trial), strict=True), start=1):
        access, point = step.access, step.point
        cells = (_word(access.read), _word(access.wrote), _word(access.cell))
        rows.append((str(number), str(access.cpu), f"{point.address:08x}", point.statement, *cells, remark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(part.rjust(width) if at < 2 else part.ljust(width) for at, (part, width) in enumerate(cells)).rstrip()
        for cells in (tuple(zip(row, widths, strict=True)) for row in rows)
    ]
    order = ",".join(map(str, trial.schedule))
    verdict = f"; the verdict is {trial.verdict}" if trial.verdict else ""
    return "\n".join([f"  --schedule {order}", *(f"  {line}" for line in text), f"  {_ending(trial)}{verdict}"])


def remarks(trial: Trial) -> list[str]:
    """Return a remark for each step: what happened to the token, "" for nothing."""
    token = next((step.access.wrote for step in trial.steps if step.access.cpu == PRODUCER and step.access.wrote), None)
    accesses = [step.access for step in trial.steps]
    return [_remark(accesses, at, token) for at in range(len(accesses))]


def _remark(accesses: Sequence[Access], at: int, token: int | None) -> str:
    """Return the remark for one step. ``token`` is None where it was never put."""
    access = accesses[at]
    before = accesses[at - 1].cell if at else 0
    if access.cpu == PRODUCER:
        return "the token is put" if access.cell == token and before != token else ""
    if access.kind is Kind.LOOK:
        return "only looks"
    if token is None:
        return ""
    if access.read == token:
        others = {
            each.cpu
            for each in accesses[:at]
            if each.cpu not in (PRODUCER, access.cpu) and each.read == token and each.kind is not Kind.LOOK
        }
        also = f", as CPU {' and '.join(map(str, sorted(others)))} had" if others else ""
        return f"CPU {access.cpu} has the token{also}"
    if access.kind is Kind.WRITE and before == token:
        half = next(each for each in reversed(accesses[:at]) if each.cpu == access.cpu)
        if half.read != token:
            return f"overwrites the token, which was put after CPU {access.cpu} had read"
    return ""


def _ending(trial: Trial) -> str:
    """Return the outcome of one schedule in a sentence."""
    expected = trial.expected
    hands = [cpu for cpu, take in enumerate(expected.takes, start=1) if take]
    took = f"CPU {' and '.join(map(str, hands))} took the token" if hands else "no CPU took the token"
    cell = f"the cell holds {expected.cell:x}" if expected.cell else "the cell is empty"
    return f"{took}, {cell}: {expected.name}"


def _word(value: int | None) -> str:
    return "" if value is None else f"{value:08x}"


def to_json(spec: KernelSpec, window: Window, found: Exploration, invocation: Sequence[str]) -> str:
    """Return everything as one JSON document, with a final newline."""
    made: dict[str, Any] = {
        "schema": SCHEMA,
        "kgen": __version__,
        "invocation": list(invocation),
        "case": spec.name,
        "spec": plain(spec),
        "digest": spec.digest(),
        "window": plain(window),
        "evidence_about_lock": False,
        "schedules": found.total,
        "tried": found.tried,
        "exhausted": found.exhausted,
        "outcomes": plain(found.outcomes),
        "disagreements": found.disagreements,
        "disagreeing": [_trial(trial) for trial in found.disagreeing],
        "first": {name: _trial(trial) for name, trial in sorted(found.first.items())},
    }
    return json.dumps(made, indent=2) + "\n"


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "schedule": list(trial.schedule),
        "verdict": trial.verdict,
        "outcome": plain(trial.expected),
        "disagreements": list(trial.disagreements),
        "steps": [_step(step) for step in trial.steps],
        "serial_log": trial.log,
    }


def _step(step: Step) -> dict[str, Any]:
    return {**plain(step.access), "address": step.point.address, "instruction": step.point.statement}
