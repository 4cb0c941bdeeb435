"""What people see who have nothing but the screen: the report, the summary, and a code that says what the log says."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import counted
import pytest
from _kernel import END, Edit, built, console, needs, replaced, spec_of
from _screen import Picture, Watched, memory_record, watched

from kgen.build import Kernel
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.evidence.records import Record
from kgen.kernel.parameters import SCREEN_ROWS, SCREEN_TOP
from kgen.kernel.plan import layout_of, phases
from kgen.kernel.results_block import KernelState, PhaseStatus, Screen
from kgen.offline.result_code import decode, encode, rebuild
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

COLUMNS = 80
#: A column in text mode is nine dots wide, and eight where dots are drawn.
TEXT, DOTS = 9, 8
THREE = ("-smp", "3")
ADAPTERS = (("-vga", "std"), ("-vga", "std", "-bios", "qboot.rom"), ("-vga", "cirrus"), ("-vga", "virtio"))
#: The first place in a text where its cells cannot be: nothing of the report may be above it.
TOP = slice(0, SCREEN_TOP)


@cache
def plain() -> Kernel:
    """The question itself, short, with its controls."""
    return built(spec_of(target="vga-text", rounds=300, controls=True))


def screen_of(kernel: Kernel, machine: Watched) -> Screen:
    symbol = next(symbol for symbol in kernel.assembly.symbols if symbol.name == "results")
    layout = layout_of(kernel.spec)
    return Screen(layout.parse(machine.memory(symbol.value, layout.size)).screen.value)


def codes(log: bytes) -> list[str]:
    """What the code lines of a log say."""
    return [match.decode() for match in re.findall(rb"^kgen:\d+ code text=(\S+) ", log, re.MULTILINE)]


def made_up(blocks: Sequence[tuple[int, bytes]]) -> Edit:
    """A kernel that runs no phase: it prints the code of each of these arrays of phases, with the state of its kernel,
    and has then finished."""
    data = b"".join(state.to_bytes(4, "little") + phases for state, phases in blocks)
    words = struct.unpack(f"<{len(data) // 4}I", data)
    rows = "".join(f"    .long {', '.join(map(str, words[at : at + 32]))}\n" for at in range(0, len(words), 32))
    loop = f"""
    mov ebx, made_up
