"""Every CPU adds the same constant to one cell, a known number of times."""

from __future__ import annotations

from kgen.experiments import MOST_OPERATIONS, Before, Experiment, Routine, Work, operations
from kgen.instructions import Form, Instruction, Use


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    width = min(form.width, 32)
    operand = instruction.step(width)
    added = instruction.increment(width)
    # fewer than 2^width in all, so that lost updates never add up to a whole turn of the counter
    repeat = max(1, min(MOST_OPERATIONS // cells, ((1 << width) - 1) // cpus))
    put = Routine(form, Use.STEP, operand)
    return Work(
        put=put,
        take=put,
        operand=operand,
        step=added,
        inverse=pow(added, -1, 1 << width),
        repeat=repeat,
        returns=Use.STEP in instruction.returns,
    )


def _fits(instruction: Instruction, form: Form, cpus: int) -> str:
    return "" if form.width >= 16 or cpus < 256 else "a cell of 8 bits counts to 255"


EXPERIMENT = Experiment(
    name="counter",
    summary="every CPU adds a constant to the cells, so many times",
    argument=(
        "All CPUs add the same odd constant c to a cell that starts at v, n times in all, and n is less than 2^width. "
        "Atomic additions leave v + n c, whatever their order; multiples of an odd c below 2^width are all different, "
        "so the final value shows exactly how many updates are missing: those were lost. More than n, or a value "
        "between two multiples, cannot be the result of these additions: it is torn. Where the instruction returns "
        "the old value, atomic additions return v, v + c ... v + (n - 1) c, each once: one that is returned twice was "
        "a duplicate, another one is torn."
    ),
    unit="operation",
    uses=((Use.STEP,),),
    work=_work,
    accounts=operations,
    kinds=("lost", "duplicate", "torn"),
    telling=("lost", "duplicate"),
    template="experiments/counter.asm",
    keeps_finals=True,
    before=Before.TABLE,
    starts="starts",
    cell_name="a counter",
    cells=lambda width: 1,
    fits=_fits,
)
