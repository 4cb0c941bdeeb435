"""Whether a results block fits the plan: real blocks, one field of each changed."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Recording, load, moved, signed

from kgen.build import build
from kgen.evidence.observation import Observation
from kgen.evidence.records import Handshake
from kgen.kernel.plan import phases
from kgen.kernel.render import tasks
from kgen.kernel.results_block import CpuState, KernelState, PhaseStatus, ViolationKind
from kgen.offline.runs import Named, from_dump, verdicts
from kgen.report.results import read
from kgen.report.results.model import run_of_one_boot
from kgen.report.results.write import to_json
from kgen.toolchain.elf_reader import LoadedElf
from kgen.toolchain.elf_reader import read as read_elf
from kgen.toolchain.linker import flat_image
from kgen.verdict.consistency import symbols_of
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

Change = Callable[[Any], None]
NAMES = ("tcg-atomic", "kvm-lost", "kvm-suite", "tcg-suite", "tcg-vga-none")
#: The last phase of one case: the case itself.
CASE = 5
FIELDS = tuple(item.name for item in fields(Handshake))


@functools.cache
def kernel_of(name: str) -> LoadedElf:
    return read_elf(build(load(name).spec).elf.data, name="kernel.elf")


@functools.cache
def kept(name: str) -> tuple[bytes, bytes, Mapping[str, int]]:
    """A recorded run as today's build of its kernel would have left it: block, log, and the symbols it is held to."""
    run = load(name)
    block, lines = moved(run, build(run.spec))
    return block, signed(lines), symbols_of(run.spec, kernel_of(name).symbols)


def seen(name: str, change: Change = lambda block: None, log: Callable[[bytes], bytes] = bytes) -> Observation:
    run: Recording = load(name)
    data, text, symbols = kept(name)
    block: Any = run.layout.parse(data)
    change(block)
    return replace(run.observed(log=log(text), block=bytes(block)), symbols=symbols)


def verdicts_on(name: str, observation: Observation) -> list[Verdict]:
    spec = load(name).spec
    return [judge(spec, observation, number) for number in range(len(spec.cases))]


def put(name: str, value: int) -> Change:
    """Put a value into the handshake."""

    def change(block: Any) -> None:
        setattr(block.handshake if name in ("address", "cells") else block.handshake.task, name, value)

    return change


@pytest.mark.parametrize("name", NAMES)
def test_what_was_left_alone_is_judged_as_before(name: str) -> None:
    without = verdicts_on(name, load(name).observed())
    assert verdicts_on(name, seen(name)) == without
    assert all(verdict.kind is not VerdictKind.ERROR for verdict in without)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", ["tcg-atomic", "kvm-suite"])
def test_every_field_of_the_handshake_is_compared_with_the_plan(name: str, field: str) -> None:
    """The value is one that the field had in another phase or kernel."""
    value = {"address": kernel_of(name).symbols["ram_cells"], "cells": 0}.get(field, 0x1234)
    last = verdicts_on(name, seen(name, put(field, value)))[-1]
    assert last.kind is VerdictKind.ERROR
    assert f"the handshake's {field} " in last.reason.replace("cells are", "cells is")


@settings(max_examples=draws(60), deadline=None)
@given(field=st.sampled_from(FIELDS), value=st.integers(0, 0xFFFFFFFF))
def test_a_field_of_any_value_is_an_error_or_the_planned_one(field: str, value: int) -> None:
    good = seen("tcg-atomic").memory
    assert good is not None
    fits = 1 <= value <= 128 if field == "cells" else value == getattr(good.handshake, field)
    (verdict,) = verdicts_on("tcg-atomic", seen("tcg-atomic", put(field, value)))
    assert (verdict.kind is VerdictKind.ERROR) is not fits


@pytest.mark.parametrize("field", FIELDS)
def test_without_an_elf_addresses_of_routines_are_not_compared(field: str) -> None:
    observation = replace(seen("kvm-suite", put(field, 0x1234)), symbols={})
    last = verdicts_on("kvm-suite", observation)[-1]
    routines = {"work", "visit", "put", "take", "load", "store", "data"}
    assert (last.kind is VerdictKind.ERROR) is (field not in routines)


def test_a_routine_that_the_kernel_does_not_have_is_named() -> None:
    observation = seen("tcg-atomic")
    symbols = {name: value for name, value in observation.symbols.items() if not name.startswith("exchange")}
    (verdict,) = verdicts_on("tcg-atomic", replace(observation, symbols=symbols))
    assert verdict.kind is VerdictKind.ERROR
    assert "exchange_xchg_32 in no place of the kernel" in verdict.reason


