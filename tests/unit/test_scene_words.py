"""The scene of a violation: where to stop for it, the order of what led there, its words, and what the verdict says."""

from __future__ import annotations

import ctypes
import functools
import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import iced_x86
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from recordings import load
from rich.console import Console

from kgen.build import Kernel, build
from kgen.cli import main
from kgen.errors import SpecError
from kgen.evidence.observation import Observation
from kgen.evidence.records import Witness
from kgen.evidence.scene import Scene, SceneCell, SceneCpu, SceneEvent, SceneLine
from kgen.inspection.operations import Memory
from kgen.inspection.scene import place_to_stop, words
from kgen.inspection.timeline import in_steps, timeline
from kgen.kernel.live import Live
from kgen.kernel.parameters import TOKEN_STEP, log_operations
from kgen.kernel.plan import Phase, layout_of, phases
from kgen.kernel.results_block import CpuState, KernelState, Operation, PhaseStatus, Role, Style, ViolationKind
from kgen.machine.platform import LaunchRequest
from kgen.machine.registers import CpuRegisters
from kgen.platforms import platform_named
from kgen.report.results import read
from kgen.report.results.model import run_of_case
from kgen.report.results.write import to_json
from kgen.report.text.case import experiment_told, show
from kgen.report.text.scene import cell_lines, cpu_lines, scene_lines
from kgen.run.options import Options, check_choices, request_of
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH, Case
from kgen.toolchain.decoder import disassemble
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

RUN = load("kvm-lost")
CASE = phases(RUN.spec)[-1]
CODE = (
    SceneLine(0x100000, "f4", "hlt", "kernel.s", 7, "hlt"),
    SceneLine(0x100001, "fa", "cli", "kernel.s", 8, "cli"),
    SceneLine(0x100002, "c3", "ret", "kernel.s", 9, "ret"),
)
CPU = SceneCpu(1, {"eax": 0x2A, "eip": 0x100001}, "parked: it has acknowledged batch 3", "doze+0x1", CODE)
CELL = SceneCell(0xB8004, 32, 0x9E3779B1, 0, 0xB8000, "0102030400000000ffffffff")


# --- where to stop


CASES = [Case("xchg"), Case("xchg", lock=False, target="ram"), Case("add", experiment="counter"), Case("or", cpus=24)]


@functools.cache
def kernel_of(case: Case) -> Kernel:
    return build(KernelSpec(case, rounds=100))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_place_is_behind_the_line_that_tells_a_witness(case: Case) -> None:
    kernel = kernel_of(case)
    lines = [line for line in kernel.assembly.lines if line.is_code]
    texts = kernel.assembly.source.text.split("\n")
    source = {line.run_address: texts[line.line - 1].strip() for line in lines}
    addresses = sorted(source)
    address, condition = place_to_stop(kernel)
    back, word, first = (
        int(number, 0) for number in re.findall(r"== (\w+) && \*\(unsigned int \*\)(\w+) >= (\w+)", condition)[0]
    )
    assert source[address] == "ret"
    assert kernel.elf.symbols["record"] < address < kernel.elf.symbols["put_sentence"]
    at = addresses.index(back)
    assert [source[each] for each in addresses[at - 2 : at + 3]] == [
        *("push format_witness", "call record"),
        *("add esp, 44", "pop edi", "ret 20"),
    ]
    assert word - kernel.elf.symbols["results"] == layout_of(kernel.spec).constants()["Results.phase_index"]
    roles = [phase.role for phase in phases(kernel.spec)]
    assert set(roles[first:]) <= {Role.PROOF, Role.CASE}
    assert not {Role.PROOF, Role.CASE} & set(roles[:first])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_cpu_works_in_the_page_of_the_place(case: Case) -> None:
    """QEMU's translator carries a page with a breakpoint out an instruction at a time: an exchange that is split by
    nothing otherwise would be split there."""
    kernel = kernel_of(case)
    page = place_to_stop(kernel)[0] >> 12
    for name in ("doze", "wake_crew", "crew_main", "wait_crew", "work_begin", "work_end"):
        assert kernel.elf.symbols[name] >> 12 > page


def test_a_kernel_without_the_place() -> None:
    kernel = kernel_of(CASES[0])
    text = kernel.assembly.source.text
    source = replace(kernel.assembly.source, text=text.replace("    push format_witness\n    call record", "\nret"))
    assert source.text != text
    with pytest.raises(LookupError, match="violation has 0 'call record'"):
        place_to_stop(replace(kernel, assembly=replace(kernel.assembly, source=source)))


