"""What `kgen watch` costs a guest, measured on the guest's own rounds: for the benchmark and for a soak test."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kgen.build import Kernel, build
from kgen.inspection.glance import look
from kgen.kernel.plan import layout_of, phases
from kgen.machine.platform import LaunchRequest, Platform
from kgen.machine.qemu import Machine, launch
from kgen.spec import Case, KernelSpec
from kgen.toolchain.elf_reader import read

#: Without an end, on i/o, and with a rate that wanders least. Not tokens: where one is lost, its proof takes
#: 100 ms, and with more CPUs than the host has their rate depends on which of them it lets run together.
CASE = KernelSpec(Case("add"), rounds=0, controls=False)
#: Seconds of one measurement.
WINDOW = 8.0
BOOT_SECONDS = 60.0


@dataclass(frozen=True)
class Pair:
    """Rounds a second with nobody watching, then (or before) with `kgen watch`; ``paused`` is the part of the time in
    which it says to have stopped the machine, 0 to 1."""

    alone: float
    watched: float
    paused: float


def pairs(platform: Platform, count: int, window: float = WINDOW) -> list[Pair]:
    """So many pairs on one machine, in the order alone, watched, watched, alone, ..., so that no drift favours one."""
    kernel = build(CASE)
    found = []
    with tempfile.TemporaryDirectory() as directory:
        elf = Path(directory) / "kernel.elf"
        elf.write_bytes(kernel.elf.data)
        with launch(platform, LaunchRequest(kernel=elf)) as machine:
            address = read(kernel.elf.data, name="kernel.elf").symbols["results"]
            until = time.monotonic() + BOOT_SECONDS
            while _rounds(machine, kernel, address) < 1000:
                assert time.monotonic() < until, "the guest does not work"
                machine.read_serial(0.2)
            for number in range(count):
                first = _alone(machine, kernel, address, window) if number % 2 == 0 else 0.0
                watched, paused = _watched(machine, kernel, address, window, elf)
                found.append(Pair(first or _alone(machine, kernel, address, window), watched, paused))
    return found


def _rounds(machine: Machine, kernel: Kernel, results: int) -> int:
    """The kernel's own count, by the monitor, which does not stop the machine."""

    def memory(address: int, size: int) -> bytes:
        words = re.findall(r"0x([0-9a-f]{8})\b", machine.hmp(f"xp /{(size + 3) // 4}xw {address:#x}"))
        return b"".join(int(word, 16).to_bytes(4, "little") for word in words)[:size]

    seen = look(memory, layout_of(kernel.spec), results, phases(kernel.spec))
    return seen.rounds if seen else 0


def _alone(machine: Machine, kernel: Kernel, results: int, window: float) -> float:
    """Rounds a second. What the guest prints is taken away, lest it wait for room."""
    before, began = _rounds(machine, kernel, results), time.monotonic()
    while time.monotonic() < began + window:
        machine.read_serial(0.2)
    return (_rounds(machine, kernel, results) - before) / (time.monotonic() - began)


def _watched(machine: Machine, kernel: Kernel, results: int, window: float, elf: Path) -> tuple[float, float]:
    """The same beside a `kgen watch` that has been started and ends by Ctrl-C, and what it says it has cost."""
    command = [sys.executable, "-m", "kgen", "watch", machine.gdb_address, str(elf)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline(), "kgen watch said nothing"
            rate = _alone(machine, kernel, results, window)
            child.send_signal(signal.SIGINT)
            text, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    costs = re.findall(r"cost ([0-9.]+) %", text)
    assert costs, text
    return rate, float(costs[-1]) / 100
