"""From a request to the specification of a kernel: the defaults, and notes on what is known of the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kgen.errors import SpecError
from kgen.spec.case import MIN_CPUS, Case, proof_of
from kgen.spec.kernel_spec import MAX_BUDGET, KernelSpec
from kgen.spec.suites import DEFAULT_BUDGET, load

#: Tokens of a run that names no number of rounds, and how long its case may then go on for its proof, in seconds.
DEFAULT_ROUNDS = 10_000
PROOF_SECONDS = 60
#: How long a run may take where it has an end, in seconds.
DEFAULT_TIMEOUT = 600.0


def proof_seconds(case: Case, rounds: int | None) -> int:
    """Return how long a case goes on for its proof where no time is given: not at all where ``rounds`` names a number.
    Without an end (0) the proof that comes before the case still has one."""
    endless = rounds == 0 and bool(proof_of(case))
    return PROOF_SECONDS if rounds is None or endless else 0


def case_spec(
    case: Case,
    *,
    rounds: int | None = None,
    proof: int | None = None,
    seconds: float | None = None,
    usual: int = DEFAULT_ROUNDS,
    **rest: Any,
) -> KernelSpec:
    """Return the kernel of one case: ``rounds`` (None: ``usual``, or without an end where it is ended after
    ``seconds``), ``proof`` how long it may go on for its proof, in seconds (None: as ``proof_seconds`` says); ``rest``
    are fields of KernelSpec. Raises SpecError.
    """
    asked = 0 if rounds is None and seconds else rounds
    return KernelSpec(
        case=case,
        rounds=usual if asked is None else asked,
        proof_seconds=proof_seconds(case, asked) if proof is None else proof,
        **rest,
    )


def timeout(spec: KernelSpec, seconds: float | None) -> float:
    """Return how long a run may take, in seconds, where no time is given."""
    return DEFAULT_TIMEOUT + (seconds or 0) + spec.proof_seconds


def suite_spec(
    name: str,
    *,
    cpus: int = MIN_CPUS,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    budget: int | None = None,
    **rest: Any,
) -> KernelSpec:
    """Return the kernel of a suite, by its name or its file's; ``budget`` in seconds, None for the suite's own;
    ``rest`` are fields of KernelSpec. Raises SpecError.
    """
    title, cases = load(name, cpus=cpus, only=only, skip=skip)
    seconds = DEFAULT_BUDGET.get(title, max(DEFAULT_BUDGET.values())) if budget is None else budget
    return KernelSpec(case=cases[0], more=cases[1:], suite=title, budget=seconds, **rest)


def budget_seconds(text: str) -> int:
    """Return a time such as ``90``, ``90s``, ``20m`` or ``2h`` in seconds. Raises SpecError."""
    match = re.fullmatch(r"([0-9]{1,6})(s|m|h|)", text)
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 1}[match[2]] if match else 0
    if not 1 <= seconds <= MAX_BUDGET:
        raise SpecError(f"{text!r} is not a time from 1s to 24h")
    return seconds


def known_verdict(case: Case, known: str) -> str:
    """Return the name of the verdict that a case is known to get where a LOCKed exchange on emulated I/O gets
    ``known``.
    """
    # Memory does what it must everywhere; without LOCK nothing does.
    if not case.lock:
        return "NOT_ATOMIC"
    return "ATOMIC" if case.target == "ram" else known
