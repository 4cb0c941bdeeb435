"""Each experiment as a small model: atomic operations, in whatever order, never violate its final condition; operations
that read first and write later do.

What the instructions do comes from the catalogue, the numbers from Experiment.work.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from draws import draws
from grouped import grouped
from hypothesis import given, settings
from hypothesis import strategies as st

from kgen.errors import SpecError
from kgen.experiments import MOST_OPERATIONS, Account, Experiment, Routine, Work, experiments
from kgen.experiments.own_bits import MAX_REPEAT, ROW_WORDS, expected, lanes
from kgen.experiments.parity import STARTS
from kgen.instructions import CF, TORN, ZF, Form, Instruction, Outcome, Source, Use, instructions
from kgen.kernel.parameters import CHAIN_TOP, TOKEN_STEP
from kgen.kernel.results_block import ViolationKind
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH, MAX_CPUS, MIN_CPUS, Case

CPUS = 3
#: One thing that a CPU does in one step: it gets the machine and gives what it found.
Step = Callable[["Machine"], Any]
Program = Generator[Step, Any, Any]
#: Which CPU makes the next step, of those that have not ended.
Order = Callable[[Sequence[int]], int]


@dataclass
class Machine:
    """Cells, what is in ordinary memory, and what the CPUs found."""

    cells: list[int]
    shared: Counter[Any] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    puts: list[int] = field(default_factory=lambda: [0] * CPUS)
    takes: list[int] = field(default_factory=lambda: [0] * CPUS)
    tries: list[int] = field(default_factory=lambda: [0] * CPUS)
    left: int = 0
    foreign: int = 0

    def run(self, programs: Sequence[Program], order: Order) -> None:
        """Step by step, to the end of all."""
        waiting = {cpu: next(program, None) for cpu, program in enumerate(programs)}
        while alive := [cpu for cpu, step in waiting.items() if step is not None]:
            cpu = order(alive)
            step = waiting[cpu]
            assert step is not None
            try:
                waiting[cpu] = programs[cpu].send(step(self))
            except StopIteration:
                waiting[cpu] = None

    def account(self, rounds: int) -> Account:
        kinds = {kind.name.lower(): self.found[kind.name.lower()] for kind in ViolationKind}
        return Account(rounds, kinds, self.left, self.foreign, self.puts, self.takes, self.tries)


def by_turns() -> Order:
    """In lockstep, which lets all read before any writes."""
    turns = itertools.count()
    return lambda alive: alive[next(turns) % len(alive)]


def given_order(*first: int) -> Order:
    """These, then whoever is left, one after the other."""
    steps = iter(first)

    def choose(alive: Sequence[int]) -> int:
        wanted = next(steps, None)
        return alive[0] if wanted is None or wanted not in alive else wanted

    return choose


def random_order(random: Random) -> Order:
    return random.choice


@dataclass(frozen=True)
class Cpu:
    """How a CPU carries out the routines of a form: each operation in one step or, ``split``, in two."""

    instruction: Instruction
    form: Form
    split: bool

    @property
    def width(self) -> int:
        return self.form.width

    def execute(
        self, cell: int, source: int, flags: int = 0, accumulator: int = 0, entry: Instruction | None = None
    ) -> Program:
        """One instruction on a cell; gives its outcome."""
        semantics = (entry or self.instruction).semantics

        def read(machine: Machine) -> int:
            return machine.cells[cell]

        def write(value: int) -> Step:
            return lambda machine: machine.cells.__setitem__(cell, value)

        def at_once(machine: Machine) -> Outcome:
            outcome = semantics(read(machine), source, flags, self.width, accumulator)
            machine.cells[cell] = outcome.value
            return outcome

        if not self.split:
            return (yield at_once)
        outcome = semantics((yield read), source, flags, self.width, accumulator)
        yield write(outcome.value)
        return outcome

    def both(self, value: int) -> int:
        """A value as it lies in a cell: in both halves of one of 64 bits."""
        return value | value << 32 if self.width == 64 else value & (1 << self.width) - 1

    def given(self, value: int) -> int:
        """What a routine makes of a cell's value."""
        return value if self.width < 64 else value & 0xFFFFFFFF if value & 0xFFFFFFFF == value >> 32 else TORN

    @property
    def compares(self) -> bool:
        return self.instruction.name.startswith("cmpxchg")

    def exchange(self, cell: int, value: int) -> Program:
        if not self.compares:
            outcome = yield from self.execute(cell, self.both(value))
            return outcome.register
        accumulator = 0
        while True:
            outcome = yield from self.execute(cell, self.both(value), accumulator=accumulator)
            if outcome.flags & ZF:
                return self.given(accumulator)
            accumulator = outcome.register

    def bit(self, cell: int, name: str) -> Program:
        outcome = yield from self.execute(cell, 0, entry=instructions()[name])
        return int(bool(outcome.flags & CF))

    def put(self, work: Work, cell: int, value: int) -> Program:
        return (yield from self._use(work.put.use, work, cell, value))

    def take(self, work: Work, cell: int) -> Program:
        return (yield from self._use(work.take.use, work, cell, 0))

    def _use(self, use: Use, work: Work, cell: int, value: int) -> Program:
        if use is Use.EXCHANGE:
            return (yield from self.exchange(cell, value))
        if use in (Use.SET, Use.CLEAR):
            return (yield from self.bit(cell, "bts" if use is Use.SET else "btr"))
        if use is Use.STEP and self.compares:
            accumulator = yield lambda machine: machine.cells[cell]
            while True:
                new = self.both((self.given(accumulator) + work.operand) & 0xFFFFFFFF)
                outcome = yield from self.execute(cell, new, accumulator=accumulator)
                if outcome.flags & ZF:
                    return self.given(accumulator)
                accumulator = outcome.register
        assert use in (Use.STEP, Use.FLIP)
        outcome = yield from self.execute(cell, work.operand, flags=CF if use is Use.STEP else 0)
        return outcome.register


