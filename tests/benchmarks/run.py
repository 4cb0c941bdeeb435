"""How fast things are here. Prints a table; nothing is asserted, because a busy machine is no defect.

    make bench                                   what a change is compared by, less than four minutes
    make bench BENCH_ARGS="rate --repeat 9"      one group, more runs; --help names them
    make bench BENCH_ARGS="suite elsewhere"      what takes longer: the whole table, and other engines
    make bench BENCH_ARGS="--short"              one run of the quick rows with few rounds, which the tests run, too

Every figure is the median of some runs, ``--repeat`` of them, with the smallest and the largest after it. Run it on an
idle machine and look at the spread before comparing two runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from watched import CASE, pairs

import kgen.kernel.parameters
import kgen.kernel.render
from kgen.build import Kernel, build
from kgen.errors import KgenError
from kgen.experiments.token import EXPERIMENT
from kgen.host.environment import environment
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import launch
from kgen.platforms import platforms
from kgen.resources import data_dir
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.run.suite import observe_suite
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import DEFAULT_BUDGET, load
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

KGEN = (sys.executable, "-m", "kgen")
RUN_SECONDS = 300
#: The two ways to start a kernel: QEMU's quick firmware, and the one it starts by default.
FIRMWARE = {"qboot": "auto", "SeaBIOS": "seabios"}
#: Enough rounds for a second or so each; no controls, whose time is not asked for here.
TOKEN = KernelSpec(Case("xchg"), rounds=40_000, controls=False)
#: The original's loop, from original.asm: XCHG by every waiting CPU, one cell, one line a round.
ORIGINAL = KernelSpec(Case("xchg"), rounds=400, controls=False)
#: With --short rounds are divided by this.
SHORTER = 20


@dataclass(frozen=True)
class Row:
    """One line of the table. ``values`` are the runs', ``target`` what is asked for, "" where nothing is."""

    what: str
    unit: str
    values: tuple[float, ...]
    target: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f"{number(min(self.values))} to {number(max(self.values))}"
        return f"{self.what:<52} {number(self.median):>9} {self.unit:<9} {spread:<20} {self.target}"


def number(value: float) -> str:
    """Three figures, or all of them before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def show(row: Row) -> None:
    print(row, flush=True)


def process(command: Sequence[str | Path]) -> tuple[float, float]:
    """Run a program to its end: seconds by the clock on the wall, and peak resident memory in MB, of it or of the
    largest of its children. Ends the benchmark where it fails."""
    started = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


@dataclass(frozen=True)
class Bench:
    """What a group of rows is given: how often, on which platforms, and by what rounds are divided."""

    repeat: int
    usable: Sequence[Platform]
    divided: int = 1

    @property
    def here(self) -> Sequence[Platform]:
        """Those whose QEMU runs on this host."""
        return [platform for platform in self.usable if platform.supervise is None and platform.engine == "qemu"]

    @property
    def elsewhere(self) -> Sequence[Platform]:
        """The others."""
        return [platform for platform in self.usable if platform not in self.here]

    def fewer(self, spec: KernelSpec) -> KernelSpec:
        """The same kernel with as many rounds as there is time for."""
        return replace(spec, rounds=max(1, spec.rounds // self.divided))


def bench_host(bench: Bench) -> None:
    """What a person waits for before any machine runs."""
    with tempfile.TemporaryDirectory() as directory:
        runs = [process([*KGEN, "build", "--instr", "xchg", "-o", directory]) for _ in range(bench.repeat)]
    show(Row("kgen build --instr xchg, a process of its own", "s", tuple(run[0] for run in runs), "0.35 s"))
    show(Row("  its peak memory", "MB", tuple(run[1] for run in runs), "60 MB"))
    runs = [first_build() for _ in range(bench.repeat)]
    show(Row("  with nothing in the cache", "s", tuple(run[0] for run in runs), "0.45 s"))
    show(Row("  its peak memory", "MB", tuple(run[1] for run in runs), "60 MB"))
    runs = [process([*KGEN, "--help"]) for _ in range(bench.repeat)]
    show(Row("kgen --help", "s", tuple(run[0] for run in runs), "0.15 s"))


def first_build() -> tuple[float, float]:
    """Seconds and peak memory of a build by a user who has built nothing before."""
    with tempfile.TemporaryDirectory() as directory:
        cache = f"XDG_CACHE_HOME={directory}/cache"
        return process(["env", cache, *KGEN, "build", "--instr", "xchg", "-o", f"{directory}/kernel"])


def first_byte(platform: Platform, elf: Path, firmware: str) -> float:
    """Seconds from the start of QEMU to the first byte on the serial port."""
    started = time.monotonic()
    with launch(platform, LaunchRequest(kernel=elf, firmware=firmware)) as machine:
        while time.monotonic() - started < platform.boot_seconds:
            if machine.read_serial(0.05):
                return time.monotonic() - started
    raise SystemExit(f"{platform.name} with {firmware} firmware: nothing on the serial port")


def bench_boot(bench: Bench) -> None:
    """From nothing to the guest's first word."""
    kernel = build(TOKEN)
    with tempfile.TemporaryDirectory() as directory:
        elf = Path(directory) / "kernel.elf"
        elf.write_bytes(kernel.elf.data)
        for platform in bench.here:
            for name, firmware in FIRMWARE.items():
                values = tuple(first_byte(platform, elf, firmware) for _ in range(bench.repeat))
                show(Row(f"{platform.name}, {name}: start to first serial byte", "s", values))


