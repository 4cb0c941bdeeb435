"""Bochs without a Bochs: what it is told, and how what its debugger says is read."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from kgen.cli import main
from kgen.errors import DebuggerError, SpecError
from kgen.host.process import spawn
from kgen.machine import bochs_config
from kgen.machine.bochs import Talk, bytes_of, registers_of, triple_fault
from kgen.machine.platform import LaunchRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Bochs is run on Linux only")

REQUEST = LaunchRequest(kernel=None)

#: Of Bochs 2.7.
REGISTERS = """\
r
CPU1:
rax: 00000000_00000054
rbx: 00000000_00105200
rcx: 00000000_00000016
rdx: 00000000_00000000
rsp: 00000000_00119000
rbp: 00000000_00000054
rsi: 00000000_00115a28
rdi: 00000000_000b80f0
r8 : 00000000_00000000
r9 : 00000000_00000000
r10: 00000000_00000000
r11: 00000000_00000000
r12: 00000000_00000000
r13: 00000000_00000000
r14: 00000000_00000000
r15: 00000000_00000000
rip: 00000000_0010025c
eflags 0x00000002: id vip vif ac vm rf nt IOPL=0 of df if tf sf zf af pf cf
"""
MEMORY = """\
xp /20bx 0x100000
[bochs]:
0x0000000000100000 <bogus+       0>:\t0x02\t0xb0\t0xad\t0x1b\t0x00\t0x00\t0x00\t0x00
0x0000000000100008 <bogus+       8>:\t0xfe\t0x4f\t0x52\t0xe4\t0xba\t0x01\t0x00\t0x00
0x0000000000100010 <bogus+      16>:\t0x00\t0x3d\t0x02\t0xb0
"""
BYTES = bytes.fromhex("02b0ad1b 00000000 fe4f52e4 ba010000 003d02b0")


#: What Bochs 3.0 prints otherwise.
FLAGS_3 = "eflags: 0x00000002: id vip vif ac vm rf nt IOPL=0 of df if tf sf zf af pf cf"
USAGE_2 = """\
  -unlock          unlock Bochs images leftover from previous session
  -rc filename     execute debugger commands stored in file
  -dbglog filename specify Bochs internal debugger log file name
"""
USAGE_3 = """\
  -unlock          unlock Bochs images leftover from previous session
  -debugger        start Bochs internal debugger on startup
  -rc filename     execute debugger commands stored in file
"""
MODELS_2 = "Supported CPU models:\n\nbx_generic\npentium\ncorei7_skylake_x\ntigerlake\n"
MODELS_3 = "Supported CPU models:\n\ni386\ni486dx4\npentium\ncorei7_skylake_x\n"


def settings(request: LaunchRequest) -> dict[str, str]:
    """Everything the configuration says of a subject, by subject."""
    found: dict[str, str] = {}
    for line in bochs_config.configuration(request).splitlines():
        subject, _, said = line.partition(": ")
        found[subject] = f"{found.get(subject, '')} {said},"
    return found


def test_what_is_asked_for() -> None:
    told = settings(LaunchRequest(kernel=None, cpus=7, memory_mib=99, cpu="ryzen", serial_port=0x2F8))
    assert "count=7," in told["cpu"]
    assert "model=ryzen," in told["cpu"]
    assert "reset_on_triple_fault=0," in told["cpu"]
    assert "guest=99," in told["memory"]
    assert "dev=serial.txt," in told["com2"]
    assert "com1" not in told
    assert told["boot"] == " disk,"
    geometry = dict(re.findall(r"(cylinders|heads|spt)=(\d+)", told["ata0-master"]))
    assert int(geometry["cylinders"]) * int(geometry["heads"]) * int(geometry["spt"]) * 512 == 17 << 20


def test_a_cd() -> None:
    told = settings(LaunchRequest(kernel=None, boot="cdrom"))
    assert told["boot"] == " cdrom,"
    assert "type=cdrom, path=cd.iso," in told["ata0-master"]
    assert bochs_config.medium(LaunchRequest(kernel=None, boot="cdrom")) == "iso"
    assert bochs_config.medium(LaunchRequest(kernel=None, boot="ide")) == bochs_config.medium(REQUEST) == "img"
    with pytest.raises(SpecError, match="choose ide or cdrom"):
        bochs_config.medium(LaunchRequest(kernel=None, boot="nvme"))


def test_nothing_depends_on_where_and_when() -> None:
    """Else a run would not be repeatable, and a directory's name could be taken for syntax."""
    text = bochs_config.configuration(REQUEST)
    assert set(re.findall(r"\S*/\S*", text)) == {
        "file=$BXSHARE/BIOS-bochs-latest,",
        "file=$BXSHARE/VGABIOS-lgpl-latest",
    }
    assert "sync=none, time0=946684800" in text