def words(data: Sequence[int | Routine]) -> list[int]:
    """Numbers of a table."""
    return [word for word in data if isinstance(word, int)]


# --- the experiments


def token(cpu: Cpu, work: Work, order: Order, size: int = 1) -> tuple[Machine, int]:
    """Batches of one or more cells; consumers poll as the kernel's do."""
    machine = Machine([0] * 2)
    cells = len(machine.cells)
    earlier: set[int] = set()
    batches = 3
    for batch in range(batches):
        tokens = [
            ((batch * cells + cell + 1) * TOKEN_STEP & work.token_mask) or work.token_mask for cell in range(cells)
        ]
        olds = [0] * cells
        taken = [[0] * cells for _ in range(CPUS)]
        machine.shared["filled"] = 0

        def producer(tokens: list[int] = tokens, olds: list[int] = olds) -> Program:
            for cell, value in enumerate(tokens):
                olds[cell] = yield from cpu.put(work, cell, value)
                yield lambda machine, cell=cell: machine.shared.__setitem__("filled", cell + 1)
                machine.puts[0] += 1

        def consumer(who: int, taken: list[list[int]] = taken) -> Program:
            for cell in range(cells):
                while True:
                    filled = yield lambda machine: machine.shared["filled"]
                    if who % 2 == 0 and filled <= cell and not (yield lambda machine, cell=cell: machine.cells[cell]):
                        continue
                    value = yield from cpu.take(work, cell)
                    machine.tries[who] += 1
                    if value or filled > cell:
                        break
                taken[who][cell] = value
                machine.takes[who] += bool(value)

        machine.run([producer(), consumer(1), consumer(2)], order)
        for cell, mine in enumerate(tokens):
            values = [row[cell] for row in taken[1:] if row[cell]]
            others = [value for value in values if value != mine]
            rest = cpu.given(machine.cells[cell])
            if olds[cell]:
                machine.found["stale" if olds[cell] in earlier | set(tokens) else "torn"] += 1
            for value in others:
                machine.found["duplicate" if value in earlier | set(tokens) else "torn"] += 1
            machine.foreign += len(others)
            machine.found["duplicate"] += max(0, values.count(mine) - 1)
            if not rest and mine not in values:
                machine.found["lost"] += 1
            if rest and mine not in values:
                machine.left += 1
            if rest and (mine in values or not others):
                machine.found["stale" if rest in earlier | set(tokens) else "torn"] += 1
            machine.cells[cell] = 0
        earlier |= set(tokens)
    return machine, batches * cells


