"""Plain stores and loads: does a load ever see a value that no CPU stored?"""

from __future__ import annotations

from kgen.experiments import MOST_OPERATIONS, Before, Experiment, Routine, Work, operations
from kgen.instructions import Form, Instruction, Use


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    put = Routine(form, Use.STORE)
    return Work(put=put, take=put, repeat=max(1, MOST_OPERATIONS // cells))


EXPERIMENT = Experiment(
    name="torn",
    summary="plain stores and loads of values whose parts are all alike",
    argument=(
        "Every value that is ever stored consists of one nibble, repeated; whole loads and stores therefore only ever "
        "see such values. One with two different nibbles was put together from two stores. The SDM promises whole "
        "accesses of 8 bits, and of 16 and 32 bits where they are aligned (volume 3, 8.1.1): there it is a violation. "
        "For every other alignment it promises nothing about uncached memory, and what is seen is a fact, no violation."
    ),
    unit="operation",
    uses=((Use.STORE,),),
    work=_work,
    accounts=operations,
    kinds=("torn",),
    telling=("torn",),
    aligned_only=True,
    before=Before.ZERO,
    template="experiments/torn.asm",
    cells=lambda width: 1,
)
