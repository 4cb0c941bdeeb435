"""Kernels for the boot tests: built as kgen builds them or with their source changed, run by kgen or by a bare QEMU."""

from __future__ import annotations

import dataclasses
import re
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kgen.build import Kernel
from kgen.evidence.from_serial import from_log
from kgen.evidence.observation import Observation
from kgen.evidence.records import Record
from kgen.host.process import Child, spawn
from kgen.kernel.parameters import LOAD_ADDRESS
from kgen.kernel.plan import layout_of
from kgen.kernel.protocol import TABLE_HEADER, Log, parse_log
from kgen.kernel.render import render
from kgen.machine.platform import LaunchRequest, Platform
from kgen.platforms import platforms
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source
from kgen.toolchain.linker import link
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

#: For a whole run, in seconds. Most take one or two; a loaded machine is slow.
DEADLINE = 90.0
#: The last line of a record.
END = re.compile(rb"^kgen:\d+ end [^\n]*\n", re.MULTILINE)

#: Changes a source text; fails where there is nothing to change, so that no variant is silently the original.
Edit = Callable[[str], str]


def spec_of(
    *, target: str = "ram", cpus: int = 3, lock: bool = True, rounds: int = 60, controls: bool = False, **more: Any
) -> KernelSpec:
    """A short run of XCHG; on RAM and without controls unless asked for."""
    case = Case("xchg", target=target, cpus=cpus, lock=lock)
    return KernelSpec(case, rounds=rounds, controls=controls, **more)


def built(spec: KernelSpec, *edits: Edit) -> Kernel:
    """The kernel of that specification, its source changed by the edits. It is whole in itself: build id and all."""
    text = render(spec).text
    for edit in edits:
        text = edit(text)
    assembly = assemble(Source("kernel.s", text), origin=LOAD_ADDRESS)
    elf = link(assembly, entry="entry", variables={"results": layout_of(spec).results}, spec_json=spec.to_json())
    return Kernel(spec, assembly, elf)


def replaced(old: str, new: str, *, routine: str = "") -> Edit:
    """Put ``new`` in the place of ``old``, everywhere in a routine (up to the next global label) or, without one, at
    the only place there is."""

    def edit(text: str) -> str:
        if not routine:
            assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
            return text.replace(old, new)
        found = re.search(rf"^{routine}:\n(?:(?!^[a-z]).*\n)*", text, re.MULTILINE)
        assert found, f"there is no routine {routine}"
        assert old in found[0], f"{routine} has no {old!r}"
        return text[: found.start()] + found[0].replace(old, new) + text[found.end() :]

    return edit


def run(
    kernel: Kernel, platform: str | Platform = "qemu-tcg", *extra: str, **options: Any
) -> tuple[Observation, Verdict]:
    """One run as ``kgen verify`` makes it. ``extra`` are QEMU's own arguments."""
    where = platforms()[platform] if isinstance(platform, str) else platform
    seen = observe(kernel, where, Options(extra=extra, **{"timeout": DEADLINE, **options}))
    return seen, judge(kernel.spec, seen)


def run_until(
    well: Callable[[Observation, Verdict], object],
    kernel: Kernel,
    times: int = 10,
    platform: str | Platform = "qemu-tcg",
) -> tuple[Observation, Verdict]:
    """The first of at most ten runs that is as wanted: the CPUs of a busy machine may not meet in one run."""
    for _ in range(times):
        seen, verdict = run(kernel, platform)
        if well(seen, verdict):
            break
    return seen, verdict


def decided(_: Observation, verdict: Verdict) -> bool:
    """Whether a run said something; for ``run_until``."""
    return verdict.kind is not VerdictKind.INCONCLUSIVE


def memory_of(seen: Observation) -> Record:
    """The debugger's record of a run on which both channels agree to the end."""
    assert seen.memory is not None, seen.problems
    assert seen.memory.complete, seen.memory.gap
    assert seen.serial is not None, "nothing on the serial port"
    assert seen.serial.complete, seen.serial.gap
    return seen.memory


def without_serial(platform: Platform, *, boot_seconds: float) -> Platform:
    """The same machine with no serial port at all; ``boot_seconds`` is how long kgen waits for a byte from it."""

    def command(request: LaunchRequest) -> tuple[str, ...]:
        words = platform.command(request)
        at = words.index("-serial")
        return (*words[:at], "-serial", "none", *words[at + 2 :])

    return dataclasses.replace(platform, command=command, boot_seconds=boot_seconds)


def needs(name: str) -> Platform:
    """The platform of that name; the test is skipped, with the reason, where it cannot run."""
    platform = platforms()[name]
    reason = platform.unavailable(LaunchRequest(kernel=None))
    if reason:
        pytest.skip(f"{name}: {reason}")
    return platform


class Console:
    """A QEMU started by hand whose serial port is its standard input and output."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.heard = b""

    def read(self, until: Callable[[bytes], object], seconds: float = DEADLINE) -> bytes:
        """All that came so far, once it satisfies ``until``; fails where it never does."""
        assert self.child.stdout is not None
        end = time.monotonic() + seconds
        while not until(self.heard):
            left = end - time.monotonic()
            assert left > 0, f"nothing more in {seconds:g} s:\n{self.heard.decode(errors='replace')}"
            if select.select([self.child.stdout], [], [], left)[0]:
                data = self.child.stdout.read(65536)
                assert data, f"QEMU {self.child.epitaph()}: {self.child.stderr_lines()}\n{self.heard!r}"
                self.heard += data
        return self.heard

    def send(self, data: bytes) -> None:
        """Bytes to the guest's serial port."""
        assert self.child.stdin is not None
        self.child.stdin.write(data)

    def record(self) -> tuple[Log, Record]:
        """The whole log, which must come to its end unbroken."""
        log = parse_log(self.read(END.search))
        record = from_log(log)
        assert log.intact, log.fault
        assert record is not None
        assert record.complete, record.gap
        return log, record


@contextmanager
def console(*arguments: str | Path, binary: str = "qemu-system-i386") -> Iterator[Console]:
    """QEMU with these arguments and no window; it is ended with the block."""
    child = spawn([binary, *map(str, arguments), "-display", "none"], pipes=True)
    try:
        yield Console(child)
    finally:
        child.kill()


def check_table(log: bytes, *, last: int, first: Sequence[int] = range(1, 21)) -> list[tuple[int, ...]]:
    """The table for people, byte by byte: the original's header, the first rows, the last one, no token missing."""
    assert log.count(TABLE_HEADER.encode()) == 1
    assert TABLE_HEADER == "counts:\tcount0\tcount1\tcount2\tcount0-count1+count2"
    body = log[log.index(TABLE_HEADER.encode()) :]
    lines = [line for line in body.split(b"\r\n")[1:] if line.startswith(b"counts:")]
    assert all(re.fullmatch(rb"counts:\t\d+\t\d+\t\d+\t-?\d+", line) for line in lines), lines
    rows = [tuple(int(word) for word in line.split(b"\t")[1:]) for line in lines]
    assert [row[0] for row in rows[: len(first)]] == list(first)
    assert rows[-1][0] == last
    assert [row[0] for row in rows] == sorted({row[0] for row in rows}), "rows out of order or twice"
    for row in rows:
        assert row[0] == row[1] + row[2], row
        assert row[3] == 0, row
    return rows
