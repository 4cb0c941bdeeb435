"""kgen watch without a machine: the pace, the small bars, one look into a results block, and the screen."""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from serving import serving

from kgen.build import build
from kgen.cli import main
from kgen.cli._watch_screen import Shown
from kgen.errors import GuestCrash, MachineError, ProtocolError, SpecError
from kgen.inspection.glance import Glance, look
from kgen.kernel.plan import layout_of, phases
from kgen.kernel.results_block import LAYOUT_VERSION, MAGIC, CpuState, KernelState, PhaseStatus, Role, ViolationKind
from kgen.machine.address import network_address
from kgen.machine.foreign import ask_control, must_be_an_address
from kgen.run.attach import _is_to_run
from kgen.spec import Case, KernelSpec
from kgen.watch.pacing import Cost, Pace, Pause
from kgen.watch.view import BARS, PLAIN, REMARK, Sample, View, increments, line, rates, screen, sparkline
from kgen.watch.watcher import Watched, _attached, _how_found, _leave, _left, _Machine, _Watch

SPEC = KernelSpec(Case("xchg"), rounds=10_000)
RESULTS = 0x100000

# --- pace

SHARES = st.floats(0.0001, 0.05)
TIMES = st.floats(0.0001, 30.0)


@given(SHARES, st.floats(0.1, 10.0), st.lists(TIMES, min_size=1, max_size=30))
def test_pauses_keep_to_their_share_however_uneven_they_are(share: float, apart: float, pauses: list[float]) -> None:
    pace = Pace(share, apart)
    begin, cost = 100.0, Cost(100.0, 100.0)
    for seconds in pauses:
        pause = Pause(begin, begin + seconds)
        cost = cost.after(pause)
        following = pace.next_look(pause)
        assert following - pause.begin >= apart * (1 - 1e-9)
        assert cost.at(following).share <= share * (1 + 1e-6)
        begin = following
    assert cost.looks == len(pauses)
    assert cost.longest == pytest.approx(max(pauses))
    assert cost.paused == pytest.approx(sum(pauses), rel=1e-6)


@given(SHARES, TIMES)
def test_the_next_look_comes_no_later_than_it_must(share: float, seconds: float) -> None:
    """Without a least distance the share is used up exactly: the bound is not kept by hardly looking at all."""
    pause = Pause(0.0, seconds)
    assert Cost(0.0, 0.0).after(pause).at(Pace(share, 0.0).next_look(pause)).share == pytest.approx(share)


def test_a_quick_stub_is_asked_at_the_least_distance() -> None:
    assert Pace(0.02, 0.5).next_look(Pause(10.0, 10.001)) == 10.5


# --- bars


@given(st.lists(st.floats(0, 1e12), max_size=300), st.integers(-1, 200), st.sampled_from([BARS, PLAIN]))
def test_bars_are_as_wide_as_asked_and_only_zero_is_lowest(values: list[float], width: int, bars: str) -> None:
    text = sparkline(values, width, bars)
    shown = values[len(values) - len(text) :]
    assert len(text) == min(len(values), max(0, width))
    assert [bar == bars[0] for bar in text] == [value == 0 for value in shown]
    pairs = sorted(zip(shown, text, strict=True))
    assert [bars.index(bar) for _, bar in pairs] == sorted(bars.index(bar) for bar in text)
    if any(shown):
        assert text[shown.index(max(shown))] == bars[-1]


# --- a look


CASE = len(phases(SPEC)) - 1
POWER = next(phase.index for phase in phases(SPEC) if phase.role is Role.POWER)


def block(spec: KernelSpec = SPEC, index: int = CASE, **changes: int) -> Any:
    """A results block in its ``index``-th phase, as the kernel writes it."""
    layout = layout_of(spec)
    made: Any = layout.results()
    made.magic, made.version, made.size, made.cpus_needed = MAGIC, LAYOUT_VERSION, layout.size, layout.cpus
    made.state, made.phase_index = KernelState.RUNNING, index
    phase = made.phase[index]
    phase.role, phase.status, phase.address, phase.rounds, phase.lost = Role.CASE, PhaseStatus.RUNNING, 0xB8000, 640, 7
    for number in range(layout.cpus):
        cpu = made.cpu[number]
        cpu.state, cpu.takes, cpu.started = CpuState.WORKING, 100 + number, 5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def memory(made: Any, reads: list[tuple[int, int]] | None = None) -> Any:
    data = bytes(made)

    def read(address: int, size: int) -> bytes:
        if reads is not None:
            reads.append((address, size))
        if RESULTS <= address < RESULTS + len(data):
            assert address + size <= RESULTS + len(data)
            return data[address - RESULTS : address - RESULTS + size]
        return bytes(range(256))[:size]

    return read


