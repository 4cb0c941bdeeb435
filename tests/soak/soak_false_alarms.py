"""No false alarm: a translator that is right is right ten million times, whatever is done to its machine meanwhile."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from load import load

from kgen.build import Kernel
from kgen.errors import ProtocolError
from kgen.evidence.records import Record
from kgen.host.process import spawn
from kgen.kernel.plan import phases
from kgen.kernel.results_block import KernelState, Role
from kgen.spec import Case, KernelSpec

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from _kernel import built, memory_of, run
from _screen import Watched, memory_now, memory_record, watched

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

#: Operations of the whole file with the host idle, and as many beside a load.
OPERATIONS = 10_000_000
EXPERIMENTS = {
    "token": ("xchg", 32),
    "chain": ("xchg", 32),
    "chain-8": ("xchg", 8),
    "chain-cmpxchg": ("cmpxchg", 32),
    "chain-cmpxchg8b": ("cmpxchg8b", 64),
    "counter": ("add", 32),
    "own-bits": ("or", 32),
    "parity": ("not", 32),
    "mutex": ("bts", 32),
}
TARGETS = ("ram", "vga-text")
SHARE = OPERATIONS // (len(EXPERIMENTS) * len(TARGETS))
IN_TURN = ("-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off")
#: Seconds between two interventions.
PAUSE = 0.3
SECONDS = 600.0


@pytest.fixture(params=["idle", "loaded"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """Alone, or beside two programs for each processor that want a whole one."""
    count = 2 * (os.cpu_count() or 1) if request.param == "loaded" else 0
    with load(count):
        yield str(request.param)


def kernel_of(name: str, target: str, rounds: int, cpus: int = 3) -> Kernel:
    instruction, width = EXPERIMENTS[name]
    experiment = name.partition("-")[0] if name.startswith("chain") else name
    case = Case(instruction, width=width, target=target, experiment=experiment, cpus=cpus)
    return built(KernelSpec(case, rounds=rounds, controls=False))


def assert_clean(kernel: Kernel, record: Record, rounds: int) -> None:
    assert record.state is KernelState.FINISHED
    assert record.witnesses == ()
    for plan, phase in zip(phases(kernel.spec), record.phases, strict=True):
        assert phase.role is not Role.POWER
        assert phase.total == 0, f"{plan.label}: {phase.violations}"
    assert record.phases[-1].rounds >= rounds


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment(name: str, target: str, host: str) -> None:
    kernel = kernel_of(name, target, SHARE)
    assert_clean(kernel, memory_of(run(kernel, timeout=3000)[0]), SHARE)


@pytest.mark.parametrize("cpus", [4, 8, 16, 64])
@pytest.mark.parametrize("name", ["token", "chain", "counter", "mutex"])
def test_many_cpus(name: str, cpus: int) -> None:
    kernel = kernel_of(name, "vga-text", 20_000, cpus)
    assert_clean(kernel, memory_of(run(kernel, timeout=3000)[0]), 20_000)


@pytest.mark.parametrize("name", ["token", "chain", "counter", "mutex"])
def test_one_thread_for_all_cpus(name: str) -> None:
    """With ``-icount`` the translator counts instructions and takes the CPUs in turn."""
    kernel = kernel_of(name, "vga-text", 50_000)
    assert_clean(kernel, memory_of(run(kernel, "qemu-tcg", *IN_TURN, timeout=3000)[0]), 50_000)


def ended(kernel: Kernel, machine: Watched) -> bool:
    try:
        return memory_now(kernel, machine).complete
    except ProtocolError:
        # not booted so far
        return False


def until_the_end(kernel: Kernel, machine: Watched, act: Callable[[], None]) -> Record:
    """Intervene again and again; the record in memory when the run is over."""
    until = time.monotonic() + SECONDS
    times = 0
    while not ended(kernel, machine):
        assert time.monotonic() < until, "it does not come to its end"
        time.sleep(random.uniform(0, PAUSE))
        act()
        times += 1
    assert times > 1, "it was over before anything was done to it"
    return memory_record(kernel, machine)


@pytest.mark.parametrize("name", ["token", "chain", "counter", "mutex"])
def test_stopped_and_continued(name: str, tmp_path: Path) -> None:
    kernel = kernel_of(name, "vga-text", 200_000)

    with watched(kernel, tmp_path, "-smp", "3") as machine:

        def act() -> None:
            machine.qmp.execute("stop", {}, SECONDS)
            time.sleep(random.uniform(0, PAUSE))
            machine.qmp.execute("cont", {}, SECONDS)

        assert_clean(kernel, until_the_end(kernel, machine, act), 200_000)


@pytest.mark.parametrize("name", ["token", "chain", "counter", "mutex"])
def test_saved_and_restored(name: str, tmp_path: Path) -> None:
    """A machine that is set back repeats what it did: its log does so, too, and its memory is right all the same."""
    kernel = kernel_of(name, "vga-text", 200_000)
    disk = tmp_path / "disk.qcow2"
    made = spawn(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1G"])
    made.wait(SECONDS)
    drive = ("-drive", f"file={disk},if=none,id=kgen,format=qcow2")
    with watched(kernel, tmp_path, "-smp", "3", *drive) as machine:
        turn = iter(("savevm", "savevm", "loadvm") * 4)

        def act() -> None:
            word = next(turn, None)
            if word:
                line = f"{word} kgen"
                said = machine.qmp.execute("human-monitor-command", {"command-line": line}, SECONDS)
                assert said == "", said

        assert_clean(kernel, until_the_end(kernel, machine, act), 200_000)


@pytest.mark.parametrize("name", ["token", "chain", "counter", "mutex"])
def test_moved_to_another_machine(name: str, tmp_path: Path) -> None:
    kernel = kernel_of(name, "vga-text", 200_000)
    state = tmp_path / "state"
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with watched(kernel, first, "-smp", "3") as machine:
        time.sleep(2)
        assert not ended(kernel, machine)
        machine.qmp.execute("migrate", {"uri": f"exec:cat > {state}"}, SECONDS)
        until = time.monotonic() + SECONDS
        while machine.qmp.execute("query-migrate", {}, SECONDS)["status"] != "completed":
            assert time.monotonic() < until
            time.sleep(0.1)
    with watched(kernel, second, "-smp", "3", "-incoming", f"exec:cat {state}") as machine:
        until = time.monotonic() + SECONDS
        while not ended(kernel, machine):
            assert time.monotonic() < until
            time.sleep(PAUSE)
        assert_clean(kernel, memory_record(kernel, machine), 200_000)
