"""kgen's commands in real gdb on a terminal: by ``kgen gdb``, by the file beside the ELF, on stubs that can less."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from _asked import asked, kernel_of
from _gdb import PROMPT, PoorStub, Terminal
from running import marked

from kgen.build import build, write
from kgen.host.process import spawn
from kgen.machine.platform import LaunchRequest
from kgen.platforms import platform_named
from kgen.spec import Case, KernelSpec

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(sys.platform != "linux", reason="pseudo terminals as Linux has them"),
    pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed"),
    pytest.mark.skipif(not shutil.which("qemu-system-i386"), reason="qemu-system-i386 is not installed"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
NO_KVM = platform_named("qemu-kvm").unavailable(LaunchRequest(kernel=None))
#: Fails on QEMU's translator within a moment, as the form without LOCK must; without controls by its tokens alone.
SPEC = KernelSpec(Case("xchg", lock=False), rounds=0, controls=False, proof_seconds=60)
#: The same by ``kgen gdb``. Beside controls the verdict rests on a chain as well, which is violated first.
UNLOCKED = ("--no-lock", "--rounds", "0", "--proof-seconds", "60")
PROGRAM = (sys.executable, "-m", "kgen")
#: For gdb's Python: where each instruction begins.
_STARTS = "from kgen.gdbside import session; starts = session.boundaries; routines = session.image().routines"
COMMANDS = ("cell", "cpus", "freeze-proof", "judge", "status", "step", "until-violation", "witnesses")


def kgen_gdb(*arguments: str, cwd: Path = REPOSITORY, program: Sequence[str] = PROGRAM) -> Terminal:
    words = [*program, "gdb", "--instr", "xchg", *arguments]
    return Terminal(words, cwd, {"KGEN_TEST_RUN": "kgen-gdb"})


def to_the_case(gdb: Terminal) -> str:
    """Run on from violations of the chain that the verdict rests on to the case's own tokens; what is said there."""
    for _ in range(40):
        said = gdb.ask("kgen until-violation")
        assert "stopped at witness #" in said
        if " of case:" in said:
            return said
    raise AssertionError("the case was never violated")


# --- kgen gdb ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen() -> Iterator[tuple[Terminal, str]]:
    """A machine frozen at its first violation in gdb, and what was said up to gdb's first prompt."""
    with kgen_gdb(*UNLOCKED) as terminal:
        yield terminal, terminal.read_until(PROMPT)
        assert terminal.leave() == 0
        assert not marked("kgen-gdb")


def test_the_machine_stands_at_its_first_violation(frozen: tuple[Terminal, str]) -> None:
    """Which is one of the chain that the verdict on the tokens rests on as well."""
    _, said = frozen
    assert "frozen at the case's first violation" in said
    assert "  phase 5 of 6, proof:mov-mov.32@vga-text/chain: the proof, a stronger experiment" in said
    assert re.search(r"VIOLATED: 1 (?:lost|duplicate) so far", said)
    assert re.search(r"batch \d+ has 1 cell, for [23] CPUs, (?:a race|running free), with(?:out)? tickets", said)
    assert re.search(r"^cell 0 at 0xb8000: [0-9a-f]{8}, the value ", said, re.MULTILINE)
    assert re.search(r"^CPU 0 has just recorded the violation that it found", said, re.MULTILINE)
    assert len(re.findall(r"^CPU [12] parked", said, re.MULTILINE)) == 2


def test_a_chain_is_proven_by_its_operations(frozen: tuple[Terminal, str]) -> None:
    """They are those of the witness, as gdb reads its memory, and nothing is moved."""
    gdb, _ = frozen
    # those of the controls before it are listed, too
    kind, value = re.search(  # type: ignore[union-attr]
        r"(\w+) +about operation \d+, cell 0, value ([0-9a-f]{8}).*<- its batch", gdb.ask("kgen witnesses")
    ).groups()
    before = gdb.ask("info threads")
    proof = gdb.ask("kgen freeze-proof")
    assert gdb.ask("info threads") == before
    listed = re.findall(r"exchanges ([0-9a-f]{8}) into cell 0 and gets ([0-9a-f]{8})", proof)
    if kind == "duplicate":
        assert [got for _, got in listed].count(value) >= 2
    else:
        assert value in [wrote for wrote, _ in listed]
        assert value not in [got for _, got in listed]
    left = int(gdb.ask("p/x *(unsigned int *)&finals").split("=")[1], 16)
    assert f"at the end cell 0 held {left:08x}" in proof
    assert "mov-mov.32 has no LOCK" in proof
    judged = gdb.ask("kgen judge")
    assert re.match(rf"NOT_ATOMIC: 1 {kind} in \d+ operations of mov-mov\.32 on vga-text \(chain\)\n", judged)


