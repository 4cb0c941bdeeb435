"""What kgen's commands in gdb say, from memory and registers made by hand; tests/boot drives gdb itself."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from grouped import grouped

from kgen.build import Kernel, build
from kgen.cli import main
from kgen.errors import DebuggerError, LinkError, ProtocolError, SpecError
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.gdbside import cells, describe, places, proof
from kgen.gdbside.accesses import accesses
from kgen.gdbside.image import Image, load
from kgen.gdbside.places import sentence
from kgen.gdbside.snapshot import NotBegun, Snapshot, hold_against, take
from kgen.inspection.scene import place_to_stop
from kgen.instructions import instructions
from kgen.kernel.parameters import STACK_SIZE, TOKEN_STEP, log_operations
from kgen.kernel.plan import layout_of, phases
from kgen.kernel.results_block import (
    LAYOUT_VERSION,
    MAGIC,
    NO_CPU,
    CpuState,
    KernelState,
    Operation,
    PhaseStatus,
    Role,
    Style,
    ViolationKind,
)
from kgen.machine.registers import CpuRegisters
from kgen.platforms import platform_named
from kgen.run.gdb_terminal import _reached, moment_for
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH, Case
from kgen.toolchain import elf_reader
from kgen.toolchain.decoder import disassemble

SPEC = KernelSpec(Case("xchg", lock=False), rounds=1000, controls=False)
#: The case, the kernel's only phase.
OWN = 0
CELL = 0xB8000
TOKEN = 7 * TOKEN_STEP & 0xFFFFFFFF


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return build(SPEC)


@pytest.fixture(scope="module")
def image(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Image:
    path = tmp_path_factory.mktemp("image") / "kernel.elf"
    path.write_bytes(kernel.elf.data)
    return load(str(path))


class Machine:
    """Memory by address, and CPUs."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.memory: dict[int, int] = {}
        self.block: Any = layout_of(image.spec).results()
        self.cpus: list[CpuRegisters] = []

    def threads(self) -> tuple[CpuRegisters, ...]:
        return tuple(self.cpus)

    def read_memory(self, address: int, length: int) -> bytes:
        start = self.image.symbols["results"]
        block = bytes(self.block)
        if start <= address < start + len(block):
            return block[address - start :][:length]
        for section in self.image.sections:
            if section.data and section.address <= address < section.address + section.size:
                return section.data[address - section.address :][:length]
        if address >= 0xFF000000:
            raise DebuggerError("there is nothing")
        return bytes(self.memory.get(at, 0) for at in range(address, address + length))

    def put(self, address: int, *values: int) -> None:
        for at, byte in enumerate(struct.pack(f"<{len(values)}I", *values)):
            self.memory[address + at] = byte

    def word(self, symbol: str, index: int, value: int) -> None:
        self.put(self.image.symbols[symbol] + 4 * index, value)

    def snapshot(self) -> Snapshot:
        return take(self.image, self, self.boundaries)

    def boundaries(self, begin: int, end: int) -> tuple[int, ...]:
        found = []
        while begin < end:
            found.append(begin)
            begin += disassemble(self.read_memory(begin, 15), begin)[0]
        return tuple(found)


@pytest.fixture
def machine(image: Image) -> Machine:
    """In batch 4 of the case, of 8 cells from round 5 on; all is put, and the consumers have acknowledged."""
    made = Machine(image)
    block = made.block
    block.magic, block.version, block.size = MAGIC, LAYOUT_VERSION, layout_of(image.spec).size
    block.build_id[:] = image.build_id
    block.state.value, block.cpus_found, block.cpus_needed = KernelState.RUNNING, 3, 3
    for at in range(3):
        cpu = block.cpu[at]
        cpu.apic_id, cpu.state.value = at, CpuState.WAITING if at else CpuState.WORKING
        cpu.go = cpu.started = cpu.ack = 4 if at else 0
        stack = image.symbols["stacks"] + (at + 1) * STACK_SIZE - 64
        made.cpus.append(CpuRegisters(at + 1, f"CPU#{at}", at, image.symbols["doze"], stack, *[0] * 8))
    block.phase_index = OWN
    phase = block.phase[OWN]
    phase.role.value, phase.status.value, phase.address, phase.cells = Role.CASE, PhaseStatus.RUNNING, CELL, MAX_BATCH
    phase.rounds = 4
    hand = block.handshake
    hand.batch, hand.cells, hand.filled, hand.address = 4, 8, 8, CELL
    hand.task.token_mask = hand.task.cell_mask = 0xFFFFFFFF
    block.cpu[0].puts, block.cpu[1].takes, block.cpu[2].takes = 12, 6, 5
    for at in range(8):
        made.word("tokens", at, (5 + at) * TOKEN_STEP & 0xFFFFFFFF)
    return made