def counter(cpu: Cpu, work: Work, order: Order) -> tuple[Machine, int]:
    """Every CPU adds so many times to one cell that starts anywhere."""
    mask = (1 << min(cpu.width, 32)) - 1
    start = TOKEN_STEP & mask
    repeat = min(work.repeat, 4)
    machine = Machine([cpu.both(start)])
    total = repeat * CPUS
    marks: dict[int, int] = {}

    def program(who: int) -> Program:
        for _ in range(repeat):
            machine.puts[who] += 1
            old = yield from cpu.put(work, 0, 0)
            if not work.returns:
                continue
            number = ((old & mask) - start) * work.inverse & mask
            if number >= total:
                machine.found["torn"] += 1
            elif number in marks:
                machine.found["duplicate"] += 1
            marks[number] = who

    machine.run([program(who) for who in range(CPUS)], order)
    done = (cpu.given(machine.cells[0]) - start) * work.inverse & mask
    if done > total:
        machine.found["torn"] += 1
    machine.found["lost"] += max(0, total - done)
    return machine, total


def own_bits(cpu: Cpu, work: Work, order: Order) -> tuple[Machine, int]:
    """Every CPU changes its lane as its row of the table says."""
    machine = Machine([work.operand])
    # without the routine, which comes first
    rows = [words(work.data[ROW_WORDS * who + 1 : ROW_WORDS * (who + 1)]) for who in range(CPUS)]
    undone = [False] * CPUS

    def program(who: int) -> Program:
        operand, mask, repeats, *values = rows[who]
        for number in range(repeats):
            machine.puts[who] += 1
            yield from cpu.execute(0, operand)
            mine = yield lambda machine: machine.cells[0] & mask
            if mine != values[number + 1]:
                machine.found["lost"] += 1
                undone[who] = True
                return

    machine.run([program(who) for who in range(CPUS)], order)
    everybodys = 0
    for who, (_, mask, repeats, *values) in enumerate(rows):
        everybodys |= mask
        if not undone[who] and machine.cells[0] & mask != values[repeats]:
            machine.found["lost"] += 1
    if machine.cells[0] & ~everybodys:
        machine.found["torn"] += 1
    return machine, sum(machine.puts)


def parity(cpu: Cpu, work: Work, order: Order, turns: int = 1) -> tuple[Machine, int]:
    """Two CPUs, as many turns each, on cells with every start value."""
    machine = Machine(words(work.data[::2]))

    def program(who: int) -> Program:
        for cell in range(len(machine.cells)):
            for _ in range(turns):
                machine.puts[who] += 1
                yield from cpu.put(work, cell, 0)

    machine.run([program(who) for who in range(2)], order)
    for cell, value in enumerate(machine.cells):
        if value != work.data[2 * cell]:
            machine.found["lost" if value == work.data[2 * cell + 1] else "torn"] += 1
    return machine, sum(machine.puts)


def mutex(cpu: Cpu, work: Work, order: Order) -> tuple[Machine, int]:
    """Every CPU tries to enter so many times, and gives back what it got."""
    machine = Machine([0])
    tries = 4

    def program(who: int) -> Program:
        for _ in range(tries):
            machine.puts[who] += 1
            old = yield from cpu.put(work, 0, work.operand)
            if old:
                machine.found["torn"] += old != 1
                continue
            yield lambda machine: machine.shared.__setitem__("holder", who)
            yield lambda machine: machine.shared.update(entries=1)
            guarded = yield lambda machine: machine.shared["guarded"]
            yield lambda machine, new=guarded + 1: machine.shared.__setitem__("guarded", new)
            machine.takes[who] += 1
            machine.found["duplicate"] += (yield lambda machine: machine.shared["holder"]) != who
            yield lambda machine: machine.cells.__setitem__(0, 0)

    machine.run([program(who) for who in range(CPUS)], order)
    if machine.cells[0]:
        machine.found["stale" if cpu.given(machine.cells[0]) == 1 else "torn"] += 1
    machine.found["duplicate"] += machine.shared["entries"] != machine.shared["guarded"]
    return machine, CPUS * tries


