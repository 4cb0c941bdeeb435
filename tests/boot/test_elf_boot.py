"""The ELF that kgen links boots: by Multiboot, by PVH, from SeaBIOS and from qboot; and gdb steps it line by line."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import time
from collections.abc import Sequence
from ctypes import c_char, c_uint32
from pathlib import Path

import pytest

from kgen.host.process import spawn
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Assembly, Source
from kgen.toolchain.linker import Elf, link
from kgen.toolchain.listing import listing

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="qemu-system-i386 is not installed")

DEADLINE = 30.0  # seconds; a boot takes a fifth of one, a loaded machine is slow
EXIT_STATUS = 0x10 << 1 | 1  # what isa-debug-exit makes of the 0x10 that the guest writes

MULTIBOOT_HEADER = ".long 0x1badb002, 0, -0x1badb002"

# Says on COM1: ok, how it was entered (M or P, x for wrongly), its build id, and whether bss was zeroed (0 or 1).
SOURCE = """
.section .text, "ax"
.code32
HEADER
start:
    mov byte ptr [results + 4], 'M'
    cmp eax, 0x2badb002
    je report
    jmp wrong
pvh_entry:
    mov byte ptr [results + 4], 'P'
    cmp dword ptr [ebx], 0x336ec578
    je report
wrong:
    mov byte ptr [results + 4], 'x'
.align 16
report:
    mov esp, stack_end
    inc dword ptr [results]
    call say_all
    mov al, 0x10
    out 0xf4, al
.halt:
    hlt
    jmp .halt
.align 16
say_all:
    mov esi, greeting
    mov ecx, 3
    call say
    mov esi, results + 4
    mov ecx, 1
    call say
    mov esi, build_id
    mov ecx, 20
    call say
    mov edi, zeros
    mov ecx, 0x2000
    xor eax, eax
    cld
    repe scasb
    setne al
    add al, '0'
    mov byte ptr [results + 5], al
    mov esi, results + 5
    mov ecx, 1
    call say
    ret
say:
    mov edx, 0x3f8
.next:
    lodsb
    out dx, al
    dec ecx
    jnz .next
    ret
.section .rodata, "a"
greeting: .ascii "ok "
.section .data, "aw"
results: .long 6
    .skip 4
build_id: .skip 20
.section .bss, "awn"
zeros: .skip 0x2000
stack: .skip 4096
stack_end:
"""


class Results(ctypes.LittleEndianStructure):
    _fields_ = (("count", c_uint32), ("text", c_char * 4))


def build(directory: Path, header: str = MULTIBOOT_HEADER) -> tuple[Assembly, Elf]:
    """Write kernel.elf and kernel.s."""
    assembly = assemble(Source("kernel.s", SOURCE.replace("HEADER", header)))
    elf = link(assembly, entry="start", variables={"results": Results})
    (directory / "kernel.elf").write_bytes(elf.data)
    (directory / "kernel.s").write_text(listing(assembly), encoding="utf-8")
    return assembly, elf


def qemu(directory: Path, *options: str) -> Sequence[str]:
    return (
        *("qemu-system-i386", "-accel", "tcg", "-m", "32", "-display", "none", "-no-reboot", "-nodefaults"),
        *("-kernel", str(directory / "kernel.elf"), "-serial", f"file:{directory / 'serial'}"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4", *options),
    )


@pytest.mark.parametrize("bios", [(), ("-bios", "qboot.rom")], ids=["seabios", "qboot"])
@pytest.mark.parametrize(("header", "entered"), [(MULTIBOOT_HEADER, b"M"), ("", b"P")], ids=["multiboot", "pvh"])
def test_boots(tmp_path: Path, bios: tuple[str, ...], header: str, entered: bytes) -> None:
    _, elf = build(tmp_path, header)
    child = spawn(qemu(tmp_path, *bios))
    try:
        status = child.wait(DEADLINE)
    finally:
        child.kill()
    said = (tmp_path / "serial").read_bytes()
    assert (status, said) == (EXIT_STATUS, b"ok " + entered + elf.build_id + b"0"), child.epitaph()


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_steps_by_line(tmp_path: Path) -> None:
    assembly, _ = build(tmp_path)
    number = {text.strip(): line for line, text in enumerate(assembly.source.text.split("\n"), start=1)}
    socket = tmp_path / "gdb"
    child = spawn(
        qemu(tmp_path, "-S", "-chardev", f"socket,id=g,path={socket},server=on,wait=off", "-gdb", "chardev:g")
    )
    try:
        deadline = time.monotonic() + DEADLINE
        while not socket.exists():
            assert time.monotonic() < deadline, child.epitaph()
            time.sleep(0.02)
        commands = (
            "set confirm off",
            "set remotetimeout 60",  # QEMU may not stand yet
            f"target remote {socket}",
            "hbreak report",
            "continue",
            "delete",
            "set $eip = wrong",  # to walk over the padding between `wrong` and `report`
            *["step"] * 5,
            "print results",
            "backtrace",
            "kill",
        )
        run = subprocess.run(
            ["gdb", "-nx", "-batch", "kernel.elf", *(part for command in commands for part in ("-ex", command))],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        child.kill()
    stops = [int(row.split("\t")[0]) for row in run.stdout.splitlines() if row.split("\t")[0].isdigit()]
    assert stops == [
        number["mov esp, stack_end"],  # continue
        number["mov esp, stack_end"],  # step, from `wrong`
        number["inc dword ptr [results]"],
        number["call say_all"],
        number["mov esi, greeting"],
        number["mov esi, greeting"] + 1,
    ], run.stdout + run.stderr
    assert '{count = 7, text = "x\\000\\000"}' in run.stdout
