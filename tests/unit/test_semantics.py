"""What the catalogue says that instructions and routines do, against the CPU that runs this test."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from _native import UNAVAILABLE, State, run
from grouped import grouped

from kgen.instructions import AF, CF, OF, PF, SF, STATUS_FLAGS, TORN, Form, Instruction, Outcome, Source, Use
from kgen.instructions._semantics import add, sub
from kgen.registry import discover
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source as Text

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)

INSTRUCTIONS = discover("kgen.instructions", "INSTRUCTION", Instruction)
FORMS = {
    form.name: (entry, form)
    for entry in INSTRUCTIONS.values()
    for source in entry.sources
    for width in entry.opcodes[source]
    for form in (entry.form(width, source, True), *([] if entry.implicit_lock else [entry.form(width, source, False)]))
}
ROUTINES = [
    (entry, form, use)
    for entry in INSTRUCTIONS.values()
    for source in entry.sources
    for width in entry.opcodes[source]
    for form in (entry.form(width, source, True), *entry.unlocked(width, source))
    for use in form.code
]
#: Random operands of each form, beside the edges.
RANDOM = 2_000
LOW = 0xFFFFFFFF
BIT_TESTS = ("btc", "btr", "bts")


class Operands:
    """Random operands of a form, the same in every run."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.random = random.Random(form.name)
        top = 1 << (form.width - 1)
        self.edges = (0, 1, top - 1, top, 2 * top - 1)
        # A bit number is cut to the operand's size in an immediate; a register would reach out of the operand.
        bits = 32 if form.source is Source.IMMEDIATE else form.width
        self.sources: tuple[int, ...] | range = range(bits) if form.mnemonic in BIT_TESTS else self.edges

    def source(self) -> int:
        if self.form.mnemonic in BIT_TESTS:
            return self.random.choice(self.sources)
        if self.random.random() < 0.25:  # one that fits a sign-extended byte
            return self.random.randrange(-128, 128) % (1 << self.form.width)
        return self.random.getrandbits(self.form.width)

    def all(self) -> Iterator[tuple[int, int, int, int]]:
        """Old value, source, flags, accumulator; of those that compare, half find what they expect."""
        for old, source, flags in product(self.edges, self.sources, (0, CF, STATUS_FLAGS & ~CF, STATUS_FLAGS)):
            for accumulator in self.edges:
                yield old, source, flags, accumulator
        for _ in range(RANDOM):
            old = self.random.getrandbits(self.form.width)
            accumulator = self.random.choice((old, self.random.getrandbits(self.form.width)))
            yield old, self.source(), self.random.getrandbits(12) & STATUS_FLAGS, accumulator

    def state(self, old: int, source: int, flags: int, accumulator: int, register: str) -> State:
        """The operands where the form looks for them, noise everywhere else."""
        width, noise = self.form.width, self.random.getrandbits
        cell = merge(noise(64), old, width)
        if width == 64:
            return State(cell, accumulator & LOW, accumulator >> 32, source & LOW, source >> 32, noise(32), flags)
        eax, edx = noise(32), noise(32)
        if self.form.source is Source.REGISTER and register == "a":
            eax = merge(eax, source, width)
        elif self.form.source is Source.REGISTER:
            eax, edx = merge(eax, accumulator, width), merge(edx, source, width)
        return State(cell, eax, edx, noise(32), noise(32), noise(32), flags)


def merge(before: int, value: int, width: int) -> int:
    """A register or eight bytes of memory of which so many bits have been replaced."""
    mask = (1 << width) - 1
    return before & ~mask | value & mask


def predicted(state: State, outcome: Outcome, width: int) -> State:
    """The state that an outcome leaves; whatever gets a register's new value gets it in EAX, or EDX:EAX."""
    after = state._replace(cell=merge(state.cell, outcome.value, width), flags=outcome.flags & outcome.defined)
    if outcome.register is None:
        return after
    if width == 64:
        return after._replace(eax=outcome.register & LOW, edx=outcome.register >> 32)
    return after._replace(eax=merge(state.eax, outcome.register, width))


