"""A lock made of the instruction guards a counter in ordinary memory: what the defect does to real programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kgen.experiments import (
    MOST_OPERATIONS,
    UPDATES,
    Account,
    Before,
    Experiment,
    KindWords,
    Routine,
    Work,
    operations,
)
from kgen.instructions import Form, Instruction, Use


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    put = Routine(form, Use.EXCHANGE if Use.EXCHANGE in form.code else Use.SET)
    return Work(put=put, take=put, operand=1, repeat=max(1, MOST_OPERATIONS // cells), returns=True)


def _accounts(account: Account) -> Iterator[str]:
    yield from operations(account)
    if any(took > tried for took, tried in zip(account.takes, account.puts, strict=True)):
        yield "entered more often than was tried"


EXPERIMENT = Experiment(
    name="mutex",
    summary="a lock made of the instruction guards a counter in RAM",
    argument=(
        "A CPU owns the lock when its operation found 0 and left 1; it gives it back by storing 0. Every CPU tries so "
        "many times and no more, so no CPU waits for a lock that is stuck. With atomic operations at most one CPU "
        "owns the lock at any time: one that finds another's name where it has just written its own, or a guarded "
        "counter that is not the number of entries, shows two owners of one lock, a duplicate. Every owner gives the "
        "lock back, and a try that fails leaves it as it was: a lock that is taken when all CPUs have finished is "
        "stale."
    ),
    unit="operation",
    uses=((Use.EXCHANGE,), (Use.SET,)),
    work=_work,
    accounts=_accounts,
    kinds=("duplicate", "stale", "torn"),
    telling=("duplicate", "stale"),
    template="experiments/mutex.asm",
    keeps_finals=True,
    before=Before.ZERO,
    takes="held the lock",
    cell_states=("the lock is free", "the lock is taken"),
    words={
        **UPDATES,
        "duplicate": replace(
            UPDATES["duplicate"], meaning="two CPUs held one lock", defect="lets two CPUs hold one lock"
        ),
        "stale": KindWords(
            "the lock is taken, and no CPU holds it",
            "keeps locks taken",
            "**stale**: the lock is taken and no CPU holds it, so its release had no effect.",
        ),
    },
    proofs=("chain", "own-bits"),
    cells=lambda width: 1,
)
