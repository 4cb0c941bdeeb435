"""The shell lines that reproduce a result: with kgen alone, and with the image run by hand."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from kgen.errors import SpecError
from kgen.evidence.observation import MEMORY_DUMP, RESULT_CODE, SERIAL_ONLY
from kgen.instructions import instructions
from kgen.report.reproduce.by_hand import Machine, machine_of
from kgen.report.reproduce.invocation import CHOICES, PATHS, Chosen, chosen
from kgen.report.results.model import Run
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import BUILT_IN, load
from kgen.verdict.model import VerdictKind

#: Where the steps put the kernel, the log and a suite's file.
DIRECTORY = "kgen-repro"
LOG = "serial.txt"
SUITE_FILE = "suite.toml"
#: More cases than that are written into a file, not onto a line.
MAX_PATTERNS = 12
#: How long a kernel without an end is run where the time of the original run is unknown, in seconds.
DEFAULT_SECONDS = 60
#: A machine that is run by hand is given at least so many seconds, and so many times what the run took. A kernel from a
#: disk cannot end QEMU, as it has no command line to be told how, so all of that passes.
HAND_SECONDS = 60
HAND_SECONDS_DISK = 15
HAND_PATIENCE = 4
_LAB_BUILD = ("kgen", "lab", "build")
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
#: What a result has for a platform where kgen did not run the machine itself.
_SEEN_ELSEWHERE = frozenset((SERIAL_ONLY, MEMORY_DUMP, RESULT_CODE))


@dataclass(frozen=True)
class Steps:
    """How to get the result again."""

    #: The verdict.
    kind: VerdictKind
    #: The words of the ``kgen verify`` command, () where kgen cannot run the machine.
    verify: tuple[str, ...]
    #: The words of the ``kgen build`` command that makes the same kernel.
    build: tuple[str, ...]
    #: The command that runs that kernel without kgen, None where there is none.
    machine: Machine | None
    #: The text of the file SUITE_FILE that both commands read, "" where they read none.
    suite_file: str = ""
    #: Whether this verdict can be reached with a serial log alone.
    by_log: bool = True
    #: Sentences for people.
    notes: tuple[str, ...] = ()
    #: The words of the command that makes the lab, or the programs of another release; () where there is none.
    lab: tuple[str, ...] = ()

    @property
    def prepare(self) -> tuple[str, ...]:
        """Shell lines that come first: they write the suite's file."""
        if not self.suite_file:
            return ()
        return (f"cat > {SUITE_FILE} <<'END_OF_SUITE'", *self.suite_file.splitlines(), "END_OF_SUITE")

    @property
    def with_kgen(self) -> tuple[str, ...]:
        """Shell lines; the last one's exit code is the verdict's. () where kgen cannot run the machine."""
        if not self.verify:
            return ()
        lab = (shlex.join(self.lab),) if self.lab else ()
        return (*self.prepare, *lab, f"{shlex.join(self.verify)}  # {exit_text(self.kind)}")

    @property
    def by_hand(self) -> tuple[str, ...]:
        """Shell lines that build the image, run it and judge its log, to be given after those of ``with_kgen`` where
        there are any. () where the request is unknown."""
        if not self.build:
            return ()
        end = f"  # {exit_text(self.kind)}" if self.by_log else ""
        lines = () if self.verify else self.prepare
        if self.machine is None:
            where = f"# run {DIRECTORY}/kernel.img on the machine, with its first serial port captured in {LOG}"
            return (*lines, shlex.join(self.build), where, f"kgen judge {LOG}{end}")
        return (*lines, shlex.join(self.build), self.machine.line, f"kgen judge {LOG}{end}")


def exit_text(kind: VerdictKind) -> str:
    """Return the verdict as what a shell shows of it."""
    return f"exit code {kind.value}: {kind.name}"


def steps(run: Run) -> Steps:
    """Return how to reproduce a run. Never raises for a run that ``reading.load`` has made."""
    kind, spec, first = run.kind, run.spec, run.results[0]
    if spec is None:
        return Steps(kind, (), (), None, notes=("The result does not hold its request, so no kernel can be named.",))
    choice = chosen(first.invocation)
    words, suite_file = kernel_words(spec, choice)
    here = ran_by_kgen(run.platform)
    boot = choice.options.get("--boot", "usb" if choice.options.get("--firmware") == "ovmf" else "kernel")
    lab = _lab(first.observation.environment) if here else ()
    machine = machine_of(
        first.observation.environment,
        directory=DIRECTORY,
        log=LOG,
        cpus=spec.case.cpus,
        seconds=_hand_seconds(run, HAND_SECONDS if boot == "kernel" else HAND_SECONDS_DISK),
        program=choice.options.get("--qemu", ""),
        image={"kernel": "kernel.elf", "cdrom": "kernel.iso"}.get(boot, "kernel.img"),
    )
    return Steps(
        kind=kind,
        verify=("kgen", "verify", *words, *_run_words(spec, run, choice, lab)) if here else (),
        build=("kgen", "build", *words, *(("--format", "iso") if boot == "cdrom" else ()), "-o", DIRECTORY),
        machine=machine,
        suite_file=suite_file,
        by_log=kind is VerdictKind.NOT_ATOMIC or run.platform in _SEEN_ELSEWHERE,
        notes=tuple(_notes(choice, here, bool(first.invocation))),
        lab=lab,
    )


