"""From a specification to the kernel's source text: Jinja2 over ``kernel_templates/``."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgen import __version__
from kgen.errors import SourceError
from kgen.experiments import Routine, Work
from kgen.instructions import Use
from kgen.kernel import code_alphabet, font
from kgen.kernel.parameters import STATES, VECTORS_WITH_ERROR_CODE, constants, crc_table
from kgen.kernel.plan import (
    Phase,
    experiment_of,
    goes_on_to_proof,
    may_be_silent,
    phases,
    phases_of,
    work_in,
)
from kgen.kernel.protocol import LINE_PREFIX, RECORDS, SENTENCES, SPEC_MAGIC, TABLE_HEADER, guest_format, spec_parts
from kgen.kernel.results_block import (
    MAGIC,
    KernelState,
    PhaseStatus,
    PlanEntry,
    Role,
    Style,
    Task,
    ViolationKind,
)
from kgen.resources import data_dir
from kgen.spec import KernelSpec
from kgen.targets import MemoryTarget
from kgen.toolchain.assembly import Source
from kgen.toolchain.kept import key_of, load, save

if TYPE_CHECKING:
    from jinja2 import Environment


_ROW_WORDS = 8
#: Fields of a row of the plan that begin a new line of the source.
_LINE_STARTS = frozenset({"enough", "stride", "inverse"})


@dataclass(frozen=True)
class _PhaseView:
    """A phase as the templates see it."""

    index: int
    label: str
    #: The fields of PlanEntry and of its Task, by their names. Text is an assembly expression.
    plan: Mapping[str, int | str]
    task: Mapping[str, int | str]

    @property
    def rows(self) -> tuple[str, ...]:
        """Return the phase's row of the plan as lines of the source."""
        lines: list[list[str]] = [[]]
        for name, value in self._row():
            if name in _LINE_STARTS:
                lines.append([])
            lines[-1].append(str(value))
        return tuple(", ".join(line) for line in lines)

    def _row(self) -> Iterator[tuple[str, int | str]]:
        """Yield the fields of the row in their order, with their values."""
        for name, _ in PlanEntry._fields_:
            if name == "task":
                yield from ((field, self.task[field]) for field, _ in Task._fields_)
            else:
                yield name, self.plan[name]


@dataclass(frozen=True)
class _CodeView:
    """What is known of a case's result code before the kernel runs: symbols, and the phases that it describes."""

    heading: tuple[int, ...]
    phases: tuple[int, ...]


@dataclass(frozen=True)
class _Table:
    """Numbers and addresses that an experiment's code reads, in rows of text."""

    label: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class _Setup:
    """A target's code."""

    label: str
    statements: tuple[str, ...]


def experiment_routines(spec: KernelSpec) -> dict[str, tuple[str, bytes]]:
    """Return the labels of the routines that access cells, each with a statement that it must contain and the encoding
    of that statement."""
    found = {}
    for phase in phases(spec):
        for routine in work_in(spec, phase).routines:
            if routine.use not in (Use.SET, Use.CLEAR):
                form = routine.form
                statement = form.statement.replace("{operand}", f"{routine.operand:#x}")
                found[routine.label] = (statement, form.encoding(routine.operand))
    return found


def _routines(works: Iterable[Work]) -> dict[str, Routine]:
    """Return every routine once, by its label."""
    return {routine.label: routine for work in works for routine in work.routines}


def _tables(works: Sequence[Work]) -> dict[tuple[str, ...], _Table]:
    """Return every table once, by its content."""
    found: dict[tuple[str, ...], _Table] = {}
    for work in works:
        words = _words(work)
        if words and words not in found:
            rows = tuple(", ".join(words[at : at + _ROW_WORDS]) for at in range(0, len(words), _ROW_WORDS))
            found[words] = _Table(f"table_{len(found)}", rows)
    return found


def _words(work: Work) -> tuple[str, ...]:
    return tuple(entry.label if isinstance(entry, Routine) else f"{entry:#x}" for entry in work.data)


