"""The original's experiment: CPU 0 puts a token into a cell, the others try to take it by exchanging it with 0."""

from __future__ import annotations

from collections.abc import Iterator

from kgen.experiments import UPDATES, Account, Before, Experiment, KindWords, Routine, Work
from kgen.instructions import Form, Instruction, Use


def _work(instruction: Instruction, form: Form, cpus: int, cells: int) -> Work:
    if Use.EXCHANGE in form.code:
        exchange = Routine(form, Use.EXCHANGE)
        # what a narrow cell can hold; in a cell of 64 bits both halves are the token
        mask = (1 << min(form.width, 32)) - 1
        return Work(put=exchange, take=exchange, token_mask=mask)
    return Work(put=Routine(form, Use.SET), take=Routine(form, Use.CLEAR), token_mask=1)


def _accounts(account: Account) -> Iterator[str]:
    """Yield where a token that was put was not taken, lost or left, and where a take has no token."""
    found = account.violations
    if account.puts[0] != account.rounds or any(account.puts[1:]):
        yield f"put {sum(account.puts)} tokens in {account.rounds} rounds"
    if account.takes[0] or any(took > tried for took, tried in zip(account.takes[1:], account.tries[1:], strict=True)):
        yield "took more tokens than were tried for"
    # A consumer leaves no cell before it has exchanged something with it.
    if any(tried < account.rounds for tried in account.tries[1:]):
        yield f"a consumer tried fewer exchanges than there were cells in {account.rounds} rounds"
    takes = sum(account.takes[1:])
    # A duplicate is either one more take of the same token, or a take of an earlier one, which is foreign as well; a
    # torn value that a consumer took is foreign, one that the producer found is no take.
    low = account.rounds - found["lost"] - account.left + account.foreign
    high = low + found["duplicate"]
    if not low <= takes <= high:
        yield f"took {takes} tokens where {low} to {high} can be accounted for"
    # Every foreign take has its witness, and a token is left only where something else went wrong.
    if account.foreign > found["duplicate"] + found["torn"] or account.left > (
        account.foreign + found["stale"] + found["torn"]
    ):
        yield f"has {account.foreign} foreign takes and {account.left} tokens left, with no violation to explain them"


EXPERIMENT = Experiment(
    name="token",
    summary="CPU 0 puts unique tokens into cells, the others take them by exchanging them with 0",
    argument=(
        "Each cell starts empty (0). In a batch the producer exchanges one unique token into it and consumers only "
        "ever exchange 0 into it. An atomic exchange moves values, it neither copies nor drops them: whatever the "
        "order, the token ends in exactly one place, one consumer's record or the cell. So a token no CPU took and "
        "that is not in its cell was lost; one taken twice was duplicated; one taken and still in the cell, or a "
        "cell found full when it must be empty, is stale; any other value is torn. Values of few bits recur only after "
        "all CPUs have met, and a bit that is set and cleared is a token of one bit."
    ),
    unit="round",
    uses=((Use.EXCHANGE,), (Use.SET, Use.CLEAR)),
    work=_work,
    accounts=_accounts,
    kinds=("lost", "duplicate", "torn", "stale"),
    telling=("lost", "duplicate"),
    template="experiments/token.asm",
    walk=False,
    tabled=True,
    before=Before.TABLE,
    starts="tokens",
    token_name="token",
    words={
        "lost": KindWords(
            "the token vanished: no CPU took it and its cell is empty",
            "loses tokens",
            "**lost**: a consumer's read found the cell empty, the producer's token came in, and the consumer's write "
            "of 0 overwrote it. No CPU has it.",
        ),
        "duplicate": KindWords(
            "one token was taken twice",
            "duplicates tokens",
            "**duplicate**: two consumers both read the token before either of them had written its 0.",
        ),
        "torn": UPDATES["torn"],
        "stale": KindWords(
            "a cell that must be empty is full",
            "leaves tokens behind",
            "**stale**: a token was taken and its cell still held it, so the write of 0 had no effect.",
        ),
    },
    proofs=("chain", "own-bits"),
)
