"""Judge a run without its machine: from a captured log, a dump of its memory, or the result code.

The input is bytes, the output is runs. A run is the request and the observation, ready to be judged. The guest's own
verdict (its Test Anything lines) is not used: everything is computed again by the rules of kgen.verdict.
"""

from __future__ import annotations

import itertools
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from kgen import __version__
from kgen.errors import KgenError, LinkError, ProtocolError, SpecError
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import MEMORY_DUMP, RESULT_CODE, SERIAL_ONLY, Observation
from kgen.evidence.records import Record
from kgen.kernel.plan import phases
from kgen.kernel.protocol import LINE_PREFIX, Log, is_foreign, lines_of, parse_line, parse_log
from kgen.offline import file_kind, loader_messages, memory_dump, original_table, serial_log
from kgen.offline.progress import Tell, untold
from kgen.report.results.model import Run as ResultRun
from kgen.report.results.model import run_of_one_boot
from kgen.spec import Case
from kgen.spec.defaults import DEFAULT_ROUNDS, PROOF_SECONDS
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.toolchain.elf_reader import LoadedElf
from kgen.toolchain.elf_reader import read as read_elf
from kgen.verdict.consistency import symbols_of
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind
from kgen.wording import quoted

NAME_IT = "name the kernel with --elf or --manifest"
_BUILD_SHOWN = 12
_LINE_SHOWN = 40
#: The most runs of one log that are judged: a machine with more starts resets again and again.
MAX_RUNS = 1000
#: How a line of the guest begins, whole or cut.
_BEGUN = re.compile(r"kgen:[0-9]")


@dataclass(frozen=True)
class Named:
    """A kernel that the user named."""

    name: str
    spec: KernelSpec
    build_id: str
    #: Its ELF, None where only its manifest was given.
    kernel: LoadedElf | None


@dataclass(frozen=True)
class Run:
    """A run to be judged."""

    #: Which part of the input it is.
    where: str
    #: None where the request is unknown.
    spec: KernelSpec | None
    observation: Observation
    #: The verdict where the request is unknown.
    known: Verdict | None = None
    #: What was done to the input, one sentence each.
    notes: tuple[str, ...] = ()


def verdicts(run: Run) -> tuple[Verdict, ...]:
    """Return the verdict on each case of a run; a single one where the request is unknown."""
    if run.spec is None:
        known = run.known or Verdict(VerdictKind.INCONCLUSIVE, "the request is unknown")
        return (replace(known, notes=known.notes + run.notes),)
    found = (judge(run.spec, run.observation, number) for number in range(len(run.spec.cases)))
    return tuple(replace(verdict, notes=verdict.notes + run.notes) for verdict in found)


def results(run: Run, invocation: Sequence[str] = ()) -> ResultRun:
    """Judge a run, and return it in the form of all results."""
    return run_of_one_boot(run.spec, run.observation, verdicts(run), invocation=invocation, where=run.where)


def from_elf(data: bytes, name: str) -> Named:
    """Return the kernel of an ELF that kgen has built. Raises SpecError for any other file."""
    try:
        kernel = read_elf(data, name=name)
    except LinkError as error:
        raise SpecError(error.message, where=error.where, hint=error.hint) from error
    try:
        return Named(name, KernelSpec.from_json(kernel.spec_json), kernel.build_id.hex(), kernel)
    except SpecError as error:
        raise SpecError(f"was built by another version of kgen: {error.message}", where=name) from error


