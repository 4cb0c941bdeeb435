"""kgen verify --stop-on-violation: the machine stands where the first violation was recorded, and is told as it is."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from running import Run, in_gdb, kgen

from kgen.build import Kernel, build
from kgen.evidence.observation import Observation
from kgen.evidence.scene import Scene, SceneEvent
from kgen.inspection.scene import place_to_stop
from kgen.kernel.plan import decisive, phases
from kgen.kernel.results_block import CpuState, KernelState, ViolationKind
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platform_named
from kgen.report.results import read
from kgen.report.results.model import run_of_case
from kgen.report.results.write import to_json
from kgen.report.text.scene import scene_lines
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.toolchain.encodings import CONDITIONS
from kgen.toolchain.listing import listing
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

NO_KVM = platform_named("qemu-kvm").unavailable(LaunchRequest(kernel=None))
RUN = ("verify", "--instr", "xchg", "--stop-on-violation")


def result_of(file: Path) -> tuple[read.Result, Scene]:
    """The result in a file, which must be of a run that was stopped; read back, it is what was written."""
    ((result,),) = [run.results for run in read.load(file.read_bytes(), file.name)]
    scene = result.observation.scene
    assert scene is not None
    assert (
        to_json([run_of_case(result.spec, result.observation, result.verdict, invocation=result.invocation)])
        == file.read_text()
    )
    return result, scene


def spec_of(result: read.Result) -> KernelSpec:
    assert result.spec is not None
    return result.spec


def check(file: Path) -> tuple[read.Result, Scene]:
    """Everything that must hold of a scene, wherever it was found."""
    result, scene = result_of(file)
    kernel = build(spec_of(result))
    check_run(result, scene)
    chain = is_chain(result, scene)
    check_cpus(kernel, result.observation, scene, "chain_" if chain else "token_judge")
    check_cell(result, scene)
    events = check_timeline(result.observation, scene)
    (check_chain if chain else check_token)(scene, events)
    return result, scene


def is_chain(result: read.Result, scene: Scene) -> bool:
    return phases(spec_of(result))[scene.witness.phase].experiment == "chain"


def check_run(result: read.Result, scene: Scene) -> None:
    """Nothing was recorded of the case but this one violation, and both channels say so."""
    serial, memory = result.observation.serial, result.observation.memory
    assert serial is not None
    assert memory is not None
    assert memory.state is KernelState.RUNNING
    assert serial.witnesses == memory.witnesses
    assert [entry for entry in memory.witnesses if entry.phase == memory.phase_index] == [scene.witness]
    assert memory.phase_index in [phase.index for phase in decisive(spec_of(result))]
    assert not re.search(r"^kgen:\d+ end ", result.observation.log, re.MULTILINE)
    assert result.verdict.kind is VerdictKind.NOT_ATOMIC
    kind = scene.witness.kind.name.lower()
    assert result.verdict.violations[kind] == 1
    if is_chain(result, scene):
        # all operations up to the end of the batch
        assert result.verdict.rounds >= scene.witness.round
        assert f"1 {kind} in {result.verdict.rounds} operations" in result.verdict.reason
        assert "(chain)" in result.verdict.reason
    else:
        assert result.verdict.rounds == scene.witness.round
        assert f"1 {kind} in {scene.witness.round} round" in result.verdict.reason
    assert any("stopped at its first violation" in note for note in result.verdict.notes)
    assert not result.observation.cut
    assert not result.observation.problems


def mnemonic(text: str) -> str:
    """The first word of an instruction; of a conditional jump, which has several, one of its names."""
    word = text.split(maxsplit=1)[0]
    return f"j{CONDITIONS[word[1:]]}" if word[0] == "j" and word[1:] in CONDITIONS else word


def test_names_of_a_jump() -> None:
    assert mnemonic("jne 0x1000") == mnemonic("jnz .again") != mnemonic("jz .again")
    assert mnemonic("jmp .again") == "jmp"


def check_cpus(kernel: Kernel, observation: Observation, scene: Scene, finder: str) -> None:
    """Every CPU is where the code says that it is; the code is what was built."""
    assert [cpu.cpu for cpu in scene.cpus] == [0, 1, 2]
    text = kernel.assembly.section(".text")
    lines = listing(kernel.assembly).split("\n")
    assert observation.memory is not None
    for cpu, record in zip(scene.cpus, observation.memory.cpus, strict=True):
        assert text.address <= cpu.registers["eip"] < text.address + text.size
        assert cpu.registers["eip"] in [line.address for line in cpu.code]
        assert 3 <= len(cpu.code) <= 5
        for line in cpu.code:
            at = line.address - text.address
            data = bytes.fromhex(line.data)
            assert text.data[at : at + len(data)] == data
            assert lines[line.line - 1].startswith(f"{line.address:08x} {line.data[:16]}")
            assert lines[line.line - 1].endswith(f"{line.line:5}      {line.source}")
            # hlt, pop edi, call: the decoder's and the source's word for it are the same
            assert mnemonic(line.text) == mnemonic(line.source)
        if cpu.cpu:
            assert (record.state, record.started) == (CpuState.WAITING, record.ack)
            assert cpu.place.startswith("parked")
            assert f"batch {record.ack}" in cpu.place
    assert scene.cpus[0].routine.startswith("record+")
    assert f"the violation that {finder}" in scene.cpus[0].place


def check_cell(result: read.Result, scene: Scene) -> None:
    """Before it held the token, or what the batch began with; now it holds what the debugger reads with all others."""
    witness, cell = scene.witness, scene.cell
    assert cell.address == 0xB8000 + 4 * witness.cell
    assert cell.width == 32
    assert cell.after == result.observation.cells[witness.cell]
    if is_chain(result, scene):
        # one cell, whose every value is written once
        assert cell.before not in (0, None, cell.after)
        assert len(cell.around) == 8
        return
    assert cell.before == witness.token
    if witness.kind is ViolationKind.LOST:
        assert cell.after == 0
    around = bytes.fromhex(cell.around)
    first = (cell.start - 0xB8000) // 4
    cells = [int.from_bytes(around[at : at + 4], "little") for at in range(0, len(around), 4)]
    assert cells == list(result.observation.cells[first : first + len(cells)])
    assert len(cells) > 1


def check_timeline(observation: Observation, scene: Scene) -> tuple[SceneEvent, ...]:
    """It leads from the opened batch to the witness. Those events."""
    witness = scene.witness
    assert observation.memory is not None
    assert [event.step for event in scene.timeline] == sorted(event.step for event in scene.timeline)
    ring = [event for event in scene.timeline if event.kind == "witness"]
    expected = [(entry.phase, entry.token, entry.tsc) for entry in observation.memory.witnesses]
    assert [(event.phase, event.value, event.tsc) for event in ring] == expected
    events = scene.timeline[len(ring) - 1 :]
    assert events[0].kind == "batch"
    assert (events[-1].kind, events[-1].tsc, events[-1].value) == ("witness", witness.tsc, witness.token)
    return events


def check_chain(scene: Scene, events: Sequence[SceneEvent]) -> None:
    """The operations that wrote and got the value are there, and what the cell held at last."""
    witness = scene.witness
    wrote = [event.cpu for event in events if event.kind == "put" and event.value == witness.token]
    got = [event.cpu for event in events if event.kind == "take" and event.value == witness.token]
    if witness.kind is ViolationKind.LOST:
        assert (wrote, got) == ([] if witness.cpu is None else [witness.cpu], [])
    elif witness.kind is ViolationKind.DUPLICATE and witness.other is not None:
        assert {witness.cpu, witness.other} <= set(got)
    assert len([event for event in events if event.kind == "parked"]) in (2, 3)
    assert [event.value for event in events if event.kind == "read"] == [scene.cell.after]


def check_token(scene: Scene, events: Sequence[SceneEvent]) -> None:
    """Who took what adds up to the violation."""
    witness = scene.witness
    assert [event.value for event in events if event.kind == "put"] == [witness.token]
    assert [event.cpu for event in events if event.kind in ("take", "empty")] == [1, 2]
    assert [event.cpu for event in events if event.kind == "parked"] == [1, 2]
    took = [event for event in events if event.kind == "take" and event.value == witness.token]
    if witness.kind is ViolationKind.LOST:
        assert not took
    elif witness.kind is ViolationKind.DUPLICATE and witness.other is not None:
        assert {event.cpu for event in took} == {witness.cpu, witness.other}


def test_tcg_stands_there_and_is_kept_there(tmp_path: Path) -> None:
    """What the document says of the machine is what a person's own gdb then finds."""
    file = tmp_path / "r.json"
    words = (*RUN, "--no-lock", "--keep", "--json", str(file))
    with Run(words, tmp_path / "tmp") as run:
        said = run.read_until("gdb -d")
        result, scene = check(file)
        memory = result.observation.memory
        assert memory is not None
        for line in scene_lines(scene, memory.khz):
            assert f"{line}\n" in said
        asked = ("thread apply all p/x $eip", f"p/x *(unsigned int *){scene.cell.address:#x}")
        seen = in_gdb(said.splitlines()[-1], *asked)
        values = [int(value, 16) for value in re.findall(r"^\$\d+ = (0x[0-9a-f]+)", seen.stdout, re.MULTILINE)]
        assert len(values) == 4, seen.stdout + seen.stderr
        assert sorted(values[:3]) == sorted(cpu.registers["eip"] for cpu in scene.cpus)
        assert values[3] == scene.cell.after
        run.process.send_signal(signal.SIGINT)
        assert run.wait(20) == VerdictKind.NOT_ATOMIC.value
        run.assert_nothing_left()