def test_the_machine_waits_for_the_debugger() -> None:
    for name in ("qemu-tcg", "qemu-kvm"):
        request = replace(LaunchRequest(kernel=None, qemu="no-such-qemu"), paused=True)
        assert "-S" in platform_named(name).command(request)
        assert "-S" not in platform_named(name).command(replace(request, paused=False))


@pytest.mark.parametrize("name", ["bochs", "kvm-lab", "tcg-lab"])
def test_where_no_breakpoint_hits(name: str) -> None:
    request = request_of(KernelSpec(Case("xchg"), rounds=100), Options(stop_on_violation=True))
    with pytest.raises(SpecError, match=f"--stop-on-violation: no breakpoint hits on {name}"):
        check_choices(platform_named(name), request)


def test_a_suite_goes_on() -> None:
    spec = KernelSpec(Case("xchg"), more=(Case("xadd"),), suite="two", budget=9)
    with pytest.raises(SpecError, match="--stop-on-violation: it is for one case"):
        request_of(spec, Options(stop_on_violation=True))


@pytest.mark.skipif(sys.platform == "win32", reason="kgen runs machines on POSIX systems")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "smoke"), "--stop-on-violation is for one case"),
        (("--instr", "xchg", "--platform", "bochs"), "no breakpoint hits on bochs"),
        (("--instr", "xchg", "--platform", "kvm-lab"), "no breakpoint hits on kvm-lab"),
    ],
)
def test_what_cannot_be_stopped_is_refused(arguments: Sequence[str], said: str) -> None:
    result = CliRunner().invoke(main, ["verify", *arguments, "--stop-on-violation"], prog_name="kgen")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- the order of what led there


SIZES = ("chain_base", "chain_each", "chain_starts", "chain_total")
NAMES = ("tokens", "olds", "finals", "takes", "operations", *SIZES)
SYMBOLS = {name: 0x100000 * number for number, name in enumerate(NAMES, 1)}


class Words:
    """A machine whose memory is these words, by symbol and number; there are no others."""

    def __init__(self, words: Mapping[tuple[str, int], int]) -> None:
        self._words = {SYMBOLS[name] + 4 * at: value for (name, at), value in words.items()}

    def threads(self) -> tuple[CpuRegisters, ...]:
        raise AssertionError("no timeline needs registers")

    def read_memory(self, address: int, length: int) -> bytes:
        return b"".join(self._words[at].to_bytes(4, "little") for at in range(address, address + length, 4))


def block_of(batch: int) -> Any:
    """The results block, with all CPUs done with that batch."""
    block = RUN.layout.parse(RUN.block)
    block.handshake.batch, block.handshake.tickets = batch, 1
    for cpu in (0, 1, 2):
        block.cpu[cpu].ack = block.cpu[cpu].walks = block.cpu[cpu].started = batch
    return block


def history(kind: ViolationKind, takes: Mapping[int, int], phase: Phase = CASE) -> list[SceneEvent]:
    """The timeline of a witness of cell 2, without those before it. ``takes`` is what each consumer got."""
    words = {("tokens", 2): 0xA, ("olds", 2): 0, ("finals", 2): 0x99}
    words |= {("takes", MAX_BATCH * (cpu - 1) + 2): value for cpu, value in takes.items()}
    earlier = [Witness(n, 1, ViolationKind.LOST, n + 1, 0, 5, 0, 0, None, 100 + n) for n in range(3)]
    witness = Witness(3, phase.index, kind, 9, 2, 0xA, 0, 0, None, 500)
    found = timeline(Memory(Words(words), SYMBOLS), block_of(7), RUN.spec, phase, [*earlier, witness], witness)
    assert [event.kind for event in found[:3]] == ["witness"] * 3
    assert [event.tsc for event in found[:3]] == [100, 101, 102]
    assert [event.step for event in found] == sorted(event.step for event in found)
    assert (found[-1].kind, found[-1].tsc, found[-1].batch) == ("witness", 500, 7)
    return list(found[3:])


def steps(events: Sequence[SceneEvent]) -> list[tuple[int, str, int | None]]:
    first = events[0].step
    return [(event.step - first, event.kind, event.cpu) for event in events]