@pytest.fixture(scope="module")
def at_token(frozen: tuple[Terminal, str]) -> Terminal:
    """The same machine at the first violation of the case itself."""
    to_the_case(frozen[0])
    return frozen[0]


def test_it_runs_on_to_the_case(at_token: Terminal) -> None:
    said = at_token.ask("kgen status")
    assert "  phase 6 of 6, case:mov-mov.32@vga-text: the case itself" in said
    assert re.search(r"  before it:\n(?:    .*\n)*    proof:mov-mov.32@vga-text/chain: \d+ .* in \d+ operations", said)
    assert "counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\ncounts:\t" in said
    assert re.search(r"^cell \d+ at 0xb8[0-9a-f]{3}: [0-9a-f]{8}, ", said, re.MULTILINE)
    assert "CPU 0 (producer) has just recorded the violation" in said
    assert len(re.findall(r"^CPU [12] \(consumer\) parked", said, re.MULTILINE)) == 2


def test_the_serial_log_has_a_place(frozen: tuple[Terminal, str]) -> None:
    """Where it is, what becomes of it, and that it is there."""
    _, said = frozen
    fate = r", which goes with the machine \(--log FILE keeps it\)"
    place = re.search(rf"serial log goes on in (/\S+/serial\.log){fate}", said)
    assert place
    assert "kgen:0 boot " in Path(place[1]).read_text()


def test_what_a_person_writes_stays(tmp_path: Path) -> None:
    """gdb runs where the person is: relative names are theirs, and the listing is found all the same."""
    with kgen_gdb("--no-controls", "--rounds", "40", "--stop", "case", "--log", "my.log", cwd=tmp_path) as gdb:
        assert "serial log goes on in my.log\n" in gdb.read_until(PROMPT)
        assert str(tmp_path) in gdb.ask("pwd")
        assert "kernel.s" in gdb.ask("info line main")
        assert "mov dword ptr [results" in gdb.ask("list main")
        gdb.ask("dump binary memory cells.bin 0xb8000 0xb8010")
        gdb.ask("break final_park")
        gdb.ask("continue")
        assert gdb.leave() == 0
    assert len((tmp_path / "cells.bin").read_bytes()) == 16
    log = (tmp_path / "my.log").read_text()
    assert log.startswith("kgen:0 boot ")
    assert re.search(r"^kgen:\d+ end ", log, re.MULTILINE)


def test_every_command_has_help_and_is_completed(frozen: tuple[Terminal, str]) -> None:
    gdb, _ = frozen
    assert gdb.ask("complete kgen ").split("\n")[:-1] == [f"kgen {name}" for name in COMMANDS]
    listed = gdb.ask("help kgen")
    for name in COMMANDS:
        assert f"kgen {name} -- " in listed
        assert f"kgen {name}" in gdb.ask(f"help kgen {name}")
    assert gdb.ask("complete kgen cell w") == "kgen cell watch\n"
    # not a second time
    for given in ("cell watch ", "cell watch w", "freeze-proof still ", "until-violation any ", "step 1 2 "):
        assert gdb.ask(f"complete kgen {given}") == ""
    assert gdb.ask("complete kgen step ") == ""
    assert gdb.ask("complete kgen step 1 ").split() == "kgen step 1 0 kgen step 1 1 kgen step 1 2".split()


def test_wrong_words_get_a_line(at_token: Terminal) -> None:
    gdb = at_token
    for command, line in {
        "kgen bogus": "kgen: there is no command 'bogus'; 'help kgen' lists them\n",
        "kgen status now": "kgen: 'kgen status' does not take 'now'; see 'help kgen status'\n",
        "kgen cell 4711": "kgen: '4711' is no cell: give one from 0 to 127\n",
        "kgen step x": "kgen: 'x' is no number of instructions: give one from 0 to 10000\n",
        "kgen step 1 3": "kgen: '3' is no CPU: give one from 0 to 2\n",
    }.items():
        assert gdb.ask(command) == line