LOCKED = KernelSpec(Case("xchg"), rounds=1000, proof_seconds=60)
CHAIN = next(phase for phase in phases(LOCKED) if phase.role is Role.PROOF)
#: Values of a batch: what the cell held at first, then those of the operations.
V = [number * TOKEN_STEP & 0xFFFFFFFF for number in (5, 1, 2, 3, 4)]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Image:
    path = tmp_path_factory.mktemp("locked") / "kernel.elf"
    path.write_bytes(build(LOCKED).elf.data)
    return load(str(path))


@pytest.fixture
def chain(locked: Image) -> Machine:
    """Batch 4 of the proof, a chain that takes turns with its controls, is being judged. CPUs 1 and 2 did two
    operations each; both got the cell's first value in their first, which has just been recorded."""
    made = Machine(locked)
    block = made.block
    block.magic, block.version, block.size = MAGIC, LAYOUT_VERSION, layout_of(LOCKED).size
    block.build_id[:] = locked.build_id
    block.state.value, block.cpus_found, block.cpus_needed = KernelState.RUNNING, 3, 3
    block.phase_index = CHAIN.index
    for phase in phases(LOCKED)[: CHAIN.index + 1]:
        entry = block.phase[phase.index]
        entry.role.value, entry.address, entry.cells = phase.role, CELL, phase.cells
        entry.status.value = PhaseStatus.RUNNING if phase.group == CHAIN.group else PhaseStatus.DONE
    entry = block.phase[CHAIN.index]
    entry.rounds, entry.duplicate = 16, 1
    hand = block.handshake
    hand.batch, hand.cells, hand.address, hand.tickets, hand.style = 4, 1, CELL, 1, Style.RACE
    hand.task.token_mask = hand.task.cell_mask = 0xFFFFFFFF
    for name, value in (("chain_base", 0), ("chain_each", 2), ("chain_starts", 4), ("chain_total", 5)):
        made.word(name, 0, value)
    made.word("finals", 0, V[3])
    room, words = log_operations(LOCKED), ctypes.sizeof(Operation) // 4
    logs = {1: [(0, 2, V[0], 0), (4, 6, V[1], 1)], 2: [(1, 3, V[0], 2), (5, 7, V[2], 3)]}
    for at in range(3):
        cpu = block.cpu[at]
        cpu.apic_id, cpu.state.value = at, CpuState.WAITING if at else CpuState.WORKING
        cpu.go = cpu.started = cpu.ack = 4 if at else 0
        stack = locked.symbols["stacks"] + (at + 1) * STACK_SIZE - 64
        made.cpus.append(CpuRegisters(at + 1, f"CPU#{at}", at, locked.symbols["doze"], stack, *[0] * 8))
        own = logs.get(at, [])
        for number, (begin, end, found, index) in enumerate(own):
            made.put(locked.symbols["operations"] + 4 * words * (room * at + number), begin, end, found, 0, 1, index, 1)
        cpu.operation = locked.symbols["operations"] + 4 * words * (room * at + len(own))
        cpu.walks, cpu.rank = (4 if own else 3), at - 1 if own else 0
    block.witness_count = 1
    witness = block.witness[0]
    witness.phase, witness.kind.value, witness.round, witness.cell = CHAIN.index, ViolationKind.DUPLICATE, 17, 0
    witness.token, witness.value, witness.cpu, witness.other = V[0], V[0], 1, 2
    return made