def test_a_lost_token() -> None:
    events = history(ViolationKind.LOST, {1: 0, 2: 0})
    assert steps(events) == [
        (0, "batch", 0),
        (1, "put", 0),
        (2, "empty", 1),
        (2, "parked", 1),
        (2, "empty", 2),
        (2, "parked", 2),
        (3, "read", 0),
        (4, "witness", 0),
    ]
    assert "no CPU has the token" in events[-2].text
    # the token was not there any more when that exchange began
    assert events[2].text == "CPU 1 finds the cell empty in its last exchange, begun after the token had been put"


def test_a_token_taken_twice() -> None:
    events = history(ViolationKind.DUPLICATE, {1: 0xA, 2: 0xA})
    assert [(event.cpu, event.value) for event in events if event.kind == "take"] == [(1, 0xA), (2, 0xA)]
    assert "read" not in [event.kind for event in events]


def test_a_take_of_something_else_may_have_come_before_the_put() -> None:
    events = history(ViolationKind.TORN, {1: 0xB, 2: 0xA})
    assert (1, "take", 1) in steps(events)
    assert (1, "put", 0) in steps(events)
    assert (2, "take", 2) in steps(events)


def test_where_there_are_no_tokens() -> None:
    events = history(ViolationKind.LOST, {}, replace(CASE, experiment="counter"))
    assert [kind for _, kind, _ in steps(events)] == ["batch", *["work", "parked"] * 3, "read", "witness"]
    assert events[-2].value == 0x99
    torn = history(ViolationKind.TORN, {}, replace(CASE, experiment="torn"))
    assert "read" not in [event.kind for event in torn]


#: Two CPUs, two operations each; the cell's first value is number 4.
BASE, EACH, STARTS, TOTAL = 10, 2, 4, 5
V = [(BASE + 1 + number) * TOKEN_STEP & 0xFFFFFFFF for number in range(TOTAL)]
#: By CPU: the tickets, what was got, the number of what was written. CPU 2's first exchange lies within CPU 1's.
SPLIT = {1: [(0, 3, V[4], 0), (4, 5, V[2], 1)], 2: [(1, 2, V[4], 2), (6, 7, V[1], 3)]}


def chain_history(
    witness: Witness, operations: Mapping[int, Sequence[tuple[int, int, int, int]]], *, tickets: bool = True
) -> list[SceneEvent]:
    phase = next(phase for phase in phases(RUN.spec) if phase.role is Role.PROOF)
    block = block_of(7)
    block.cpu[0].walks = 6
    block.handshake.tickets, block.handshake.style, block.handshake.cells = int(tickets), Style.RACE, 1
    block.handshake.task.token_mask = 0xFFFFFFFF
    words = {("finals", 0): V[3]} | dict(zip(((name, 0) for name in SIZES), (BASE, EACH, STARTS, TOTAL), strict=True))
    room, size = log_operations(RUN.spec), ctypes.sizeof(Operation) // 4
    for cpu, own in operations.items():
        at = room * size * cpu
        for begin, end, found, number in own:
            entry = (begin, end, found, 0, 1, max(number, 0), int(number >= 0))
            words |= {("operations", at + n): value for n, value in enumerate(entry)}
            at += size
        block.cpu[cpu].operation = SYMBOLS["operations"] + 4 * at
    told = replace(witness, phase=phase.index)
    return list(timeline(Memory(Words(words), SYMBOLS), block, RUN.spec, phase, [told], told))


def chain_witness(kind: ViolationKind, token: int, value: int) -> Witness:
    return Witness(0, 0, kind, 9, 0, token, value, 1, None, 500)


def test_a_value_of_a_chain_that_was_lost() -> None:
    """Who wrote it, and who got what its writer got: that one wrote over it. What overlaps shares a step."""
    events = chain_history(chain_witness(ViolationKind.LOST, V[0], V[3]), SPLIT)
    assert steps(events) == [
        (0, "batch", 0),
        (1, "put", 1),
        (1, "take", 2),
        (2, "parked", 1),
        (2, "parked", 2),
        (3, "read", 0),
        (4, "witness", 0),
    ]
    assert events[0].text == "CPU 0 opens batch 7 of 1 cell for 2 CPUs: a race, with tickets"
    assert events[1].text == f"CPU 1 exchanges {V[0]:08x} into cell 0 and gets {V[4]:08x} (tickets 0 and 3)"
    assert (events[1].value, events[2].value, events[-2].value) == (V[0], V[4], V[3])


