"""From a request to the specification of a kernel: the defaults, and the verdicts that are known beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kgen.errors import SpecError
from kgen.spec.case import MIN_CPUS, Case, proof_of
from kgen.spec.kernel_spec import MAX_BUDGET, KernelSpec
from kgen.spec.suites import DEFAULT_BUDGET, load

#: The tokens of a run without a number of rounds, and how long its case may go on until its proof is reached, in
#: seconds.
DEFAULT_ROUNDS = 10_000
PROOF_SECONDS = 60
#: How long a run with an end may take, in seconds.
DEFAULT_TIMEOUT = 600.0


def proof_seconds(case: Case, rounds: int | None, usual: int = PROOF_SECONDS) -> int:
    """Return how long a case goes on until its proof is reached, where no time is given: 0 where ``rounds`` is a
    number, else ``usual``. A case without an end (0) still has this limit for the proof that comes before it."""
    endless = rounds == 0 and bool(proof_of(case))
    return usual if rounds is None or endless else 0


def case_spec(
    case: Case,
    *,
    rounds: int | None = None,
    proof: int | None = None,
    seconds: float | None = None,
    usual: int = DEFAULT_ROUNDS,
    usual_proof: int = PROOF_SECONDS,
    **rest: Any,
) -> KernelSpec:
    """Return the kernel of one case. ``rounds`` None is ``usual``, or no end where the case is ended after ``seconds``.
    ``proof`` is how long it may go on until its proof is reached, in seconds (None: ``proof_seconds``, of
    ``usual_proof``). ``rest`` are fields of KernelSpec. Raises SpecError."""
    asked = 0 if rounds is None and seconds else rounds
    return KernelSpec(
        case=case,
        rounds=usual if asked is None else asked,
        proof_seconds=proof_seconds(case, asked, usual_proof) if proof is None else proof,
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
    """Return the kernel of a suite, by its name or its file's name. ``budget`` is in seconds, None for the suite's own.
    ``rest`` are fields of KernelSpec. Raises SpecError."""
    title, cases = load(name, cpus=cpus, only=only, skip=skip)
    seconds = DEFAULT_BUDGET.get(title, max(DEFAULT_BUDGET.values())) if budget is None else budget
    return KernelSpec(case=cases[0], more=cases[1:], suite=title, budget=seconds, **rest)


def budget_seconds(text: str) -> int:
    """Parse a time such as ``90``, ``90s``, ``20m`` or ``2h``. Return seconds. Raises SpecError."""
    match = re.fullmatch(r"([0-9]{1,6})(s|m|h|)", text)
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 1}[match[2]] if match else 0
    if not 1 <= seconds <= MAX_BUDGET:
        raise SpecError(f"{text!r} is not a time from 1s to 24h")
    return seconds


def known_verdict(case: Case, known: str) -> str:
    """Return the name of the verdict that a case is known to get on a platform where a LOCKed exchange on emulated I/O
    gets ``known``."""
    # On RAM every locked form is atomic; without LOCK none is.
    if not case.lock:
        return "NOT_ATOMIC"
    return "ATOMIC" if case.target == "ram" else known