def seen_in(made: Any, spec: KernelSpec = SPEC) -> Glance:
    seen = look(memory(made), layout_of(spec), RESULTS, phases(spec))
    assert seen is not None
    return seen


def test_a_look_takes_few_and_short_reads() -> None:
    reads: list[tuple[int, int]] = []
    seen = look(memory(block(), reads), layout_of(SPEC), RESULTS, phases(SPEC))
    assert seen is not None
    assert (seen.state, seen.phase, seen.rounds, seen.total) == (KernelState.RUNNING, CASE, 640, 7)
    assert seen.violations[ViolationKind.LOST] == 7
    assert [(cpu.state, cpu.takes, cpu.batch) for cpu in seen.cpus] == [
        (CpuState.WORKING, 100 + n, 5) for n in range(3)
    ]
    assert seen.cells[0] == 0x03020100
    assert len(seen.cells) == 8
    assert len(reads) == 3
    assert sum(size for _, size in reads) < 2000
    assert not seen.final


def test_the_counters_of_a_phase_that_is_over_are_the_phases_own() -> None:
    made = block(state=KernelState.FINISHED)
    made.phase[CASE].status = PhaseStatus.DONE
    made.phase[CASE].cpu[1].takes = 4711
    seen = seen_in(made)
    assert seen.final
    assert seen.cpus[1].takes == 4711
    assert seen.cells == ()


def test_a_kernel_that_has_not_begun_is_no_error() -> None:
    assert look(lambda _address, size: bytes(size), layout_of(SPEC), RESULTS, phases(SPEC)) is None
    assert seen_in(block(index=0)).phase == 0
    made = block(index=0)
    made.phase[0].status = PhaseStatus.PENDING
    assert seen_in(made).phase == -1


def test_cells_whose_reading_is_not_known_to_be_harmless_are_not_read() -> None:
    spec = KernelSpec(Case("xchg", target="vga-graphics"), rounds=10)
    made = block(spec, index=len(phases(spec)) - 1)
    assert seen_in(made, spec).cells == ()


@pytest.mark.parametrize(
    "changes",
    [{"version": LAYOUT_VERSION + 1}, {"size": 4}, {"cpus_needed": 4}, {"phase_index": 99}, {"state": 77}],
)
def test_a_foreign_or_senseless_block_is_one_clear_line(changes: Mapping[str, int]) -> None:
    with pytest.raises(ProtocolError, match="results block"):
        seen_in(block(**changes))


@given(st.integers(0, 1 << 64))
def test_any_bytes_give_a_look_or_a_protocol_error(seed: int) -> None:
    random = Random(seed)
    made = layout_of(SPEC).results.from_buffer_copy(random.randbytes(layout_of(SPEC).size))
    made.magic, made.version, made.size, made.cpus_needed = MAGIC, LAYOUT_VERSION, layout_of(SPEC).size, 3
    made.phase_index = random.randrange(8)
    made.state = random.randrange(10)
    with suppress(ProtocolError):
        assert line(view(samples=(Sample(0.0, 0.001, seen_in(made)),)))


# --- the screen


def view(spec: KernelSpec = SPEC, looks: int = 5, **changes: Any) -> View:
    samples = []
    for number in range(looks):
        made = block(spec, index=len(phases(spec)) - 1)
        phase = made.phase[len(phases(spec)) - 1]
        phase.rounds, phase.lost = 1000 * number, number * number
        samples.append(Sample(number * 0.5, 0.002, seen_in(made, spec)))
    cost = Cost(0.0, 2.5, looks=looks, paused=0.002 * looks, longest=0.003)
    settings = {"spec": spec, "address": "127.0.0.1:1234", "budget": 0.02, "samples": tuple(samples), **changes}
    return View(**{"elapsed": 2.5, "cost": cost, **settings})


def test_the_end_is_a_line_of_its_own_only_where_something_new_was_seen() -> None:
    for looks, expected in ((4, ["2.00 s", "2.50 s"]), (5, ["2.00 s"])):
        console = Console(file=io.StringIO(), width=200)
        live = Shown(console, None, [])
        shown = view(looks=looks, elapsed=2.0)
        live.show(shown)
        live.end(
            replace(shown, samples=view().samples if looks == 4 else shown.samples, elapsed=2.5, ending="time is up")
        )
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert [text[:11].strip() for text in lines if " s  " in text] == expected
        assert lines[-2].startswith("time is up; ")
        assert lines[-1] == REMARK