def test_the_handshake_is_that_of_the_phase_that_the_block_names() -> None:
    def other(block: Any) -> None:
        block.phase_index = 1

    (verdict,) = verdicts_on("tcg-atomic", seen("tcg-atomic", other))
    assert verdict.kind is VerdictKind.ERROR
    assert "phase_index is 1 at the end" in verdict.reason


def test_a_phase_index_out_of_range_is_named() -> None:
    def other(block: Any) -> None:
        block.phase_index = 77

    (verdict,) = verdicts_on("tcg-atomic", seen("tcg-atomic", other))
    assert "phase_index is 77, and no such phase was begun" in verdict.reason


@pytest.mark.parametrize("index", [0, 1, 2, 3, 4])
def test_cells_in_ram_lie_at_their_symbol(index: int) -> None:
    """Both channels say that the sanity controls ran elsewhere in the kernel's memory; power and proof are at VGA."""
    old = kept("tcg-atomic")[2]["ram_cells"] if index < 2 else 0xB8000
    new = old + 0x10000

    def elsewhere(block: Any) -> None:
        block.phase[index].address = new

    def lines(log: bytes) -> bytes:
        text = log.decode("latin-1").replace("\r", "").split("\n")[:-1]
        marked = f"phase index={index} "
        return signed([line.replace(f"{old:08x}", f"{new:08x}") if marked in line else line for line in text])

    (verdict,) = verdicts_on("tcg-atomic", seen("tcg-atomic", elsewhere, lines))
    assert verdict.kind is VerdictKind.ERROR
    assert f"phase {index} ran at {new:#x}, planned was {old:#x}" in verdict.reason


# --- a machine that was stopped while it ran -----------------------------------------------------------------------


def running(block: Any, *, rounds: int, under_way: bool) -> None:
    """The case is still at it."""
    block.state, block.phase[CASE].status, block.phase[CASE].rounds = KernelState.RUNNING, PhaseStatus.RUNNING, rounds
    block.cpu[1].state = CpuState.WORKING
    block.cpu[1].started += under_way


@pytest.mark.parametrize(("rounds", "under_way", "told"), [(84, True, True), (84, False, False), (0, True, False)])
def test_of_a_guest_that_runs_only_a_later_batch_under_way_tells(rounds: int, under_way: bool, told: bool) -> None:
    """Between batches, and before the first one, the guest may be writing the handshake."""

    def change(block: Any) -> None:
        running(block, rounds=rounds, under_way=under_way)
        block.handshake.address = kept("tcg-atomic")[2]["ram_cells"]

    (verdict,) = verdicts_on("tcg-atomic", replace(seen("tcg-atomic", change), serial=None))
    assert ("the handshake's address" in verdict.reason) is told


def test_a_phase_that_runs_may_have_counted_the_witness_that_it_enters() -> None:
    def change(block: Any, more: int) -> None:
        running(block, rounds=84, under_way=True)
        block.phase[CASE].witnesses[ViolationKind.TORN] += more

    for more, error in ((0, False), (1, False), (2, True)):
        observation = replace(seen("kvm-lost", functools.partial(change, more=more)), serial=None)
        (verdict,) = verdicts_on("kvm-lost", observation)
        assert ("counts 2 witnesses of kind torn, and 0 are recorded" in verdict.reason) is error


# --- witnesses and faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(ViolationKind))
@pytest.mark.parametrize("index", range(CASE + 1))
@pytest.mark.parametrize("step", [-1, 1])
def test_every_phases_count_of_witnesses_is_compared(kind: ViolationKind, index: int, step: int) -> None:
    def change(block: Any) -> None:
        block.phase[index].witnesses[kind] += step

    (verdict,) = verdicts_on("kvm-lost", seen("kvm-lost", change))
    assert verdict.kind is VerdictKind.ERROR
    assert f"phase {index} counts " in verdict.reason
    assert f"witnesses of kind {kind.name.lower()}" in verdict.reason


@pytest.mark.parametrize("index", range(CASE + 1))
def test_a_fault_that_only_memory_has(index: int) -> None:
    def change(block: Any) -> None:
        block.phase[index].fault.vector_plus_1 = 7

    (verdict,) = verdicts_on("tcg-atomic", seen("tcg-atomic", change))
    assert verdict.kind is VerdictKind.ERROR
    assert "memory has faults of phases that serial does not" in verdict.reason
    (verdict,) = verdicts_on("tcg-atomic", replace(seen("tcg-atomic", change), serial=None))
    assert verdict.kind is VerdictKind.ERROR
    assert f"phase {index} has the status DONE, and a fault of CPU 0" in verdict.reason


