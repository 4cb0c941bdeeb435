"""The specification of a kernel: frozen, validated values with a stable id and digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from kgen.errors import SpecError
from kgen.experiments import Poll, experiments
from kgen.spec.arguments import check_all
from kgen.spec.case import Case, resolve_target, room
from kgen.targets import MemoryTarget

MAX_ROUNDS = 0xFFFFFFFF
#: The largest budget of a suite, in seconds.
MAX_BUDGET = 24 * 3600
#: The number of the rules by which kernels are planned and judged, and that of versions that counted no live batches.
RULES = 2
OLD_RULES = 1
#: The name is one word in the log.
_SUITE = re.compile(r"[A-Za-z0-9._-]{1,64}")


#: I/O ports of devices that every PC has, where a kernel's serial port cannot be.
TAKEN_PORTS = (
    (0x000, 0x100, "DMA, interrupt controllers, timer, keyboard and clock"),
    (0x170, 0x178, "the second IDE channel"),
    (0x1CE, 0x1D2, "the VGA's extensions"),
    (0x1F0, 0x1F8, "the first IDE channel"),
    (0x3B0, 0x3E0, "the VGA"),
    (0xCF8, 0xD00, "the PCI configuration"),
)


def check_serial_port(port: int) -> None:
    """Raise SpecError for a port that cannot be a serial port's, or that belongs to another device."""
    if not 8 <= port <= 0xFFF8 or port % 8:
        raise SpecError(f"serial port {port:#x}", hint="give a multiple of 8 from 0x8 to 0xfff8")
    for low, high, what in TAKEN_PORTS:
        if port < high and port + 8 > low:
            raise SpecError(f"serial port {port:#x} belongs to {what}", hint="give 0x3f8, 0x2f8, 0x3e8 or 0x2e8")


#: The cells of a batch in kernels of the old rules, where the target had room.
_OLD_CELLS = {"counter": 16, "mutex": 1, "own-bits": 32, "parity": 64, "token": 128, "torn": 1}


@dataclass(frozen=True)
class KernelSpec:
    """Everything that decides the bytes of a kernel."""

    #: The only case, or the first one of a suite.
    case: Case
    #: N. With a ``budget`` it is the least N, which grows until the power controls have failed. With 0 the kernel runs
    #: until the user stops it.
    rounds: int = 10_000
    controls: bool = True
    poll: Poll = Poll.BOTH
    #: How many cells one handshake of a case's own experiment covers, 0 for the default.
    batch: int = 0
    #: The distance in rounds between table rows. 0 is the default: the first 20 rounds, then about ten rows a second.
    print_every: int = 0
    #: An I/O port.
    serial_port: int = 0x3F8
    #: In bits a second.
    baud: int = 115_200
    #: The cases of a suite after the first one.
    more: tuple[Case, ...] = ()
    #: Its name.
    suite: str = ""
    #: How long all cases of a suite may take, in seconds.
    budget: int = 0
    #: A walk goes on until its proof is reached (kgen.kernel.live), for at most this many seconds. 0: it ends after
    #: ``rounds`` operations.
    proof_seconds: int = 0
    #: 1 marks kernels of versions that counted no live batches. They are planned and read like others, and the verdict
    #: on them is never ATOMIC.
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
        """The kernel's name: that of its case or of its suite."""
        return f"suite:{self.suite}" if self.suite else self.case.id

    @property
    def max_batch(self) -> int:
        """The most cells of a batch: so many fit the targets and the RAM of the sanity controls, and have different
        values where the experiment needs that. At most MAX_BATCH."""
        places = [(case, resolve_target(name)) for case in self.cases for name in (case.target, "ram")]
        most = [experiments()[case.experiment].most_cells(case.width, case.cpus) for case in self.cases]
        return min(*most, *(room(target, case.offset, case.width) for case, target in places))

    @property
    def cells(self) -> int:
        """How many cells one handshake of the first case covers."""
        return self.cells_of(self.case, resolve_target(self.case.target))

    def cells_of(self, case: Case, target: MemoryTarget, experiment: str = "") -> int:
        """Return how many cells one handshake covers when a phase of that case runs on that target. ``experiment``
        names an experiment other than the case's own, to which ``batch`` does not apply."""
        name = experiment or case.experiment
        most = experiments()[name].cells(case.width) if self.rules == RULES else _OLD_CELLS[name]
        batch = self.batch if name == case.experiment else 0
        return batch or min(most, room(target, case.offset, case.width))

    def _fields(self) -> dict[str, Any]:
        """Return the fields for the text forms. Those of older kernels lack newer fields."""
        fields = asdict(self)
        for name in ("proof_seconds", "rules") if self.rules == OLD_RULES else ():
            del fields[name]
        return fields

    def to_json(self) -> str:
        """Return the canonical text form: one line, sorted keys."""
        return json.dumps(self._fields(), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> KernelSpec:
        """Return the inverse of to_json. Raises SpecError."""
        try:
            fields = json.loads(text)
            case = Case(**fields.pop("case"))
            more = tuple(Case(**each) for each in fields.pop("more"))
            rules = fields.pop("rules", OLD_RULES)
            return KernelSpec(case=case, more=more, poll=Poll(fields.pop("poll")), rules=rules, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"not a kernel specification: {error}") from error

    def to_text(self) -> str:
        """Return the form that the kernel holds and prints: JSON in one word, the cases by their ids."""
        fields = {name: value for name, value in self._fields().items() if name not in ("case", "more")}
        fields["cases"] = [case.id for case in self.cases]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> KernelSpec:
        """Return the inverse of to_text. Raises SpecError."""
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
