"""What the user asks for: frozen, validated values with a stable id and digest."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kgen import registry
from kgen.errors import SpecError
from kgen.experiments import Experiment, Poll
from kgen.instructions import Form, Instruction, Source
from kgen.spec.arguments import check_all
from kgen.targets import MemoryTarget

MIN_CPUS = 3
MAX_CPUS = 255
MAX_ROUNDS = 0xFFFFFFFF
MAX_BATCH = 256
#: The longest time that a suite may be given, in seconds.
MAX_BUDGET = 24 * 3600
#: By which rules kernels are planned and judged now, and those of versions that counted no live batches.
RULES = 2
OLD_RULES = 1
#: How far from a bare address an offset may lead, in bytes.
BARE_CELL = 2 * 4096
LINE = 64
PAGE = 4096
#: From here on physical memory may be any device's.
LEGACY_END = 0x100000
_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+")
#: It stands in the log, as one word.
_SUITE = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Physical memory that no cell may overlap: what the kernel itself stands on, and pages that belong to one CPU.
RESERVED = (
    (0x00000000, 0x000A0000, "low memory, which holds the trampoline and firmware data"),
    (0x00100000, 0x01000000, "the kernel's own memory"),
    (0xFEC00000, 0xFEC01000, "the I/O APIC"),
    (0xFEE00000, 0xFEF00000, "the local APIC's page, which is not shared between CPUs"),
)


#: I/O ports of devices that every PC has, which a kernel must not take for its serial port.
TAKEN_PORTS = (
    (0x000, 0x100, "DMA, interrupt controllers, timer, keyboard and clock"),
    (0x170, 0x178, "the second IDE channel"),
    (0x1CE, 0x1D2, "the VGA's extensions"),
    (0x1F0, 0x1F8, "the first IDE channel"),
    (0x3B0, 0x3E0, "the VGA"),
    (0xCF8, 0xD00, "the PCI configuration"),
)


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> SpecError:
    """The error for a name that is in no registry, with the name that it is a slip of; ``more`` says what else is
    allowed."""
    names = sorted(known)
    folded = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.7)
    hint = f"did you mean {folded[near[0]]}?" if near else f"known: {', '.join(names)}{more}"
    return SpecError(f"unknown {what} '{name}'", hint=hint)


@functools.cache
def instructions() -> Mapping[str, Instruction]:
    """Every instruction of the catalogue by name."""
    return registry.discover("kgen.instructions", "INSTRUCTION", Instruction)


@functools.cache
def targets() -> Mapping[str, MemoryTarget]:
    """Every named target."""
    return registry.discover("kgen.targets", "TARGET", MemoryTarget)


@functools.cache
def experiments() -> Mapping[str, Experiment]:
    """Every experiment by name."""
    return registry.discover("kgen.experiments", "EXPERIMENT", Experiment)


def resolve_target(name: str) -> MemoryTarget:
    """The target of that name, or the single cell at a physical address written ``0x...``.

    Raises SpecError for an unknown name and for an address at which the cell would break the machine that
    carries the experiment.
    """
    if not _ADDRESS.fullmatch(name):
        known = targets()
        if name not in known:
            raise unknown("target", name, known, ", or an address such as 0xfed00108")
        return known[name]
    address = int(name, 16)
    size = BARE_CELL
    if address % 4:
        raise SpecError(
            f"address {name} is not aligned", hint="choose a multiple of 4; --offset moves the cell from it"
        )
    check_address(address, 4)
    # A bare address may be a register with neighbours that must not be touched: one cell, nothing more.
    return MemoryTarget(
        name=f"{address:#x}",
        summary="the cell at a physical address",
        address=address,
        size=4,
        extent=size,
        declared="io",
        video=address >= LEGACY_END,
    )


def _spelled(name: str) -> str:
    """A name as the registries have it, an address as we write it."""
    return f"{int(name, 16):#x}" if _ADDRESS.fullmatch(name) else name.lower()


def check_serial_port(port: int) -> None:
    """Raises SpecError for what is no serial port's place, or is another device's."""
    if not 8 <= port <= 0xFFF8 or port % 8:
        raise SpecError(f"serial port {port:#x}", hint="give a multiple of 8 from 0x8 to 0xfff8")
    for low, high, what in TAKEN_PORTS:
        if port < high and port + 8 > low:
            raise SpecError(f"serial port {port:#x} belongs to {what}", hint="give 0x3f8, 0x2f8, 0x3e8 or 0x2e8")


def check_address(address: int, size: int) -> None:
    """Raises SpecError where an operand of so many bytes would break the machine that carries the experiment."""
    if address + size > 1 << 32:
        raise SpecError(f"address {address:#x} lies above 4 GiB", hint="the kernel runs without paging in 32-bit mode")
    for low, high, what in RESERVED:
        if address < high and address + size > low:
            raise SpecError(f"address {address:#x} lies in {what}", hint=f"choose one outside {low:#x}-{high - 1:#x}")


@dataclass(frozen=True)
class Case:
    """instruction x target x experiment x alignment x CPU count, the thing a verdict is about.

    ``width`` is in bits, ``offset`` in bytes from where the target begins. What is left out (0 or "") becomes the
    instruction's own: 32 bits where it has them, the experiment that tests it best, a register as the source.
    """

    instruction: str
    width: int = 0
    lock: bool = True
    target: str = "vga-text"
    experiment: str = ""
    cpus: int = MIN_CPUS
    source: str = ""
    offset: int = 0

    def __post_init__(self) -> None:
        check_all(vars(self), Case)
        # one case, one digest, however it was written
        for name in ("instruction", "target", "experiment", "source"):
            object.__setattr__(self, name, _spelled(getattr(self, name)))
        known = instructions()
        if self.instruction not in known:
            raise unknown("instruction", self.instruction, known)
        entry = known[self.instruction]
        self._default("width", entry.usual_width)
        self._default("experiment", entry.experiment)
        self._default("source", entry.sources[0].value)
        if self.width not in entry.widths:
            choice = ", ".join(str(width) for width in entry.widths)
            raise SpecError(f"{self.instruction} has no {self.width}-bit form here", hint=f"widths: {choice}")
        sources = [source.value for source in entry.sources]
        if self.source not in sources:
            raise SpecError(f"{self.instruction} has no form with source '{self.source}'", hint=f"known: {sources}")
        if self.experiment not in experiments():
            raise unknown("experiment", self.experiment, experiments())
        self._check_place()
        if not MIN_CPUS <= self.cpus <= MAX_CPUS:
            limits = f"{MIN_CPUS} to {MAX_CPUS}: one producer, the rest consumers"
            raise SpecError(f"{self.cpus} CPUs asked for", hint=f"the {self.experiment} experiment takes {limits}")
        refusal = experiments()[self.experiment].refuses(entry, self.form, self.cpus)
        if refusal:
            raise SpecError(f"{self.experiment} with {self.form.name}: {refusal}", hint=self._fitting())

    def _default(self, name: str, value: object) -> None:
        if not getattr(self, name):
            object.__setattr__(self, name, value)

    def _fitting(self) -> str:
        entry = instructions()[self.instruction]
        fit = [name for name, each in experiments().items() if not each.refuses(entry, self.form, self.cpus)]
        return f"experiments that fit: {', '.join(fit)}" if fit else "give fewer --cpus"

    def _check_place(self) -> None:
        """Raises SpecError where the cell would lie outside the target or in memory that must be left alone."""
        target = resolve_target(self.target)
        size = self.width // 8
        if not 0 <= self.offset <= target.reach - size:
            room = target.reach - size
            raise SpecError(
                f"offset {self.offset} leaves {target.name}", hint=f"give 0 to {room} for {self.width} bits"
            )
        if target.address is not None:
            check_address(target.address + self.offset, size)

    @property
    def id(self) -> str:
        """The case's name: MNEMONIC.WIDTH.TARGET.EXPERIMENT[.SOURCE][.nolock][.+OFFSET][.cpusN], defaults left out."""
        parts = [self.instruction, str(self.width), resolve_target(self.target).name, self.experiment]
        parts += [] if self.source == instructions()[self.instruction].sources[0].value else [self.source]
        parts += [] if self.lock else ["nolock"]
        parts += [f"+{self.offset}"] if self.offset else []
        parts += [] if self.cpus == MIN_CPUS else [f"cpus{self.cpus}"]
        return ".".join(parts)

    @staticmethod
    def from_id(name: str) -> Case:
        """The inverse of ``id``. Raises SpecError."""
        parts = name.split(".")
        if len(parts) < 4 or not re.fullmatch(r"[0-9]{1,3}", parts[1]):
            raise SpecError(f"'{name}' is no case", hint="one is xchg.32.vga-text.token")
        fields: dict[str, Any] = {"instruction": parts[0], "width": int(parts[1]), "target": parts[2]}
        fields["experiment"] = parts[3]
        for part in parts[4:]:
            number = re.fullmatch(r"(\+|cpus)([0-9]{1,5})", part)
            if number:
                fields["offset" if number[1] == "+" else "cpus"] = int(number[2])
            elif part == "nolock":
                fields["lock"] = False
            else:
                fields["source"] = part
        case = Case(**fields)
        if case.id != name:
            raise SpecError(f"'{name}' is not how the case {case.id} is written", hint="leave out what is usual")
        return case

    @property
    def form(self) -> Form:
        """The instruction form that the CPUs execute."""
        entry = instructions()[self.instruction]
        return entry.form(self.width, Source(self.source), True) if self.lock else self.unlocked[0]

    @property
    def locked(self) -> Form:
        """The form with its LOCK, whatever the case's is."""
        return instructions()[self.instruction].form(self.width, Source(self.source), True)

    @property
    def unlocked(self) -> tuple[Form, ...]:
        """The forms that serve as power controls."""
        return instructions()[self.instruction].unlocked(self.width, Source(self.source))