def lose(machine: Machine) -> None:
    """The token of round 7, in cell 2, is lost, and has just been recorded so."""
    place, back = machine.image.place_of_violation()
    phase, entry = machine.block.phase[OWN], machine.block.witness[0]
    phase.lost = machine.block.witness_count = 1
    entry.round, entry.cell, entry.token, entry.other, entry.phase = 7, 2, TOKEN, NO_CPU, OWN
    machine.cpus[0] = replace(machine.cpus[0], eip=place)
    machine.put(machine.cpus[0].esp, back)


def told(machine: Machine, second: bool = True) -> str:
    seen = machine.snapshot()
    witness = proof.witness_to_prove(seen)
    look = proof.look(seen, witness) if seen.in_place(witness) else None
    return "\n".join(proof.told(seen, witness, look, look if second else None, "They ran."))


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_file_is_read_as_by_the_reader_of_all_the_rest(kernel: Kernel, image: Image) -> None:
    other = elf_reader.read(kernel.elf.data)
    assert (image.spec, image.build_id) == (SPEC, other.build_id)
    assert dict(image.symbols) == dict(other.symbols)
    assert image.sections == tuple(section for section in other.sections if section.size)


def test_a_violation_is_recorded_where_the_scene_says(kernel: Kernel, image: Image) -> None:
    place, condition = place_to_stop(kernel)
    assert image.place_of_violation()[0] == place
    assert f"== {image.place_of_violation()[1]:#x} &&" in condition


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x01\x01", b"\x7fELF\x01\x01" + bytes(200), b"x" * 5000])
def test_what_is_no_kernel_is_one_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(data)
    with pytest.raises(LinkError, match="is not a kernel that kgen built"):
        load(str(path))


def test_a_cut_file_is_one_error(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    for size in range(0, len(kernel.elf.data), 9973):
        path.write_bytes(kernel.elf.data[:size])
        with pytest.raises(LinkError):
            load(str(path))


def test_the_commands_need_the_standard_library_only(repository: Path) -> None:
    """Without site-packages, as in gdb's own Python."""
    program = (
        "import sys, types; sys.modules['gdb'] = types.ModuleType('gdb')\n"
        "from kgen.gdbside import cells, image, places, proof, snapshot, describe\n"
        "from kgen.verdict.judge import judge; from kgen.inspection.stopped import inspect\n"
        "from kgen.evidence.mtree import attest\n"
        "import kgen.report.text.case\n"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(repository)!r})\n{program}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- where a CPU is ------------------------------------------------------------------------------------------------

FORMS = {
    form.name: form
    for instruction in instructions().values()
    for source in instruction.sources
    for width in instruction.widths
    if width in instruction.opcodes[source]
    for form in (
        *((instruction.form(width, source, True),) if instruction.lockable else ()),
        *instruction.unlocked(width, source),
    )
}


@grouped(((name,) for name in FORMS), by=lambda member: member[0].partition(".")[0])
def test_every_form_accesses_its_cell(name: str) -> None:
    """Locked ones by exchanges and what only looks; stand-ins in two steps, of which the last writes."""
    form = FORMS[name]
    for use in form.code:
        kinds = [access.kind for access in accesses(form.routine(use, 1)) if access]
        assert kinds, use
        if form.lock:
            assert "write" not in kinds, use
        if "-" in form.name:
            assert kinds[0] == "read", use
            assert kinds[-1] == "write", use