def test_what_is_said_agrees(at_token: Terminal) -> None:
    """Status, the witness, and gdb's own reading of the same memory."""
    gdb = at_token
    witness = gdb.ask("kgen witnesses")
    number, kind, round_, cell, token = re.search(  # type: ignore[union-attr]
        r"#(\d+) (\w+) +round (\d+), cell (\d+), token ([0-9a-f]{8}).*<- its batch is still in memory as it was",
        witness,
    ).groups()
    assert witness.count("<- its batch") == 1
    printed = gdb.ask(f"p results.witness[{number}]")
    assert f"{kind}, round {round_}, cell {cell}, token {token}" in printed
    assert f"= {int(token, 16)}\n" in gdb.ask(f"p ((unsigned int *)&tokens)[{cell}]")
    assert "unused" in gdb.ask(f"p results.witness[{int(number) + 1}]")
    assert "reserved" not in gdb.ask("p results.cpu[1]")
    whole = gdb.ask("p results")
    assert f"witness[{number}]" in whole
    assert f"witness[{int(number) + 1}]" not in whole
    assert "phase[1]" in whole
    assert f"cell {cell} at " in gdb.ask(f"kgen cell {cell}")
    assert "according to QEMU: io (" in gdb.ask("kgen cell")
    # the round of the violation counts, as at the scene of 'kgen verify --stop-on-violation'
    judged = gdb.ask("kgen judge")
    assert re.match(rf"NOT_ATOMIC: 1 {kind} in {round_} rounds? of mov-mov\.32 on vga-text\n", judged)
    assert "  mov-mov.32 has no LOCK, so this may happen. It says nothing against the machine;" in judged


def test_it_runs_on_to_a_loss_and_proves_it(at_token: Terminal) -> None:
    gdb = at_token
    for _ in range(40):
        said = gdb.ask("kgen until-violation")
        assert "stopped at witness #" in said
        if "lost " in said:
            break
    token = re.search(r"lost +round \d+, cell \d+, token ([0-9a-f]{8})", said)[1]  # type: ignore[index]
    before = gdb.ask("info threads")
    proof = gdb.ask("kgen freeze-proof")
    assert f"CPU 0 put the token {token}" in proof
    assert [line[:2] for line in proof.split("\n") if re.match(r"\d\. ", line)] == ["1.", "2.", "3.", "4.", "5."]
    assert proof.count("the cell holds 00000000: it is empty") == 2
    assert proof.count("took nothing from it and has acknowledged") == 4
    assert "Nothing has changed." in proof
    assert "CONTRADICTION" not in proof
    assert "mov-mov.32 has no LOCK" in proof
    # CPU 0, and gdb's selection, are where they were
    assert [line for line in before.split("\n") if "CPU#0" in line] == [
        line for line in gdb.ask("info threads").split("\n") if "CPU#0" in line
    ]
    assert proof.partition("A token was lost")[2] != ""
    assert "You asked that nothing be moved." in gdb.ask("kgen freeze-proof still")


def test_one_cpu_is_stepped_alone(frozen: tuple[Terminal, str]) -> None:
    gdb, _ = frozen
    others = re.findall(r"CPU [12] .*", gdb.ask("kgen cpus"))
    stepped = gdb.ask("kgen step 2 0")
    assert re.search(r"^CPU 0  [0-9a-f]{8} <record\+0x[0-9a-f]+> .* kernel\.s:\d+  ret$", stepped, re.MULTILINE)
    assert "now at" in stepped
    assert "no evidence about LOCK" in stepped
    assert re.findall(r"CPU [12] .*", gdb.ask("kgen cpus")) == others
    assert gdb.ask("kgen step 1 1") == (
        "kgen: CPU 1 sleeps (HLT) and wakes only by an interrupt from a CPU that runs; step CPU 0 ('kgen step 1 0'), "
        "or let all run: 'kgen cell watch', then 'continue'\n"
    )
    # nothing was stepped, so there is nothing to warn of
    assert re.fullmatch(r"CPU 0  now at [0-9a-f]{8} .*\n", gdb.ask("kgen step 0 0"))