.made_up:
    mov edx, dword ptr [ebx]
    lea esi, [ebx + 4]
    mov edi, results + Results.phase
    mov ecx, {len(blocks[0][1]) // 4}
    rep movsd
    mov ebx, esi
    xor eax, eax
    call record_code
    cmp ebx, made_up_end
    jb .made_up
    mov eax, KernelState.FINISHED
    jmp finish
"""
    edit = replaced("    xor ebx, ebx\n.phase:\n", f"{loop}.phase:\n", routine="main")
    return lambda text: (
        edit(text) + f'\n.section .rodata, "a", 64\n.align 4\nmade_up:\n{rows}made_up_end:\n    .long 0\n'
    )


@pytest.mark.parametrize(
    "spec",
    [
        KernelSpec(Case("xchg"), proof_seconds=60),
        KernelSpec(Case("xchg"), rounds=300),
        KernelSpec(Case("add"), proof_seconds=60),
        KernelSpec(Case("cmpxchg8b", target="ram", cpus=5), rounds=0),
    ],
    ids=lambda spec: f"{spec.name}-{spec.proof_seconds}",
)
def test_the_code_of_any_counts_is_the_one_that_python_makes(spec: KernelSpec, tmp_path: Path) -> None:
    """Counts that a run would take hours for, on either side of where they are rounded."""
    random = Random(spec.name)
    records = [counted.record(spec, random) for _ in range(60)]
    kernel = built(spec, made_up([(record.state, counted.block(layout_of(spec), record)) for record in records]))
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(kernel.elf.data)
    with console("-kernel", elf, "-m", "32", "-smp", f"{spec.case.cpus}", "-serial", "stdio") as serial:
        serial.read(END.search)
        found = codes(serial.heard)
    assert found[:-1] == [encode(spec, record) for record in records]


def check_code(kernel: Kernel, record: Record, text: str, case: int = -1) -> VerdictKind:
    """The code is the one that Python makes of the log, and tells the same story; its verdict."""
    assert encode(kernel.spec, record, case) == text
    alone = Observation(platform=SERIAL_ONLY, serial=record, memory=None, path=NOT_ASKED)
    spec, observation = rebuild(decode(text))
    told, again = judge(kernel.spec, alone, case), judge(spec, observation)
    assert spec.case == kernel.spec.cases[case]
    assert (again.rounds, again.violations, again.judged) == (told.rounds, told.violations, told.judged)
    # a log alone has no rows here: what is compared is all else
    if "the table does not end" not in told.reason:
        assert again.kind is told.kind, (told.reason, again.reason)
    return again.kind


def whole(text: Sequence[str]) -> list[str]:
    """Lines that were longer than the screen is wide, put together again; empty ones are left out. The line of the code
    may be just as wide, and the command comes after it."""
    lines: list[str] = []
    full = False
    for row in filter(None, text):
        goes_on = full and not row.startswith("kgen judge --code ")
        lines = [*lines[:-1], lines[-1] + row] if goes_on else [*lines, row]
        full = len(row) == COLUMNS
    return lines


def check_summary(text: Sequence[str], kernel: Kernel, code: str, state: str) -> None:
    """The lines that stay at the end of a single case's run."""
    lines = whole(text)
    assert lines[0] == f"kgen {_version()}  {kernel.spec.case.id}  {kernel.spec.case.cpus} CPUs"
    for phase in phases(kernel.spec):
        (line,) = (line for line in lines if line.startswith(f"{phase.label}: "))
        assert bool(re.search(r" \d+ live, ", line)) == phase.counts_meetings
        assert bool(re.search(r" \d+ rounds, ", line)) != phase.counts_meetings
        # each has a line for itself, so that the first one does not scroll away
        assert len(line) <= COLUMNS
    assert state in lines
    assert f"code: {code}" in lines
    assert lines[-1] == f"kgen judge --code {code}"
    assert len(text) <= SCREEN_TOP + SCREEN_ROWS


def _version() -> str:
    from kgen import __version__

    return __version__


def below(picture: Picture, cell: int) -> list[str]:
    """The text below the lines that are left to cells."""
    return picture.text(cell)[SCREEN_TOP:]


@pytest.mark.parametrize(
    "adapter",
    [("-vga", "std"), ("-vga", "std", "-bios", "qboot.rom"), ("-vga", "cirrus"), ("-vga", "virtio")],
    ids=" ".join,
)
def test_the_summary_stays_on_the_text_screen(adapter: Sequence[str], tmp_path: Path) -> None:
    """Whatever the firmware left: qboot leaves the adapter in reset, without a mode, a font or colours."""
    with watched(plain(), tmp_path, *THREE, "-serial", "stdio", *adapter) as machine:
        log, record = machine.serial.record()
        picture = machine.look()
        assert (picture.width, picture.height) == (COLUMNS * TEXT, 400)
        text = picture.text(TEXT)
        cells = machine.memory(0xB8000, 2 * COLUMNS * SCREEN_TOP)
        assert screen_of(plain(), machine) is Screen.TEXT
        memory = memory_record(plain(), machine)
    assert all(line.kind != "code" or line.fields["text"] for line in log.lines)
    (code,) = codes(machine.serial.heard)
    check_summary(text[SCREEN_TOP:], plain(), code, "finished")
    assert check_code(plain(), record, code) is not VerdictKind.ERROR
    assert encode(plain().spec, memory) == code
    assert text[TOP] == [""] * SCREEN_TOP
    # the cells as the case left them; what is not a cell is blank
    size = phases(plain().spec)[-1].length
    assert cells[:size] == bytes(size)
    assert cells[size:] == b" \x07" * ((len(cells) - size) // 2)
    counts = next(line for line in text if re.match(r"counts: \d", line)).split()[1:]
    told = decode(code)
    assert [int(count) for count in counts] == [told.count0, told.count1, told.count2, told.difference]


def test_the_report_scrolls_while_it_runs(tmp_path: Path) -> None:
    """Rows of the table come by, and the last lines of the log; then somebody stops it."""
    kernel = built(spec_of(target="vga-text", rounds=0))

    def row(text: Sequence[str]) -> list[str]:
        return [line for line in text[SCREEN_TOP:] if re.match(r"counts: \d+ +\d+ +\d+ +0$", line)]

    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        first = row(machine.until(lambda text: len(row(text)) > 5, TEXT))
        later = row(machine.until(lambda text: row(text) and row(text)[-1] != first[-1], TEXT))
        machine.serial.send(b"q")
        _, record = machine.serial.record()
        text = below(machine.look(), TEXT)
    assert int(later[-1].split()[1]) > int(first[-1].split()[1])
    # what was shown is what was printed
    heard = machine.serial.heard.decode().expandtabs().split("\r\n")
    assert set(first) | set(later) <= set(heard)
    assert record.state is KernelState.STOPPED
    (code,) = codes(machine.serial.heard)
    check_summary(text, kernel, code, "stopped on request")
    check_code(kernel, record, code)


#: Sets a mode of QEMU's bochs-display, as firmware would, and hands its framebuffer over.
FRAMEBUFFER = """
    mov esi, 8
    mov ebx, 0xFFFF0000
    mov edi, 0x3800000
    call pci_find
    mov ebx, eax
    lea eax, [ebx + 0x18]
    call pci_read
    and eax, 0xFFFFFFF0
    mov word ptr [eax + 0x508], 0
    mov word ptr [eax + 0x502], {width}
    mov word ptr [eax + 0x504], {height}
    mov word ptr [eax + 0x506], 32
    mov word ptr [eax + 0x508], 0x41
    lea eax, [ebx + 0x10]
    call pci_read
    and eax, 0xFFFFFFF0
    mov dword ptr [handover + Handover.framebuffer], eax
    mov dword ptr [handover + Handover.width], {width}
    mov dword ptr [handover + Handover.height], {height}
    mov dword ptr [handover + Handover.pitch], 4 * {width}
    call screen_init
"""


def framebuffer(width: int, height: int) -> Edit:
    text = FRAMEBUFFER.format(width=width, height=height)
    return replaced("    call screen_init\n", text, routine="main")


@pytest.mark.parametrize(("width", "height"), [(800, 600), (640, 350)])
def test_without_vga_it_is_drawn_into_the_framebuffer(width: int, height: int, tmp_path: Path) -> None:
    """A display that does not decode 0xb8000, as after UEFI: readable, and its verdict is about what lies there. A low
    one leaves no lines free for cells."""
    kernel = built(plain().spec, framebuffer(width, height))
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio", "-vga", "none", "-device", "bochs-display") as machine:
        _, record = machine.serial.record()
        picture = machine.look()
        assert screen_of(kernel, machine) is Screen.FRAMEBUFFER
    assert (picture.width, picture.height) == (width, height)
    text = picture.text(DOTS) if height >= 400 else picture.text(DOTS)[: height // 16]
    (code,) = codes(machine.serial.heard)
    check_summary(text[SCREEN_TOP:] if height >= 400 else text[:SCREEN_ROWS], kernel, code, "finished")
    assert check_code(kernel, record, code) is VerdictKind.RAM_BACKED


def test_a_graphics_mode_shows_the_summary_in_dots(tmp_path: Path) -> None:
    """The case's cells stay where they are, so the mode must stay, too."""
    kernel = built(spec_of(target="vga-graphics", rounds=100))
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        _, record = machine.serial.record()
        text = below(machine.look(), DOTS)
        size = phases(kernel.spec)[-1].length
        assert machine.memory(0xA0000, size) == bytes(size)
    (code,) = codes(machine.serial.heard)
    check_summary(text, kernel, code, "finished")
    check_code(kernel, record, code)


def test_cells_all_over_the_screen_are_left_alone(tmp_path: Path) -> None:
    """Cells a cache line apart cover the page that is usually shown: another one is shown then."""
    spec = KernelSpec(Case("xchg", offset=1), rounds=300, controls=False)
    kernel = built(spec)
    (case,) = phases(spec)
    assert case.length > 2 * COLUMNS * 25
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        _, record = machine.serial.record()
        text = below(machine.look(), TEXT)
        cells = machine.memory(0xB8001, case.length)
    assert all(cells[at : at + 4] == bytes(4) for at in range(0, case.length, case.stride))
    (code,) = codes(machine.serial.heard)
    check_summary(text, kernel, code, "finished")
    check_code(kernel, record, code)


def test_the_adapters_own_memory_is_left_alone(tmp_path: Path) -> None:
    """The linear framebuffer is the memory that text mode shows, at another address: nothing is drawn over its cells,
    and yet the summary is there at the end."""
    kernel = built(spec_of(target="framebuffer", rounds=300, controls=True))
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        _, record = machine.serial.record()
        text = below(machine.look(), TEXT)
        (*_, case) = record.phases
        assert machine.memory(case.address, phases(kernel.spec)[-1].length).strip(b"\0") == b""
    assert not case.total
    (code,) = codes(machine.serial.heard)
    check_summary(text, kernel, code, "finished")
    check_code(kernel, record, code)


def test_the_screen_does_not_need_a_serial_port(tmp_path: Path) -> None:
    with watched(plain(), tmp_path, *THREE, "-serial", "none") as machine:
        text = machine.until(lambda text: any(line.startswith("kgen judge") for line in text), TEXT)
        record = memory_record(plain(), machine)
    (code,) = (line.removeprefix("code: ") for line in whole(text) if line.startswith("code: "))
    check_summary(text[SCREEN_TOP:], plain(), code, "finished")
    assert encode(plain().spec, record) == code


def test_the_log_does_not_need_a_screen(tmp_path: Path) -> None:
    with watched(plain(), tmp_path, *THREE, "-serial", "stdio", "-vga", "none") as machine:
        _, record = machine.serial.record()
        assert screen_of(plain(), machine) is Screen.NONE
    (code,) = codes(machine.serial.heard)
    assert check_code(plain(), record, code) is VerdictKind.RAM_BACKED


CALL = "call dword ptr [results + Results.handshake + Handshake.task + Task.put]"
STUCK = ".stuck:\n    pause\n    jmp .stuck"

#: What ends a run before its time: the edit, QEMU's arguments, the state, what the screen says.
ENDINGS: dict[str, tuple[Edit | None, tuple[str, ...], KernelState, str, str]] = {
    "too few CPUs": (
        None,
        ("-smp", "2"),
        KernelState.TOO_FEW_CPUS,
        "too few CPUs started: nothing was tested",
        "2 CPUs started, 3 are needed",
    ),
    "a fault outside the case": (
        replaced("    call limit_group\n", "    ud2\n", routine="run_group"),
        THREE,
        KernelState.FAULTED,
        "a CPU faulted: the run was broken off",
        r"CPU 0 raised exception 6 at [0-9a-f]{8}, error code 00000000",
    ),
    "a fault in the case": (
        replaced(CALL, f"ud2\n    {CALL}", routine="token_put"),
        THREE,
        KernelState.FINISHED,
        "finished",
        r"CPU 0 raised exception 6 at [0-9a-f]{8}, error code 00000000",
    ),
    "a CPU that hangs": (
        replaced("    call jitter\n", f"    {STUCK}\n", routine="consume_exchange"),
        THREE,
        KernelState.NOT_PARKED,
        "a CPU did not finish its batch in time: the run was broken off",
        "",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_what_broke_a_run_off_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the screen, in the code, and in both alike."""
    edit, arguments, state, said, more = ENDINGS[name]
    for wait, milliseconds in {"PARK_MS": 2000, "BROADCAST_MS": 500, "DIRECTED_MS": 500}.items():
        monkeypatch.setattr(f"kgen.kernel.parameters.{wait}", milliseconds)
    kernel = built(spec_of(target="vga-text", rounds=100), *([edit] if edit else []))
    with watched(kernel, tmp_path, *arguments, "-serial", "stdio") as machine:
        machine.serial.read(END.search)
        record = memory_record(kernel, machine)
        text = below(machine.look(), TEXT)
    assert record.state is state
    (code,) = codes(machine.serial.heard)
    assert encode(kernel.spec, record) == code
    assert decode(code).state is state
    assert said in text
    assert not more or any(re.fullmatch(more, line) for line in text), text
    assert whole(text)[-1] == f"kgen judge --code {code}"
    kind = judge(*rebuild(decode(code))).kind
    assert kind in (VerdictKind.ERROR, VerdictKind.CRASH, VerdictKind.UNSUPPORTED)


def test_violations_are_told(tmp_path: Path) -> None:
    """The form without LOCK, until it shows: its kinds and counts in the summary and in the code."""
    kernel = built(spec_of(target="vga-text", lock=False, rounds=3000))
    for _ in range(10):
        with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
            _, record = machine.serial.record()
            text = below(machine.look(), TEXT)
        if record.phases[-1].total:
            break
    (code,) = codes(machine.serial.heard)
    assert check_code(kernel, record, code) is VerdictKind.NOT_ATOMIC
    (line,) = (line for line in text if line.startswith("case:"))
    told = {kind: int(count) for count, kind in re.findall(r"(\d+) (lost|duplicate|torn|stale)", line)}
    assert told == {kind: count for kind, count in record.phases[-1].violations.items() if count}


def test_on_kvm_the_code_says_what_kvm_does(tmp_path: Path) -> None:
    """The defect itself, where there is a KVM that has it: lost tokens, by thousands."""
    needs("qemu-kvm")
    accelerator = ("-accel", "kvm", "-cpu", "host,-arch-capabilities", "-bios", "qboot.rom")
    with watched(plain(), tmp_path, *THREE, *accelerator, "-serial", "stdio") as machine:
        _, record = machine.serial.record()
        text = below(machine.look(), TEXT)
    (code,) = codes(machine.serial.heard)
    check_summary(text, plain(), code, "finished")
    kind = check_code(plain(), record, code)
    assert bool(record.phases[-1].total) == (kind is VerdictKind.NOT_ATOMIC)


def test_a_screen_that_fails_does_not_take_the_log_with_it(tmp_path: Path) -> None:
    """Drawing faults: it is not tried again, and the log says what happened."""
    kernel = built(plain().spec, replaced("    mov edx, ebp\n", "    ud2\n", routine="draw_text"))
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        machine.serial.read(END.search)
        record = memory_record(kernel, machine)
        assert screen_of(kernel, machine) is Screen.NONE
    assert record.state is KernelState.FAULTED
    (code,) = codes(machine.serial.heard)
    assert encode(kernel.spec, record) == code


def test_a_suite_has_a_code_for_each_case(tmp_path: Path) -> None:
    """Before the line that closes it; the summary counts the cases and names those that were violated."""
    cases = (
        Case("xchg", lock=False),
        Case("xchg", target="0xd8000000"),
        Case("not", target="vga-graphics"),
        Case("xchg", target="ram"),
    )
    kernel = built(KernelSpec(cases[0], more=cases[1:], suite="mine", budget=6, rounds=300))
    with watched(kernel, tmp_path, *THREE, "-serial", "stdio") as machine:
        log, record = machine.serial.record()
        text = [line for line in below(machine.look(), TEXT) if line]
    kinds = [line.kind for line in log.lines if line.kind in ("code", "done")]
    assert kinds == ["code", "done"] * 4
    for number, code in enumerate(codes(machine.serial.heard)):
        check_code(kernel, record, code, number)
    by_case = {phase.label: phase for phase in record.phases if phase.label.startswith("case:")}
    violated = sum(bool(phase.total) for phase in by_case.values())
    skipped = sum(phase.status is PhaseStatus.NO_STORAGE for phase in by_case.values())
    assert skipped == 1
    # the mode of the graphics case is gone: the last case has no use for it
    assert text[0] == f"kgen {_version()}  suite:mine  3 CPUs"
    assert text[1] == f"4 cases: {4 - violated - skipped} clean, {violated} violated, 1 skipped"
    named = [f"violated: {case.id}" for case, phase in zip(cases, by_case.values(), strict=True) if phase.total]
    assert text[2:-1] == named
    assert text[-1] == "finished"
