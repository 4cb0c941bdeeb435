"""Record the runs that the tests judge again: ``python tests/replay/logs/record.py [NAME...]``.

Each run leaves NAME.log, the bytes of its serial port, and NAME.json, everything else that was observed. The results
block is kept by field names (zeros left out), so that a field that moves or comes anew does not make it unreadable.
A run that came out otherwise than it should is made again: what is kept is what the tests need.

The recordings named ``old-*`` are of kernels of a version that counted no live batches (rules 1). No kernel that is
built now leaves such a record, so they are kept and never made again.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kgen.build import build
from kgen.evidence.from_memory import from_memory
from kgen.evidence.observation import Observation
from kgen.evidence.records import Record
from kgen.inspection import stopped
from kgen.kernel.results_block import ResultsLayout
from kgen.platforms import platform_named
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

HERE = Path(__file__).resolve().parent


#: So often a run is made that comes out otherwise than it should.
ATTEMPTS = 20


@dataclass(frozen=True)
class Run:
    """What to run. ``known`` are the verdicts it should come to; ``shows`` is what else the tests need of the log and
    of the first verdict; ``extra`` are QEMU's own arguments."""

    platform: str
    spec: KernelSpec
    known: tuple[VerdictKind, ...]
    extra: tuple[str, ...] = ()
    shows: Callable[[str, Verdict], bool] = lambda log, verdict: True


def below_zero(log: str, verdict: Verdict) -> bool:
    """Whether the table alone tells that a token was taken twice; and tokens were lost, too."""
    return verdict.violations["lost"] > 0 and re.search(r"^counts:(\t[0-9]+){3}\t-", log, re.MULTILINE) is not None


#: Until its proof is reached, however busy the host is.
ONE = KernelSpec(Case("xchg"), rounds=1000, proof_seconds=600)
#: Where no proof is needed: as many operations as rounds.
SHORT = replace(ONE, proof_seconds=0)
#: Long enough for a sign of life, and with a case on what is RAM behind most hypervisors in the middle.
SUITE = KernelSpec(
    Case("xchg"),
    more=(Case("or", target="framebuffer"), Case("xadd"), Case("not")),
    rounds=1000,
    suite="recorded",
    budget=1200,
)

ATOMIC, NOT_ATOMIC, INCONCLUSIVE = VerdictKind.ATOMIC, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE
RAM_BACKED, ERROR = VerdictKind.RAM_BACKED, VerdictKind.ERROR

RUNS = {
    "tcg-atomic": Run("qemu-tcg", ONE, (ATOMIC,)),
    "tcg-no-lock": Run("qemu-tcg", replace(SHORT, case=Case("xchg", lock=False)), (NOT_ATOMIC,)),
    "tcg-no-controls": Run("qemu-tcg", replace(SHORT, controls=False), (INCONCLUSIVE,)),
    "tcg-vga-none": Run("qemu-tcg", SHORT, (RAM_BACKED,), extra=("-vga", "none")),
    "tcg-two-cpus": Run("qemu-tcg", ONE, (ERROR,), extra=("-smp", "2")),
    "tcg-suite": Run("qemu-tcg", SUITE, (ATOMIC, RAM_BACKED, ATOMIC, ATOMIC)),
    "kvm-lost": Run("qemu-kvm", ONE, (NOT_ATOMIC,), shows=below_zero),
    "kvm-suite": Run("qemu-kvm", SUITE, (NOT_ATOMIC, RAM_BACKED, NOT_ATOMIC, NOT_ATOMIC)),
}


def plain(value: Any) -> Any:
    """A ctypes value as plain JSON, zeros left out: objects for structures, index-keyed objects for arrays."""
    if isinstance(value, ctypes.Structure):
        found = {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    elif isinstance(value, ctypes.Array):
        found = {str(index): plain(entry) for index, entry in enumerate(value)}
    elif isinstance(value, bytes):
        return value.decode("ascii")
    else:
        return getattr(value, "value", value)
    return {name: entry for name, entry in found.items() if entry}


def record(name: str, run: Run) -> None:
    """Run it and write its two files."""
    blocks: list[Any] = []

    def reading(layout: ResultsLayout, data: bytes) -> Record:
        blocks.append(plain(layout.parse(data)))
        return from_memory(layout, data)

    stopped.from_memory = reading
    observation = seen(run)
    kept = {
        "spec": json.loads(run.spec.to_json()),
        "platform": observation.platform,
        "path": asdict(observation.path),
        "paths": {str(index): asdict(path) for index, path in observation.paths.items()},
        "crash": observation.crash,
        "cut": observation.cut,
        "problems": observation.problems,
        "cells": observation.cells,
        "block": blocks[-1],
    }
    (HERE / f"{name}.log").write_bytes(observation.log.encode("latin-1"))
    (HERE / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def seen(run: Run) -> Observation:
    """The first run that came out as it should."""
    for _ in range(ATTEMPTS):
        observation = observe(build(run.spec), platform_named(run.platform), Options(extra=run.extra, timeout=1800))
        verdicts = [judge(run.spec, observation, number) for number in range(len(run.spec.cases))]
        print("; ".join(f"{verdict.kind.name}: {verdict.reason}" for verdict in verdicts))
        if tuple(verdict.kind for verdict in verdicts) == run.known and run.shows(observation.log, verdicts[0]):
            return observation
    raise SystemExit(f"in {ATTEMPTS} attempts no run came out as it should; nothing was written for it")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RUNS:
        print(chosen)
        record(chosen, RUNS[chosen])