def test_a_64_bit_machine_is_stepped_by_its_source(prebuilt: Sequence[str]) -> None:
    """gdb disassembles the kernel's 32-bit code as 64-bit code there: 'inc esi' would be a prefix."""
    with kgen_gdb("--no-controls", *UNLOCKED, "--qemu", "qemu-system-x86_64", program=prebuilt) as gdb:
        gdb.read_until(PROMPT)
        stepped = gdb.ask("kgen step 5 0")
        assert re.search(r"^CPU 0  [0-9a-f]{8} <record\+0x[0-9a-f]+>    kernel\.s:\d+  ret$", stepped, re.MULTILINE)
        assert not re.search(r"\b(?:rex|rip|rdi|r\d+d)\b", stepped)
        gdb.ask(f"python {_STARTS}")
        there = gdb.ask("python print(hash(tuple(starts(a, b) for a, b, _ in routines)))")
        assert gdb.leave() == 0
    with kgen_gdb("--no-controls", *UNLOCKED, program=prebuilt) as gdb:
        gdb.read_until(PROMPT)
        gdb.ask(f"python {_STARTS}")
        assert gdb.ask("python print(hash(tuple(starts(a, b) for a, b, _ in routines)))") == there
        # where gdb can disassemble it, an instruction begins in the same places
        gdb.ask("python whole = gdb.selected_inferior().architecture().disassemble")
        gdb.ask("python mine = [(a, b) for a, b, n in routines if n.startswith(('token', 'exchange', 'consume'))]")
        read = "[tuple(x['addr'] for x in whole(a, b - 1)) for a, b in mine]"
        assert gdb.ask(f"python print(len(mine) > 5, [starts(a, b) for a, b in mine] == {read})") == "True True\n"
        assert gdb.leave() == 0


def test_ctrl_c_stops_the_machine() -> None:
    """gdb, the machine and kgen live on."""
    with kgen_gdb("--no-lock", "--no-controls", "--rounds", "0", "--stop", "case") as gdb:
        gdb.read_until(PROMPT)
        # it takes every kind's witnesses for recorded, so no violation stops it
        for kind in range(4):
            gdb.ask(f"set variable results.phase[0].witnesses[{kind}] = 8")
        gdb.type("kgen until-violation\n")
        time.sleep(0.3)
        assert "stopped before a violation was recorded, by Ctrl-C" in gdb.interrupt()
        assert "CPU 0 (producer) " in gdb.ask("kgen status")
        assert gdb.leave() == 0


@pytest.mark.skipif(bool(NO_KVM), reason=f"qemu-kvm: {NO_KVM}")
def test_kvm_loses_a_locked_token(prebuilt: Sequence[str]) -> None:
    with kgen_gdb("--no-controls", "--platform", "qemu-kvm", program=prebuilt) as gdb:
        assert re.search(r"VIOLATED: 1 \w+ so far", gdb.read_until(PROMPT))
        proof = gdb.ask("kgen freeze-proof")
        assert "XCHG is LOCKed here, so this must not happen: it is NOT ATOMIC on vga-text." in proof
        assert "Nothing has changed." in proof
        assert "warning: this is KVM" in gdb.ask("kgen cell watch")
        assert gdb.leave() == 0


@pytest.mark.skipif(bool(NO_KVM), reason=f"qemu-kvm: {NO_KVM}")
def test_a_machine_that_qemu_has_given_up_is_not_waited_for(prebuilt: Sequence[str]) -> None:
    """A software breakpoint does that on a KVM that does not know it; elsewhere it is hit, and nothing is asked."""
    with kgen_gdb("--no-controls", "--platform", "qemu-kvm", program=prebuilt) as gdb:
        gdb.read_until(PROMPT)
        gdb.ask("break token_batch")
        gdb.ask("continue")
        if "internal-error" not in gdb.ask("monitor info status"):
            assert gdb.leave() == 0
            pytest.skip("software breakpoints hit on this KVM")
        gdb.ask("delete")
        for command in ("kgen until-violation 5", "kgen step", "kgen freeze-proof"):
            assert "QEMU has stopped the machine with an internal error" in gdb.ask(command)
        assert "QEMU has stopped this machine with an internal error" in gdb.ask("kgen status")
        assert gdb.leave() == 0


# --- by hand -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("by hand")
    write(kernel_of(SPEC), directory, ())
    return directory