def test_between_a_read_and_a_write(machine: Machine) -> None:
    """A consumer in the stand-in for XCHG: before, between, behind."""
    begin, code = machine.image.code_of("exchange_mov_mov_32")
    starts = machine.boundaries(begin, begin + len(code))
    machine.block.cpu[1].go = machine.block.cpu[1].started = 5
    said = []
    for at in starts:
        machine.cpus[1] = replace(machine.cpus[1], eip=at, edi=CELL + 4 * 3, eax=0xABCD)
        said.append(sentence(machine.snapshot(), 1))
    assert said[0] == "is about to read cell 3 (batch 5)"
    assert "is between its read and its write of cell 3: about to write 0000abcd (batch 5)" in said
    assert said[-1] == "has just accessed cell 3: EAX is 0000abcd (batch 5)"


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (("doze", "wait_crew", "token_batch"), "sleeps: it waits for CPU 2, which has not acknowledged batch 4"),
        (("await_consumer", "token_put"), "holds the token for cell 3 back until a consumer looks there"),
        (("token_put",), "puts tokens: 3 of 8 cells of batch 4 filled"),
        (("wait_ms", "token_judge"), "misses a token of batch 4 and makes sure that no CPU writes to its cell"),
        (("serial_put", "put_char", "record"), "prints a line of its record on the serial port"),
        (("put_char", "record", "violation", "token_judge"), "records a violation that it found in batch 4"),
        (("final_park",), "rests: the run is over"),
        (("check_deadline",), "is running"),
    ],
)
def test_the_producer_in_words(machine: Machine, frames: tuple[str, ...], words: str) -> None:
    block = machine.block
    block.handshake.filled, block.cpu[2].ack = 3, 3
    here, *back = (machine.image.symbols[name] for name in frames)
    machine.cpus[0] = replace(machine.cpus[0], eip=here)
    # a return address is behind a call, and other things lie between them
    machine.put(machine.cpus[0].esp, *(word for each in back for word in (4711, each + 5)))
    assert sentence(machine.snapshot(), 0).startswith(words)


def test_consumers_in_words(machine: Machine) -> None:
    block = machine.block
    assert sentence(machine.snapshot(), 1) == "parked: it has acknowledged batch 4"
    block.cpu[1].go = 5
    assert sentence(machine.snapshot(), 1).startswith("has been set to work on batch 5 and has not begun")
    block.cpu[1].started, block.cpu[1].cell = 5, 2
    machine.cpus[1] = replace(machine.cpus[1], eip=machine.image.symbols["jitter"])
    assert sentence(machine.snapshot(), 1).startswith("is at cell 2 of batch 5 (8 cells): it lets a moment pass")
    block.cpu[1].cell = 8
    assert "is about to acknowledge" in sentence(machine.snapshot(), 1)
    block.cpu[2].state.value = CpuState.FAULTED
    assert sentence(machine.snapshot(), 2) == "faulted: it was stopped by an exception"


def test_a_stub_that_names_no_cpu(machine: Machine) -> None:
    """Its stack names it; of those that are not shown is told what they noted."""
    machine.cpus = [replace(machine.cpus[2], cpu=None, thread=1)]
    seen = machine.snapshot()
    assert list(seen.registers_of) == [2]
    assert sentence(seen, 0) == "this stub does not show its registers; the kernel is in batch 4"
    machine.block.cpu[1].go = 5
    assert sentence(machine.snapshot(), 1).endswith("(this stub does not show its registers)")


# --- cells, counters, proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "empty"),
        (TOKEN, "the token of round 7, which CPU 0 put there"),
        (~TOKEN & 0xFFFFFFFF, "the pattern that CPU 0 stores"),
        (3 * TOKEN_STEP & 0xFFFFFFFF, "the token of round 3, which is long over"),
        (0x12345678, "neither empty, nor this round's token, nor an earlier one"),
    ],
)
def test_what_a_cell_holds(machine: Machine, value: int, words: str) -> None:
    machine.put(CELL + 8, value)
    assert cells.line(machine.snapshot(), 2).startswith(f"cell 2 at 0xb8008: {value:08x}, {words}")
    machine.block.state.value = KernelState.FINISHED
    assert "out of use" in cells.line(machine.snapshot(), 2)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "the value that cell 0 began this batch with"),
        (1, "the value of operation 1 of CPU 1 in this batch"),
        (4, "the value of operation 2 of CPU 2 in this batch"),
        (6, "no value of this batch"),
        (0, "no value of this batch"),
    ],
)
def test_what_the_cell_of_a_chain_holds(chain: Machine, value: int, words: str) -> None:
    chain.put(CELL, value * TOKEN_STEP & 0xFFFFFFFF)
    assert cells.line(chain.snapshot(), 0).endswith(f", {words}")
    chain.block.handshake.batch = 0
    assert cells.line(chain.snapshot(), 0).endswith("what was there before: no batch has begun")