def test_the_users_own_lines_come_last() -> None:
    command = bochs_config.command(LaunchRequest(kernel=None, extra=("cpu: ips=9000000",)))
    assert command[-1] == "cpu: ips=9000000"
    assert command[command.index("-f") + 1] == bochs_config.CONFIGURATION


def test_why_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bochs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BXSHARE", str(tmp_path))
    assert "there is no BIOS-bochs-latest in" in (bochs_config.unavailable(REQUEST) or "")
    for name in bochs_config.FIRMWARE:
        (tmp_path / name).write_bytes(b"")
    assert bochs_config.unavailable(REQUEST) is None
    assert bochs_config.unavailable(LaunchRequest(kernel=None, cpus=255)) == "Bochs has at most 254 CPUs"
    assert (
        bochs_config.unavailable(LaunchRequest(kernel=None, serial_port=0x2F0)) == "Bochs has no serial port at 0x2f0"
    )
    program.unlink()
    assert "apt install bochs bochsbios vgabios" in (bochs_config.unavailable(REQUEST) or "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--keep",), "bochs has no stub"), (("--qemu", sys.executable), "--qemu is for QEMU, and bochs is none")],
)
def test_what_only_a_qemu_has_is_refused(arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(main, ["verify", "--instr", "xchg", "--platform", "bochs", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    ("usage", "models", "switches", "cpu"),
    [
        (USAGE_2, MODELS_2, (), "bx_generic"),
        (USAGE_3, MODELS_3, ("-debugger",), "corei7_skylake_x"),
        ("", "", (), "bx_generic"),
    ],
    ids=["2.7", "3.0", "silent"],
)
def test_what_a_release_is_started_with(usage: str, models: str, switches: tuple[str, ...], cpu: str) -> None:
    assert bochs_config.switches(usage) == switches
    assert bochs_config.default_cpu(models) == cpu


def test_the_help_of_the_bochs_at_hand_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bochs"
    program.write_text(f"#!/bin/sh\ncase $2 in cpu) echo '{MODELS_3}' ;; *) echo '{USAGE_3}' >&2 ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(bochs_config, "BINARIES", ("bochs",))
    bochs_config._help.cache_clear()
    try:
        assert "-debugger" in bochs_config.command(REQUEST)
        assert "model=corei7_skylake_x," in settings(REQUEST)["cpu"]
        assert "model=ryzen," in settings(LaunchRequest(kernel=None, cpu="ryzen"))["cpu"]
    finally:
        bochs_config._help.cache_clear()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        # last words of 2.7
        ("[CPU1  ] exception(): 3rd (13) exception with no resolution", ""),
        # in the log of 3.1
        (
            "00005901225i[CPU1  ] CR3=0x00000000\n"
            "00005901225w[CPU1  ] exception(): 3rd (13) exception with no resolution\n"
            "00005901230i[      ] Ctrl-C detected in signal handler.\n",
            "00005901225w[CPU1  ] exception(): 3rd (13) exception with no resolution",
        ),
    ],
    ids=["2.7", "3.1"],
)
def test_a_triple_fault(said: str, line: str) -> None:
    assert triple_fault(said) == f"the guest died of a triple fault; Bochs says: {line or said}"
    assert triple_fault(said.replace("3rd", "2nd")) == ""


def test_registers_of_bochs_3() -> None:
    old = next(line for line in REGISTERS.splitlines() if line.startswith("eflags"))
    assert registers_of(1, REGISTERS.replace(old, FLAGS_3)) == registers_of(1, REGISTERS)


def test_registers() -> None:
    found = asdict(registers_of(1, REGISTERS))
    assert found == {
        "thread": 2,
        "target": "CPU1",
        "cpu": 1,
        "eip": 0x10025C,
        "esp": 0x119000,
        "ebp": 0x54,
        "eflags": 2,
        "eax": 0x54,
        "ebx": 0x105200,
        "ecx": 0x16,
        "edx": 0,
        "esi": 0x115A28,
        "edi": 0xB80F0,
    }


@pytest.mark.parametrize("missing", ["rax", "rip", "eflags"])
def test_registers_that_are_not_told(missing: str) -> None:
    text = "\n".join(line for line in REGISTERS.splitlines() if not line.startswith(missing))
    with pytest.raises(DebuggerError, match="the registers of CPU 1 cannot be read"):
        registers_of(1, text)


def test_memory() -> None:
    assert bytes_of(MEMORY, 0x100000, 20) == BYTES


@pytest.mark.parametrize(("address", "length"), [(0x100000, 21), (0x100000, 19), (0x100004, 16), (0xFFFF8, 20)])
def test_memory_that_was_not_asked_for(address: int, length: int) -> None:
    with pytest.raises(DebuggerError, match=f"of {length} bytes at {address:#x} can be read"):
        bytes_of(MEMORY, address, length)


@given(st.integers(0, len(MEMORY) - 2), st.integers(1, 40))
def test_an_answer_with_a_hole_is_never_taken_for_memory(at: int, length: int) -> None:
    """Whatever is missing of the text: the bytes are right, or there are none."""
    text = MEMORY[:at] + MEMORY[at + length :]
    try:
        found = bytes_of(text, 0x100000, 20)
    except DebuggerError:
        return
    assert found == BYTES


def talk_to(script: str) -> Talk:
    return Talk(spawn(("/bin/sh", "-c", script), pipes=True))


def test_a_conversation() -> None:
    talk = talk_to("printf 'Bochs\\n<bochs:1> '; read word; printf '%s\\nanswer\\n<bochs:2> ' \"$word\"; read word")
    try:
        assert talk.await_prompt(10) == "Bochs\n"
        assert talk.ask("r") == "r\nanswer\n"
        assert (talk.prompted, talk.gone) == (False, "")
    finally:
        talk.child.kill()


def test_a_program_that_never_prompts() -> None:
    talk = talk_to("echo '<bochs:1> and more'; exec sleep 60")
    try:
        with pytest.raises(DebuggerError, match=r"did not answer within 0\.3 s"):
            talk.await_prompt(0.3)
    finally:
        talk.child.kill()


PANIC = "printf '====\\nBochs is exiting with the following message:\\n%s\\n====\\n' '{}' >&2; exit 1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("[ ] directive not understood", "Bochs exited with status 1: [ ] directive not understood"),
        (
            "[CPU1 ] exception(): 3rd (13) exception with no resolution",
            "the guest died of a triple fault; Bochs says: ",
        ),
    ],
)
def test_last_words(words: str, told: str) -> None:
    talk = talk_to(PANIC.format(words))
    with pytest.raises(DebuggerError, match=re.escape(told)):
        talk.await_prompt(10)
    with pytest.raises(DebuggerError, match=re.escape(told)):
        talk.ask("r")
    talk.child.kill()