def alignment(target: MemoryTarget, offset: int, width: int) -> str:
    """How an operand lies there: "aligned", "misaligned" within a cache line, across a "line", across a "page"."""
    size = width // 8
    first = target.page_offset + offset
    if first % PAGE + size > PAGE:
        return "page"
    if first % LINE + size > LINE:
        return "line"
    return "misaligned" if first % size else "aligned"


def stride(target: MemoryTarget, offset: int, width: int) -> int:
    """The distance between cells in bytes: such that all of them lie alike."""
    return {"aligned": max(4, width // 8), "page": PAGE}.get(alignment(target, offset, width), LINE)


def room(target: MemoryTarget, offset: int, width: int) -> int:
    """How many cells fit the target, at least one, at most MAX_BATCH. Where the offset is not 0 those beyond what is
    visible count as well."""
    size = target.reach if offset else target.size
    if alignment(target, offset, width) == "line":
        # the next one would lie across a page
        size = min(size, PAGE - (target.page_offset + offset) % PAGE + offset)
    return max(1, min(MAX_BATCH, (size - offset - width // 8) // stride(target, offset, width) + 1))


#: Cells of a batch in kernels of the old rules, where the target had room.
_OLD_CELLS = {"counter": 16, "mutex": 1, "own-bits": 32, "parity": 64, "token": 128, "torn": 1}


@dataclass(frozen=True)
class KernelSpec:
    """Everything that decides the bytes of a kernel.

    ``more`` are the cases of a suite after its first, ``case``; ``suite`` is its name, ``budget`` the seconds that all
    of them may take. Without a budget N is what ``rounds`` says; with one ``rounds`` is the least, and N grows until
    the power controls have failed. ``rounds`` 0 runs until told to stop. ``batch`` is the number of cells one handshake
    of a case's own experiment covers, 0 for the default. ``print_every`` is the distance in rounds between table rows,
    0 for the default (the first 20 rounds, then about ten rows a second). ``serial_port`` is an I/O port, ``baud`` in
    bits a second. With ``proof_seconds`` a walk goes on until its proof is reached, for so many seconds at most
    (kgen.kernel.live), without them for as many operations as ``rounds`` says. ``rules`` 1 marks kernels of versions
    that counted no live batches: they are planned and read as ever, and never called ATOMIC.
    """

    case: Case
    rounds: int = 10_000
    controls: bool = True
    poll: Poll = Poll.BOTH
    batch: int = 0
    print_every: int = 0
    serial_port: int = 0x3F8
    baud: int = 115_200
    more: tuple[Case, ...] = ()
    suite: str = ""
    budget: int = 0
    proof_seconds: int = 0
    rules: int = RULES

    def __post_init__(self) -> None:
        check_all(vars(self), KernelSpec)
        if not OLD_RULES <= self.rules <= RULES or (self.rules == OLD_RULES and self.proof_seconds):
            raise SpecError(f"rules {self.rules} are none of this kgen's", hint="leave them out")
        if not 0 <= self.proof_seconds <= MAX_BUDGET:
            raise SpecError(f"a proof of {self.proof_seconds} s", hint=f"give 1 to {MAX_BUDGET} seconds")
        if not 0 <= self.rounds <= MAX_ROUNDS:
            raise SpecError(f"{self.rounds} rounds asked for", hint=f"give 1 to {MAX_ROUNDS}, or 0 to run for ever")
        if not 0 <= self.print_every <= MAX_ROUNDS:
            raise SpecError(f"--print-every {self.print_every}", hint=f"give 1 to {MAX_ROUNDS}, or 0 for the default")
        if not 0 <= self.batch <= self.max_batch:
            raise SpecError(
                f"--batch {self.batch}",
                hint=f"{resolve_target(self.case.target).name} takes 1 to {self.max_batch} cells, or 0 for the default",
            )
        check_serial_port(self.serial_port)
        if self.baud < 2 or 115_200 % self.baud or 115_200 // self.baud > 0xFFFF:
            raise SpecError(f"{self.baud} baud", hint="give a divisor of 115200, such as 115200, 57600, 38400 or 9600")
        if not 0 <= self.budget <= MAX_BUDGET:
            raise SpecError(f"a budget of {self.budget} s", hint=f"give 1 to {MAX_BUDGET} seconds")
        if bool(self.budget) != bool(self.suite) or (self.more and not self.budget):
            raise SpecError("a suite has a name and a budget, a single case has neither")
        if self.suite and not _SUITE.fullmatch(self.suite):
            raise SpecError(f"'{self.suite}' cannot be a suite's name", hint="1 to 64 letters, digits and - _ . only")
        if self.budget and not self.rounds:
            raise SpecError("a suite cannot run for ever", hint="leave --rounds 0 out")
        if any(case.cpus != self.case.cpus for case in self.more):
            raise SpecError("the cases of a suite have different numbers of CPUs", hint="give all of them the same")
        repeated = {case.id for case, times in Counter(self.cases).items() if times > 1}
        if repeated:
            raise SpecError(f"the suite has {min(repeated)} twice")

    @property
    def cases(self) -> tuple[Case, ...]:
        """Every case, in the order they run."""
        return (self.case, *self.more)

    @property
    def name(self) -> str:
        """What the kernel is called: its case, or its suite."""
        return f"suite:{self.suite}" if self.suite else self.case.id

    @property
    def max_batch(self) -> int:
        """The most cells that fit the targets and the RAM of the sanity controls, and whose values differ where the
        experiment needs that, at most MAX_BATCH."""
        places = [(case, resolve_target(name)) for case in self.cases for name in (case.target, "ram")]
        most = [experiments()[case.experiment].most_cells(case.width, case.cpus) for case in self.cases]
        return min(*most, *(room(target, case.offset, case.width) for case, target in places))

    @property
    def cells(self) -> int:
        """Cells one handshake of the first case covers."""
        return self.cells_of(self.case, resolve_target(self.case.target))

    def cells_of(self, case: Case, target: MemoryTarget, experiment: str = "") -> int:
        """Return how many cells one handshake covers when a phase of that case runs on that target; of an experiment
        that is not the case's own where ``experiment`` names one: ``batch`` is not for that."""
        name = experiment or case.experiment
        most = experiments()[name].cells(case.width) if self.rules == RULES else _OLD_CELLS[name]
        batch = self.batch if name == case.experiment else 0
        return batch or min(most, room(target, case.offset, case.width))

    def _fields(self) -> dict[str, Any]:
        """Return the fields as text forms have them: those of older kernels lack what is newer."""
        fields = asdict(self)
        for name in ("proof_seconds", "rules") if self.rules == OLD_RULES else ():
            del fields[name]
        return fields

    def to_json(self) -> str:
        """The canonical text form: one line, sorted keys."""
        return json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> KernelSpec:
        """The inverse of to_json. Raises SpecError."""
        try:
            fields = json.loads(text)
            case = Case(**fields.pop("case"))
            more = tuple(Case(**each) for each in fields.pop("more"))
            rules = fields.pop("rules", OLD_RULES)
            return KernelSpec(case=case, more=more, poll=Poll(fields.pop("poll")), rules=rules, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"not a kernel specification: {error}") from error

    def to_text(self) -> str:
        """The form that the kernel carries and prints: JSON in one word, the cases by their ids."""
        fields = {name: value for name, value in self._fields().items() if name not in ("case", "more")}
        fields["cases"] = [case.id for case in self.cases]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> KernelSpec:
        """The inverse of to_text. Raises SpecError."""
        try:
            fields = json.loads(text)
            first, *more = (Case.from_id(name) for name in fields.pop("cases"))
            rules = fields.pop("rules", OLD_RULES)
            spec = KernelSpec(case=first, more=tuple(more), poll=Poll(fields.pop("poll")), rules=rules, **fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SpecError(f"not a kernel specification: {error}") from error
        numbers = ("rounds", "batch", "print_every", "serial_port", "baud", "budget")
        typed = type(fields.get("controls")) is bool and all(type(fields.get(name)) is int for name in numbers)
        typed = typed and type(rules) is int and type(fields.get("proof_seconds", 0)) is int
        if not typed or spec.to_text() != text:
            raise SpecError("not a kernel specification as kgen writes it")
        return spec

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
