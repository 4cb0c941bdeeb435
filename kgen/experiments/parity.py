"""Two CPUs change a cell equally often, in a way that undoes itself."""

from __future__ import annotations

from kgen.experiments import MOST_OPERATIONS, Before, Experiment, Routine, Work, operations
from kgen.instructions import STEP, Form, Instruction, Use

#: The turns of a CPU on a cell are 1, 2 and 4 in different batches.
MOST_TURNS = 4
#: Start values in turn; their number is a power of two.
STARTS = 16


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    operand = instruction.flip(form.width)
    put = Routine(form, Use.FLIP, operand)
    table: list[int | Routine] = []
    for number in range(STARTS):
        # odd, so that its negative is another value
        start = ((number + 1) * STEP % (1 << form.width)) | 1
        table += [start, instruction.semantics(start, operand, 0, form.width, 0).value]
    return Work(put=put, take=put, operand=operand, repeat=MOST_OPERATIONS, turns=MOST_TURNS, data=tuple(table))


EXPERIMENT = Experiment(
    name="parity",
    summary="two CPUs change a cell equally often, in a way that undoes itself",
    argument=(
        "The operation f undoes itself: f(f(v)) = v, and f(v) differs from v. In a batch two CPUs change each cell, "
        "equally often, and no other CPU touches it. Atomic operations, an even number of them, leave v, in any order. "
        "A cell that holds f(v) shows that an odd number of them was lost; any other value is the result of no "
        "operation: it is torn. The turns are 1, 2 and 4 in different batches: where it is one, two losses cannot "
        "cancel, and with few they seldom do."
    ),
    unit="operation",
    uses=((Use.FLIP,),),
    work=_work,
    accounts=operations,
    kinds=("lost", "torn"),
    telling=("lost",),
    keeps_finals=True,
    before=Before.TOKEN,
    template="experiments/parity.asm",
    pairs=True,
    cells=lambda width: 8,
)
