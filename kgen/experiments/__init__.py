"""Experiments: what the CPUs do to the cells, and what must hold at the end. There is one file for each experiment,
with ``EXPERIMENT = Experiment(...)``; its assembly is ``kernel_templates/experiments/NAME.asm``, or is in the file."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType

from kgen import registry
from kgen.instructions import Form, Instruction, Use
from kgen.wording import several

#: The experiment of the original program. It is left out of the labels of phases.
ORIGINAL = "token"


class Poll(IntEnum):
    """How a waiting consumer looks at a cell.

    EXCHANGE: it exchanges at once, as the original program does. A defect then mostly overwrites a token.
    READ: it reads until it sees a token, then exchanges. A defect then mostly lets two consumers take one token.
    BOTH: consumers alternate between the two, so that both kinds of violation can show.
    """

    EXCHANGE = 0
    READ = 1
    BOTH = 2


@dataclass(frozen=True)
class Routine:
    """Code that a phase calls: a use of the form with an operand. An immediate operand is a constant in the code."""

    form: Form
    use: Use
    operand: int = 0

    @property
    def label(self) -> str:
        """Its name in the kernel: ``exchange_xchg_32``, ``lane_or_32_imm_3ff``."""
        name = f"{self.use.value}_{self.form.name}".replace(".", "_").replace("-", "_")
        return f"{name}_{self.operand:x}" if self.is_constant else name

    @property
    def is_constant(self) -> bool:
        """Whether the operand is part of the code."""
        return any("{operand}" in line for line in self.form.code[self.use])

    @property
    def statements(self) -> tuple[str, ...]:
        """Its assembly, without the return; labels begin with ``{L}``."""
        return self.form.routine(self.use, self.operand)


@dataclass(frozen=True)
class Work:
    """What one phase of an experiment does with a form."""

    #: The routines of the phase.
    put: Routine
    take: Routine
    #: In EAX when walks call ``put``.
    operand: int = 0
    #: What one operation adds.
    step: int = 0
    #: Undoes a multiplication by ``step``.
    inverse: int = 1
    #: The most operations of one CPU on one cell in one batch, where the batch chooses their number.
    repeat: int = 1
    #: The same where the experiment chooses it.
    turns: int = 0
    #: Covers the bits that tokens differ in.
    token_mask: int = 0xFFFFFFFF
    #: Whether ``put`` returns the old value.
    returns: bool = False
    #: A table for the experiment's own code: numbers, and routines for their addresses.
    data: tuple[int | Routine, ...] = ()

    @property
    def most(self) -> int:
        """The most operations of one CPU on one cell in one batch."""
        return self.turns or self.repeat

    @property
    def routines(self) -> tuple[Routine, ...]:
        """All routines that the phase calls."""
        return (self.put, self.take, *(entry for entry in self.data if isinstance(entry, Routine)))


@dataclass(frozen=True)
class Account:
    """One phase's counters, to be compared with each other."""

    rounds: int
    #: By kind, in lower case.
    violations: Mapping[str, int]
    left: int
    foreign: int
    #: Of each CPU, like the two after it.
    puts: Sequence[int]
    takes: Sequence[int]
    tries: Sequence[int]


class Before(Enum):
    """Where the value stands that a cell held before the violation that a witness is of."""

    UNKNOWN = 0
    #: It was 0.
    ZERO = 1
    #: It is the operand of the phase.
    OPERAND = 2
    #: It is the token of the witness.
    TOKEN = 3
    #: In the experiment's table ``starts``.
    TABLE = 4


@dataclass(frozen=True)
class KindWords:
    """One kind of violation in words for people."""

    #: What a witness of it shows.
    meaning: str
    #: What a defect does that shows in this way alone: the predicate of a sentence.
    defect: str
    #: How an access in two halves causes it: a sentence in Markdown.
    mechanism: str


#: Kinds of violations where CPUs update cells.
UPDATES: Mapping[str, KindWords] = MappingProxyType(
    {
        "lost": KindWords(
            "an update is missing",
            "loses updates",
            "**lost**: two CPUs read the same value, both wrote their result, and the second wiped out the first.",
        ),
        "duplicate": KindWords(
            "two operations found the same value",
            "gives one value to two CPUs",
            "**duplicate**: two operations were given the same old value (or one lock).",
        ),
        "torn": KindWords(
            "a value that no CPU wrote",
            "tears values",
            "**torn**: a value was found that no CPU wrote, so one access was carried out in parts.",
        ),
        "stale": KindWords(
            "a value that had been replaced",
            "gives values out of their time",
            "**stale**: an operation was given a value that another one had replaced before.",
        ),
    }
)