def drawn(shown: View, width: int, **console: Any) -> str:
    file = io.StringIO()
    Console(
        file=file,
        width=width,
        force_terminal=True,
        highlight=False,
        _environ={**os.environ, "TERM": "xterm"},
        **console,
    ).print(screen(shown, width))
    return file.getvalue()


@pytest.mark.parametrize("width", range(40, 201, 7))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    shown = view(KernelSpec(Case("xchg", cpus=40), rounds=10_000), ending="time is up", left="the machine is gone")
    text = drawn(shown, width, color_system=None)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    heads = [row.split()[0] for row in lines if row[:1].strip()]
    for label in ("kernel", "stub", "phase", "rounds", "violations", "cells", "CPU", "cost"):
        assert label in heads


def test_what_is_on_the_screen() -> None:
    text = drawn(view(), 120, color_system=None)
    assert "4000 of 10000 rounds  2000/s" in text
    assert "16 (lost 16)" in text
    assert sparkline([1, 3, 5, 7], 4) in text
    assert "0.40 % of its time (allowed: 2 %), about 20 rounds" in text
    assert "5 looks of 2.0 ms, the longest 3.0 ms" in text
    assert "03020100 07060504" in text
    assert REMARK in text
    assert "ATOMIC" not in text


def test_violations_of_a_power_control_are_not_alarming() -> None:
    made = block(index=POWER)
    shown = view(samples=(Sample(0.0, 0.001, seen_in(made)),))
    assert "7 (lost 7)  as a power control must" in drawn(shown, 120, color_system=None)
    assert "as a power control must" not in drawn(view(), 120, color_system=None)


def test_what_a_terminal_echoes_comes_on_an_empty_line() -> None:
    """A full line would go on to the next one, and the screen be drawn again one line too low."""
    assert drawn(view(), 80, color_system=None).splitlines()[-1].strip() == ""
    text = drawn(view(ending="time is up", left="the machine is gone"), 80, color_system=None)
    assert text.splitlines()[-1].strip() == "time is up; the machine is gone"


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" in drawn(view(), 100, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in drawn(view(), 100)


def test_before_the_kernel_has_begun() -> None:
    shown = view(samples=())
    assert "the kernel has not begun" in drawn(shown, 80, color_system=None)
    assert "the kernel has not begun" in line(shown)


def test_a_line_holds_what_the_screen_does() -> None:
    text = line(view())
    assert "\n" not in text
    for part in ("2.50 s", "case:xchg.32@vga-text RUNNING", "2000/s", "violations 16", "3 working", "cost 0.40 %"):
        assert part in text


def test_a_single_look_has_no_share() -> None:
    shown = view(looks=1, ending="only one look was requested")
    assert "stood still for 2.0 ms" in line(shown)
    assert "%" not in line(shown)


def test_a_new_phase_counts_from_zero() -> None:
    first, second = seen_in(block(index=POWER)), seen_in(block(index=CASE))
    samples = (Sample(0.0, 0.001, first), Sample(1.0, 0.001, second))
    assert rates(samples) == ()
    assert increments(samples) == (7,)


def test_phases_that_take_turns_are_counted_from_their_own_last_look() -> None:
    """Looks find now one, now another of them."""
    samples = []
    for at, (index, rounds, lost) in enumerate([(2, 100, 4), (3, 50, 1), (2, 300, 10), (3, 50, 1), (3, 90, 1)]):
        made = block(index=index)
        made.phase[index].rounds, made.phase[index].lost = rounds, lost
        samples.append(Sample(float(at), 0.001, seen_in(made)))
    assert increments(samples) == (1, 6, 0, 0)
    assert rates(samples) == (100.0, 0.0, 40.0)
    assert "40/s" in line(view(samples=tuple(samples)))


# --- what it has cost in the end


class Steady:
    """A machine whose kernel is at work, behind a stub that reads a clock for each read of memory."""

    def __init__(self, *stopped: bool) -> None:
        self._stopped = list(stopped)
        self._read = memory(block())

    def read_memory(self, address: int, size: int) -> Any:
        """In that much time."""
        time.monotonic()
        return self._read(address, size)

    def go(self) -> None:
        """Nothing has to be done for it to run."""

    def interrupt(self) -> None:
        """Nor for it to stop."""

    def halted(self, timeout: float) -> bool:
        """Somebody else stops it where it is told so."""
        return bool(self._stopped and self._stopped.pop())