def test_the_operations_of_a_value_that_was_got_twice(chain: Machine) -> None:
    assert told(chain).split("\n")[:6] == [
        f"proof:xchg.32@vga-text/chain: duplicate about operation 17, cell 0, value {V[0]:08x} (CPU 1 and CPU 2): "
        "the value was got twice",
        f"Cell 0 began batch 4 with {V[0]:08x}.",
        "The operations that involve it, by the log of batch 4:",
        f"   CPU 1, its operation 1: exchanges {V[1]:08x} into cell 0 and gets {V[0]:08x} (tickets 0 and 2)",
        f"   CPU 2, its operation 1: exchanges {V[3]:08x} into cell 0 and gets {V[0]:08x} (tickets 1 and 3)",
        f"   at the end cell 0 held {V[3]:08x}",
    ]
    assert "form one path from the start value" in " ".join(told(chain).split())
    # its rounds count when the batch has been judged, and the next one may have begun
    chain.block.phase[CHAIN.index].rounds = 20
    assert "Its batch is gone" in told(chain)


def test_a_violation_of_the_proof_is_one_of_the_case(chain: Machine) -> None:
    """One that was recorded later of a control is not spoken of."""
    chain.block.witness_count = 2
    chain.block.witness[1].phase, chain.block.witness[1].round = CHAIN.group + 1, 9
    assert proof.witness_to_prove(chain.snapshot()).phase == CHAIN.index
    chain.block.phase[CHAIN.index].rounds = 20
    assert proof.witness_to_prove(chain.snapshot()).phase == CHAIN.index
    chain.block.cpu[1].go = 5
    chain.block.phase[CHAIN.index].rounds = 4
    assert not chain.snapshot().in_place(chain.snapshot().record.witnesses[0]), "a CPU is at work on the cell"


def test_a_cpu_that_sets_out_in_words(chain: Machine) -> None:
    chain.block.cpu[1].go = chain.block.cpu[1].started = 5
    for cpu, number in ((0, "CPU 0"), (1, "is at cell 0 of batch 5 (1 cell): it ")):
        chain.cpus[cpu] = replace(chain.cpus[cpu], eip=chain.image.symbols["set_out"])
        front = "" if number == "CPU 0" else number
        chain.block.handshake.style = Style.RACE
        assert sentence(chain.snapshot(), cpu) == f"{front}waits for the others to come to their next operation"
        chain.block.handshake.style = Style.FREE
        assert sentence(chain.snapshot(), cpu) == f"{front}lets a random moment pass before its next operation"


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (("chain_number", "chain_note_reader", "chain_judge", "take_turn"), "accounts for what batch 4 left"),
        (("chain_cpu", "chain_follow", "chain_judge"), "follows the values that batch 4 exchanged"),
        (("wait_ms", "finals_stay", "chain_judge"), "makes sure that no write to the cells is still on its way"),
        (("find_meeting", "count_live", "take_turn"), "looks which operations of batch 4 met"),
        (("chain_value", "chain_prepare", "walk_batch"), "sets up the next batch"),
        (("operate", "chain_visit", "walk_work", "walk_batch"), "draws a ticket for an operation, or logs it"),
        (("live_needed", "proof_reached", "run_group"), "weighs whether the proof is reached"),
        (("keep_counters", "take_turn", "run_group"), "is between two batches"),
        (("show_phase", "run_group"), "is between the turns of two phases"),
        (("set_task", "open_phase", "run_group"), "makes a phase ready"),
    ],
)
def test_cpu_0_of_a_chain_in_words(chain: Machine, frames: tuple[str, ...], words: str) -> None:
    here, *back = (chain.image.symbols[name] for name in frames)
    chain.cpus[0] = replace(chain.cpus[0], eip=here)
    chain.put(chain.cpus[0].esp, *(each + 5 for each in back))
    assert sentence(chain.snapshot(), 0) == words