def bench_verify(bench: Bench) -> None:
    """The main job, from the command to its verdict."""
    for platform in bench.here:
        command = [*KGEN, "verify", "--instr", "xchg", "--platform", platform.name, "--expect", "known"]
        values = tuple(process(command)[0] for _ in range(bench.repeat))
        target = "10 s" if platform.name == "qemu-kvm" else ""
        show(Row(f"kgen verify, 10000 rounds, on {platform.name}", "s", values, target))


def bench_elsewhere(bench: Bench) -> None:
    """The main job on engines other than QEMU on this host."""
    for platform in bench.elsewhere:
        command = [*KGEN, "verify", "--instr", "xchg", "--platform", platform.name, "--expect", "known"]
        values = tuple(process(command)[0] for _ in range(bench.repeat))
        show(Row(f"kgen verify on {platform.name}", "s", values))


def rate(kernel: Kernel, platform: Platform) -> float:
    """Rounds a second of the case, by the guest's own clock: boot and inspection are not in it."""
    record = observe(kernel, platform, Options(timeout=RUN_SECONDS)).best
    if record is None or not record.phases or not record.phases[-1].ticks:
        raise SystemExit(f"{platform.name}: a run without a result")
    case = record.phases[-1]
    return case.rounds / (case.ticks / (record.khz * 1000))


def build_original(spec: KernelSpec) -> Kernel:
    """The kernel of ``ORIGINAL`` or of fewer rounds: kgen's own, but for the experiment's template."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        templates = Path(directory) / "templates"
        shutil.copytree(data_dir("kernel_templates"), templates)
        shutil.copy(Path(__file__).with_name("original.asm"), templates)
        patch.setattr(kgen.kernel.render, "data_dir", lambda _name: templates)
        patch.setattr(kgen.kernel.render, "experiment_of", lambda _phase: replace(EXPERIMENT, template="original.asm"))
        # the templates are looked up where they were found first
        kgen.kernel.render.environment.cache_clear()
        try:
            return build(spec)
        finally:
            kgen.kernel.render.environment.cache_clear()


def bench_rate(bench: Bench) -> None:
    """The token experiment against the original's loop, the runs of both taken in turn."""
    ours, original = build(bench.fewer(TOKEN)), build_original(bench.fewer(ORIGINAL))
    for platform in bench.here:
        if platform.name != "qemu-tcg":
            continue
        pairs = [(rate(ours, platform), rate(original, platform)) for _ in range(bench.repeat)]
        show(Row("token experiment, qemu-tcg thread=multi", "rounds/s", tuple(pair[0] for pair in pairs)))
        show(Row("the original's loop, beside it", "rounds/s", tuple(pair[1] for pair in pairs)))
        show(Row("  ratio, run by run", "x", tuple(pair[0] / pair[1] for pair in pairs), "10 x"))


#: An instruction for each experiment in batches, and how many operations take a second or so on TCG.
WALKS = {
    "chain": ("xchg", 30_000),
    "counter": ("add", 60_000),
    "own-bits": ("or", 60_000),
    "parity": ("not", 40_000),
    "mutex": ("bts", 30_000),
}
#: A software KVM runs them at a sixth of TCG's rate or less: so many times fewer there take as long.
KVM_FEWER = 6


def walked(kernel: Kernel, platform: Platform) -> tuple[float, float]:
    """Operations and live batches a second of the case, by the guest's own clock."""
    record = observe(kernel, platform, Options(timeout=RUN_SECONDS)).best
    if record is None or not record.phases or not record.phases[-1].ticks:
        raise SystemExit(f"{platform.name}: a run without a result")
    case = record.phases[-1]
    seconds = case.ticks / (record.khz * 1000)
    return case.rounds / seconds, sum(style.live for style in case.live) / seconds


