"""A model of one round of the token experiment: every order in which its CPUs can access the cell, and its outcome.

The producer exchanges the token into the empty cell, then reports that it has. A consumer exchanges 0 into the cell
until it gets something, or until an exchange that it began after that report found the cell empty. An exchange is one
access where it is one instruction, and a read and a write where it is a pair. The order matters only at accesses,
because the CPUs share nothing else except the producer's report, which is written and read between accesses.

The model is written from the experiment's rules (kgen.experiments.token), not from the kernel's code, so that each
checks the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from kgen.errors import SpecError

#: The producer; the consumers are 1 and up.
PRODUCER = 0


class Kind(Enum):
    """What an access does with the cell. LOOK is a read that decides whether an exchange follows, READ is the first
    half of an exchange. COMPARE is a compare-and-exchange, which writes where it finds what it expects."""

    LOOK = "look"
    READ = "read"
    WRITE = "write"
    EXCHANGE = "exchange"
    COMPARE = "compare"


#: The most different situations, and the most CPUs, for which schedules are counted: some seconds' work.
MOST_WORLDS = 200_000
MOST_CPUS = 5
#: The accesses of an exchange: one instruction, a read and a write, or comparisons until one succeeds.
SHAPES = ((Kind.EXCHANGE,), (Kind.READ, Kind.WRITE), (Kind.COMPARE,))


@dataclass(frozen=True)
class Access:
    """One access to the cell."""

    cpu: int
    kind: Kind
    #: What it found, None where it does not read.
    read: int | None
    #: What it stored, None where it does not write.
    wrote: int | None
    #: What the cell holds after it.
    cell: int


@dataclass(frozen=True)
class Place:
    """The state of a CPU before its next access."""

    #: The kind of that access, None where the CPU has finished.
    kind: Kind | None
    #: What the first half of an exchange has read, or what a comparison expects.
    held: int = 0
    #: Whether the producer had reported the put when this try began.
    saw: bool = False
    #: How many earlier tries of the CPU, before the put, found the cell empty.
    vain: int = 0
    #: How many exchanges it has made.
    tries: int = 0
    #: What it took.
    got: int = 0


@dataclass(frozen=True)
class World:
    """The state of the model."""

    cell: int
    #: Whether the producer has reported that the cell is filled.
    filled: bool
    #: What the producer's exchange found.
    old: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of one round."""

    #: What the cell holds when all CPUs are finished.
    cell: int
    #: What the producer's exchange found.
    old: int
    #: What each consumer took, 0 for nothing.
    takes: tuple[int, ...]
    #: How many exchanges each consumer made.
    tries: tuple[int, ...]
    #: The violations, by kind.
    lost: int
    duplicate: int
    stale: int
    #: Whether the token was left in the cell.
    left: int
    #: The violations in the guest's terms: kind, value found, the CPU and the other CPU involved.
    witnesses: tuple[tuple[str, int, int | None, int | None], ...]

    @property
    def violated(self) -> bool:
        """Whether atomic exchanges cannot have this outcome."""
        return bool(self.lost or self.duplicate or self.stale)

    @property
    def name(self) -> str:
        """The violation in one word, "fine" where there is none."""
        return next((kind for kind in ("lost", "duplicate", "stale") if getattr(self, kind)), "fine")


@dataclass(frozen=True)
class Point:
    """An instruction that accesses the cell."""

    #: Physical.
    address: int
    #: What the instruction was assembled from.
    statement: str
    kind: Kind
    #: The 32-bit register that receives what is read, or holds what is written.
    register: str


@dataclass(frozen=True)
class Step:
    """One access as a machine made it, and the instruction that made it."""

    access: Access
    point: Point


@dataclass(frozen=True)
class Trial:
    """One schedule as a machine carried it out."""

    schedule: tuple[int, ...]
    steps: tuple[Step, ...]
    #: The outcome according to the model.
    expected: Outcome
    #: The name of kgen's verdict on the observation, "" where the machine did not reach the end.
    verdict: str
    #: How model, guest and verdict disagree, one sentence each.
    disagreements: tuple[str, ...]
    #: What the guest printed.
    log: str = ""


#: How many disagreeing trials are kept to be shown.
SHOWN_DISAGREEMENTS = 3


