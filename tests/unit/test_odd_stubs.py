"""Stubs that do what the protocol allows and QEMU's does not, seen by kgen watch and kgen inspect.

A stub without a machine (../shared/cases/fakestub.py) serves the memory that a recorded run has left."""

from __future__ import annotations

import lzma
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from test_judge_memory import Machine, machine

from kgen.build import build
from kgen.cli import main
from kgen.errors import AsmError
from kgen.machine.gdb import without_packets
from kgen.machine.gdb_registers import CORE_BYTES, description
from kgen.spec import KernelSpec
from kgen.spec.kernel_spec import OLD_RULES
from kgen.toolchain.elf_reader import read

STUB = Path(__file__).resolve().parents[3] / "shared" / "cases" / "fakestub.py"
#: Of all that the protocol allows, together. One by one, for which gdb takes a minute, it is for the soak.
OPTIONS = [
    (),
    ("--rle", "--packet-size", "600", "--pid"),
    ("--short", "1024"),
    ("--wide", "--rle", "--packet-size", "600", "--pid"),
]
EACH = [("--rle",), ("--packet-size", "200"), ("--short", "256"), ("--pid",), ("--wide",)]


@pytest.fixture(scope="module")
def bad() -> Machine:
    return machine("kvm-lost")


@contextmanager
def stub(memory: Path, options: tuple[str, ...]) -> Iterator[str]:
    """The address of one that listens."""
    if not STUB.is_file():
        pytest.skip("there is no ../shared/cases/fakestub.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(STUB), str(memory), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb")
@pytest.mark.parametrize(
    "options", [*OPTIONS, *(pytest.param(each, marks=pytest.mark.soak) for each in EACH)], ids=" ".join
)
def test_a_stub_that_is_not_qemu_s(bad: Machine, tmp_path: Path, options: tuple[str, ...]) -> None:
    # the case's own result, which is the last one
    *_, (lost, duplicate) = (
        (int(a), int(b)) for a, b in re.findall(rb" result .* lost=(\d+) duplicate=(\d+)", bad.log)
    )
    memory, elf = tmp_path / "memory.raw", tmp_path / "kernel.elf"
    # VGA memory lies behind what was recorded
    memory.write_bytes(bad.raw + bytes(1 << 20))
    elf.write_bytes(bad.kernel.elf.data)
    with stub(memory, options) as address:
        watched = CliRunner().invoke(main, ["watch", address, str(elf)])
        assert watched.exit_code == 0, watched.output
        assert f"violations {lost + duplicate} (lost {lost} duplicate {duplicate})" in watched.output
        inspected = CliRunner().invoke(main, ["inspect", str(elf), address])
        assert inspected.exit_code == 3, inspected.output
        found = f"\nNOT_ATOMIC: {lost} lost, {duplicate} duplicate in 1000 rounds of xchg.32 on vga-text\n"
        assert found in inspected.output
        assert not re.search(r"[0-9a-f]{64}", inspected.output)


@pytest.fixture
def older(tmp_path: Path) -> tuple[Path, bytearray]:
    """The ELF of a kernel that an older kgen built, and the memory that it left; this kgen cannot build it."""
    elf, memory = (STUB.parent / name for name in ("kernel-bad.elf", "memory-bad.raw.xz"))
    if not elf.is_file() or not memory.is_file():
        pytest.skip("there is no ../shared/cases/kernel-bad.elf with its memory")
    data = elf.read_bytes()
    spec = KernelSpec.from_json(read(data).spec_json)
    assert spec.rules == OLD_RULES
    with pytest.raises(AsmError):
        build(spec)
    copy = tmp_path / "kernel.elf"
    copy.write_bytes(data)
    return copy, bytearray(lzma.decompress(memory.read_bytes()))


_OLDER = "\nNOT_ATOMIC: 89 lost, 4 duplicate in 1000 rounds of xchg.32 on vga-text\n"


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb")
@pytest.mark.parametrize(
    "options", [(), pytest.param(("--rle", "--short", "256"), marks=pytest.mark.soak)], ids=" ".join
)
def test_a_kernel_of_an_older_kgen_is_read_and_judged(
    older: tuple[Path, bytearray], tmp_path: Path, options: tuple[str, ...]
) -> None:
    elf, content = older
    memory, result = tmp_path / "memory.raw", tmp_path / "result.json"
    memory.write_bytes(content)
    with stub(memory, options) as address:
        watched = CliRunner().invoke(main, ["watch", address, str(elf)])
        assert watched.exit_code == 0, watched.output
        assert "violations 93 (lost 89 duplicate 4)" in watched.output
        inspected = CliRunner().invoke(main, ["inspect", str(elf), address, "--json", str(result)])
    assert inspected.exit_code == 3, inspected.output
    assert _OLDER in inspected.output
    reported = CliRunner().invoke(main, ["report", str(result)])
    assert reported.exit_code == 0, reported.output
    assert _OLDER in reported.output


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb")
@pytest.mark.parametrize(
    ("file", "code", "why"),
    [
        ("memory", 9, "\nERROR: the guest's .text is not what was built"),
        ("ELF", 2, "was altered after it was built: its build id does not match"),
    ],
)
def test_a_kernel_of_an_older_kgen_that_was_changed_is_no_evidence(
    older: tuple[Path, bytearray], tmp_path: Path, file: str, code: int, why: str
) -> None:
    """That it cannot be built again takes no other check away. MOV is put in place of its exchange."""
    elf, content = older
    data = bytearray(elf.read_bytes())
    changed = {"memory": content, "ELF": data}[file]
    exchange = read(bytes(data)).symbols["exchange_xchg_32"]
    bytes_there = bytes(content[exchange : exchange + 64])
    at = changed.index(bytes_there) + bytes_there.index(b"\x87\x07")
    changed[at] = 0x89
    memory = tmp_path / "memory.raw"
    memory.write_bytes(content)
    elf.write_bytes(data)
    with stub(memory, ()) as address:
        inspected = CliRunner().invoke(main, ["inspect", str(elf), address])
    assert inspected.exit_code == code, inspected.output
    assert why in inspected.output


@pytest.mark.parametrize("size", [CORE_BYTES, 560, 608, 1048])
def test_a_description_has_as_many_bytes_as_the_stub_sends(size: int) -> None:
    root = ElementTree.fromstring(description(size))
    registers = list(root.iter("reg"))
    assert sum(int(register.attrib["bitsize"]) for register in registers) == 8 * size
    assert len({register.attrib["name"] for register in registers}) == len(registers)


def test_gdb_s_long_packets_are_cut() -> None:
    said = "Remote 'g' packet reply is too long (expected 560 bytes, got 608 bytes): " + "00" * 608
    assert without_packets(said) == f"{said[:-1216]}0000000000000000... (1216 digits)"
    assert without_packets("no packet: " + "ab" * 20) == "no packet: " + "ab" * 20