def disagreements(entry: Instruction, form: Form, semantics: Callable[..., Outcome]) -> tuple[int, list[str]]:
    """How many operands were tried, and those with which the CPU does something else."""
    operands = Operands(form)
    tried = list(operands.all())
    states = [operands.state(*each, entry.register) for each in tried]
    codes = [form.encoding(source) for _, source, _, _ in tried]
    wrong = []
    for (old, source, flags, accumulator), before, found in zip(tried, states, run(codes, states), strict=True):
        outcome = semantics(old, source, flags, form.width, accumulator)
        wanted = predicted(before, outcome, form.width)
        if found._replace(flags=found.flags & outcome.defined) != wanted:
            wrong.append(f"{old:#x}, {source:#x}, {flags:#x}, {accumulator:#x}: {found} is not {wanted}")
    return len(tried), wrong


@grouped(FORMS.values())
def test_the_cpu_does_what_the_semantics_say(entry: Instruction, form: Form) -> None:
    count, wrong = disagreements(entry, form, entry.semantics)
    assert count > RANDOM
    assert wrong[:3] == []


@pytest.mark.parametrize("entry", INSTRUCTIONS.values(), ids=lambda entry: entry.name)
def test_undefined_flags_are_those_of_the_manual(entry: Instruction) -> None:
    """SDM volume 1, appendix A; a CPU may leave anything in them, so it cannot tell."""
    bit_tests = dict.fromkeys(BIT_TESTS, OF | SF | AF | PF)
    undefined = {**dict.fromkeys(("and", "or", "xor"), AF), **bit_tests}.get(entry.name, 0)
    for width in entry.widths:
        assert entry.semantics(1, 2, 0, width, 3).defined == STATUS_FLAGS & ~undefined
        # and nothing is claimed beside status flags
        assert entry.semantics(1, 2, LOW, width, 3).flags & ~STATUS_FLAGS == 0


def test_a_wrong_semantics_is_found() -> None:
    entry = INSTRUCTIONS["sub"]
    for form in (entry.form(32, Source.REGISTER, True), entry.form(8, Source.IMMEDIATE, False)):
        assert len(disagreements(entry, form, add)[1]) > 1_000
    # one flag in one case is enough
    form = entry.form(16, Source.REGISTER, True)

    def almost(old: int, source: int, flags: int, width: int, accumulator: int) -> Outcome:
        outcome = sub(old, source, flags, width, accumulator)
        return Outcome(outcome.value, outcome.flags ^ (CF if old == source == 1 << 15 else 0))

    assert disagreements(entry, form, almost)[1]


# --- routines ------------------------------------------------------------------------------------------------------


def code(form: Form, use: Use, operand: int) -> bytes:
    lines = [line.replace("{L}", ".x") for line in form.routine(use, operand)]
    text = "\n".join(['.code32\n.section .text, "ax"\nroutine:', *lines, ""])
    return assemble(Text("routine.s", text), origin=0x100000).section(".text").data


class Model:
    """What a routine promises, in terms of the cell's logical value: of 64 bits that is each half."""

    def __init__(self, entry: Instruction, form: Form, use: Use, operand: int) -> None:
        self.entry, self.form, self.use, self.operand = entry, form, use, operand
        self.width = min(form.width, 32)

    def after(self, old: int, eax: int, edx: int) -> int:
        """The cell's value afterwards."""
        if self.use in (Use.EXCHANGE, Use.STORE):
            return eax
        if self.use is Use.ATTEMPT:
            return edx if eax == old else old
        if self.use is Use.SET:
            return old | 1
        if self.use is Use.CLEAR:
            return old & ~1
        if self.use is Use.STEP:
            return (old + self.entry.increment(self.width)) % (1 << self.width)
        carry = 0  # LANE begins with the flag clear
        return self.entry.semantics(old, self.operand, carry, self.form.width, 0).value

    def result(self, old: int) -> int | None:
        """EAX afterwards; None where nothing is promised."""
        if self.use not in self.entry.returns:
            return None
        return old & 1 if self.use in (Use.SET, Use.CLEAR) else old