def without_tickets(spec: KernelSpec) -> Kernel:
    """The same kernel, but no operation draws a ticket: it cannot tell which batches are live."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kgen.kernel.parameters, "BLIND_EVERY", 1)
        return build(spec)


def bench_operations(bench: Bench) -> None:
    """Operations and live batches a second of each experiment, and what the tickets cost."""
    for platform in bench.here:
        fewer = KVM_FEWER if platform.name == "qemu-kvm" else 1
        for experiment, (name, rounds) in WALKS.items():
            spec = KernelSpec(Case(name, experiment=experiment), rounds=rounds // fewer, controls=False)
            kernel, blind = build(spec), without_tickets(spec)
            runs = [(*walked(kernel, platform), walked(blind, platform)[0]) for _ in range(bench.repeat)]
            show(Row(f"{experiment} with {name}, {platform.name}", "/s", tuple(run[0] for run in runs)))
            show(Row("  live batches", "/s", tuple(run[1] for run in runs)))
            show(Row("  without tickets, beside it", "/s", tuple(run[2] for run in runs)))
            show(Row("  cost of tickets, run by run", "%", tuple(100 * (1 - run[0] / run[2]) for run in runs)))


def bench_suite(bench: Bench) -> None:
    """The whole table."""
    with tempfile.TemporaryDirectory() as directory:
        runs = [process([*KGEN, "build", "--suite", "full", "-o", directory]) for _ in range(bench.repeat)]
        size = (Path(directory) / "kernel.elf").stat().st_size
    show(Row("kgen build --suite full, a process of its own", "s", tuple(run[0] for run in runs), "3 s"))
    show(Row("  its kernel.elf", "KiB", (size / 1024,), "1024 KiB"))
    _, cases = load("full")
    for platform in bench.here:
        spec = KernelSpec(cases[0], more=cases[1:], suite="full", budget=DEFAULT_BUDGET["full"])
        started = time.monotonic()
        boots = observe_suite(spec, platform, Options(timeout=1800))
        told = [judge(boot.spec, boot.observation, n) for boot in boots for n in range(len(boot.spec.cases))]
        open_cases = sum(verdict.kind is VerdictKind.INCONCLUSIVE for verdict in told)
        seconds = time.monotonic() - started
        show(Row(f"full, {len(cases)} cases, on {platform.name}", "s", (seconds,), "300 s on TCG"))
        show(Row("  undecided within its budget", "cases", (float(open_cases),)))


#: Pairs of runs without and with `kgen watch`, for each of --repeat: one pair says little, a busy host is uneven.
WATCH_PAIRS = 3
#: Seconds of each run.
WATCH_SECONDS = 4.0


def bench_watch(bench: Bench) -> None:
    """What being watched costs the guest: in its own rounds, and in the time that it stood still."""
    for platform in bench.here:
        found = pairs(platform, WATCH_PAIRS * bench.repeat, WATCH_SECONDS)
        show(Row(f"{CASE.name}, {platform.name}, unwatched", "/s", tuple(pair.alone for pair in found)))
        show(Row("  with kgen watch, beside it", "/s", tuple(pair.watched for pair in found)))
        show(Row("  cost, pair by pair", "%", tuple(100 * (1 - pair.watched / pair.alone) for pair in found), "5 %"))
        show(Row("  part of the time that it stood still", "%", tuple(100 * pair.paused for pair in found), "5 %"))


@dataclass(frozen=True)
class Group:
    """Rows that are chosen by one name, how often each is measured unless --repeat is given, and whether they are
    measured where no group is named. ``short`` ones are quick enough for the tests."""

    measure: Callable[[Bench], None]
    repeat: int
    usual: bool = True
    short: bool = False


GROUPS = {
    "host": Group(bench_host, 5, short=True),
    "boot": Group(bench_boot, 3, short=True),
    "verify": Group(bench_verify, 1),
    "rate": Group(bench_rate, 3, short=True),
    "operations": Group(bench_operations, 1),
    "watch": Group(bench_watch, 1),
    "suite": Group(bench_suite, 1, usual=False),
    "elsewhere": Group(bench_elsewhere, 1, usual=False),
}
#: --short is for one platform, which runs wherever QEMU does.
SHORT_PLATFORM = "qemu-tcg"


def chosen(names: Sequence[str], *, short: bool) -> list[str]:
    """The groups to measure."""
    return list(names) or [name for name, group in GROUPS.items() if (group.short if short else group.usual)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print how fast kgen is here.")
    usual = ", ".join(chosen((), short=False))
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"which: {', '.join(GROUPS)} (default: {usual})")
    parser.add_argument("--repeat", type=int, help="runs of each (default: 1 to 5, by the group)")
    parser.add_argument("--short", action="store_true", help=f"one run of the quick groups, on {SHORT_PLATFORM}")
    wanted = parser.parse_args()
    unknown = set(wanted.groups) - set(GROUPS)
    if unknown or (wanted.repeat is not None and wanted.repeat < 1):
        parser.error(f"no such group: {', '.join(sorted(unknown))}" if unknown else "--repeat must be at least 1")
    usable = []
    for platform in platforms().values():
        if wanted.short and platform.name != SHORT_PLATFORM:
            continue
        reason = platform.unavailable(LaunchRequest(kernel=None))
        if reason:
            print(f"{platform.name} is left out: {reason}")
        else:
            usable.append(platform)
    facts = environment("qemu-system-i386", "gdb")
    host = facts["host"]
    print(f"{host.get('cpu', host['machine'])}, {host['cpus']} CPUs, {host['system']} {host['kernel']}")
    print(json.dumps(facts["versions"]))
    print(f"\n{'':<52} {'median':>9} {'':<9} {'least to most':<20} target")
    try:
        for name in chosen(wanted.groups, short=wanted.short):
            group = GROUPS[name]
            repeat = wanted.repeat or (1 if wanted.short else group.repeat)
            group.measure(Bench(repeat, usable, SHORTER if wanted.short else 1))
    except KgenError as error:
        raise SystemExit(f"kgen: error: {error.line}") from error


if __name__ == "__main__":
    main()