def watched(monkeypatch: pytest.MonkeyPatch, *, foreign: bool = False, **wanted: Any) -> View:
    """The last view of a watch, by a clock that goes on by 10 ms each time it is read."""
    times = itertools.count(100.0, 0.01)
    monkeypatch.setattr("kgen.watch.watcher.time.monotonic", lambda: next(times))
    stub: Any = Steady(foreign)
    kernel: Any = SimpleNamespace(symbols={"results": RESULTS}, build_id=bytes.fromhex(seen_in(block()).build_id))
    machine = _Machine(stub, 100.0, "found running", True)
    return _Watch(machine, kernel, SPEC, Watched("here", Pace(0.02, 0.1), **wanted)).run(lambda _: None, lambda: False)


@pytest.mark.parametrize("seconds", [0.5, 2.5])
def test_the_run_that_is_owed_at_the_end_is_had_by_a_machine_that_runs_on(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    last = watched(monkeypatch, seconds=seconds)
    assert last.ending == "time is up"
    assert last.cost.paused > 0.02 * last.elapsed
    assert 0.0198 < last.cost.share < 0.02 + 1e-9


def test_a_machine_that_is_left_stopped_pays_no_debt(monkeypatch: pytest.MonkeyPatch) -> None:
    last = watched(monkeypatch, foreign=True)
    assert last.ending == "another debugger stopped the machine"
    assert last.cost.share > 0.1


def test_a_machine_that_died_is_left_as_it_is_and_so_it_is_said() -> None:
    class Dead(Steady):
        def leave(self) -> None:
            raise GuestCrash("the guest shut down or triple-faulted", where="here")

    stub: Any = Dead()
    machine = _Machine(stub, 100.0, "found running", True)
    assert isinstance(_leave(machine, None), GuestCrash)
    assert _left(machine) == "the machine was left stopped (found running)"


class Monitored:
    """A stub of QEMU from 8.1 on, by what its monitor answers; it obeys each command, or only seems to."""

    announced = False

    def __init__(self, status: str, version: str = "11.1.3") -> None:
        self._answers = {"info status": f"VM status: {status}\r\n", "info version": f"{version}\r\n"}
        self.left = False

    def __enter__(self) -> Monitored:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def monitor(self, line: str) -> str:
        return self._answers[line]

    def leave(self) -> None:
        self.left = True


GUESS = "it is assumed to have been running: neither its stub nor a --qmp reports that"
DEAD = ", and only a reset could let it run"


@pytest.mark.parametrize(
    ("status", "version", "resume", "left"),
    [
        ("paused", "11.1.3", False, f"the machine was left running ({GUESS})"),
        ("paused", "7.2.22 (Debian)", False, "the machine was left stopped (found stopped)"),
        ("paused", "7.2.22 (Debian)", True, "the machine was left running (found stopped)"),
        ("paused (prelaunch)", "11.1.3", False, "the machine was left stopped (found stopped: prelaunch)"),
        ("paused (prelaunch)", "11.1.3", True, "the machine was left running (found stopped: prelaunch)"),
        *(
            (f"paused ({state})", version, resume, f"the machine was left stopped (found stopped: {state}{DEAD})")
            for state in ("internal-error", "shutdown")
            for version in ("7.2.22", "8.1.0", "11.1.3")
            for resume in (False, True)
        ),
    ],
)
def test_how_a_machine_is_left_by_the_words_of_each_release(
    monkeypatch: pytest.MonkeyPatch, status: str, version: str, resume: bool, left: str
) -> None:
    """QEMU confirms to let a machine run that only a reset could, and does nothing."""
    stub = Monitored(status, version)
    monkeypatch.setattr("kgen.watch.watcher.Stub", lambda *_, **__: stub)
    with _attached(Watched("here", Pace(0.02, 0.1), resume=resume)) as machine:
        assert machine.stub is stub  # type: ignore[comparison-overlap]
    assert _left(machine) == left
    assert stub.left == ("left running" in left)


def test_the_control_socket_knows_it_too() -> None:
    stub: Any = Monitored("paused")
    found = _how_found(stub, "internal-error")
    assert (found.words, found.ran, found.for_ever) == (f"found internal-error{DEAD}", False, True)
    assert not _is_to_run("resume", "internal-error")
    assert not _is_to_run("found", "paused")
    assert not _is_to_run("stop", "running")
    assert all(_is_to_run(after, "running") for after in ("found", "resume"))
    assert all(_is_to_run("resume", state) for state in ("", "paused", "prelaunch"))
    found = _how_found(stub, "running")
    assert (found.words, found.ran, found.for_ever) == ("found running", True, False)


# --- the control socket


@contextmanager
def control_socket(path: Path, answer: str, events: str = "") -> Iterator[None]:
    """One that answers query-status so, after ``events`` instead of an answer where there are some."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\n')
        while data := connection.recv(4096):
            asked = json.loads(data)
            said = answer if asked["execute"] == "query-status" else "{}"
            number = f', "id": "{asked["id"]}"' if "id" in asked else ""
            connection.sendall(f'{events}{{"return": {said}{number}}}\n'.encode())

    with serving(path, talk):
        yield


@pytest.mark.parametrize("answer", ["{}", "[1]", '"x"', "null", "1", '{"status": 7}', '{"status": "\\u001b[31mno"}'])
def test_a_control_socket_that_answers_in_another_shape_is_one_line(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "qmp"
    words = "does not name a state of a machine; check --qmp"
    with control_socket(path, answer), ExitStack() as stack, pytest.raises(MachineError, match=words) as failure:
        ask_control(stack, str(path))
    assert failure.value.where == str(path)


def test_a_control_socket_in_order(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with control_socket(path, '{"status": "running"}'), ExitStack() as stack:
        assert ask_control(stack, str(path))[1] == "running"


def test_a_failure_of_the_library_is_never_without_words(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    words = "Negotiation failed: what came is no answer that QEMU gives; check --qmp"
    answering = control_socket(path, "{}", '{"event": "RESET"}\n')
    with answering, ExitStack() as stack, pytest.raises(MachineError, match=words) as failure:
        ask_control(stack, str(path))
    assert failure.value.where == str(path)


# --- the command line


@pytest.mark.parametrize(
    "address",
    [
        "localhost:²",
        "..:1234",
        "a..b:1234",
        "a" * 70 + ":1234",
        "x\udcff:1234",
        "a\0b:1",
        "a\0b",
        ":1",
        "h:",
        "h:0",
        "h:65536",
        "h:" + "9" * 5000,
        "-x:1",
        "|x:1",
        "h: 1",
        "h:+1",
        "h:1\n",
        "",
        ":",
        "[]:1",
    ],
)
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(SpecError, match="is neither HOST:PORT nor a socket"):
        must_be_an_address(address)


@pytest.mark.parametrize("command", [["watch", "--once"], ["inspect"]])
def test_an_empty_control_socket_is_named(command: list[str], tmp_path: Path) -> None:
    """Else a machine that somebody holds would be taken for a running one, and let go."""
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(build(SPEC).elf.data)
    address = ["127.0.0.1:1", str(kernel)]
    words = [*command, *(address if command[0] == "watch" else address[::-1]), "--qmp", ""]
    done = CliRunner().invoke(main, words, prog_name="kgen")
    line = "kgen: error: qmp: names nothing; name QEMU's control socket, or leave it out\n"
    assert (done.exit_code, done.stderr) == (2, line)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("localhost:1234", ("localhost", 1234)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("::1:1234", ("::1", 1234)),
        ("fe80::1%eth0:7", ("fe80::1%eth0", 7)),
        ("bücher.example:1234", ("bücher.example", 1234)),
        ("a.example.:1234", ("a.example.", 1234)),
    ],
)
def test_what_is_an_address(address: str, found: tuple[str, int]) -> None:
    must_be_an_address(address)
    assert network_address(address) == found


@given(st.text())
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    with suppress(SpecError):
        must_be_an_address(f"{text}:1234")


@pytest.mark.parametrize("cost", ["0", "6%", "5.1", "nan", "-1", "two", "2%%", ""])
def test_a_cost_that_cannot_be_kept_is_a_usage_error(cost: str) -> None:
    done = CliRunner().invoke(main, ["watch", "localhost:1", __file__, "--cost", cost])
    assert done.exit_code == 2
    assert "is not a share from 0.01% to 5%" in done.output


def test_stub_and_elf_in_the_other_order() -> None:
    """That of kgen inspect."""
    done = CliRunner().invoke(main, ["watch", "kernel.elf", "localhost:1"])
    assert done.exit_code == 2
    assert "the stub comes first, then the ELF: kgen watch localhost:1 kernel.elf" in done.output