def chosen(entry: Instruction, form: Form, use: Use) -> list[int]:
    """Operands that experiments may choose."""
    width = min(form.width, 32)
    if use is Use.LANE:
        assert entry.lane is not None
        quarter = width // 4
        masks = [1, 1 << (width - 1), (1 << width) - 1, (1 << 3 * quarter) - (1 << 2 * quarter)]
        return [entry.lane(width, mask).operand for mask in masks]
    return [entry.step(width) if use is Use.STEP else entry.flip(width) if use is Use.FLIP else 0]


@grouped(ROUTINES)
def test_a_routine_does_what_its_use_says(entry: Instruction, form: Form, use: Use) -> None:
    rng = random.Random(f"{form.name} {use}")
    for operand in chosen(entry, form, use):
        model = Model(entry, form, use, operand)
        top = 1 << (model.width - 1)
        olds = [0, 1, top - 1, top, 2 * top - 1, *(rng.getrandbits(model.width) for _ in range(100))]
        states = []
        for old in olds:
            eax = rng.getrandbits(32)  # whatever lies above the width is not looked at
            if use in (Use.STEP, Use.LANE, Use.FLIP) and form.source is not Source.IMMEDIATE:
                eax = merge(eax, operand, model.width)
            if use is Use.ATTEMPT and rng.random() < 0.5:
                eax = merge(eax, old, model.width)
            cell = old << 32 | old if form.width == 64 else merge(rng.getrandbits(64), old, form.width)
            edx, ebx, ecx, esi = (rng.getrandbits(32) for _ in range(4))
            states.append(State(cell, eax, edx, ebx, ecx, esi, rng.getrandbits(12) & STATUS_FLAGS))
        found = run([code(form, use, operand)] * len(states), states)
        for old, before, after in zip(olds, states, found, strict=True):
            value = model.after(old, before.eax % (2 * top), before.edx % (2 * top))
            result = model.result(old)
            wanted = before._replace(
                cell=value << 32 | value if form.width == 64 else merge(before.cell, value, form.width),
                eax=after.eax if result is None else result,
                edx=after.edx,
                flags=after.flags,
            )
            assert after == wanted, f"{old:#x}"
        # what gives the old value says so
        assert use in entry.returns or any(old != after.eax for old, after in zip(olds, found, strict=True))


@pytest.mark.parametrize("lock", [True, False])
@pytest.mark.parametrize("use", [Use.EXCHANGE, Use.STEP])
def test_halves_that_differ_are_torn_once(use: Use, lock: bool) -> None:
    """The routine says so, and leaves a value whose halves are alike."""
    form = INSTRUCTIONS["cmpxchg8b"].form(64, Source.NONE, lock)
    rng = random.Random(1)
    cells = [1, 1 << 32, *(rng.getrandbits(64) for _ in range(100))]
    for cell, after in zip(
        cells, run([code(form, use, 0)] * len(cells), [State(cell, 5) for cell in cells]), strict=True
    ):
        value = 5 if use is Use.EXCHANGE else ((cell & LOW) + 5) & LOW
        assert (after.cell, after.eax) == (value << 32 | value, TORN)


@pytest.mark.parametrize("lock", [True, False])
def test_an_attempt_that_finds_halves_that_differ_leaves_them(lock: bool) -> None:
    """Neither of them is what it expects: it fails, and says what it found."""
    form = INSTRUCTIONS["cmpxchg8b"].form(64, Source.NONE, lock)
    rng = random.Random(2)
    cells = [1, 1 << 32, *(rng.getrandbits(64) for _ in range(100))]
    states = [State(cell, expected & LOW, 5) for cell in cells for expected in (cell, cell >> 32)]
    for before, after in zip(states, run([code(form, Use.ATTEMPT, 0)] * len(states), states), strict=True):
        assert (after.cell, after.eax) == (before.cell, TORN)