def test_a_value_of_a_chain_that_was_got_twice() -> None:
    twice = {1: [(0, 1, V[4], 0), (4, 5, V[2], 1)], 2: [(2, 3, V[0], 2), (6, 7, V[2], 3)]}
    events = chain_history(chain_witness(ViolationKind.DUPLICATE, V[2], V[2]), twice)
    # the second to get it did so when CPU 1 may have been parked
    assert steps(events)[1:6] == [
        (1, "put", 2),
        (2, "take", 1),
        (3, "parked", 1),
        (3, "take", 2),
        (3, "parked", 2),
    ]


def test_without_tickets_the_order_is_each_cpus_own() -> None:
    events = chain_history(chain_witness(ViolationKind.DUPLICATE, V[4], V[4]), SPLIT, tickets=False)
    assert [step for step, kind, _ in steps(events) if kind in ("put", "take", "parked")] == [1] * 4
    assert "without tickets" in events[0].text
    assert not any("(tickets" in event.text for event in events)


def test_a_value_that_nothing_wrote_was_got_by_a_failed_attempt_too() -> None:
    torn = {1: [(0, 1, 0x1234, -1), (2, 3, V[4], 1)], 2: [(4, 5, V[1], 2)]}
    events = chain_history(chain_witness(ViolationKind.TORN, 0, 0x1234), torn)
    (got,) = [event for event in events if event.kind == "take"]
    assert got.text == "CPU 1 finds 00001234 in cell 0, in an attempt that fails (tickets 0 and 1)"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))))
def test_of_two_steps_one_had_ended_before_the_other_began(spans: list[tuple[int, int]]) -> None:
    found = in_steps(spans)
    for (_, end), step in zip(spans, found, strict=True):
        assert all(end < begin for (begin, _), other in zip(spans, found, strict=True) if other > step)
    assert set(found) == set(range(1, len(set(found)) + 1))


# --- words


def entry(**values: int) -> Any:
    made = RUN.layout.parse(RUN.block).cpu[1]
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("state", "values", "said"),
    [
        (CpuState.WAITING, {"go": 4, "ack": 4, "asleep": 0}, "parked: it has acknowledged batch 4"),
        (CpuState.WAITING, {"go": 4, "ack": 4, "asleep": 1}, "parked (asleep): it has acknowledged batch 4"),
        (CpuState.WAITING, {"go": 0, "ack": 0, "asleep": 0}, "parked"),
        (CpuState.WAITING, {"go": 5, "ack": 4, "cell": 0}, "at work on batch 5, 0 cells done"),
        (CpuState.WORKING, {"go": 5, "ack": 4, "cell": 17}, "at work on batch 5, 17 cells done"),
        (CpuState.SPARE, {}, "spare: it takes no part"),
        (CpuState.FAULTED, {}, "faulted: it was stopped by an exception"),
        (CpuState.HALTED, {}, "halted"),
    ],
)
def test_what_a_cpu_does(state: CpuState, values: Mapping[str, int], said: str) -> None:
    assert words(state, entry(**values)) == said


def test_a_cpu_in_text() -> None:
    text = list(cpu_lines(CPU))
    assert text[0] == "  CPU 1 parked: it has acknowledged batch 3; it is at doze+0x1"
    assert text[1:3] == ["    eax=0000002a", "    eip=00100001"]
    assert [line[4] for line in text[3:]] == [" ", ">", " "]
    assert text[4].split() == [">", "00100001", "fa", "cli", "kernel.s:8", "cli"]
    away = replace(CPU, cpu=None, routine="", code=(SceneLine(0xF0000, "90", "nop", "", 0, ""),))
    text = list(cpu_lines(away))
    assert text[0].endswith("it is outside the kernel")
    assert text[-1].endswith("not of the kernel")


def test_a_cell_in_text() -> None:
    assert list(cell_lines(CELL)) == [
        "  cell at 0xb8004, 32 bits: before 9e3779b1, after 00000000",
        "    000b8000  04030201 [00000000] ffffffff",
    ]
    alone = replace(CELL, before=None, after=None, around="", start=CELL.address)
    assert list(cell_lines(alone)) == ["  cell at 0xb8004, 32 bits: before not kept, after cannot be read"]
    odd = replace(CELL, start=0xB8002, around="0102030400000000")
    assert len(list(cell_lines(odd))) == 1