def _lab(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that a result names for its lab, () where it names none, or another command."""
    words = environment.get("prepare")
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word.isprintable() for word in words):
        return ()
    return tuple(words) if tuple(words[:3]) == _LAB_BUILD else ()


def _hand_seconds(run: Run, least: int) -> int:
    # what has no end is ended about when the run was
    endless = run.spec is not None and not run.spec.rounds
    # and what goes on for its proof may take longer than it did
    least += run.spec.proof_seconds if run.spec is not None else 0
    return math.ceil(max(1, run.seconds) if endless else max(least, HAND_PATIENCE * run.seconds))


def _notes(choice: Chosen, here: bool, told: bool) -> Iterator[str]:
    """Yield what a person must know first.

    ``here``: kgen ran the machine; ``told``: the result says its command line.
    """
    if not here:
        yield "kgen did not run the machine itself: run the image where it was run, and capture its serial port."
    elif not told:
        yield "The result does not say by which command line it was made: choices of the machine are not known."
    named = sorted(name for name in choice.options if name in PATHS and "/" in choice.options[name])
    if named:
        yield f"{' and '.join(named)} named a file of the machine that the result is from."


def ran_by_kgen(platform: str) -> bool:
    """Return whether kgen started the machine itself."""
    return platform not in _SEEN_ELSEWHERE and _PLATFORM.fullmatch(platform) is not None


def kernel_words(spec: KernelSpec, choice: Chosen | None = None) -> tuple[tuple[str, ...], str]:
    """Return the options that name a kernel, for ``kgen verify`` and ``kgen build``, and the text of SUITE_FILE where
    they name that, otherwise "".
    """
    if spec.suite:
        words, text = _suite_words(spec, choice or Chosen())
    else:
        words, text = _case_words(spec.case), ""
    rest = ["--cpus", str(spec.case.cpus), "--rounds", str(spec.rounds)]
    rest += ["--proof-seconds", str(spec.proof_seconds)] if spec.proof_seconds else []
    rest += ["--budget", f"{spec.budget}s"] if spec.suite else []
    rest += [] if spec.controls else ["--no-controls"]
    usual = {field.name: field.default for field in fields(KernelSpec)}
    spelled = {"poll": spec.poll.name.lower(), "serial_port": f"{spec.serial_port:#x}"}
    for name in ("poll", "batch", "print_every", "serial_port", "baud"):
        value = getattr(spec, name)
        if value != usual[name]:
            rest += [f"--{name.replace('_', '-')}", spelled.get(name, str(value))]
    return (*words, *rest), text


def _case_words(case: Case) -> tuple[str, ...]:
    entry = instructions()[case.instruction]
    words = ["--instr", case.instruction]
    words += [] if case.lock else ["--no-lock"]
    words += [] if case.width == entry.usual_width else ["--width", str(case.width)]
    words += [] if case.source == entry.sources[0].value else ["--source", case.source]
    words += ["--target", case.target]
    words += ["--offset", str(case.offset)] if case.offset else []
    words += [] if case.experiment == entry.experiment else ["--experiment", case.experiment]
    return tuple(words)


def _suite_words(spec: KernelSpec, choice: Chosen) -> tuple[tuple[str, ...], str]:
    """Return a built-in suite with patterns where that selects the same cases in the same order, otherwise a file."""
    if spec.suite in BUILT_IN:
        ids = [case.id for case in spec.cases]
        ways: list[Sequence[tuple[str, str]]] = [(), choice.patterns]
        if len(ids) <= MAX_PATTERNS:
            only = [("--only", name) for name in ids]
            unwanted = [case.id for case in _loaded(spec, only) if case.id not in ids]
            ways += [only, [*only, *(("--skip", name) for name in unwanted)]]
        for way in ways:
            if _loaded(spec, way) == spec.cases:
                return ("--suite", spec.suite, *(word for pair in way for word in pair)), ""
    return ("--suite", f"./{SUITE_FILE}"), suite_text(spec)


def _loaded(spec: KernelSpec, patterns: Sequence[tuple[str, str]]) -> tuple[Case, ...]:
    """Return the cases of the built-in suite that these patterns leave, () where one of them fits nothing."""
    only, skip = ([text for name, text in patterns if name == wanted] for wanted in ("--only", "--skip"))
    try:
        return load(spec.suite, cpus=spec.case.cpus, only=only, skip=skip)[1]
    except SpecError:
        return ()


def suite_text(spec: KernelSpec) -> str:
    """Return the suite as a file that ``--suite`` takes, a line a case, what is usual left out."""
    return "\n".join([f'name = "{spec.suite}"', "case = [", *map(_table, spec.cases), "]"]) + "\n"


def _table(case: Case) -> str:
    entry = instructions()[case.instruction]
    fields = [("instr", f'"{case.instruction}"', True), ("width", str(case.width), case.width != entry.usual_width)]
    fields += [("lock", "false", not case.lock), ("target", f'"{case.target}"', True)]
    fields += [("experiment", f'"{case.experiment}"', case.experiment != entry.experiment)]
    fields += [("source", f'"{case.source}"', case.source != entry.sources[0].value)]
    fields += [("offset", str(case.offset), bool(case.offset))]
    return f"  {{ {', '.join(f'{name} = {value}' for name, value, told in fields if told)} }},"


def _run_words(spec: KernelSpec, run: Run, choice: Chosen, lab: Sequence[str]) -> tuple[str, ...]:
    """Return the options of ``kgen verify`` that do not name the kernel. Where the lab was the one that was used last,
    what it is made of must be named: on another host that is another one."""
    options = {name: value for name, value in pairwise(lab) if name in CHOICES} | dict(choice.options)
    if not spec.rounds and "--seconds" not in options:
        # without a terminal it would have no end
        options["--seconds"] = str(math.ceil(run.seconds) or DEFAULT_SECONDS)
    words = ["--platform", run.platform]
    for name, value in options.items():
        words += [name, value]
    words += choice.flags
    return (*words, *(("--", *choice.extra) if choice.extra else ()))
