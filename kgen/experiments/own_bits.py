"""Every CPU changes bits of its own in a cell that all share, and checks that they stay as it left them."""

from __future__ import annotations

import itertools

from kgen.experiments import Before, Experiment, Routine, Work, operations
from kgen.instructions import Form, Instruction, Lane, Source, Use

#: The most times a CPU changes its bits in one visit.
MAX_REPEAT = 3
#: Words in a CPU's row of the table: routine, operand, mask, repeats, and what its bits hold after each change.
ROW_WORDS = 4 + MAX_REPEAT + 1


def lanes(width: int, cpus: int) -> tuple[int, ...]:
    """Return the masks of the CPUs' bits: the width, split as evenly as possible."""
    edges = [width * cpu // cpus for cpu in range(cpus + 1)]
    return tuple((1 << high) - (1 << low) for low, high in itertools.pairwise(edges))


def expected(instruction: Instruction, lane: Lane, width: int, mask: int) -> tuple[int, ...]:
    """Return what the bits hold at first and after each change."""
    values = [lane.initial]
    for _ in range(lane.repeats):
        values.append(instruction.semantics(values[-1], lane.operand, 0, width, 0).value & mask)
    return tuple(values)


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    assert instruction.lane is not None
    rows: list[int | Routine] = []
    initial = 0
    for mask in lanes(form.width, cpus):
        lane = instruction.lane(form.width, mask)
        operand = lane.operand if form.source is Source.IMMEDIATE else 0
        values = expected(instruction, lane, form.width, mask)
        rows += [Routine(form, Use.LANE, operand), lane.operand, mask, lane.repeats, *values]
        rows += [0] * (MAX_REPEAT - lane.repeats)
        initial |= lane.initial
    first = rows[0]
    assert isinstance(first, Routine)
    return Work(put=first, take=first, operand=initial, turns=MAX_REPEAT, data=tuple(rows))


def _fits(instruction: Instruction, form: Form, cpus: int) -> str:
    return "" if cpus <= form.width else f"{form.width} bits are too few for {cpus} CPUs"


EXPERIMENT = Experiment(
    name="own-bits",
    summary="every CPU changes only its own bits and sees whether they stay",
    argument=(
        "The bits of a cell are divided among the CPUs, and each CPU's operations change its own bits only: an atomic "
        "one leaves all others as they are. So after its operation, and until its next one, a CPU's bits hold what it "
        "made of them, whatever the others do, and they do so in every load, even one that is torn, because no byte of "
        "the cell ever holds anything else there. Bits that were undone show that another CPU's operation wrote back "
        "what it had read before: the update was lost. A bit that belongs to no CPU and changes is torn."
    ),
    unit="operation",
    uses=((Use.LANE,),),
    work=_work,
    accounts=operations,
    kinds=("lost", "torn"),
    telling=("lost",),
    keeps_finals=True,
    before=Before.OPERAND,
    template="experiments/own_bits.asm",
    cells=lambda width: 8,
    fits=_fits,
)
