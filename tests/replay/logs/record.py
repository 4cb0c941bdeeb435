"""Record the runs that the tests judge again: ``python tests/replay/logs/record.py [NAME...]``.

Each run leaves NAME.log, the bytes of its serial port, and NAME.json, everything else that was observed. The results
block is kept by field names (zeros left out), so that a field that moves or comes anew does not make it unreadable.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kgen import inspection
from kgen.builder import build
from kgen.observation import Record, from_memory
from kgen.pipeline import Options, observe, platform_named
from kgen.results import ResultsLayout
from kgen.spec import Case, KernelSpec

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Run:
    """What to run. ``extra`` are QEMU's own arguments."""

    platform: str
    lock: bool = True
    controls: bool = True
    extra: tuple[str, ...] = ()


RUNS = {
    "tcg-atomic": Run("qemu-tcg"),
    "tcg-no-lock": Run("qemu-tcg", lock=False),
    "tcg-no-controls": Run("qemu-tcg", controls=False),
    "tcg-vga-none": Run("qemu-tcg", extra=("-vga", "none")),
    "tcg-two-cpus": Run("qemu-tcg", extra=("-smp", "2")),
    "kvm-lost": Run("qemu-kvm"),
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
    spec = KernelSpec(Case("xchg", lock=run.lock), rounds=1000, controls=run.controls)
    blocks: list[Any] = []

    def reading(layout: ResultsLayout, data: bytes) -> Record:
        blocks.append(plain(layout.parse(data)))
        return from_memory(layout, data)

    inspection.from_memory = reading
    observation = observe(build(spec), platform_named(run.platform), Options(extra=run.extra, timeout=60))
    kept = {
        "spec": json.loads(spec.to_json()),
        "platform": observation.platform,
        "path": asdict(observation.path),
        "crash": observation.crash,
        "cut": observation.cut,
        "problems": observation.problems,
        "cells": observation.cells,
        "block": blocks[-1],
    }
    (HERE / f"{name}.log").write_bytes(observation.log.encode("latin-1"))
    (HERE / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RUNS:
        record(chosen, RUNS[chosen])
