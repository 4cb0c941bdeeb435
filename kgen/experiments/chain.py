"""Every CPU exchanges values of its own into the cell and keeps what it got."""

from __future__ import annotations

from dataclasses import replace

from kgen.experiments import MOST_OPERATIONS, UPDATES, Before, Experiment, Routine, Work, operations
from kgen.instructions import Form, Instruction, Use


def values(width: int) -> int:
    """Return how many different values a batch may use: all but 0; a cell of 64 bits holds one of 32 bits twice."""
    return (1 << min(width, 32)) - 2


def _repeat(width: int, cpus: int, cells: int) -> int:
    return min(max(1, MOST_OPERATIONS // cells), (values(width) - cells) // (cpus * cells))


def _most_cells(width: int, cpus: int) -> int:
    """Return for how many cells the values suffice: each holds one at first, and every CPU writes one."""
    return values(width) // (cpus + 1)


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    attempt = Use.ATTEMPT in form.code
    put = Routine(form, Use.ATTEMPT if attempt else Use.EXCHANGE)
    mask = (1 << min(form.width, 32)) - 1
    return Work(
        put=put,
        take=put,
        # an attempt takes the expected value of the cell as its operand; an exchange takes none
        operand=int(attempt),
        repeat=_repeat(form.width, cpus, cells),
        token_mask=mask,
        returns=True,
    )


def _fits(instruction: Instruction, form: Form, cpus: int) -> str:
    return "" if _repeat(form.width, cpus, 1) else f"a cell of {form.width} bits has too few values for {cpus} CPUs"


EXPERIMENT = Experiment(
    name="chain",
    summary="every CPU exchanges unique values of its own into the cells and keeps what it got",
    argument=(
        "A cell starts with a value of its own. Each operation of a batch exchanges another value into it, one that "
        "nothing else writes, and gets what was there. Atomic exchanges happen one after the other: each gets what "
        "the one before it wrote, the first gets the start value, and the cell keeps the last. So the values form one "
        "path from the start value to the final one that holds every operation once. A value that was got twice is a "
        "duplicate; one that was neither got nor left in the cell was lost; one that nothing wrote is torn. The path "
        "must also respect time: where one operation had ended before another one began, by tickets that were drawn "
        "from one sequence before and after each, it comes first; a path that does not, or that leaves a ring of "
        "operations out, got a value out of order: it is stale. Both halves of every exchange are tested, by every "
        "CPU. A compare-and-exchange that fails writes back what it found: each attempt is an operation, and one that "
        "failed must have found a value that was written."
    ),
    unit="operation",
    uses=((Use.EXCHANGE,),),
    work=_work,
    accounts=operations,
    kinds=("lost", "duplicate", "torn", "stale"),
    telling=("lost", "duplicate"),
    template="experiments/chain.asm",
    logs=True,
    keeps_finals=True,
    before=Before.TABLE,
    starts="starts",
    token_name="value",
    words={
        kind: replace(UPDATES[kind], meaning=meaning)
        for kind, meaning in {
            "lost": "the value was neither got nor left in the cell",
            "duplicate": "the value was got twice",
            "torn": "a value that no operation wrote",
            "stale": "the value was got out of order",
        }.items()
    },
    cells=lambda width: 1,
    most_cells=_most_cells,
    fits=_fits,
)