def test_a_violation_of_the_tokens_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the proof was not violated before; here it was, and was not stopped at."""
    spec = KernelSpec(Case("xchg", lock=False), rounds=0, proof_seconds=60)

    def only_in_the_case(kernel: Kernel) -> tuple[int, str]:
        place, condition = place_to_stop(kernel)
        own = condition.replace(f">= {decisive(spec)[0].index}", f"== {phases(spec)[-1].index}")
        assert own != condition
        return place, own

    monkeypatch.setattr("kgen.run.observe.place_to_stop", only_in_the_case)
    seen = observe(build(spec), platform_named("qemu-tcg"), Options(stop_on_violation=True))
    file = tmp_path / "r.json"
    file.write_text(to_json([run_of_case(spec, seen, judge(spec, seen))]))
    result, scene = check(file)
    assert not is_chain(result, scene)


@pytest.mark.skipif(bool(NO_KVM), reason=f"qemu-kvm: {NO_KVM}")
def test_kvm_stands_there(tmp_path: Path) -> None:
    """And not at a violation of a control, of which there are many before."""
    file = tmp_path / "r.json"
    run = kgen(tmp_path / "tmp", *RUN, "--platform", "qemu-kvm", "--json", str(file))
    assert (run.process.returncode, run.stderr) == (VerdictKind.NOT_ATOMIC.value, "")
    result, _ = check(file)
    # a control that takes turns with the proof may still be running
    assert [control.role for control in result.verdict.controls] == ["sanity", "sanity", "power", "power"]
    assert result.verdict.controls[0].ended


def test_a_run_without_a_violation_ends_as_ever(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    run = kgen(tmp_path / "tmp", *RUN, "--target", "ram", "--no-controls", "--rounds", "300", "--json", str(file))
    assert run.process.returncode == VerdictKind.INCONCLUSIVE.value
    document = json.loads(file.read_text())
    assert document["observation"]["scene"] is None
    assert document["observation"]["memory"]["complete"]
    assert document["verdict"]["rounds"] == 300
