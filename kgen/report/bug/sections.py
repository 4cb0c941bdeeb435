"""The expected result, the actual result, and what it means, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kgen.experiments import UPDATES
from kgen.kernel.plan import experiment_of, phases_of
from kgen.kernel.protocol import TABLE_HEADER
from kgen.report.markdown import code, words
from kgen.report.results.model import Result, Run
from kgen.report.text.case import explanations, extent, mark, summary
from kgen.report.text.suite import SIGNS, sum_of
from kgen.spec.case import Case, proof_of, resolve_target
from kgen.verdict.model import VerdictKind
from kgen.wording import one_line, plural

#: The first sentence for other verdicts, which no reader may take for a report of a defect.
_FIRST = {
    VerdictKind.ERROR: "kgen or one of its tools failed, so this says nothing about the machine.",
    VerdictKind.CRASH: "The guest or the hypervisor died before the case was over: this is the defect reported here.",
    VerdictKind.SKIP: "Nothing was run.",
    VerdictKind.UNSUPPORTED: "The instruction cannot be carried out there, so nothing was learnt about its atomicity.",
    VerdictKind.NO_STORAGE: "The cell does not hold what is written to it, so nothing was learnt about atomicity.",
    VerdictKind.RAM_BACKED: "The cells are in ordinary memory here: nothing was learnt about memory-mapped I/O.",
    VerdictKind.INCONCLUSIVE: "This proves neither a defect nor its absence: the run did not show enough.",
    VerdictKind.ATOMIC: "This is no report of a defect: no violation was found. Below is how certain that is.",
}
_IN_HALVES = (
    "A read-modify-write that is carried out as a read and a separate write lets another CPU's access come between the "
    "two. What was seen is what that leads to, and what no order of atomic operations can:"
)
_IN_PARTS = (
    "An access that is carried out in parts lets another CPU's access come between them. What was seen is what that "
    "leads to, and what no order of whole accesses can:"
)
#: The verdicts that a suite's report is about. ATOMIC is expected in their place.
_DEFECTS = frozenset({VerdictKind.NOT_ATOMIC, VerdictKind.CRASH, VerdictKind.ERROR})
#: Words of the output that need an explanation: a sign that the word is used, the word, and its meaning.
_TERMS = (
    ("cell", "cell", "a place of the target, as wide as the operand, on which all CPUs work at the same time"),
    (
        "batch",
        "batch",
        "cells that the CPUs go through without waiting, before all meet and CPU 0 counts the results",
    ),
    (
        "live batch",
        "live batch",
        "a batch in which operations of different CPUs overlapped, so that one carried out in halves would have shown",
    ),
    (
        "sanity:",
        "sanity control",
        "the same on ordinary memory, where it is known to be atomic; a violation would make the experiment unsound",
    ),
    (
        "power:",
        "power control",
        "an update that is not atomic, on the same cells; it must fail, otherwise no violation would prove nothing",
    ),
    ("path: ", "path", "what the cells are: io, a device that sees each access, or ram, ordinary memory"),
)
#: How many cases a suite's report describes one by one.
CASES_TOLD = 12


def proven(run: Run) -> list[Result]:
    """Return the results that prove a defect: those of cases with LOCK or, where there are none, of cases without
    it."""
    found = [result for result in run.results if result.kind is VerdictKind.NOT_ATOMIC]
    return [result for result in found if _is_locked(result)] or found


def told_cases(run: Run) -> list[Result]:
    """Return the results that the report shows: proven violations, whatever the results of other cases, and all results
    of the worst kind."""
    kind, found = run.kind, proven(run)
    if kind is VerdictKind.NOT_ATOMIC:
        return found
    return [*found, *(result for result in run.results if result.kind is kind)]


def title(run: Run) -> str:
    """Return one line of plain text for the summary field of a tracker. It may hold any printable character."""
    kind = run.kind
    if run.spec is None:
        return one_line(f"{kind.name} on {run.platform}")
    if run.spec.suite:
        counts = Counter(result.kind.name for result in told_cases(run))
        part = ", ".join(f"{name}: {count}" for name, count in counts.items())
        return one_line(f"{part} of {len(run.results)} cases of {run.spec.name} on {run.platform}")
    case, seen = run.spec.case, run.results[0].verdict.violations
    what = f"{_mnemonic(case)} of {case.width} bits on {case.target}"
    if kind is VerdictKind.NOT_ATOMIC:
        return one_line(f"{what} is not atomic on {run.platform}: {summary(seen)}")
    return one_line(f"{kind.name}: {what} on {run.platform}")


def _mnemonic(case: Case) -> str:
    name = case.instruction.upper()
    if not case.lock:
        return f"{name} without LOCK"
    # XCHG locks without the prefix, and MOV has no LOCK
    return name if case.form.statement.startswith(case.instruction) else f"LOCK {name}"


def first_words(run: Run) -> list[str]:
    """Return the sentences that come first; none where a violation was proven."""
    kind = run.kind
    text, violated = _FIRST.get(kind), proven(run)
    found = [f"**{kind.name}**: {text}"] if text and not violated else []
    if text and violated:
        others = plural(len(told_cases(run)) - len(violated), "case")
        found.append(f"**{kind.name}** in {others}: {text} The violations in the other cases are proven nevertheless.")
    found += _targets(run)
    if violated and not any(_is_locked(result) for result in violated):
        found.append(
            "**The instructions that are not atomic here have no LOCK**: the architecture allows that, so it is no "
            "defect. It shows that the experiment finds what it looks for."
        )
    elif any(result.kind is VerdictKind.NOT_ATOMIC and not _is_locked(result) for result in run.results):
        found.append("Cases without LOCK that are not atomic are left out below: without LOCK nothing is promised.")
    if _is_known(run):
        found.append(
            "It is the same symptom as kernel bug 216867, XCHG on VGA memory under KVM; please check whether it is a "
            "duplicate of that: https://bugzilla.kernel.org/show_bug.cgi?id=216867"
        )
    return found


def _targets(run: Run) -> list[str]:
    """Describe the targets of the cases, for readers who do not know their names."""
    names = dict.fromkeys(result.spec.cases[result.number].target for result in told_cases(run) if result.spec)
    about = [f"{code(name)} is {words(resolve_target(name).summary)}" for name in names]
    return [f"The target{'s' if len(about) > 1 else ''}: {'; '.join(about)}."] if about else []


def _is_known(run: Run) -> bool:
    """Return whether the symptom is that of the first report of its kind."""
    cases = [
        result.spec.cases[result.number]
        for result in told_cases(run)
        if result.spec and result.kind is VerdictKind.NOT_ATOMIC and _is_locked(result)
    ]
    return "kvm" in run.platform and any(case.instruction == "xchg" for case in cases)


def _is_locked(result: Result) -> bool:
    return result.spec is None or result.spec.cases[result.number].lock


def expected(run: Run) -> list[str]:
    """Return the output of a machine on which the instruction is atomic, for a block of code."""
    if run.spec is None:
        return ["ATOMIC: no violation"]
    if run.spec.suite:
        return _expected_of_suite(run)
    result = run.results[0]
    if result.kind is VerdictKind.NOT_ATOMIC and not _is_locked(result):
        return ["NOT_ATOMIC: without LOCK nothing else is promised"]
    phase = phases_of(run.spec, 0)[-1]
    # The steps to reproduce run to the end, also where this run was stopped. A walk over cells may exceed its number of
    # operations a little, and one that goes on until its proof is reached has no number.
    record = result.phase_record
    least = max(phase.rounds, record.rounds if record else 0) if phase.rounds else 0
    rounds, experiment = str(least or "N"), experiment_of(phase)
    units = experiment.unit if rounds == "1" else experiment.units
    proof = proof_of(run.spec.case)
    live = f"nor in L live batches{f' of its {proof}' if proof else ''}"
    end = f"ATOMIC: no violation in {rounds} {units}, {live}"
    if not experiment.tabled:
        return [end]
    # how the consumers share the tokens is chance, but no token may be missing
    return [TABLE_HEADER, f"counts:\t{rounds}\tm\t{rounds}-m\t0", "", end]


def _is_defect(result: Result) -> bool:
    return result.kind in _DEFECTS and _is_locked(result)


def _expected_of_suite(run: Run) -> list[str]:
    """Return the verdicts of a machine without the defect: ATOMIC for each defect, and the other verdicts as they are.

    A case whose cells are in ordinary memory says nothing about memory-mapped I/O, and without LOCK nothing is
    promised.
    """
    mended = [result for result in run.results if _is_defect(result)]
    kinds = [VerdictKind.ATOMIC if _is_defect(result) else result.kind for result in run.results]
    lines = [f"{result.case}: ATOMIC" for result in mended[:CASES_TOLD]]
    if len(mended) > CASES_TOLD:
        lines.append(f"... and {len(mended) - CASES_TOLD} more")
    return [*lines, *([""] if lines else []), sum_of(kinds)]


def table_note(run: Run) -> str:
    """Return the meaning of the table's columns, "" where there is no table."""
    if run.spec is None or run.spec.suite or not experiment_of(phases_of(run.spec, 0)[-1]).tabled:
        return ""
    consumers = "count1 and count2 what the consumers took" + (
        " (count2: all but the first)" if run.spec.case.cpus > 3 else ""
    )
    any_number = ", m any number" if TABLE_HEADER in expected(run) else ""
    return (
        f"count0 is how many tokens CPU 0 put, {consumers}{any_number}. The last column is count0 − (count1 + "
        "count2), the tokens that were lost minus those that were taken twice: 0 where every exchange is atomic."
    )