def test_every_routine_that_is_spoken_of_is_in_some_kernel(image: Image, locked: Image) -> None:
    known = {*image.symbols, *locked.symbols}
    for name, experiment in (
        ("xadd", "counter"),
        ("cmpxchg", "mutex"),
        ("or", "own-bits"),
        ("xor", "parity"),
        ("mov", "torn"),
    ):
        known |= set(build(KernelSpec(Case(name, experiment=experiment), rounds=9)).elf.symbols)
    # a kernel has those of its own width
    loads = {f"load_{width}" for width in (8, 16, 32, 64)}
    assert {*places._STORY, *places._AT_WORK} - loads <= known


def test_a_cell_that_cannot_be_read(machine: Machine) -> None:
    machine.block.handshake.address = 0xFF000000
    assert cells.line(machine.snapshot(), 0).endswith("cannot be read (there is nothing)")


def test_status(machine: Machine) -> None:
    lines = list(describe.status(machine.snapshot()))
    assert lines[0].startswith("xchg.32.vga-text.token.nolock: 3 CPUs, build ")
    assert "  running: 4 of 1000 rounds judged; batch 4 has 8 cells" in lines
    assert "  no violation so far" in lines
    assert "counts:\t12\t6\t5\t1" in lines
    lose(machine)
    lines = list(describe.status(machine.snapshot()))
    assert "  VIOLATED: 1 lost so far" in lines
    assert any(line.startswith("CPU 0 (producer) has just recorded the violation") for line in lines)
    assert "kgen freeze-proof" in lines[-1]


def test_status_of_phases_that_take_turns(chain: Machine) -> None:
    """Whose turn it is, with the counters of the CPUs; of the others what they keep."""
    chain.block.phase[CHAIN.group].rounds = 33
    lines = list(describe.status(chain.snapshot()))
    assert lines[1].startswith(f"  phase {CHAIN.index + 1} of 6, proof:xchg.32@vga-text/chain: the proof, a stronger")
    assert lines[2] == "  running: 16 operations judged; batch 4 has 1 cell, for 2 CPUs, a race, with tickets"
    at = lines.index("  in turn with it:")
    assert lines[at + 1] == "    sanity:xchg.32@ram/chain: no violation in 33 operations"
    assert lines[at + 4] == "  before it:"
    assert lines[at + 5].startswith("    sanity:xchg.32@ram: ")
    # another one's turn
    chain.block.phase_index = CHAIN.group
    lines = list(describe.status(chain.snapshot()))
    assert "sanity:xchg.32@ram/chain: the sanity control" in lines[1]
    assert any(line.startswith("    proof:xchg.32@vga-text/chain: 1 duplicate in 16 operations") for line in lines)


def test_status_says_that_a_batch_is_not_all_recorded(machine: Machine) -> None:
    lose(machine)
    open_part = "  (CPU 0 accounts for batch 4 one cell after the other: more of what the last column shows "
    open_part += "is still to be recorded)"
    assert open_part not in describe.status(machine.snapshot())
    machine.block.cpu[0].puts += 3
    lines = list(describe.status(machine.snapshot()))
    assert lines[lines.index("counts:\t15\t6\t5\t4") + 1] == open_part
    machine.block.state.value = KernelState.FINISHED
    assert open_part not in describe.status(machine.snapshot())


def test_a_loss_is_proven(machine: Machine) -> None:
    lose(machine)
    said = told(machine)
    assert f"CPU 0 put the token {TOKEN:08x} into cell 2 at 0xb8008" in said
    assert "They ran." in said
    assert "Nothing has changed." in said
    assert "CONTRADICTION" not in said


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda machine: machine.put(CELL + 8, TOKEN), f"the cell holds {TOKEN:08x}"),
        (lambda machine: machine.word("takes", MAX_BATCH + 2, TOKEN), "CPU 2 has the token"),
        (
            lambda machine: machine.cpus.__setitem__(1, replace(machine.cpus[1], eax=TOKEN)),
            "CPU 1 holds the token in a register",
        ),
    ],
)
def test_what_speaks_against_a_loss_is_said(machine: Machine, spoil: Any, words: str) -> None:
    lose(machine)
    spoil(machine)
    said = told(machine)
    assert said.endswith(f"CONTRADICTION: {words}. This is no proof."), "and nothing is concluded"
    assert ("the 0 seen here" in said) != ("the cell holds" in words)