def torn(cpu: Cpu, work: Work, order: Order) -> tuple[Machine, int]:
    """Every CPU stores one nibble repeated, and loads. ``split``: the lower half comes first."""
    machine = Machine([0])
    mask = (1 << cpu.width) - 1
    high = mask - ((1 << cpu.width // 2) - 1)
    stores = 3

    def program(who: int) -> Program:
        for number in range(stores):
            machine.puts[who] += 1
            value = 0x11111111 * ((5 * who + number + 1) & 15) & mask
            if cpu.split:
                old = yield lambda machine: machine.cells[0]
                yield lambda machine, part=old & high | value & ~high: machine.cells.__setitem__(0, part)
            yield lambda machine, value=value: machine.cells.__setitem__(0, value)
            seen = yield lambda machine: machine.cells[0]
            machine.found["torn"] += seen != 0x11111111 * (seen & 15) & mask

    machine.run([program(who) for who in range(CPUS)], order)
    return machine, CPUS * stores


@dataclass(frozen=True)
class Exchange:
    """What a CPU logs of one operation of a chain."""

    cpu: int
    begin: int
    end: int
    found: int
    number: int
    wrote: bool


def chain(cpu: Cpu, work: Work, order: Order) -> tuple[Machine, int]:
    """Every CPU exchanges values of its own into one cell; the log is judged as the kernel judges its own."""
    repeat = min(work.repeat, 3)
    total = repeat * CPUS

    def value(number: int) -> int:
        return (number + 1) * TOKEN_STEP & work.token_mask

    start = value(total)
    machine = Machine([cpu.both(start)])
    log: list[Exchange] = []

    def ticket(machine: Machine) -> int:
        machine.shared["sequence"] += 1
        return machine.shared["sequence"]

    def program(who: int) -> Program:
        expected = start
        for number in range(who * repeat, (who + 1) * repeat):
            machine.puts[who] += 1
            begin = yield ticket
            if work.put.use is Use.ATTEMPT:
                outcome = yield from cpu.execute(0, cpu.both(value(number)), accumulator=cpu.both(expected))
                wrote = bool(outcome.flags & ZF)
                found = expected if wrote else cpu.given(outcome.register)
            else:
                found, wrote = (yield from cpu.put(work, 0, value(number))), True
            end = yield ticket
            log.append(Exchange(who, begin, end, found, number, wrote))
            expected = value(number) if wrote else found

    machine.run([program(who) for who in range(CPUS)], order)
    written = {value(each.number): each for each in log if each.wrote}
    left = cpu.given(machine.cells[0])
    readers = Counter(each.found for each in log if each.wrote) + Counter([left])
    for found in [*(each.found for each in log), left]:
        machine.found["torn"] += found != start and found not in written
    for known in (start, *written):
        machine.found["duplicate"] += max(0, readers[known] - 1)
        machine.found["lost"] += not readers[known]
    if not +machine.found:
        machine.found["stale"] += not is_path(start, left, [each for each in log if each.wrote], value)
    return machine, total


def is_path(start: int, left: int, log: Sequence[Exchange], value: Callable[[int], int]) -> bool:
    """Whether one path leads over all of them, none of which comes after one that began when it had ended."""
    after = {each.found: each for each in log}
    at, latest, steps = start, 0, 0
    while at != left:
        each = after[at]
        if latest > each.end:
            return False
        latest, at, steps = max(latest, each.begin), value(each.number), steps + 1
    return steps == len(log)


MODELS: dict[str, Callable[[Cpu, Work, Order], tuple[Machine, int]]] = {
    "token": token,
    "chain": chain,
    "counter": counter,
    "own-bits": own_bits,
    "parity": parity,
    "mutex": mutex,
    "torn": torn,
}
#: Bad orders: of tokens, a consumer has looked at the progress and both read before either writes; of stores, one CPU's
#: is whole, another one's half-way when the first one loads. Elsewhere lockstep is bad enough.
BAD = {"token": (1, 0, 1, 0, 1), "torn": (0, 0, 0, 1, 1, 0)}


def pairs() -> Iterator[tuple[str, str, int, Source]]:
    """Every form with every experiment that takes it."""
    for name, entry in sorted(instructions().items()):
        for source, widths in entry.opcodes.items():
            for width in sorted(widths):
                form = entry.form(width, source, True)
                for experiment in sorted(experiments()):
                    if not experiments()[experiment].refuses(entry, form, CPUS):
                        yield experiment, name, width, source


PAIRS = list(pairs())


def modelled(pair: tuple[str, str, int, Source], order: Order, *, split: bool) -> tuple[Experiment, Machine, int]:
    experiment, name, width, source = pair
    entry = instructions()[name]
    form = entry.form(width, source, True)
    chosen = experiments()[experiment]
    work = chosen.work(entry, form, CPUS, chosen.cells(width))
    machine, rounds = MODELS[experiment](Cpu(entry, form, split), work, order)
    return chosen, machine, rounds


def test_every_experiment_has_its_model() -> None:
    assert set(MODELS) == set(experiments())
    assert {pair[0] for pair in PAIRS} == set(MODELS)


@settings(max_examples=draws(300), deadline=None)
@given(pair=st.sampled_from(PAIRS), random=st.randoms(use_true_random=False))
def test_atomic_operations_violate_nothing(pair: tuple[str, str, int, Source], random: Random) -> None:
    experiment, machine, rounds = modelled(pair, random_order(random), split=False)
    assert not +machine.found
    assert list(experiment.accounts(machine.account(rounds))) == []


@grouped(((pair,) for pair in PAIRS), by=lambda member: member[0][0])
def test_an_order_in_which_split_operations_show(pair: tuple[str, str, int, Source]) -> None:
    order = given_order(*BAD[pair[0]]) if pair[0] in BAD else by_turns()
    experiment, machine, rounds = modelled(pair, order, split=True)
    found = set(+machine.found)
    assert found & set(experiment.telling), "nothing that tells"
    assert found <= set(experiment.kinds)
    assert list(experiment.accounts(machine.account(rounds))) == []


@grouped(((pair,) for pair in PAIRS), by=lambda member: member[0][0])
def test_one_after_the_other_split_operations_are_atomic(pair: tuple[str, str, int, Source]) -> None:
    """Only the interleaving makes the difference. A consumer that comes first would poll for ever: it is the last."""
    _, machine, _ = modelled(pair, lambda alive: alive[0], split=True)
    assert not +machine.found


@settings(max_examples=draws(300), deadline=None)
@given(pair=st.sampled_from(PAIRS), random=st.randoms(use_true_random=False))
def test_whatever_split_operations_do_the_counters_fit(pair: tuple[str, str, int, Source], random: Random) -> None:
    """No order makes the accounts complain, or an experiment show what it says it cannot."""
    experiment, machine, rounds = modelled(pair, random_order(random), split=True)
    assert set(+machine.found) <= set(experiment.kinds)
    assert list(experiment.accounts(machine.account(rounds))) == []


# --- the numbers that the models and the kernel are given


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("cpus", [3, 4, 8])
def test_lanes_share_the_cell(width: int, cpus: int) -> None:
    masks = lanes(width, cpus)
    assert len(masks) == cpus
    assert sum(masks) == (1 << width) - 1
    assert all(masks)
    sizes = [mask.bit_count() for mask in masks]
    assert max(sizes) - min(sizes) <= 1


@grouped(
    (name, width, cpus)
    for name in sorted(name for name, entry in instructions().items() if Use.LANE in entry.code)
    for width in (8, 16, 32)
    for cpus in (3, 8)
)
def test_a_lane_never_changes_other_bits(name: str, width: int, cpus: int) -> None:
    """Whatever the others hold, and as often as it is told to repeat; each change but the first may be none, where the
    first has done it."""
    entry = instructions()[name]
    if width not in entry.widths:
        return
    for mask in lanes(width, cpus):
        assert entry.lane is not None
        lane = entry.lane(width, mask)
        assert 1 <= lane.repeats <= MAX_REPEAT
        assert lane.initial & ~mask == 0
        wanted = expected(entry, lane, width, mask)
        assert wanted[0] == lane.initial
        assert wanted[1] != wanted[0], "nothing to lose"
        for others in (0, (1 << width) - 1, 0x55555555 & (1 << width) - 1):
            value = others & ~mask | lane.initial
            for after in wanted[1:]:
                value = entry.semantics(value, lane.operand, 0, width, 0).value
                assert value & ~mask == others & ~mask
                assert value & mask == after


@pytest.mark.parametrize("name", sorted(name for name, entry in instructions().items() if Use.FLIP in entry.code))
def test_a_flip_undoes_itself_from_every_start(name: str) -> None:
    entry = instructions()[name]
    for width in entry.widths:
        form = entry.form(width, entry.sources[0], True)
        work = experiments()["parity"].work(entry, form, CPUS, 128)
        assert len(work.data) == 2 * STARTS
        for start, after in zip(words(work.data[::2]), words(work.data[1::2]), strict=True):
            assert start != after
            assert entry.semantics(start, work.operand, 0, width, 0).value == after
            assert entry.semantics(after, work.operand, 0, width, 0).value == start


@pytest.mark.parametrize("name", sorted(name for name, entry in instructions().items() if Use.STEP in entry.code))
@pytest.mark.parametrize("cpus", [3, 64, MAX_CPUS])
def test_a_batch_counts_to_less_than_the_cell_holds(name: str, cpus: int) -> None:
    entry = instructions()[name]
    for source, widths in entry.opcodes.items():
        for width in widths:
            form = entry.form(width, source, True)
            chosen = experiments()["counter"]
            work = chosen.work(entry, form, cpus, chosen.cells(width))
            bits = min(width, 32)
            assert work.repeat >= 1
            assert work.repeat * cpus < 1 << bits
            assert work.step % 2 == 1
            assert work.step * work.inverse % (1 << bits) == 1
            if not name.startswith("cmpxchg"):
                # from anywhere, with the carry that the routine sets
                for start in (0, 1, (1 << width) - 1, 0x5A5A5A5A & (1 << width) - 1):
                    after = entry.semantics(start, work.operand, CF, width, 0).value
                    assert after == (start + work.step) % (1 << width)


def chain_forms() -> Iterator[tuple[Instruction, Form]]:
    """Every form that chains are made of, controls too."""
    for entry in instructions().values():
        for source in entry.sources:
            for width in entry.widths:
                if experiments()["chain"].offered(entry):
                    yield from (
                        (entry, form) for form in (entry.form(width, source, True), *entry.unlocked(width, source))
                    )


@pytest.mark.parametrize(("entry", "form"), list(chain_forms()), ids=lambda value: value.name)
def test_a_chain_never_runs_out_of_values(entry: Instruction, form: Form) -> None:
    """In every batch that is let through, with any number of CPUs and cells, all values differ, and none is 0 or what
    routines give for halves that differ."""
    chosen = experiments()["chain"]
    for cpus in range(MIN_CPUS, MAX_CPUS + 1, 1 if form.width == 8 else 21):
        refused = chosen.refuses(entry, form, cpus)
        most = min(chosen.most_cells(form.width, cpus), MAX_BATCH)
        assert bool(refused) == (most < 1), cpus
        assert "too few values" in refused or not refused
        for cells in range(1, most + 1):
            work = chosen.work(entry, form, cpus, cells)
            assert 1 <= work.repeat == work.most <= MOST_OPERATIONS
            # numbers from 0; value 0 would be that of number -1 and, where they are all used, of 2^bits - 1
            assert cpus * work.repeat * cells + cells < 1 << min(form.width, 32), (cpus, cells)
            assert work.token_mask == (1 << min(form.width, 32)) - 1
            assert work.returns
    # narrow cells: few CPUs, or few operations of each
    assert bool(chosen.refuses(entry, form, 254)) == (form.width == 8)
    assert not chosen.refuses(entry, form, 253)
    assert chosen.work(entry, form, 3, 1).repeat == MOST_OPERATIONS
    assert chosen.work(entry, form, 8, 1).repeat == (31 if form.width == 8 else MOST_OPERATIONS)


@pytest.mark.parametrize(("entry", "form"), list(chain_forms()), ids=lambda value: value.name)
def test_what_compares_exchanges_by_attempts(entry: Instruction, form: Form) -> None:
    work = experiments()["chain"].work(entry, form, 3, 1)
    compares = form.mnemonic.startswith("cmpxchg")
    assert work.put == work.take == Routine(form, Use.ATTEMPT if compares else Use.EXCHANGE)
    assert work.operand == int(compares)


def test_no_value_of_a_chain_looks_torn() -> None:
    """Values are numbered from chain_base + 1 on, which stays below CHAIN_TOP and a batch."""
    number = TORN * pow(TOKEN_STEP, -1, 1 << 32) & 0xFFFFFFFF
    assert number * TOKEN_STEP & 0xFFFFFFFF == TORN
    assert number > CHAIN_TOP + MAX_CPUS * MOST_OPERATIONS + MAX_BATCH


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"width": 8}, 63),
        ({"width": 8, "cpus": 253}, 1),
        ({"width": 16, "cpus": MAX_CPUS}, 255),
        ({"width": 32, "cpus": MAX_CPUS}, MAX_BATCH),
    ],
)
def test_a_batch_with_too_few_values_is_refused(fields: dict[str, int], most: int) -> None:
    case = Case("xchg", experiment="chain", **fields)  # type: ignore[arg-type]
    assert KernelSpec(case, batch=most).cells == most
    with pytest.raises(SpecError, match=f"takes 1 to {most} cells"):
        KernelSpec(case, batch=most + 1)