@dataclass(frozen=True)
class Experiment:
    """What the CPUs do to the cells, what must hold at the end, and the words for both."""

    name: str
    summary: str
    #: Why atomic operations cannot cause its violations.
    argument: str
    #: What N counts, in the singular.
    unit: str
    #: The uses that an instruction must offer, all of one of the tuples.
    uses: tuple[tuple[Use, ...], ...]
    #: What a phase does with a form, for so many CPUs and cells.
    work: Callable[[Instruction, Form, int, int], Work]
    #: What is wrong with a phase's counters, one sentence each.
    accounts: Callable[[Account], Iterator[str]]
    #: The violations it can show.
    kinds: tuple[str, ...]
    #: Those by which a power control proves that the defect in question would show.
    telling: tuple[str, ...]
    #: The file of its assembly, or its text. It defines ``PREFIX_judge`` and ``PREFIX_batch`` or, where ``walk`` is
    #: set, ``PREFIX_prepare`` and ``PREFIX_visit``; PREFIX is the name with underscores.
    template: str = ""
    assembly: str = ""
    #: Whether all CPUs walk over the cells and do the same.
    walk: bool = True
    #: Whether exactly two CPUs take part in a batch.
    pairs: bool = False
    #: Stronger experiments: the verdict also rests on the first of them that fits the form, run in the same boot. An
    #: experiment without them is its own proof.
    proofs: tuple[str, ...] = ()
    #: How many cells a batch covers for a width in bits, where the target has room. A walk is one chance to see a
    #: violation, however many cells it covers, so it is short: all CPUs meet before each.
    cells: Callable[[int], int] = lambda width: 128
    #: How many a batch may cover at most, for a width in bits and so many CPUs.
    most_cells: Callable[[int, int], int] = lambda width, cpus: sys.maxsize
    #: Why a form with so many CPUs cannot be used although it offers the uses, in a few words; "" where it can.
    fits: Callable[[Instruction, Form, int], str] = lambda instruction, form, cpus: ""
    #: Whether the manual promises only of aligned cells that its accesses are whole.
    aligned_only: bool = False

    #: Whether CPU 0 puts tokens and the others take them: then the original's table holds their counters.
    tabled: bool = False
    #: Whether the guest logs each operation of a batch: which wrote a value, and which got it.
    logs: bool = False
    #: Whether the guest keeps what CPU 0 found in the cells at the end of a batch, in the table ``finals``.
    keeps_finals: bool = False
    #: Where the value is that a cell held before a violation.
    before: Before = Before.UNKNOWN
    #: The label of the table with the values that the cells began a batch with, 32 bits each, or that were put there.
    starts: str = ""
    #: Its kinds of violations in words.
    words: Mapping[str, KindWords] = field(default_factory=lambda: UPDATES, hash=False)
    #: What the token of a witness is.
    token_name: str = "expected"
    #: What a CPU did as often as it counts takes: "held the lock"; "" where it counts none.
    takes: str = ""
    #: What a cell is, beside what it began a batch with; "" where nothing is said.
    cell_name: str = ""
    #: What 0 in a cell means, and what anything else does; "" where nothing is said.
    cell_states: tuple[str, str] = ("", "")

    @property
    def units(self) -> str:
        """Return what N counts, several of it."""
        return several(self.unit)

    @property
    def prefix(self) -> str:
        """The prefix of its labels."""
        return self.name.replace("-", "_")

    def offered(self, instruction: Instruction) -> tuple[Use, ...]:
        """Return the uses of the instruction that it takes, () where the instruction does not offer them."""
        return next((uses for uses in self.uses if all(use in instruction.code for use in uses)), ())

    def refuses(self, instruction: Instruction, form: Form, cpus: int) -> str:
        """Return why this form cannot be tested in this way, "" where it can."""
        if not self.offered(instruction):
            wanted = " or ".join(" and ".join(use.value for use in uses) for uses in self.uses)
            return f"it takes what can {wanted}"
        return self.fits(instruction, form, cpus)


#: The most operations of a CPU in one batch of a walk. Batches are short because CPUs drift apart in long ones.
MOST_OPERATIONS = 32


def operations(account: Account) -> Iterator[str]:
    """Yield what is wrong with a walk's counters: N must be the sum of all CPUs' operations."""
    if sum(account.puts) != account.rounds:
        yield f"did {sum(account.puts)} operations and counts {account.rounds}"


@functools.cache
def experiments() -> Mapping[str, Experiment]:
    """Return every experiment by name."""
    return registry.discover("kgen.experiments", "EXPERIMENT", Experiment)