def test_tokens_that_come_again_do_not_bring_an_old_batch_back(machine: Machine) -> None:
    """Every token of BTS is 1: what stands there is of another round."""
    lose(machine)
    assert machine.snapshot().in_place(machine.snapshot().record.witnesses[0])
    machine.block.phase[OWN].rounds = 12
    assert machine.snapshot().in_place(machine.snapshot().record.witnesses[0]), "tokens of 32 bits do not"
    machine.block.handshake.task.token_mask = 1
    assert "First look, the kernel's" in told(machine)
    machine.block.phase[OWN].rounds = 6
    assert "First look, at the machine" in told(machine)


def test_registers_that_tell_nothing_are_not_told_of(machine: Machine) -> None:
    lose(machine)
    machine.block.handshake.task.token_mask = 0xFF
    assert "in EAX" not in told(machine)
    machine.block.handshake.task.token_mask = 0xFFFFFFFF
    assert told(machine).count("no consumer holds the token in EAX") == 2
    del machine.cpus[2]
    assert "in EAX" not in told(machine)


def test_a_batch_that_is_gone_is_no_evidence(machine: Machine) -> None:
    """Another token in the same cell, or a consumer at work: what lies there is not of that round."""
    lose(machine)
    machine.block.cpu[1].go = 5
    assert "First look, the kernel's" in told(machine)
    machine.block.cpu[1].go = 4
    machine.word("tokens", 2, TOKEN + 1)
    assert "First look, the kernel's" in told(machine)


def test_what_runs_no_more_is_not_told_to_run(machine: Machine) -> None:
    lose(machine)
    machine.word("tokens", 2, TOKEN + 1)
    assert "To look yourself: 'kgen until-violation'" in told(machine)
    machine.block.state.value = KernelState.FINISHED
    assert "First look, the kernel's: the run is over" in told(machine)
    assert "until-violation" not in told(machine)
    with pytest.raises(ProtocolError, match="the run is over: nothing more will happen"):
        machine.snapshot().must_not_be_over()
    machine.block.witness_count = machine.block.phase[OWN].lost = 0
    with pytest.raises(ProtocolError) as caught:
        proof.witness_to_prove(machine.snapshot())
    assert caught.value.line == "no violation has been recorded"


def test_a_token_taken_twice(machine: Machine) -> None:
    lose(machine)
    entry = machine.block.witness[0]
    entry.kind.value, entry.value, entry.cpu, entry.other = ViolationKind.DUPLICATE, TOKEN, 1, 2
    machine.block.phase[OWN].lost, machine.block.phase[OWN].duplicate = 0, 1
    for cpu in (1, 2):
        machine.word("takes", MAX_BATCH * (cpu - 1) + 2, TOKEN)
    said = told(machine)
    assert said.count(", THE TOKEN from it") == 4
    assert "Two CPUs got it" in " ".join(said.split())
    assert "CONTRADICTION" not in said
    machine.word("takes", MAX_BATCH + 2, 0)
    assert told(machine).endswith("CONTRADICTION: CPU 2 has not noted the token. This is no proof.")


def test_without_a_violation_there_is_nothing_to_prove(machine: Machine) -> None:
    with pytest.raises(ProtocolError, match="no violation has been recorded"):
        proof.witness_to_prove(machine.snapshot())


def test_a_machine_that_is_another_ones(machine: Machine) -> None:
    machine.block.build_id[0] ^= 1
    with pytest.raises(ProtocolError, match=r"the machine runs build \w+, the ELF is build \w+"):
        machine.snapshot()
    machine.block = layout_of(SPEC).results()
    with pytest.raises(NotBegun, match="the kernel has not begun"):
        machine.snapshot()


