"""A case: one form of an instruction on one kind of memory, and how the CPUs use it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kgen.errors import SpecError, unknown
from kgen.experiments import experiments
from kgen.instructions import Form, Source, instructions
from kgen.spec.arguments import check_all
from kgen.targets import MemoryTarget, targets

MIN_CPUS = 3


MAX_CPUS = 255


MAX_BATCH = 256


#: The largest offset from a bare address, in bytes.
BARE_CELL = 2 * 4096


LINE = 64


PAGE = 4096


#: From here on physical memory may belong to any device.
LEGACY_END = 0x100000


_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]+")


#: Physical memory that no cell may overlap: what the kernel itself needs, and pages that belong to one CPU.
RESERVED = (
    (0x00000000, 0x000A0000, "low memory, which holds the trampoline and firmware data"),
    (0x00100000, 0x01000000, "the kernel's own memory"),
    (0xFEC00000, 0xFEC01000, "the I/O APIC"),
    (0xFEE00000, 0xFEF00000, "the local APIC's page, which is not shared between CPUs"),
)


def resolve_target(name: str) -> MemoryTarget:
    """Return the target of that name, or the single cell at a physical address written ``0x...``.

    Raises SpecError for an unknown name, and for an address at which the cell would break the running kernel.
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
    # A bare address may be a register whose neighbours must not be accessed, so there is only one cell.
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
    """Return a target's name as the registries have it, or an address as kgen writes it."""
    return f"{int(name, 16):#x}" if _ADDRESS.fullmatch(name) else name.lower()


def check_address(address: int, size: int) -> None:
    """Raise SpecError where an operand of this many bytes would break the running kernel."""
    if address + size > 1 << 32:
        raise SpecError(f"address {address:#x} lies above 4 GiB", hint="the kernel runs without paging in 32-bit mode")
    for low, high, what in RESERVED:
        if address < high and address + size > low:
            raise SpecError(f"address {address:#x} lies in {what}", hint=f"choose one outside {low:#x}-{high - 1:#x}")


@dataclass(frozen=True)
class Case:
    """The subject of a verdict: instruction x target x experiment x alignment x CPU count.

    A value that is left out (0 or "") becomes the instruction's default: 32 bits where it has that width, the
    experiment that tests it best, a register as the source.
    """

    instruction: str
    #: In bits.
    width: int = 0
    lock: bool = True
    target: str = "vga-text"
    experiment: str = ""
    cpus: int = MIN_CPUS
    source: str = ""
    #: In bytes, from the start of the target.
    offset: int = 0

    def __post_init__(self) -> None:
        check_all(vars(self), Case)
        # one case has one digest, however it was written
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
        """Raise SpecError where the cell would lie outside the target or in memory that must be left alone."""
        target = resolve_target(self.target)
        size = self.width // 8
        if size > target.reach:
            raise SpecError(f"{target.name} has no cell of {self.width} bits", hint="choose a smaller --width")
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
        """Return the inverse of ``id``. Raises SpecError."""
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
        """The locked form, even where the case is unlocked."""
        return instructions()[self.instruction].form(self.width, Source(self.source), True)

    @property
    def unlocked(self) -> tuple[Form, ...]:
        """The forms that serve as power controls."""
        return instructions()[self.instruction].unlocked(self.width, Source(self.source))


def alignment(target: MemoryTarget, offset: int, width: int) -> str:
    """Return how an operand at that place is aligned: "aligned", "misaligned" within a cache line, across a "line",
    across a "page"."""
    size = width // 8
    first = target.page_offset + offset
    if first % PAGE + size > PAGE:
        return "page"
    if first % LINE + size > LINE:
        return "line"
    return "misaligned" if first % size else "aligned"


def stride(target: MemoryTarget, offset: int, width: int) -> int:
    """Return the distance between cells in bytes, with which all of them are aligned alike."""
    return {"aligned": max(4, width // 8), "page": PAGE}.get(alignment(target, offset, width), LINE)


def room(target: MemoryTarget, offset: int, width: int) -> int:
    """Return how many cells fit the target, at least one, at most MAX_BATCH.

    Where the offset is not 0, cells in invisible memory count too.
    """
    size = target.reach if offset else target.size
    if alignment(target, offset, width) == "line":
        # the next cell would cross a page
        size = min(size, PAGE - (target.page_offset + offset) % PAGE + offset)
    return max(1, min(MAX_BATCH, (size - offset - width // 8) // stride(target, offset, width) + 1))


def proof_of(case: Case) -> str:
    """Return the other experiment that the verdict on a case rests on, "" where the case's own is a proof or none of
    its proofs fits the form."""
    instruction = instructions()[case.instruction]
    for name in experiments()[case.experiment].proofs:
        proof = experiments()[name]
        if not any(proof.refuses(instruction, form, case.cpus) for form in (case.form, case.locked, *case.unlocked)):
            return name
    return ""