def _setups(targets: Iterable[MemoryTarget]) -> dict[str, _Setup]:
    """Return the code of each target that has code, by the target's name."""
    return {
        target.name: _Setup(f"setup_{target.name.replace('-', '_')}", target.setup)
        for target in targets
        if target.setup
    }


def _view(
    phase: Phase, work: Work, tables: Mapping[tuple[str, ...], _Table], setups: Mapping[str, _Setup], spec: KernelSpec
) -> _PhaseView:
    target = phase.target
    setup = setups.get(target.name)
    # where code finds the address, the row holds what is added to it
    base = "0" if setup else (target.symbol or f"{target.address:#x}")
    experiment = experiment_of(phase)
    prefix = experiment.prefix
    case = phase.role is Role.CASE
    return _PhaseView(
        index=phase.index,
        label=phase.label,
        plan={
            "role": phase.role.value,
            "case": phase.case,
            "last": int(case),
            "address": f"{base} + {phase.offset:#x}",
            "setup": setup.label if setup else 0,
            "cells": phase.cells,
            "rounds": phase.rounds,
            "repeat": work.repeat,
            "enough": phase.enough,
            "adaptive": int(phase.adaptive),
            "vga": int(target.vga),
            "step": f"{work.step:#x}",
            "batch": "walk_batch" if experiment.walk else f"{prefix}_batch",
            "prepare": f"{prefix}_prepare" if experiment.walk else 0,
            "judge": f"{prefix}_judge",
            "label": f"text_phase_{phase.index}",
            "announce": int(case and not spec.suite and experiment.tabled),
            "video": int(target.video),
            "turns": sum(other.group == phase.index for other in phases(spec)),
            "turns_to_proof": int(goes_on_to_proof(spec, spec.cases[phase.case], phase.experiment)),
            "may_be_silent": int(may_be_silent(spec, phase)),
            "pairs": int(experiment.pairs),
        },
        task={
            "stride": phase.stride,
            "work": "walk_work" if experiment.walk else f"{prefix}_work",
            "visit": f"{prefix}_visit" if experiment.walk else 0,
            "put": work.put.label,
            "take": work.take.label,
            "load": f"load_{phase.form.width}",
            "store": f"store_{phase.form.width}",
            "data": tables[_words(work)].label if work.data else 0,
            "operand": f"{work.operand:#x}",
            "inverse": f"{work.inverse:#x}",
            "returns": int(work.returns),
            "token_mask": f"{work.token_mask:#x}",
            "cell_mask": f"{(1 << min(phase.form.width, 32)) - 1:#x}",
            "facts": int(not phase.aligned),
        },
    )


@functools.lru_cache(maxsize=16)
def tasks(spec: KernelSpec) -> tuple[Mapping[str, int | str], ...]:
    """Return the fields of each phase's Task, by name: a number, or a label that stands for its address."""
    return tuple({name: _number(value) for name, value in view.task.items()} for view in _views(spec))


def _number(value: int | str) -> int | str:
    """Return the value of a field of the plan where it is a number, cut to the bits that the row has room for."""
    if isinstance(value, str) and not value[0].isdigit():
        return value
    return (value if isinstance(value, int) else int(value, 0)) & 0xFFFFFFFF


def _views(spec: KernelSpec) -> tuple[_PhaseView, ...]:
    """Return all phases, as the plan in the kernel has them."""
    planned = phases(spec)
    works = [work_in(spec, phase) for phase in planned]
    tables, setups = _tables(works), _setups(phase.target for phase in planned)
    return tuple(_view(phase, work, tables, setups, spec) for phase, work in zip(planned, works, strict=True))


