"""The kernel boots by every path and reports by every channel: its table, its record, its results block."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _kernel import END, built, check_table, console, memory_of, needs, run, spec_of, without_serial

from kgen.build import Kernel, write
from kgen.evidence.from_memory import from_memory
from kgen.experiments import Poll
from kgen.kernel.plan import layout_of
from kgen.kernel.protocol import parse_log
from kgen.kernel.results_block import BootPath, CpuState, Decode, KernelState, PhaseStatus
from kgen.machine.gdb import GdbSession
from kgen.machine.platform import LaunchRequest
from kgen.machine.qemu import Machine, launch
from kgen.spec.case import resolve_target
from kgen.verdict.model import VerdictKind

ROUNDS = 60
#: The magic number of the Multiboot header, as it lies in the file.
MULTIBOOT = bytes.fromhex("02b0ad1b")
BIOS = {"seabios": (), "qboot": ("-bios", "qboot.rom")}


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """XCHG on VGA text memory, without controls."""
    return built(spec_of(target="vga-text", rounds=ROUNDS))


@pytest.fixture(scope="module")
def elf(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its ELF file."""
    path = tmp_path_factory.mktemp("kernel") / "kernel.elf"
    path.write_bytes(kernel.elf.data)
    return path


@pytest.mark.parametrize("bios", BIOS.values(), ids=BIOS)
def test_boots_by_multiboot(elf: Path, bios: tuple[str, ...]) -> None:
    with console("-kernel", elf, "-serial", "stdio", "-smp", "4", *bios) as qemu:
        log, record = qemu.record()
    rows = check_table(qemu.heard, last=ROUNDS)
    assert tuple(rows) == log.rows
    assert record.boot_path is BootPath.MULTIBOOT
    assert (record.state, record.cpus_found) == (KernelState.FINISHED, 4)
    assert (record.phases[-1].status, record.phases[-1].rounds) == (PhaseStatus.DONE, ROUNDS)
    # qboot leaves the adapter in reset, where nothing is stored at 0xb8000: the kernel has programmed it itself
    assert record.phases[-1].decode is Decode.IO


@pytest.mark.parametrize("bios", BIOS.values(), ids=BIOS)
def test_boots_by_pvh(kernel: Kernel, tmp_path: Path, bios: tuple[str, ...]) -> None:
    data = kernel.elf.data
    assert data[:8192].count(MULTIBOOT) == 1
    path = tmp_path / "pvh.elf"
    path.write_bytes(data.replace(MULTIBOOT, bytes(4), 1))
    with console("-kernel", path, "-serial", "stdio", "-smp", "3", *bios) as qemu:
        _, record = qemu.record()
    check_table(qemu.heard, last=ROUNDS)
    assert record.boot_path is BootPath.PVH
    assert record.phases[-1].rounds == ROUNDS


@pytest.mark.parametrize("bios", BIOS.values(), ids=BIOS)
def test_a_64_bit_file_boots_by_pvh(kernel: Kernel, tmp_path: Path, bios: tuple[str, ...]) -> None:
    write(kernel, tmp_path, ("pvh64",))
    words = ("-kernel", tmp_path / "kernel.pvh64", "-serial", "stdio", "-smp", "3", *bios)
    # the other one loads 32-bit files only
    with console(*words, binary="qemu-system-x86_64") as qemu:
        _, record = qemu.record()
    check_table(qemu.heard, last=ROUNDS)
    assert record.boot_path is BootPath.PVH
    assert record.phases[-1].rounds == ROUNDS
    assert kernel.elf.build_id.hex().encode() in qemu.heard


def test_boots_from_disk(kernel: Kernel, tmp_path: Path) -> None:
    write(kernel, tmp_path)
    drive = f"file={tmp_path / 'kernel.img'},format=raw"
    with console("-serial", "stdio", "-drive", drive, "-m", "256M", "-smp", "4") as qemu:
        _, record = qemu.record()
    check_table(qemu.heard, last=ROUNDS)
    assert record.boot_path is BootPath.DISK
    assert record.cpus_found == 4


def test_runs_without_vga_decoding_from_qboot(kernel: Kernel) -> None:
    seen, verdict = run(kernel)
    record = memory_of(seen)
    assert "qboot.rom" in seen.environment["command"]
    assert seen.path.kind == "io"
    assert record.phases[-1].decode is Decode.IO
    assert verdict.kind is VerdictKind.INCONCLUSIVE  # no controls
    assert verdict.violations == {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0}


