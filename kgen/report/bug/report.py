"""A bug report, ready to be pasted into a bug tracker, in the form of the first one of its kind (kernel bug 216867)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kgen.report.bug.code_shown import listed, loops
from kgen.report.bug.environment import place_lines
from kgen.report.bug.sections import expected, explanation, first_words, table_note, terms, title, told_cases
from kgen.report.markdown import code, fence, words
from kgen.report.reproduce.rebuilt import build_ids, rebuilt
from kgen.report.reproduce.steps import LOG, Steps, steps
from kgen.report.results.model import Result, Run
from kgen.report.text.suite import sum_of
from kgen.verdict.model import SEVERITY, VerdictKind
from kgen.wording import fitting, plural

#: Bugzilla takes 65535 characters in a comment, GitHub 65536. Counted in bytes here, which is safe for both.
MAX_BYTES = 65_535
#: How many bytes one block of output or code may take. The largest number with which the whole report fits is used.
_BLOCKS = (24_000, 12_000, 6_000, 3_000, 1_500, 600, 200)
#: The note on a run by hand where the verdict is not a proven violation.
_LESS = "Its verdict may be weaker: by hand, what backs the cells is not attested."
#: For readers of the report who do not know kgen.
_GETTING = "in its source `make verify` installs it, and `. .venv/bin/activate` makes it the command `kgen`"
#: Cases of a suite whose code is shown.
_CODE_CASES = 3
#: The longest title. A longer one is cut here, because the tracker would cut its summary anywhere.
_TITLE = 200


@dataclass(frozen=True)
class Enclosed:
    """A file that goes with the report."""

    name: str
    #: In bytes.
    size: int
    #: In hex.
    sha256: str
    #: What it is, in words.
    what: str


def render(runs: Sequence[Run], enclosed: Sequence[Enclosed] = ()) -> str:
    """Return the report on these runs in Markdown, at most MAX_BYTES long in UTF-8, with a final newline."""
    parts = [_Part(run, steps(run), _output(run)) for run in runs]
    for limit in _BLOCKS:
        text = _whole(parts, enclosed, limit)
        if _size(text) <= MAX_BYTES:
            return text
    # many runs: as many of the worst as fit
    parts.sort(key=lambda part: SEVERITY.index(part.run.kind))
    least, most = 1, len(parts)
    while most - least > 1:
        count = (least + most) // 2
        least, most = (count, most) if _size(_some(parts, enclosed, count)) <= MAX_BYTES else (least, count)
    text = _some(parts, enclosed, least)
    if _size(text) <= MAX_BYTES:
        return text
    note = "\n\n[... the rest is left out ...]\n"
    return text.encode("utf-8", "replace")[: MAX_BYTES - len(note)].decode("utf-8", "ignore") + note


@dataclass(frozen=True)
class _Part:
    """The parts of the report on one run that do not depend on its length."""

    run: Run
    way: Steps
    output: Sequence[str]


def _whole(parts: Sequence[_Part], enclosed: Sequence[Enclosed], limit: int) -> str:
    lines: list[str] = []
    size = 0
    for part in parts:
        added = [*_report(part, limit), ""]
        lines += added
        size += sum(_size(line) + 1 for line in added)
        if size > MAX_BYTES:
            # too long already: what would follow does not matter
            break
    return "\n".join([*lines, *_attachments(enclosed)]) + "\n"


def _some(parts: Sequence[_Part], enclosed: Sequence[Enclosed], count: int) -> str:
    """Return the report on the first runs, and the sum of the others."""
    text, left = _whole(parts[:count], enclosed, _BLOCKS[-1]), [part.run.kind for part in parts[count:]]
    if not left:
        return text
    note = f"[... {plural(len(left), 'more run')} left out, none of them worse: {sum_of(left)} ...]"
    return f"{text}\n{note}\n"


def _report(part: _Part, limit: int) -> Iterator[str]:
    run = part.run
    name = title(run)
    yield f"# {words(fitting(name, _TITLE, '...'))}"
    for line in first_words(run):
        yield from ("", line)
    yield from ("", "## Environment", "", *place_lines(run))
    yield from ("", "## Steps to reproduce", "", *_steps(run, part.way))
    yield from ("", "## Expected output", "", *fence(expected(run)))
    if note := table_note(run):
        yield from ("", note)
    yield from ("", "## Actual output", "", *fence(part.output, limit=limit))
    if meant := terms(run, part.output):
        yield from ("", *meant)
    yield from ("", "## Explanation")
    for paragraph in explanation(run):
        yield from ("", paragraph)
    if run.spec is not None and run.kind is not VerdictKind.SKIP:
        yield from ("", "## Code", "", *_code(run, limit))


def _steps(run: Run, way: Steps) -> Iterator[str]:
    """Yield the section's text: the steps with kgen, or by hand where kgen did not run the machine. After the steps
    with kgen, a section of its own has those by hand."""
    for note in way.notes:
        yield from (words(note), "")
    if not way.with_kgen:
        yield from _by_hand(way)
        return
    yield from (f"With kgen {code(run.results[0].kgen)} ({_GETTING}), in an empty directory:", "")
    yield from fence(way.with_kgen, "sh")
    yield from ("", "Counts differ from run to run; the verdict is what to compare.")
    if way.by_hand:
        yield from (
            "",
            "## The same by hand",
            "",
            "The same kernel without kgen's run control; do the steps above first.",
        )
        if table_note(run):
            yield f"The table's rows are in {code(LOG)}, too: a last row that does not end in 0 is the violation."
        yield from _by_hand(way)


def _by_hand(way: Steps) -> Iterator[str]:
    if not way.by_hand:
        yield "The result does not say how it was made; please add it here."
        return
    if way.machine is None:
        yield "The result holds no command that runs the machine: replace the comment by what runs it."
    elif way.by_hand:
        yield "`timeout` (in seconds) ends a machine on which the kernel hangs."
    if not way.by_log:
        yield _LESS
    # text that cannot be pasted unchanged is no shell script
    yield from ("", *fence(way.by_hand, "text" if way.machine is None else "sh"))


def _output(run: Run) -> list[str]:
    """Return what kgen printed, which ends with the verdict."""
    return run.explain().removesuffix("\n").split("\n")


def _code(run: Run, limit: int) -> Iterator[str]:
    """Yield the loops, from the kernel built again."""
    spec = run.spec
    assert spec is not None
    found = rebuilt(spec)
    if found.kernel is None:
        yield f"This kgen cannot build the kernel again: {words(found.why)}"
        return
    yield build_note(run, found.kernel.elf.build_id.hex())
    # a suite's later boots number their cases anew; this kernel has the numbers of the whole suite
    numbers = {case.id: number for number, case in enumerate(spec.cases)}
    wanted = [result for result in told_cases(run) if result.case in numbers][:_CODE_CASES]
    shown: dict[str, None] = {}
    for result in wanted:
        yield ""
        yield from _loops_of(result, run, numbers[result.case])
        for loop in loops(spec, numbers[result.case]):
            shown |= dict.fromkeys(loop.routines)
    yield ""
    yield from fence(listed(spec, tuple(shown)), "asm", limit)


def _loops_of(result: Result, run: Run, number: int) -> Iterator[str]:
    assert run.spec is not None
    if run.spec.suite:
        yield from (f"In case {code(result.case)}:", "")
    for loop in loops(run.spec, number):
        names = ", ".join(code(name) for name in loop.routines[:-1])
        yield f"- {loop.cpus}: {names}, which call{'s' if len(loop.routines) == 2 else ''} {code(loop.routines[-1])}"


def build_note(run: Run, build_id: str) -> str:
    """Return a sentence in Markdown: whether a kernel that was built again is the one that was run."""
    ran = build_ids(run)
    if not ran:
        return f"The kernel was built again for this report (build id {code(build_id)}); the result names no build id."
    if build_id in ran:
        return f"The kernel was built again for this report, and is the one that was run (build id {code(build_id)})."
    return (
        f"**The kernel was built again for this report by another version of kgen: its build id is {code(build_id)}, "
        f"that of the kernel that was run {code(ran[0])}.** Addresses and code may differ."
    )


def _attachments(enclosed: Sequence[Enclosed]) -> Iterator[str]:
    yield from ("## Attachments", "")
    if not enclosed:
        yield "None; `kgen report RESULT --format markdown --bundle FILE.zip` packs image, ELF, listing, logs, results."
    for each in enclosed:
        yield f"- {code(each.name)}: {words(each.what)}, {each.size} bytes, SHA-256 {code(each.sha256)}"


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