def terms(run: Run, output: Sequence[str]) -> list[str]:
    """Return the meanings of the signs and words in the output, as a list."""
    shown = "\n".join(output)
    found = [f"- {name}: {what}" for sign, name, what in _TERMS if sign in shown]
    if run.spec is None or not run.spec.suite:
        return found
    used = dict.fromkeys(result.kind for result in run.results)
    signs = ", ".join(f"{code(SIGNS[kind])} {kind.name}" for kind in SIGNS if kind in used)
    table = "a row is an instruction with an experiment, then widths in bits; a column is a target. Its entries:"
    kinds = ", with the kinds of violation" if VerdictKind.NOT_ATOMIC in used else ""
    controls = [f"- {name}: {what}" for sign, name, what in _TERMS if sign in ("sanity:", "power:")]
    return [f"- table: {table} {signs}{kinds}", *controls]


def explanation(run: Run) -> Iterator[str]:
    """Yield paragraphs in Markdown."""
    told = told_cases(run)
    if run.spec is None:
        yield words(run.results[0].verdict.reason)
        return
    yield from _mechanism(proven(run))
    used: dict[str, str] = {}
    for result in told[:CASES_TOLD]:
        if result.spec is not None and result.kind in (VerdictKind.NOT_ATOMIC, VerdictKind.ATOMIC):
            phase = phases_of(result.spec, result.number)[-1]
            used.setdefault(phase.experiment, experiment_of(phase).argument)
    for name, argument in used.items():
        yield f"The argument ({words(name)}): {words(argument)}"
    if not run.spec.suite and run.kind in (VerdictKind.NOT_ATOMIC, VerdictKind.ATOMIC):
        return  # the output above ends with the verdict, its controls and its bound
    for result in told[:CASES_TOLD]:
        yield "\n".join(_case(result))
    if len(told) > CASES_TOLD:
        yield f"And {len(told) - CASES_TOLD} more cases, see the output above."