def qemu(folder: Path, name: str, *more: str) -> tuple[list[str], str]:
    """A machine's command line, and where its stub is."""
    stub = folder / name
    words = "qemu-system-i386 -display none -nodefaults -vga std -serial null -smp 3 -S".split()
    return [*words, "-kernel", str(folder / "kernel.elf"), "-gdb", f"unix:{stub},server=on,wait=off", *more], str(stub)


def by_hand(folder: Path, *more: str) -> Terminal:
    """gdb as the README says, started in the directory of the ELF."""
    safe = f"add-auto-load-safe-path {folder}/kernel.elf-gdb.py"
    changes = {"KGEN_GDB_SCRIPT": str(REPOSITORY / "gdb_scripts" / "kgen.py")}
    words = ["gdb", "-q", "-nx", "-iex", "set pagination off", "-iex", "set confirm off", "-iex", safe, "kernel.elf"]
    return Terminal([*words, *more], folder, changes)


def await_socket(path: str) -> None:
    until = time.monotonic() + 20
    while not Path(path).is_socket():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_the_file_beside_the_elf_brings_the_commands(folder: Path, tmp_path: Path) -> None:
    """From the machine's first instruction; and the verdict is that of ``kgen inspect`` on the same memory."""
    command, stub = qemu(folder, "a.sock")
    child = spawn(command)
    try:
        await_socket(stub)
        with by_hand(folder) as gdb:
            gdb.read_until(PROMPT)
            assert gdb.ask("kgen status") == (
                "kgen: gdb is connected to no machine; 'target remote HOST:PORT' or '... SOCKET'\n"
            )
            gdb.ask(f"target remote {stub}")
            assert gdb.ask("kgen status").startswith("kgen: the kernel has not begun")
            # the reset vector is a far jump into the firmware
            assert re.fullmatch(
                r"thread 1  f000:fff0, in real mode: gdb shows other code there, so none is shown\n"
                r"thread 1  now at f000:[0-9a-f]{4}, in real mode: .*\n\(stepped alone.*\n",
                gdb.ask("kgen step"),
            )
            assert "stopped at witness #0 of case:mov-mov.32@vga-text" in gdb.ask("kgen until-violation 50")
            judged = gdb.ask("kgen judge").split("\n")[0]
            gdb.ask("disconnect")
            gdb.leave()
        inspected = asked(tmp_path / "tmp", "inspect", str(folder / "kernel.elf"), stub, "--json", str(tmp_path / "i"))
        assert inspected.stderr == ""
        verdict = json.loads((tmp_path / "i").read_text())["verdict"]
        assert judged == f"{verdict['kind']}: {verdict['reason']}"

        with PoorStub(stub, folder / "poor.sock") as poor, by_hand(folder) as gdb:
            gdb.read_until(PROMPT)
            gdb.ask(f"target remote {poor.address}")
            said = gdb.ask("kgen status")
            assert "(this stub shows 1 of 3 CPUs" in said
            assert "(this stub cannot move one CPU alone" in said
            assert "(this stub has no QEMU monitor" in said
            # which one it is tells its stack
            assert "CPU 0 (producer) has just recorded" in said
            assert "CPU 1 (consumer) parked" in said
            assert "what backs them is unknown: this stub has no QEMU monitor" in gdb.ask("kgen cell 0")
            assert "this one cannot be asked" in gdb.ask("kgen cell watch")
            assert gdb.ask("kgen step 1 1") == "kgen: this stub does not show CPU 1, so it cannot be stepped\n"
            assert "none can be let go" in gdb.ask("kgen freeze-proof")
            assert gdb.ask("kgen judge").split("\n")[0] == judged
            gdb.ask("disconnect")
            gdb.leave()
    finally:
        child.kill()


