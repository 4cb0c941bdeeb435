"""Results to make web pages of: recorded runs, one with a scene and a hypervisor's record, and one that means harm."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from recordings import load

from kgen.errors import KgenError
from kgen.evidence.kvm_trace import TraceEvent
from kgen.evidence.observation import Observation
from kgen.evidence.scene import Scene, SceneCell, SceneCpu, SceneEvent, SceneLine
from kgen.kernel.plan import phases
from kgen.report.results import read
from kgen.report.results.model import Run, run_of_case, run_of_one_boot
from kgen.report.results.write import to_json
from kgen.verdict.judge import judge

WORDS = ("kgen", "verify", "--instr", "xchg")
#: Markup, a template, controls, a change of direction, half a character, quotes; and a word longer than any window.
NASTY = "</style></title><script>alert(1)</script><img src=//x onerror='a()'>\"&{{7*7}}\x00\x1b[31m\u202e\ud800"
LONG = "W" * 400
#: What is to be seen of the end of it.
NASTY_END = "\u2400\u241b[31m\\u202e\\ud800"

ENVIRONMENT = {
    "host": {"system": "Linux", "kernel": "6.1.0", "cpu": "A CPU of 2.80 GHz", "cpus": 2, "hypervisor": True},
    "kvm": {"kvm.ignore_msrs": "N"},
    "versions": {"kgen": "0.1.0", "emulator": "QEMU emulator version 7.2.22", "gdb": "GNU gdb 13.1"},
    "command": ["/usr/bin/qemu-system-i386", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-vga", "std"],
}


def document(name: str) -> dict[str, Any]:
    """The result document of a recorded run, as ``--json`` writes it."""
    run = load(name)
    seen = replace(run.observed(), environment=ENVIRONMENT, log=run.log.decode("latin-1"))
    verdicts = [judge(run.spec, seen, number) for number in range(len(run.spec.cases))]
    return json.loads(to_json([run_of_one_boot(run.spec, seen, verdicts, invocation=WORDS)]))


def runs_of(*documents: dict[str, Any]) -> tuple[Run, ...]:
    """The runs of several result files."""
    return tuple(run for at, each in enumerate(documents) for run in read.load(json.dumps(each).encode(), f"{at}.json"))


def with_scene() -> dict[str, Any]:
    """A result of a run that was stopped at its first violation, on a hypervisor whose kernel records accesses."""
    run = load("kvm-lost")
    seen = run.observed()
    assert seen.best is not None
    case = phases(run.spec)[-1].index
    witness = next(each for each in seen.best.witnesses if each.phase == case)
    own = {"phase": case, "batch": 7, "cell": witness.cell, "tsc": None}
    scene = Scene(
        witness=witness,
        cpus=tuple(
            SceneCpu(cpu, {"eax": 0x2A, "eip": 0x100001}, "parked", "doze+0x1", _CODE) for cpu in (0, 1, 2, None)
        ),
        cell=SceneCell(0xB8004, 32, witness.token, 0, 0xB8000, "0102030400000000ffffffff"),
        timeline=(
            SceneEvent(0, 0, "batch", value=None, text="CPU 0 opens batch 7", **own),
            SceneEvent(1, 0, "put", value=witness.token, text="CPU 0 puts the token", **own),
            SceneEvent(2, 1, "empty", value=0, text="CPU 1 finds the cell empty", **own),
            SceneEvent(2, 1, "parked", value=None, text="CPU 1 acknowledges the batch", **own),
            SceneEvent(2, 2, "take", value=5, text="CPU 2 takes 00000005", **own),
            SceneEvent(3, 0, "read", value=0, text="CPU 0 finds 0 in the cell", **own),
            SceneEvent(4, 0, "witness", value=witness.token, text="CPU 0 records a witness", **own),
        ),
    )
    return told(replace(seen, scene=scene, trace=_TRACE, kernel_log=("kvm: emulating exchange as write",)))


def told(seen: Observation) -> dict[str, Any]:
    """The result document of what was seen of a run of the kernel of ``kvm-lost``."""
    spec = load("kvm-lost").spec
    seen = replace(seen, environment=ENVIRONMENT)
    return json.loads(to_json([run_of_case(spec, seen, judge(spec, seen), invocation=WORDS)]))


def nasty() -> dict[str, Any]:
    """A result in which every text that may be anything means harm."""
    return json.loads(_nasty())


@functools.cache
def _nasty() -> str:
    found = with_scene() | {"invocation": [NASTY, LONG]}
    found["observation"]["environment"] = {NASTY: {LONG: NASTY}, "host": {NASTY: LONG}, "kvm": {NASTY: LONG}}
    found["verdict"]["notes"] = [NASTY, LONG]
    found["serial_log"] = ""
    places: dict[tuple[Any, ...], list[tuple[Any, Any]]] = {}
    for path, holder, key in _texts(found):
        places.setdefault(path, []).append((holder, key))
    for alike in places.values():
        kept = [holder[key] for holder, key in alike]
        for holder, key in alike:
            holder[key] = f"{NASTY}{LONG}"
        try:
            read.load(json.dumps(found).encode(), "x")
        except KgenError:
            for (holder, key), text in zip(alike, kept, strict=True):
                holder[key] = text
    found["serial_log"] = f"{NASTY}\n{LONG * 20}\n" * 20
    return json.dumps(found)


def _texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Where texts stand: the names that lead there, numbers of entries left out; the object or list; and the key."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        names = (*path, key) if isinstance(key, str) else path
        if isinstance(entry, str):
            yield names, value, key
        else:
            yield from _texts(entry, names)


_CODE = (
    SceneLine(0x100000, "f4", "hlt", "kernel.s", 7, "hlt"),
    SceneLine(0x100001, "fa", "cli", "kernel.s", 8, "cli"),
)
_TRACE = tuple(
    TraceEvent(at / 1000, cpu, kind, 0xB8004, 32, value, at)  # type: ignore[arg-type]
    for at, (cpu, kind, value) in enumerate(
        [(1, "ask", 0), (0, "read", 0), (0, "write", 0xDAA66D13), (1, "read", 0), (1, "write", 0), (2, "ask", 0)]
    )
)