def scene(kind: ViolationKind = ViolationKind.LOST) -> tuple[Scene, Observation]:
    """A scene of the recorded run's case, and the run as if it had been stopped there, in its first batch."""
    seen = RUN.observed()
    assert seen.memory is not None
    witness = Witness(20, CASE.index, kind, 3, 2, 0xA, 0, 0, None, 500_000)
    counters = dict.fromkeys(("rounds", "lost", "duplicate", "torn", "stale", "left", "foreign", "events", "judged"), 0)
    last = replace(seen.memory.phases[-1], status=PhaseStatus.RUNNING, **counters)
    last = replace(last, witnesses={kind.name.lower(): 1}, **{kind.name.lower(): 1})
    kept = tuple(entry for entry in seen.memory.witnesses if entry.phase != CASE.index)
    record = replace(
        seen.memory,
        complete=False,
        gap="the kernel was still in state RUNNING",
        state=KernelState.RUNNING,
        phases=(*seen.memory.phases[:-1], last),
        witnesses=(*kept, witness),
    )
    found = Scene(witness, (CPU,), CELL, tuple(history(kind, {1: 0, 2: 0})))
    return found, replace(seen, memory=record, serial=None, rows=(), scene=found)


def test_the_timeline_in_text() -> None:
    found, _ = scene()
    text = list(scene_lines(found, 1000))
    at = next(number for number, line in enumerate(text) if line.startswith("how it came about"))
    *told, last, _ = text[at + 1 :]
    # what is deeper goes on with the line above
    marks = [line[16] for line in told if not line.startswith(" " * 20)]
    assert marks == [" ", " ", "*", "*", "*", "*", " ", " "]
    assert told[-1].split() == "0.000 ms CPU 0 records a witness: lost, round 9, cell 2".split()
    assert last == "  So an earlier exchange must have written its 0 over the token without having"
    before = tuple(SceneEvent(n, 0, "witness", 1, None, 0, 5, 250 * n, f"before {n}") for n in range(5))
    later = tuple(replace(event, step=event.step + 5) for event in found.timeline)
    text = list(scene_lines(replace(found, timeline=(*before, *later)), 1000))
    assert "3 earlier witnesses (--json)" in text[at + 1]
    assert text[at + 2].split() == ["0.250", "ms", "before", "3"]
    assert text[at + 3].endswith("before 4")
    assert " ms" not in "".join(scene_lines(found, 0)).replace("100 ms", "")


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_the_scene_fits_80_columns(width: int) -> None:
    """But for a source line that is longer by itself; and nothing is lost by it."""
    found, _ = scene()
    data, text = "c705a37c9c1100000000", "mov dword ptr [0x119c7c], 0"
    usual = SceneLine(0x100678, data, text, "kernel.s", 951, "mov dword ptr [log_crc], 0")
    long = replace(usual, source="mov " + "x" * 90)
    place = "has recorded the violation that token_judge found in batch 22"
    cpu = replace(CPU, cpu=0, place=place, routine="record+0x7d", code=(*CODE, usual, long))
    cell = replace(CELL, width=width, start=CELL.address - 32, around="00" * 96)
    lines = list(scene_lines(replace(found, cpus=(cpu,), cell=cell), 1000))
    assert [line.split() for line in lines if len(line) > 79] == [["kernel.s:951", "mov", "x" * 90]]
    text = " ".join(" ".join(lines).split())
    for part in (place, *(event.text for event in found.timeline), f"kernel.s:951 {usual.source}", usual.text):
        assert part in text
    assert sum(line.startswith(("    000b7f", "    000b80")) for line in lines) == 6


def test_what_wiped_a_token_out_is_said_of_lost_ones_only() -> None:
    found, _ = scene()
    twice = Scene(found.witness, (), CELL, tuple(history(ViolationKind.DUPLICATE, {1: 0xA, 2: 0xA})))
    walk = Scene(found.witness, (), CELL, tuple(history(ViolationKind.LOST, {}, replace(CASE, experiment="counter"))))
    other = Scene(found.witness, (), CELL, tuple(history(ViolationKind.LOST, {1: 0xB, 2: 0})))
    for each in (replace(twice, witness=replace(found.witness, kind=ViolationKind.DUPLICATE)), walk, other):
        assert "an earlier exchange must have" not in "".join(scene_lines(each, 1000))