def test_spare_cpu_is_parked() -> None:
    seen, _ = run(built(spec_of()), "qemu-tcg", "-smp", "4")
    record = memory_of(seen)
    assert record.cpus_found == 4
    assert [cpu.state for cpu in record.cpus] == [*[CpuState.HALTED] * 3, CpuState.SPARE]
    assert len({cpu.apic_id for cpu in record.cpus}) == 4


def test_speaks_on_com2(tmp_path: Path) -> None:
    path, com1 = tmp_path / "kernel.elf", tmp_path / "com1"
    path.write_bytes(built(spec_of(serial_port=0x2F8)).elf.data)
    with console("-kernel", path, "-serial", f"file:{com1}", "-serial", "stdio", "-smp", "3") as qemu:
        qemu.record()
    check_table(qemu.heard, last=60)
    assert com1.read_bytes() == b""


def test_sets_the_speed(tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(built(spec_of(baud=9600)).elf.data)
    trace = ("-trace", "serial_update_parameters")
    with console("-kernel", path, "-serial", "stdio", "-smp", "3", *trace) as qemu:
        qemu.record()
        lines = [line for line in qemu.child.stderr_lines() if "serial_update_parameters" in line]
    if not lines:
        pytest.skip("this QEMU was built without trace output")
    assert lines[-1].endswith("baudrate=9600 parity='N' data=8 stop=1"), lines


def test_no_serial_port() -> None:
    """Then the debugger's channel is all there is, and it is whole."""
    seen, verdict = run(built(spec_of()), without_serial(needs("qemu-tcg"), boot_seconds=4))
    assert seen.log == ""
    assert seen.serial is None
    assert seen.memory is not None
    assert seen.memory.state is KernelState.FINISHED
    case = seen.memory.phases[-1]
    assert (case.status, case.rounds, case.total) == (PhaseStatus.DONE, ROUNDS, 0)
    assert sum(count.takes for count in case.counts) == ROUNDS
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert "serial" in verdict.reason


@pytest.mark.parametrize("path", ["multiboot", "pvh"])
def test_debug_exit_where_the_command_line_says_so(kernel: Kernel, tmp_path: Path, path: str) -> None:
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(kernel.elf.data.replace(MULTIBOOT, bytes(4), 1) if path == "pvh" else kernel.elf.data)
    device = ("-device", "isa-debug-exit,iobase=0x501,iosize=4")
    with console(
        "-kernel", elf, "-serial", "stdio", "-smp", "3", *device, "-append", "quiet isa-debug-exit=0x501 more"
    ) as qemu:
        qemu.record()
        assert qemu.child.wait(30) == KernelState.FINISHED << 1 | 1


@pytest.mark.parametrize("append", ["", "isa-debug-exit isa-debug-exit=501 debug-exit=0x501"])
def test_no_debug_exit_unasked(elf: Path, append: str) -> None:
    device = ("-device", "isa-debug-exit,iobase=0x501,iosize=4", "-device", "isa-debug-exit,iobase=0xf4,iosize=4")
    with console("-kernel", elf, "-serial", "stdio", "-smp", "3", *device, "-append", append) as qemu:
        qemu.record()
        # it would have gone down within moments of the closing line
        assert qemu.child.wait(1) is None


@pytest.fixture
def endless(tmp_path: Path) -> tuple[Kernel, LaunchRequest]:
    """A run without end."""
    kernel = built(spec_of(rounds=0))
    path = tmp_path / "kernel.elf"
    path.write_bytes(kernel.elf.data)
    return kernel, LaunchRequest(kernel=path)


def listen(machine: Machine, until: Callable[[bytes], object], heard: bytes = b"") -> bytes:
    """Read the serial port until it satisfies ``until``, at most a minute."""
    end = time.monotonic() + 60
    while not until(heard):
        assert time.monotonic() < end, heard
        heard += machine.read_serial(1)
    return heard


def twenty_rows(log: bytes) -> bool:
    return log.count(b"counts:\t") > 20


def test_a_byte_stops_an_endless_run(endless: tuple[Kernel, LaunchRequest]) -> None:
    _, request = endless
    with launch(needs("qemu-tcg"), request) as machine:
        heard = listen(machine, twenty_rows)
        machine.send_serial(b"s")
        heard = listen(machine, END.search, heard)
    check_stopped(heard)


def test_the_stop_word_stops_an_endless_run(endless: tuple[Kernel, LaunchRequest]) -> None:
    kernel, request = endless
    layout = layout_of(kernel.spec)
    results = kernel.elf.symbols["results"]
    with launch(needs("qemu-tcg"), request) as machine, GdbSession.start() as gdb:
        heard = listen(machine, twenty_rows)
        gdb.connect(machine.gdb_address)
        gdb.write_u32(results + layout.results.stop.offset, 1)
        gdb.resume()
        heard = listen(machine, END.search, heard)
        gdb.interrupt()
        record = from_memory(layout, gdb.read_memory(results, layout.size))
    rounds = check_stopped(heard)
    assert (record.state, record.phases[-1].rounds) == (KernelState.STOPPED, rounds)


def check_stopped(heard: bytes) -> int:
    """The final record is whole, and agrees with the table; the rounds."""
    log = parse_log(heard)
    assert log.intact, log.fault
    result = next(line for line in log.lines if line.kind == "result")
    assert result.number("status") == PhaseStatus.STOPPED
    assert log.lines[-1].number("state") == KernelState.STOPPED
    check_table(heard, last=result.number("rounds"))
    return result.number("rounds")


@pytest.mark.parametrize(
    ("every", "rounds", "expected"),
    [(7, 50, [7, 14, 21, 28, 35, 42, 49, 50]), (1, 30, list(range(1, 31))), (1000, 40, [40]), (20, 40, [20, 40])],
    ids=str,
)
def test_print_every(every: int, rounds: int, expected: list[int]) -> None:
    seen, _ = run(built(spec_of(rounds=rounds, print_every=every)))
    memory_of(seen)
    rows = check_table(seen.log.encode("latin-1"), first=expected, last=rounds)
    assert [row[0] for row in rows] == expected
    assert tuple(rows) == seen.rows


def test_only_the_case_prints_the_table() -> None:
    seen, _ = run(built(spec_of(target="vga-text", rounds=40, controls=True)))
    assert len(memory_of(seen).phases) == 6
    check_table(seen.log.encode("latin-1"), last=40)
    last_phase = seen.log.rindex(" phase index=5 label=case:")
    assert last_phase < seen.log.index("counts:")


def test_one_cell() -> None:
    kernel = built(spec_of(target="vga-text", batch=1, rounds=80))
    seen, _ = run(kernel)
    record = memory_of(seen)
    assert seen.cells == (0,)
    case = record.phases[-1]
    assert (case.rounds, case.total, sum(count.puts for count in case.counts)) == (80, 0, 80)


@pytest.mark.parametrize("poll", [Poll.EXCHANGE, Poll.READ])
def test_poll(poll: Poll) -> None:
    seen, _ = run(built(spec_of(target="vga-text", poll=poll, rounds=200)))
    case = memory_of(seen).phases[-1]
    consumers = case.counts[1:]
    assert (case.rounds, case.total) == (200, 0)
    assert sum(count.takes for count in consumers) == 200
    # One exchange a cell settles it in either way of waiting, and who reads first makes at most two: one after
    # seeing the token, too late, and one after the put. Who exchanges while waiting makes many more.
    assert all(count.tries >= 200 for count in consumers)
    if poll is Poll.READ:
        assert all(count.tries <= 400 for count in consumers)
    else:
        assert sum(count.tries for count in consumers) > 800


@pytest.mark.parametrize("cpus", [4, 5, 8])
def test_more_consumers(cpus: int) -> None:
    seen, _ = run(built(spec_of(target="vga-text", cpus=cpus, rounds=40)))
    record = memory_of(seen)
    assert record.cpus_found == cpus
    case = record.phases[-1]
    assert (len(case.counts), case.rounds, case.total) == (cpus, 40, 0)
    check_table(seen.log.encode("latin-1"), last=40)


def test_a_raw_address() -> None:
    spec = spec_of(target="0xb8000", rounds=40, controls=True)
    assert resolve_target("0xb8000").size == 4
    seen, verdict = run(built(spec))
    record = memory_of(seen)
    assert seen.path.kind == "io"
    case = record.phases[-1]
    assert (case.rounds, case.total, len(seen.cells)) == (40, 0, 1)
    assert verdict.kind in (VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE)  # so short a control may stay silent