def faulted(log: bytes, *, cpu: int, line: bool) -> bytes:
    """The log of a case that an exception ended: its status, and its line."""
    text = log.decode("latin-1").replace("\r", "").split("\n")[:-1]
    told = f"kgen:0 fault cpu={cpu} vector=6 error=00000000 eip=00100000 eflags=00000002 cr2=00000000 phase={CASE}"
    made = []
    for each in text:
        if f" result phase={CASE} " in each:
            made += [f"{told} crc=00000000"] if line else []
            each = each.replace(f"status={PhaseStatus.DONE.value} ", f"status={PhaseStatus.FAULTED.value} ")
        made.append(each)
    return signed(made)


@pytest.mark.parametrize(
    ("vector", "told", "cpu", "line", "reason"),
    [
        (7, 1, 1, True, ""),
        (0, 1, 1, True, "serial has faults that memory does not"),
        (7, 2, 1, True, "serial has faults that memory does not"),
        (7, 1, 1, False, "memory has faults of phases that serial does not"),
        (0, 0, 1, False, "phase 5 says that an exception ended it, and there is no fault"),
    ],
)
def test_the_fault_of_a_phase_stands_in_both_channels(
    vector: int, told: int, cpu: int, line: bool, reason: str
) -> None:
    def change(block: Any) -> None:
        phase = block.phase[CASE]
        phase.status, phase.fault_cpu = PhaseStatus.FAULTED, told
        phase.fault.vector_plus_1 = vector
        phase.fault.eip, phase.fault.eflags = 0x100000, 2
        block.records += line

    observation = seen("tcg-atomic", change, functools.partial(faulted, cpu=cpu, line=line))
    (verdict,) = verdicts_on("tcg-atomic", observation)
    assert verdict.kind is (VerdictKind.ERROR if reason else VerdictKind.UNSUPPORTED), verdict.reason
    assert reason in verdict.reason


# --- results that were written, and dumps --------------------------------------------------------------------------


def written(name: str, observation: Observation) -> dict[str, Any]:
    spec = load(name).spec
    document: dict[str, Any] = json.loads(
        to_json([run_of_one_boot(spec, observation, tuple(verdicts_on(name, observation)))])
    )
    return document


def test_what_is_compared_is_written_and_read_again() -> None:
    observation = seen("tcg-atomic", put("address", kept("tcg-atomic")[2]["ram_cells"]))
    (run,) = read.load(json.dumps(written("tcg-atomic", observation)).encode(), "result.json")
    again = run.results[0].observation
    assert again.memory == observation.memory
    assert again.symbols == observation.symbols
    assert run.kind is VerdictKind.ERROR


def test_an_older_result_has_nothing_to_compare() -> None:
    document = written("tcg-atomic", seen("tcg-atomic"))
    del document["observation"]["symbols"]
    for channel in ("serial", "memory"):
        record = document["observation"][channel]
        del record["handshake"], record["phase_index"]
        for phase in record["phases"]:
            del phase["witnesses"]
    (run,) = read.load(json.dumps(document).encode(), "result.json")
    memory = run.results[0].observation.memory
    assert memory is not None
    assert (memory.handshake, memory.phase_index, memory.phases[0].witnesses) == (None, None, None)
    assert run.kind is VerdictKind.ATOMIC


def test_a_dump_is_compared_with_the_elf_that_was_named() -> None:
    run, kernel = load("tcg-atomic"), build(load("tcg-atomic").spec)
    flat = flat_image(kernel.elf.sections)

    def memory_of(change: Change) -> io.BytesIO:
        block: Any = run.layout.parse(kept("tcg-atomic")[0])
        change(block)
        memory = bytearray(flat.data.ljust(flat.bss_end - flat.load_address, b"\0"))
        at = kernel.elf.symbols["results"] - flat.load_address
        memory[at : at + run.layout.size] = bytes(block)
        return io.BytesIO(bytes(flat.load_address) + bytes(memory))

    named = Named("kernel.elf", run.spec, kernel.elf.build_id.hex(), kernel_of("tcg-atomic"))
    for change, told in ((lambda block: None, False), (put("store", kernel.elf.symbols["load_32"]), True)):
        (found,) = from_dump(memory_of(change), "memory.bin", named)
        (verdict,) = verdicts(found)
        assert ("the handshake's store is" in verdict.reason) is told


def test_every_task_of_the_plan_is_known() -> None:
    for name in NAMES:
        spec = load(name).spec
        assert len(tasks(spec)) == len(phases(spec))
        names = {item for item in FIELDS if item not in ("address", "cells")}
        assert all(set(task) == names for task in tasks(spec))