@dataclass(frozen=True)
class Exploration:
    """The results of a set of schedules."""

    #: How many schedules there are.
    total: int
    tried: int = 0
    #: How many schedules had each Outcome.name, among those on which model, guest and verdict agreed.
    outcomes: Mapping[str, int] = field(default_factory=dict)
    #: The first trial with each of these outcomes.
    first: Mapping[str, Trial] = field(default_factory=dict)
    #: On how many schedules they disagreed.
    disagreements: int = 0
    #: The first of these trials.
    disagreeing: tuple[Trial, ...] = ()

    @property
    def exhausted(self) -> bool:
        """Whether no schedule was left out."""
        return self.tried == self.total

    def having(self, trial: Trial) -> Exploration:
        """Return these results with one more trial."""
        if trial.disagreements:
            kept = (*self.disagreeing, trial)[:SHOWN_DISAGREEMENTS]
            return replace(self, tried=self.tried + 1, disagreements=self.disagreements + 1, disagreeing=kept)
        name = trial.expected.name
        outcomes = {**self.outcomes, name: self.outcomes.get(name, 0) + 1}
        return replace(self, tried=self.tried + 1, outcomes=outcomes, first={name: trial, **self.first})


@dataclass(frozen=True)
class Window:
    """What can happen in one round."""

    #: The accesses of an exchange.
    shape: tuple[Kind, ...]
    #: For each consumer, whether it looks before it exchanges.
    reads_first: tuple[bool, ...]
    token: int
    #: How many tries of a consumer may find the cell empty before the put. It then waits for the producer, as the
    #: number of orders would be infinite otherwise. None for no bound.
    bound: int | None = 1

    @property
    def cpus(self) -> int:
        """The number of CPUs: producer and consumers."""
        return 1 + len(self.reads_first)

    def begin(self) -> World:
        """Return the state before the first access, with the cell empty."""
        consumers = (self._first(reads) for reads in self.reads_first)
        return World(cell=0, filled=False, old=0, places=(Place(self.shape[0]), *consumers))

    def ready(self, world: World) -> tuple[int, ...]:
        """Return the CPUs that may make the next access; () at the end."""
        return tuple(cpu for cpu, place in enumerate(world.places) if place.kind and not self._held_back(world, cpu))

    def step(self, world: World, cpu: int) -> tuple[World, Access]:
        """Return the state after this CPU's next access, and that access. The CPU must have one."""
        place = world.places[cpu]
        assert place.kind is not None
        new = self.token if cpu == PRODUCER else 0
        read = None if place.kind is Kind.WRITE else world.cell
        writes = place.kind in (Kind.WRITE, Kind.EXCHANGE) or (place.kind is Kind.COMPARE and world.cell == place.held)
        cell = new if writes else world.cell
        access = Access(cpu, place.kind, read, new if writes else None, cell)
        after = replace(world, cell=cell)
        if place.kind is Kind.LOOK:
            goes_on = world.cell != 0 or place.saw
            next_place = replace(place, kind=self.shape[0]) if goes_on else self._again(after, cpu)
            return _moved(after, cpu, next_place), access
        if place.kind is Kind.READ:
            return _moved(after, cpu, replace(place, kind=Kind.WRITE, held=world.cell)), access
        if place.kind is Kind.COMPARE and not writes:
            return _moved(after, cpu, replace(place, held=world.cell)), access
        found = place.held if place.kind is Kind.WRITE else world.cell
        return self._exchanged(after, cpu, found), access

    def _exchanged(self, world: World, cpu: int, found: int) -> World:
        """Return the state after a CPU's exchange that got ``found``."""
        place = replace(world.places[cpu], held=0, tries=world.places[cpu].tries + 1)
        if cpu == PRODUCER:
            return replace(_moved(world, cpu, replace(place, kind=None)), filled=True, old=found)
        if found or place.saw:
            return _moved(world, cpu, replace(place, kind=None, got=found))
        world = _moved(world, cpu, place)
        return _moved(world, cpu, self._again(world, cpu))

    def _first(self, reads_first: bool) -> Place:
        return Place(Kind.LOOK) if reads_first else Place(self.shape[0])

    def _again(self, world: World, cpu: int) -> Place:
        """Return the place of a consumer that found nothing and begins a new try. It reads the producer's report before
        its access."""
        place = world.places[cpu]
        # the number of tries in vain matters only before the put
        vain = 0 if world.filled or self.bound is None else place.vain + 1
        first = self._first(self.reads_first[cpu - 1])
        return replace(first, saw=world.filled, vain=vain, tries=place.tries)

    def _held_back(self, world: World, cpu: int) -> bool:
        place = world.places[cpu]
        if cpu == PRODUCER or self.bound is None or world.filled or place.vain < self.bound:
            return False
        return place.kind is Kind.LOOK or (not self.reads_first[cpu - 1] and place == self._beginning(place, cpu))

    def _beginning(self, place: Place, cpu: int) -> Place:
        """Return the place as it is when a try has just begun."""
        return replace(self._first(self.reads_first[cpu - 1]), saw=place.saw, vain=place.vain, tries=place.tries)


def _moved(world: World, cpu: int, place: Place) -> World:
    return replace(world, places=(*world.places[:cpu], place, *world.places[cpu + 1 :]))