@pytest.mark.parametrize(
    ("case", "line"),
    [
        (SPEC.case, r"the machine runs build \w+, the ELF is build \w+"),
        (Case("xadd", experiment="counter", cpus=9), "the machine holds something else in its memory"),
    ],
)
def test_an_elf_is_held_against_the_machine(machine: Machine, tmp_path: Path, case: Case, line: str) -> None:
    """Also where the machine has nothing in the place of that ELF's results, as before a kernel has begun."""
    path = tmp_path / "kernel.elf"
    path.write_bytes(build(replace(SPEC, case=case, rounds=SPEC.rounds + 1)).elf.data)
    other = load(str(path))
    with pytest.raises(ProtocolError, match=line) as caught:
        take(other, machine, machine.boundaries)
    assert not isinstance(caught.value, NotBegun)
    assert caught.value.hint == "load the kernel.elf that the machine runs: 'file PATH'"
    with pytest.raises(ProtocolError, match=line):
        hold_against(other, machine)


def test_a_machine_in_which_nothing_is_loaded_may_be_anybodys(machine: Machine) -> None:
    image, machine.block = machine.image, layout_of(SPEC).results()
    machine.image = replace(image, sections=())
    hold_against(image, machine)
    with pytest.raises(NotBegun):
        take(image, machine, machine.boundaries)


# --- kgen gdb ------------------------------------------------------------------------------------------------------


def test_where_a_platform_can_be_stopped() -> None:
    assert moment_for(platform_named("qemu-tcg"), None) == "violation"
    assert moment_for(platform_named("qemu-kvm"), "case") == "case"
    assert moment_for(platform_named("kvm-lab"), None) == "end"
    with pytest.raises(SpecError, match="no breakpoint hits"):
        moment_for(platform_named("kvm-lab"), "violation")
    with pytest.raises(SpecError, match="no stub"):
        moment_for(platform_named("bochs"), None)


@pytest.mark.parametrize(
    ("moment", "lost", "words"),
    [
        ("violation", 0, "at its end: the case was not violated"),
        ("violation", 3, "at its end: the case was violated, and no breakpoint stopped it there"),
        ("case", 0, "at its end: it was never where the case begins"),
        ("end", 3, "at its end"),
    ],
)
def test_a_run_that_came_to_its_end_is_not_said_to_be_elsewhere(
    machine: Machine, moment: str, lost: int, words: str
) -> None:
    machine.block.phase[OWN].lost = lost
    record = machine.snapshot().record
    over = Observation("qemu-tcg", None, replace(record, complete=True), NOT_ASKED)
    assert _reached(moment, over, {OWN}) == words
    stands = replace(over, memory=replace(record, complete=False))
    assert ("end" in _reached(moment, stands, {OWN})) == (moment == "end")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--platform", "bochs"], 2, "bochs: the platform has no stub that gdb could join; choose another one"),
        (["--platform", "kvm-lab", "--stop", "case"], 2, "--stop case: no breakpoint hits there"),
        (["--stop", "middle"], 2, "'middle' is not one of"),
        (["--gdb", "/nowhere/gdb"], 2, "--gdb /nowhere/gdb: no such file"),
        (["--", "-s"], 2, "-s: the gdb stub is how kgen reads the machine"),
        (["--rounds", "-1"], 2, "rounds"),
        (["--log", "-"], 2, "--log -: the terminal is gdb's; name a file"),
        (["--log", "/nowhere/my.log"], 2, "/nowhere/my.log: cannot be written: No such file or directory"),
    ],
)
def test_wrong_requests_get_a_line(arguments: list[str], code: int, line: str) -> None:
    result = CliRunner().invoke(main, ["gdb", "--instr", "xchg", *arguments], prog_name="kgen")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert line in result.stderr


def test_a_suite_is_not_for_gdb() -> None:
    result = CliRunner().invoke(main, ["gdb", "--suite", "smoke"], prog_name="kgen")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "gdb is for one case" in result.stderr


def test_the_script_is_where_it_says(repository: Path) -> None:
    result = CliRunner().invoke(main, ["gdb", "--script"], prog_name="kgen")
    assert (result.exit_code, result.stdout) == (0, f"{repository / 'gdb_scripts' / 'kgen.py'}\n")