def test_the_verdict_counts_up_to_the_violation() -> None:
    """The batch in which it was found has not been counted: N is what led up to it, and the evidence is stated."""
    found, seen = scene()
    verdict = judge(RUN.spec, seen)
    assert verdict.kind is VerdictKind.NOT_ATOMIC
    assert (verdict.rounds, verdict.violations["lost"], verdict.witnesses) == (3, 1, (found.witness,))
    assert verdict.reason.startswith("1 lost in 3 rounds of ")
    assert any("stopped at its first violation" in note for note in verdict.notes)
    # a debugger that finds the machine there counts the same
    without = judge(RUN.spec, replace(seen, scene=None))
    assert (without.reason, without.rounds) == (verdict.reason, 3)
    assert without.notes == tuple(n for n in verdict.notes if "first violation" not in n)
    # and where the batch has been counted, what was counted is N
    assert seen.memory is not None
    *others, last = seen.memory.phases
    later = replace(seen.memory, phases=(*others, replace(last, rounds=9)))
    assert judge(RUN.spec, replace(seen, scene=None, memory=later)).rounds == 9


def test_a_violation_of_the_proof_counts_and_is_described_as_one() -> None:
    """Where the machine was stopped in the chain that the verdict rests on as well, the case has not begun."""
    _, seen = scene()
    assert seen.memory is not None
    proof = next(phase for phase in phases(RUN.spec) if phase.role is Role.PROOF)
    witness = Witness(20, proof.index, ViolationKind.DUPLICATE, 17, 0, 0xA, 0xA, 1, 2, 500_000)
    counters = dict.fromkeys(("rounds", "lost", "torn", "stale", "left", "foreign", "events", "judged"), 0)
    own = next(phase for phase in seen.memory.phases if phase.index == proof.index)
    counts = tuple(replace(count, puts=8) for count in own.counts)
    own = replace(own, status=PhaseStatus.RUNNING, duplicate=1, counts=counts, live=(Live(), Live()), **counters)
    own = replace(own, witnesses={"duplicate": 1})
    before = tuple(phase for phase in seen.memory.phases if phase.index < proof.index)
    kept = tuple(entry for entry in seen.memory.witnesses if entry.phase < proof.index)
    memory = replace(
        seen.memory,
        phases=(*before, own),
        witnesses=(*kept, replace(witness, index=len(kept))),
        phase=proof.index,
        phase_index=None,
        handshake=None,
    )
    seen = replace(seen, memory=memory, scene=None, paths={}, cells=())
    verdict = judge(RUN.spec, seen)
    assert verdict.reason == "1 duplicate in 24 operations of xchg.32 on vga-text (chain)"
    assert experiment_told(RUN.spec, verdict.witnesses, CASE) == "chain"
    shown = io.StringIO()
    show(Console(file=shown, width=60), RUN.spec, seen, verdict)
    words = "  duplicate about operation 17, cell 0, value 0000000a (CPU 1 and CPU 2): the value was got twice"
    assert words in shown.getvalue().split("\n")
    assert experiment_told(RUN.spec, (), CASE) == "token"
    assert experiment_told(RUN.spec, (replace(witness, phase=99),), CASE) == "token"


def test_a_document_keeps_it_and_the_report_tells_it() -> None:
    found, seen = scene()
    text = to_json([run_of_case(RUN.spec, seen, judge(RUN.spec, seen))])
    ((result,),) = [run.results for run in read.load(text.encode(), "x.json")]
    assert result.observation == seen
    shown = io.StringIO()
    show(Console(file=shown, width=60), RUN.spec, result.observation, result.verdict)
    assert "\n".join(scene_lines(found, RUN.observed().memory.khz)) in shown.getvalue()  # type: ignore[union-attr]


# --- the decoder


@pytest.mark.parametrize(
    ("data", "size", "text"),
    [
        ("87079090", 2, "xchg dword ptr [edi], eax"),
        ("f0ff4704", 4, "lock inc dword ptr [edi + 4]"),
        ("f4", 1, "hlt"),
        ("0f", 0, ""),
        ("", 0, ""),
    ],
)
def test_one_instruction(data: str, size: int, text: str) -> None:
    assert disassemble(bytes.fromhex(data), 0x100000) == (size, text)
    if size:
        assert iced_x86.Decoder(32, bytes.fromhex(data), ip=0x100000).decode().len == size