def shape_of(statements: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds of access that a routine makes, in order. Raises SpecError for a routine that is none of
    SHAPES."""
    shape = tuple(kind for kind in map(kind_of, statements) if kind)
    if shape not in SHAPES:
        raise SpecError(
            "an exchange of that form is not one the model knows",
            hint="it knows one XCHG, MOV and MOV, and one CMPXCHG in a loop: --instr xchg or cmpxchg",
        )
    return shape


def kind_of(statement: str) -> Kind | None:
    """Return how a statement of a routine accesses the cell, whose address is in EDI; None where it does not."""
    words = statement.removeprefix("lock ").split(None, 1)
    if "[edi]" not in statement or len(words) != 2:
        return None
    into_memory = "[" in words[1].split(",")[0]
    if words[0] in ("mov", "movzx"):
        return Kind.WRITE if into_memory else Kind.READ
    return {"xchg": Kind.EXCHANGE, "cmpxchg": Kind.COMPARE}.get(words[0])


def outcome_of(window: Window, world: World) -> Outcome:
    """Return the outcome of a round that is over: the token must be in exactly one place."""
    consumers = world.places[1:]
    takers = [cpu for cpu, place in enumerate(consumers, start=1) if place.got == window.token]
    present = world.cell != 0
    witnesses: list[tuple[str, int, int | None, int | None]] = []
    if world.old:
        witnesses.append(("stale", world.old, PRODUCER, None))
    witnesses += [("duplicate", window.token, takers[0], other) for other in takers[1:]]
    lost = not takers and not present
    if lost:
        witnesses.append(("lost", 0, PRODUCER, None))
    resurrected = bool(takers) and present
    if resurrected:
        witnesses.append(("stale", world.cell, takers[0], None))
    return Outcome(
        cell=world.cell,
        old=world.old,
        takes=tuple(place.got for place in consumers),
        tries=tuple(place.tries for place in consumers),
        lost=int(lost),
        duplicate=max(0, len(takers) - 1),
        stale=int(bool(world.old)) + int(resurrected),
        left=int(present and not takers),
        witnesses=tuple(witnesses),
    )


def schedules(window: Window) -> Iterator[tuple[int, ...]]:
    """Yield every order of all CPUs' accesses as CPU numbers, in lexical order."""
    waiting: list[tuple[World, tuple[int, ...]]] = [(window.begin(), ())]
    while waiting:
        world, done = waiting.pop()
        ready = window.ready(world)
        if not ready:
            yield done
        waiting += [(window.step(world, cpu)[0], (*done, cpu)) for cpu in reversed(ready)]


def count(window: Window) -> int:
    """Return the number of ``schedules`` without enumerating them.

    Raises SpecError where there are too many different situations or CPUs (MOST_WORLDS, MOST_CPUS).
    """
    if window.cpus > MOST_CPUS:
        raise _too_many()
    known: dict[World, int] = {}
    waiting = [window.begin()]
    while waiting:
        world = waiting[-1]
        if world in known:
            waiting.pop()
            continue
        following = [window.step(world, cpu)[0] for cpu in window.ready(world)]
        missing = [each for each in following if each not in known]
        waiting += missing
        if len(known) > MOST_WORLDS:
            raise _too_many()
        if not missing:
            known[waiting.pop()] = sum(known[each] for each in following) if following else 1
    return known[window.begin()]


def _too_many() -> SpecError:
    return SpecError("there are too many schedules to be counted", hint="take fewer CPUs, or a smaller bound")


def follow(window: Window, schedule: Sequence[int]) -> tuple[tuple[Access, ...], World]:
    """Return the accesses of a schedule, and the state after them.

    Raises SpecError for a CPU that does not exist or has no access left.
    """
    world, made = window.begin(), []
    for number, cpu in enumerate(schedule, start=1):
        if not 0 <= cpu < window.cpus:
            raise SpecError(f"step {number} is CPU {cpu}'s", hint=f"the CPUs are 0 to {window.cpus - 1}")
        if world.places[cpu].kind is None:
            raise SpecError(f"step {number} is CPU {cpu}'s, which has nothing more to do by then")
        world, access = window.step(world, cpu)
        made.append(access)
    return tuple(made), world


def completed(window: Window, schedule: Sequence[int]) -> tuple[int, ...]:
    """Extend a schedule until all CPUs are finished: the lowest CPU that may make an access makes the next one.

    Raises as ``follow`` does.
    """
    _, world = follow(window, schedule)
    bounded = replace(window, bound=window.bound if window.bound is not None else 0)
    whole = tuple(schedule)
    while ready := bounded.ready(world):
        world, _ = window.step(world, ready[0])
        whole += (ready[0],)
    return whole