@functools.cache
def environment() -> Environment:
    """Return Jinja2's environment over the templates: an undefined name is an error, and each file's lines are marked
    with its name."""
    from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
    from jinja2 import __version__ as jinja2

    class Marked(FileSystemLoader):
        """Puts ``;@ FILE`` before each template, from which the assembler knows the origin of a bad line."""

        def get_source(self, environment: Environment, template: str) -> Any:
            text, filename, uptodate = super().get_source(environment, template)
            return f";@ {template}\n{text}", filename, uptodate

    class Kept(BytecodeCache):
        """Keeps compiled templates in the user's cache."""

        def load_bytecode(self, bucket: Any) -> None:
            data = load(self._key(bucket))
            if data is not None:
                bucket.bytecode_from_string(data)

        def dump_bytecode(self, bucket: Any) -> None:
            save(self._key(bucket), bucket.bytecode_to_string())

        @staticmethod
        def _key(bucket: Any) -> str:
            """Return a key for the compiled code. The bucket's own key depends on the file's name and path, and its
            checksum on the text; this adds all else that the code depends on."""
            return key_of("template", jinja2, sys.version, __version__, bucket.key, bucket.checksum)

    made = Environment(
        bytecode_cache=Kept(),
        optimized=False,  # otherwise what a filter made of a constant would be kept
        loader=Marked(data_dir("kernel_templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    made.filters["quoted"] = lambda text: json.dumps(str(text))
    made.filters["pointers_of"] = pointers_of
    return made


_WIDE_REGISTER = re.compile(r"\b(r)(?=(?:[abcd]x|[sd]i|[bs]p)\b)", re.IGNORECASE)


def pointers_of(text: str, wide: bool) -> str:
    """Return assembly whose pointers are written 64 bits wide with 32-bit ones instead, unless ``wide`` says to keep
    them.
    """
    if wide:
        return text
    narrow = _WIDE_REGISTER.sub(lambda match: "e" if match[1] == "r" else "E", text)
    return narrow.replace("qword ptr", "dword ptr")


def render_template(name: str, **values: Any) -> str:
    """Return one template as text. Raises SourceError."""
    from jinja2 import TemplateError

    try:
        return environment().get_template(name).render(**values)
    except TemplateError as error:
        where = getattr(error, "name", None) or name
        line = getattr(error, "lineno", None)
        raise SourceError(str(error), where=f"{where}:{line}" if line else str(where)) from error


def render(spec: KernelSpec) -> Source:
    """Return the kernel's whole source. Raises SourceError."""
    planned = phases(spec)
    works = [work_in(spec, phase) for phase in planned]
    tables = _tables(works)
    setups = _setups(phase.target for phase in planned)
    used = {phase.experiment: experiment_of(phase) for phase in planned}
    text = render_template(
        "kernel.asm",
        constants=constants(spec),
        phases=_views(spec),
        routines=list(_routines(works).values()),
        tables=list(tables.values()),
        setups=list(setups.values()),
        experiment_templates=[experiment.template for experiment in used.values() if experiment.template],
        experiment_texts=[experiment.assembly for experiment in used.values() if experiment.assembly],
        poll=spec.poll.name.lower(),
        print_every=spec.print_every,
        budget_ms=1000 * spec.budget,
        suite=spec.suite,
        tap_plan=f"1..{len(spec.cases)}",
        case_ids=[case.id for case in spec.cases],
        crc_table=crc_table(),
        vectors_with_error_code=VECTORS_WITH_ERROR_CODE,
        magic_low=int.from_bytes(MAGIC[:4], "little"),
        magic_high=int.from_bytes(MAGIC[4:], "little"),
        guess_ticks_per_ms=(1 << 33) // 10_000,
        table_header=TABLE_HEADER,
        line_prefix=LINE_PREFIX,
        formats={kind: guest_format(kind) for kind in RECORDS},
        sentences=SENTENCES,
        version=__version__,
        kernel_name=spec.name,
        codes=[
            _CodeView(code_alphabet.heading(spec, case), tuple(phase.index for phase in phases_of(spec, number)))
            for number, case in enumerate(spec.cases)
        ],
        code_alphabet=code_alphabet.ALPHABET,
        glyphs=font.glyphs(),
        statuses=[status.name.lower().replace("_", " ") for status in PhaseStatus],
        states=[STATES.get(state, state.name.lower()) for state in KernelState],
        kinds=len(ViolationKind),
        styles=len(Style),
        tabled=not spec.suite and experiment_of(planned[-1]).tabled,
        spec_magic=SPEC_MAGIC.decode(),
        spec_parts=spec_parts(spec.to_text()),
        digest=spec.digest(),
    )
    return Source(name="kernel.s", text=text)