def test_another_elf_moves_nothing(folder: Path, tmp_path: Path) -> None:
    """It is refused by every command that could spoil a crime scene, before anything has moved."""
    write(build(replace(SPEC, proof_seconds=SPEC.proof_seconds + 1)), tmp_path, ())
    command, stub = qemu(folder, "c.sock")
    child = spawn(command)
    try:
        await_socket(stub)
        with by_hand(folder, "-ex", f"target remote {stub}") as gdb:
            gdb.read_until(PROMPT)
            assert "stopped at witness #0" in gdb.ask("kgen until-violation 50")
            stepped = gdb.ask("kgen step")
            assert not re.search(r"%e[a-z]{2}", stepped)
            gdb.ask("disconnect")
            gdb.leave()
        with by_hand(tmp_path, "-ex", f"target remote {stub}") as gdb:
            gdb.read_until(PROMPT)
            looks = ("thread apply all -q info registers eip", "p results.witness_count", "p results.handshake.batch")
            before = [gdb.ask(each).split()[2:] for each in looks]
            line = r"kgen: the machine runs build \w{12}, the ELF is build \w{12}; load the kernel.elf .*\n"
            for asked in ("until-violation 3", "step 2", "step 1 0", "cell watch", "freeze-proof", "status", "cpus"):
                assert re.fullmatch(line, gdb.ask(f"kgen {asked}")), asked
            assert [gdb.ask(each).split()[2:] for each in looks] == before
            # up to gdb 14, and since
            none = r"No breakpoints(?: or watchpoints|, watchpoints, tracepoints, or catchpoints)\.\s*"
            assert re.fullmatch(none, gdb.ask("info breakpoints"))
            gdb.ask("disconnect")
            gdb.leave()
    finally:
        child.kill()


def test_why_it_cannot_run_to_a_violation(folder: Path) -> None:
    """A stub without breakpoints, one without those by hardware, and a gdb that lets one CPU run: the cause is named,
    and nothing has moved."""
    command, stub = qemu(folder, "d.sock")
    child = spawn(command)
    try:
        await_socket(stub)
        with PoorStub(stub, folder / "d1.sock", ("Z", "z")) as poor, by_hand(folder) as gdb:
            gdb.read_until(PROMPT)
            gdb.ask(f"target remote {poor.address}")
            assert gdb.ask("kgen until-violation 3") == (
                "kgen: this stub accepts no breakpoints (Z0 and Z1), so it cannot stop where a violation is "
                "recorded; 'continue', stop it by Ctrl-C, and see 'kgen witnesses'\n"
            )
            assert "0xfff0" in gdb.ask("p/x $eip")
            gdb.ask("disconnect")
            gdb.leave()
        with PoorStub(stub, folder / "d2.sock", ("Z1", "z1")) as poor, by_hand(folder) as gdb:
            gdb.read_until(PROMPT)
            gdb.ask(f"target remote {poor.address}")
            gdb.ask("set scheduler-locking on")
            assert gdb.ask("kgen until-violation 3") == (
                "kgen: with gdb's 'scheduler-locking' on, only one CPU would run; 'set scheduler-locking off'\n"
            )
            assert "0xfff0" in gdb.ask("p/x $eip")
            gdb.ask("set scheduler-locking off")
            assert "stopped at witness #0" in gdb.ask("kgen until-violation 50")
            gdb.leave()
    finally:
        child.kill()


def test_a_machine_with_too_few_cpus(folder: Path) -> None:
    command, stub = qemu(folder, "b.sock", "-smp", "1")
    child = spawn(command)
    try:
        await_socket(stub)
        with by_hand(folder, "-ex", f"target remote {stub}") as gdb:
            gdb.read_until(PROMPT)
            assert gdb.ask("kgen until-violation 50").startswith("kgen: the run has ended without another violation")
            said = gdb.ask("kgen status")
            assert "the run is over: there were too few CPUs" in said
            assert "1 of 3 CPUs found" in said
            assert gdb.ask("kgen until-violation").startswith("kgen: the run is over")
            assert gdb.ask("kgen cell").startswith("kgen: there is no cell yet")
            gdb.leave()
    finally:
        child.kill()


def test_without_a_kgen_it_says_what_to_do(folder: Path) -> None:
    with Terminal(
        [
            shutil.which("gdb") or "gdb",
            "-q",
            "-nx",
            "-iex",
            f"add-auto-load-safe-path {folder}/kernel.elf-gdb.py",
            "kernel.elf",
        ],
        folder,
        {"PATH": str(folder), "PYTHONPATH": ""},
    ) as gdb:
        said = gdb.read_until(PROMPT)
        # the program that could tell more is just what was not found
        assert "kgen gdb --script" not in said
        assert (
            "kgen: its commands were not found: let KGEN_GDB_SCRIPT name the gdb_scripts/kgen.py of a checkout or an "
            "installed kgen, or 'source' that file\n" in said
        )
        assert gdb.ask("kgen status").startswith("kgen: its commands were not found: let KGEN_GDB_SCRIPT name")
        assert gdb.leave() == 0