def test_no_chain_where_one_operation_of_each_is_too_much() -> None:
    with pytest.raises(SpecError, match="a cell of 8 bits has too few values for 254 CPUs"):
        Case("xchg", 8, experiment="chain", cpus=254)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_tokens_fit_the_cell(width: int) -> None:
    name = "cmpxchg8b" if width == 64 else "cmpxchg"
    entry = instructions()[name]
    form = entry.form(width, entry.sources[0], True)
    work = experiments()["token"].work(entry, form, CPUS, 128)
    assert work.token_mask == (1 << min(width, 32)) - 1
    assert (work.put.use, work.take.use) == (Use.EXCHANGE, Use.EXCHANGE)


def test_a_bit_is_a_token_of_one_bit() -> None:
    entry = instructions()["bts"]
    work = experiments()["token"].work(entry, entry.form(32, Source.REGISTER, True), CPUS, 128)
    assert (work.token_mask, work.put.use, work.take.use) == (1, Use.SET, Use.CLEAR)


# --- accounts


def account(**changes: Any) -> Account:
    plain: dict[str, Any] = {
        "rounds": 10,
        "violations": dict.fromkeys(("lost", "duplicate", "torn", "stale"), 0),
        "left": 0,
        "foreign": 0,
        "puts": [10, 0, 0],
        "takes": [0, 4, 6],
        "tries": [0, 10, 12],
    }
    return Account(**(plain | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"puts": [9, 0, 0]}, "put 9 tokens in 10 rounds"),
        ({"puts": [10, 1, 0]}, "put 11 tokens"),
        ({"takes": [1, 4, 6]}, "more tokens than were tried for"),
        ({"takes": [0, 11, 0], "tries": [0, 10, 10]}, "more tokens than were tried for"),
        ({"tries": [0, 9, 12]}, "a consumer tried fewer exchanges than there were cells in 10 rounds"),
        ({"tries": [0, 10, 0], "takes": [0, 10, 0]}, "a consumer tried fewer exchanges"),
        ({"takes": [0, 4, 5]}, "took 9 tokens where 10 to 10 can be accounted for"),
        ({"left": 1, "takes": [0, 4, 5]}, "1 tokens left, with no violation to explain them"),
        ({"foreign": 1, "takes": [0, 5, 6]}, "1 foreign takes"),
    ],
)
def test_token_accounts(changes: dict[str, Any], complaint: str) -> None:
    said = list(experiments()["token"].accounts(account(**changes)))
    assert [complaint in text for text in said[:1]] == [True] * bool(complaint)
    assert bool(said) == bool(complaint)


@pytest.mark.parametrize("name", sorted(name for name, entry in experiments().items() if entry.walk))
def test_walk_accounts(name: str) -> None:
    """N is the number of operations of all."""
    entry = experiments()[name]
    whole = account(puts=[3, 3, 4], takes=[0, 0, 0], tries=[0, 0, 0])
    assert list(entry.accounts(whole)) == []
    short = account(puts=[3, 3, 3], takes=[0, 0, 0], tries=[0, 0, 0])
    assert list(entry.accounts(short)) == ["did 9 operations and counts 10"]


def test_mutex_accounts() -> None:
    entered = account(puts=[3, 3, 4], takes=[0, 4, 0], tries=[0, 0, 0])
    assert list(experiments()["mutex"].accounts(entered)) == ["entered more often than was tried"]


@pytest.mark.parametrize("entry", experiments().values(), ids=lambda entry: entry.name)
def test_what_tells_is_among_what_can_be_shown(entry: Experiment) -> None:
    kinds = {kind.name.lower() for kind in ViolationKind}
    assert set(entry.telling) <= set(entry.kinds) <= kinds
    assert entry.telling
