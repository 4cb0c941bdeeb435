"""Checks that the verdict in a file follows from the evidence beside it, which is judged again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kgen.evidence.observation import Observation
from kgen.spec import KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import OLD_PROOF, Verdict, VerdictKind
from kgen.wording import one_line, quoted

#: The possible verdicts on a run that could not be started (kgen.run.verify.refused).
_REFUSED = frozenset({VerdictKind.SKIP, VerdictKind.ERROR, VerdictKind.CRASH})
#: The possible verdicts on a log whose request is unknown.
_UNASKED = frozenset({VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE, VerdictKind.ERROR})
#: How much of the reason stands in a sentence.
_REASON = 120


def contradiction(verdict: Verdict, spec: KernelSpec | None, number: int, observation: Observation) -> str:
    """Return how a verdict differs from that of its evidence, as the predicate of a sentence, "" where it does
    not. Its words (reason, notes, cause, a control's power and unit) may be another version's. Where an older version
    said ATOMIC by its own rules, these rules come to INCONCLUSIVE, which is no difference.
    """
    if spec is None:
        return _unasked(verdict)
    if _was_refused(verdict, observation):
        return ""
    return next(_differences(verdict, judge(spec, observation, number)), "")


def said_atomic(found: Verdict) -> bool:
    """Return whether a kernel's own, older rules said ATOMIC of what is no proof now."""
    return found.kind is VerdictKind.INCONCLUSIVE and found.reason == OLD_PROOF


def _unasked(verdict: Verdict) -> str:
    """Without a request there is nothing to judge by, and nothing is proven."""
    if verdict.kind not in _UNASKED:
        return f"states {verdict.kind.name}, and holds no request (spec) that it could be of"
    if (verdict.kind is VerdictKind.NOT_ATOMIC) != any(verdict.violations.values()):
        return f"states {verdict.kind.name} beside violations {_shown(verdict.violations)}"
    if verdict.bound is not None:
        return f"states {verdict.kind.name} with bound {verdict.bound}, and only ATOMIC has one"
    return ""


def _was_refused(verdict: Verdict, observation: Observation) -> bool:
    """Return whether nothing was run: then the verdict is the error's, which stands among the problems."""
    bare = replace(verdict, reason="", notes=(), cause="") == Verdict(verdict.kind, "")
    return bare and verdict.kind in _REFUSED and observation.best is None and bool(observation.problems)


def _differences(stated: Verdict, found: Verdict) -> Iterator[str]:
    if said_atomic(found) and stated.kind is VerdictKind.ATOMIC:
        # the rule of three over rounds of tokens, or over batches
        found = replace(found, kind=VerdictKind.ATOMIC, bound=3 / found.judged)
    if stated.kind is not found.kind:
        why = quoted(one_line(found.reason), _REASON)
        yield f"states {stated.kind.name}, and its own evidence comes to {found.kind.name} ({why})"
    for name in ("violations", "rounds", "judged", "bound"):
        mine, others = getattr(stated, name), getattr(found, name)
        if mine != others:
            yield (
                f"states {stated.kind.name} with {name} {_shown(mine)}, and its own evidence comes to {_shown(others)}"
            )
    mine, others = (tuple(replace(each, power="", unit="") for each in verdict.controls) for verdict in (stated, found))
    if mine != others:
        yield f"states {stated.kind.name} with controls that are not those of its own evidence"
    if stated.witnesses != found.witnesses:
        yield f"states {stated.kind.name} with witnesses that are not those of its own evidence"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return quoted(", ".join(f"{one_line(str(name))} {count}" for name, count in value.items() if count) or "none")
    return "none" if value is None else str(value)