def _mechanism(violated: Sequence[Result]) -> Iterator[str]:
    """Yield how an access in halves causes the violations that were seen, with tokens and without."""
    seen: dict[bool, dict[str, dict[str, None]]] = {}
    for result in violated:
        if result.spec is not None:
            experiment = experiment_of(phases_of(result.spec, result.number)[-1])
            told = seen.setdefault(experiment.tabled, {})
            for kind, count in result.verdict.violations.items():
                if count:
                    told.setdefault(kind, {})[experiment.words[kind].mechanism] = None
    if not seen:
        return
    yield _IN_PARTS if {kind for told in seen.values() for kind in told} == {"torn"} else _IN_HALVES
    for tokens, told in sorted(seen.items(), reverse=True):
        if len(seen) > 1:
            yield "Where tokens are passed on:" if tokens else "In the other experiments:"
        lines = (line for kind in UPDATES if kind in told for line in told[kind])
        yield "\n".join(f"- {line}" for line in lines)


def _case(result: Result) -> Iterator[str]:
    verdict = result.verdict
    yield f"{code(result.case)}: {verdict.kind.name}: {words(verdict.reason)}"
    if result.spec is None:
        return
    yield ""
    for line in explanations(result.spec, verdict, result.number):
        yield f"- {words(line)}"
    for control in verdict.controls:
        state = "as it must" if control.enough else mark(control)
        yield f"- control {code(control.label)}: {words(summary(control.violations))} in {extent(control)}: {state}"