def from_manifest(data: bytes, name: str) -> Named:
    """Return the kernel that a manifest.json describes. Raises SpecError."""
    try:
        found = json.loads(data)
        spec = KernelSpec.from_json(json.dumps(found["spec"]))
        digest, build_id = found["digest"], str(found["build_id"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SpecError(
            "is no manifest of a kgen kernel", where=name, hint="give the manifest.json beside it"
        ) from error
    except SpecError as error:
        raise SpecError(f"is of another version of kgen: {error.message}", where=name) from error
    if digest != spec.digest():
        raise SpecError("its digest does not fit what was asked: it was changed", where=name)
    return Named(name, spec, build_id, None)


# --- from a log ----------------------------------------------------------------------------------------------------


def from_capture(data: bytes, named: Named | None = None, tell: Tell = untold) -> tuple[Run, ...]:
    """Return the runs in a log, in order. Where nothing in it is a kernel's, return one run that says why. ``tell`` is
    called now and then with the progress. Never raises."""
    tell("reading lines", 0, 0)
    cleaned = serial_log.clean(data, tell)
    tell("looking for runs", 0, 0)
    pieces = _with_broken_joined(serial_log.split(cleaned.text))
    if not pieces or len(pieces) > MAX_RUNS:
        why = _too_many(len(pieces)) if pieces else _nothing(data, cleaned.text)
        verdict = Verdict(VerdictKind.ERROR, why)
        return (Run("", None, _seen(None, data.decode("latin-1")), verdict, cleaned.notes),)
    whole = data.decode("latin-1") if len(pieces) == 1 else None
    runs: list[Run] = []
    for piece, broken in pieces:
        # of a single one it is unknown how far it is read
        tell("reading runs", len(runs), len(pieces) if len(pieces) > 1 else 0)
        shown = piece if whole is None else whole
        runs.append(_broken(shown) if broken else _run(piece, shown, named))
    of = f" of {len(runs)}" if len(runs) > 1 else ""
    return tuple(
        replace(run, where=f"run {number}{of}" if of else "", notes=run.notes + cleaned.notes)
        for number, run in enumerate(runs, 1)
    )


def _with_broken_joined(pieces: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the runs in a log, and for each whether it is broken, that is, without a whole line.

    Consecutive broken runs become one: nothing more can be said of them.
    """
    made: list[tuple[str, bool]] = []
    for broken, group in itertools.groupby(pieces, lambda piece: not any(map(_is_whole, lines_of(piece)))):
        texts = list(group)
        made += [("".join(texts), True)] if broken else [(text, False) for text in texts]
    return made


def _is_whole(line: str) -> bool:
    """Return whether a line is of the table, or ends as a line that a guest of any version prints."""
    own = line[line.find(LINE_PREFIX) :] if LINE_PREFIX in line else ""
    return "counts:" in line or (bool(own) and (parse_line(own) is not None or is_foreign(own)))


def _too_many(count: int) -> str:
    return (
        f"the log holds {count} starts of a kernel, and at most {MAX_RUNS} are judged; does the machine reset again "
        "and again? give the part of the log that is meant"
    )


def _nothing(data: bytes, text: str) -> str:
    """Return why a log has no lines of a kernel. ``text`` is the cleaned log."""
    if not data:
        return "the log is empty; is it of the port the kernel was built for, and was the image booted?"
    other = file_kind.not_a_log(data)
    if other:
        return f"the log {other}"
    other = file_kind.encoded(data)
    if other:
        return f"the log {other}"
    said = loader_messages.last_words(text)
    if said:
        return said
    if "kgen:" in text or "kgen boot:" in text:
        return "the log has a word of kgen's loader and no line of a kernel: it was not started"
    return "no line of a kgen kernel is in the log; was it the kernel's image that was booted?"


def _broken(shown: str, notes: tuple[str, ...] = ()) -> Run:
    """Return a run of which no line is whole."""
    reason = "nothing but broken lines of a kernel is left of the log"
    return Run("", None, _seen(None, shown), Verdict(VerdictKind.INCONCLUSIVE, reason), notes)


def _run(text: str, shown: str, named: Named | None) -> Run:
    """Return one run of a log. ``shown`` is the text that the result keeps as the log."""
    log, notes = _read(text)
    record = from_log(log)
    if record is None:
        foreign = _foreign(text, log)
        table = None if foreign else original_table.read(text)
        if table is not None:
            seen = replace(_seen(None, shown), rows=table.rows)
            return Run("", None, seen, original_table.judge_table(table, len(_BEGUN.findall(text))))
        other = file_kind.encoded(text.encode("latin-1"))
        unread = foreign or (f"the log {other}" if other else "")
        broken = _broken(shown, _spoiled(text))
        return replace(broken, known=Verdict(VerdictKind.ERROR, unread)) if unread else broken
    seen = replace(_seen(record, shown), rows=log.rows)
    foreign = _foreign(text, log)
    if foreign:
        return Run("", None, seen, Verdict(VerdictKind.ERROR, foreign))
    if named is not None and record.build_id and record.build_id != named.build_id:
        builds = f"the log is of build {_short(record.build_id)}, {named.name} of build {_short(named.build_id)}"
        seen = replace(seen, problems=(builds,))
    spec = named.spec if named else _asked(record, log)
    if spec is None:
        return Run("", None, seen, Verdict(VerdictKind.INCONCLUSIVE, _unknown(record)), _spoiled(text))
    seen = replace(seen, problems=(*seen.problems, *_strangers(spec, log)))
    notes += () if log.intact else _spoiled(text)
    return Run("", spec, seen, notes=notes + _version_note(log))


def _spoiled(text: str) -> tuple[str, ...]:
    """Return a note on damage to lines that cannot be undone."""
    said = file_kind.spoiled(text)
    return (said,) if said else ()


def _strangers(spec: KernelSpec, log: Log) -> tuple[str, ...]:
    """Return the problem that a run has lines of another kernel: a run whose first line was lost comes after one that
    was cut off."""
    planned = {str(phase.index): phase.label for phase in phases(spec)}
    for line in log.lines:
        if line.kind == "phase" and planned.get(line.text("index")) != line.text("label"):
            return (f"the log has a line of another kernel: it announces {line.text('label')}",)
    return ()


def _read(text: str) -> tuple[Log, tuple[str, ...]]:
    """Return a parsed run, with notes.

    Foreign lines between the guest's are removed where its closing line proves that the record is whole without them.
    The notes report it.
    """
    log = parse_log(text.encode("latin-1"))
    if log.intact or not log.lines:
        return log, ()
    kept, others = serial_log.without_others(text)
    whole = parse_log(kept.encode("latin-1"))
    if not whole.intact or not others:
        return log, ()
    shown = quoted(others[0], _LINE_SHOWN)
    return whole, (f"lines that are not the kernel's stand between its own ({len(others)}, such as {shown!r})",)


def _seen(record: Record | None, shown: str) -> Observation:
    return Observation(
        platform=SERIAL_ONLY, serial=record, memory=None, path=NOT_ASKED, log=shown, environment=_environment()
    )


def _environment() -> dict[str, dict[str, str]]:
    """Return the versions of the judge. Nothing is known about the host of the run."""
    return {"versions": {"kgen": __version__, "python": platform.python_version()}}


def _version(log: Log) -> str:
    """Return the version of kgen that the kernel reports, "" where it reports none."""
    return next((line.text("version") for line in log.lines if line.kind == "boot"), "")


def _version_note(log: Log) -> tuple[str, ...]:
    version = _version(log)
    return (
        (f"the kernel is of kgen {version}, it was judged by {__version__}",)
        if version not in ("", __version__)
        else ()
    )


def _foreign(text: str, log: Log) -> str:
    """Return how a log shows that a kernel of another kgen printed it, "" where it does not."""
    line = next((line for line in lines_of(text) if line.startswith("kgen:") and is_foreign(line)), "")
    if line:
        told = re.search(r"^kgen:0 boot (?:.* )?version=([^ ]+)", text, re.MULTILINE)
        return _of_another(told[1] if told else "", f"its line '{' '.join(line.split()[:2])}' is in another form")
    boot = next((line for line in log.lines if line.kind == "boot"), None)
    asked = "".join(line.text("text") for line in log.lines if line.kind == "spec")
    if boot is None or not asked or not _is_json(asked):
        return ""
    try:
        fits = KernelSpec.from_text(asked).digest() == boot.text("digest")
    except SpecError as error:
        return _of_another(boot.text("version"), error.message)
    if not fits and boot.text("version") != __version__:
        return _of_another(boot.text("version"), "its digest is another")
    return ""


def _of_another(version: str, why: str) -> str:
    """Return the sentence for the log of a kernel that this kgen does not know."""
    whose = f"kgen {version}" if version and version != __version__ else "another kgen"
    return f"the log is of a kernel that {whose} built, this is kgen {__version__}: {why}; judge it with that one"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _asked(record: Record, log: Log) -> KernelSpec | None:
    """Return the request of a log's kernel: the printed one or, where that is lost, a guess that has the printed
    digest. None where it is unknown."""
    try:
        return KernelSpec.from_text(record.spec)
    except SpecError:
        pass
    limits = [line.number("rounds") for line in log.lines if line.kind == "phase"]
    if not record.digest or not limits:
        return None
    controls = any(line.kind == "phase" and line.text("label").startswith("power:") for line in log.lines)
    try:
        asked = KernelSpec(Case.from_id(record.case), rounds=limits[-1] or DEFAULT_ROUNDS, controls=controls)
    except SpecError:
        return None
    guesses = (
        replace(asked, proof_seconds=PROOF_SECONDS),
        asked,
        replace(asked, rules=OLD_RULES),
    )
    return next((guess for guess in guesses if guess.digest() == record.digest), None)


def _unknown(record: Record) -> str:
    """Return why the request is unknown, and what the log still shows."""
    powers = {phase.index for phase in record.phases if phase.label.startswith("power:")}
    shown = sum(witness.phase not in powers for witness in record.witnesses)
    also = f"; it has {shown} witnesses of violations that may be the case's" if shown else ""
    return f"the log does not hold the request ({record.gap or 'its spec lines are missing'}); {NAME_IT}{also}"


# --- from memory ---------------------------------------------------------------------------------------------------


def from_dump(file: BinaryIO, name: str, named: Named | None = None, log: Run | None = None) -> tuple[Run, ...]:
    """Return the runs in a dump of a machine's memory, one for each kernel. Never raises KgenError: where there is
    nothing to judge, the run says why.

    ``log`` is the last run of a log of the same machine. The memory of that kernel is compared with it.
    """
    try:
        memory = memory_dump.Memory(file)
        known = named or _named_by(log)
        blocks = memory_dump.blocks(memory, known.spec if known else None, known.build_id if known else "")
    except KgenError as error:
        verdict = Verdict(VerdictKind.ERROR, ProtocolError(error.message, where=name, hint=error.hint).line)
        return (Run(name, None, _dumped(None), verdict),)
    runs = [_of_block(memory, block, named, name) for block in blocks]
    if log is None:
        return tuple(runs)
    serial = log.observation.serial
    mine = [at for at, block in enumerate(blocks) if serial is not None and block.build_id == serial.build_id]
    at = mine[0] if mine else 0
    runs[at] = _both(log, runs[at])
    return tuple(runs)


def _named_by(log: Run | None) -> Named | None:
    """Return the kernel that a log names."""
    if log is None or log.spec is None or log.observation.serial is None:
        return None
    return Named("the log", log.spec, log.observation.serial.build_id, None)


def _of_block(memory: memory_dump.Memory, block: memory_dump.Block, named: Named | None, name: str) -> Run:
    """Return the run of one results block."""
    where = f"{name}, results block at {block.address:#x}"
    if block.record is None or block.spec is None:
        # an unknown kernel is no failure
        kind = VerdictKind.INCONCLUSIVE if block.spec is None else VerdictKind.ERROR
        verdict = Verdict(kind, ProtocolError(block.problem, where=name).line)
        return Run(where, None, _dumped(None), verdict)
    problems: tuple[str, ...] = ()
    symbols: Mapping[str, int] = {}
    if named is not None and block.build_id != named.build_id:
        problems = (f"the dump is of build {_short(block.build_id)}, {named.name} of build {_short(named.build_id)}",)
    elif named is not None and named.kernel is not None:
        problems = memory_dump.altered(memory, block, named.kernel)
        symbols = symbols_of(named.spec, named.kernel.symbols)
    spec = named.spec if named else block.spec
    return Run(where, spec, replace(_dumped(block.record), problems=problems, symbols=symbols))


def _dumped(record: Record | None) -> Observation:
    return Observation(platform=MEMORY_DUMP, serial=None, memory=record, path=NOT_ASKED, environment=_environment())


def _both(log: Run, memory: Run) -> Run:
    """Return one run with the records of both channels."""
    if memory.spec is None:
        return replace(memory, observation=replace(log.observation, platform=MEMORY_DUMP))
    seen = replace(
        log.observation,
        platform=MEMORY_DUMP,
        memory=memory.observation.memory,
        problems=log.observation.problems + memory.observation.problems,
        symbols=memory.observation.symbols,
    )
    if log.known is not None and log.known.kind is VerdictKind.ERROR:
        seen = replace(seen, problems=(log.known.reason, *seen.problems))
    where = ", ".join(part for part in (log.where, memory.where) if part)
    return Run(where, log.spec or memory.spec, seen, notes=log.notes + memory.notes)


def _short(build_id: str) -> str:
    return build_id[:_BUILD_SHOWN]


# --- from the result code ------------------------------------------------------------------------------------------


def of_code(spec: KernelSpec, observation: Observation) -> Run:
    """Return the run that a result code describes."""
    return Run("", spec, replace(observation, platform=RESULT_CODE))
