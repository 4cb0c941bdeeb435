"""Our boot sector and loader on QEMU's BIOS: every kind of drive, every way to open A20, every error we can stage."""

from __future__ import annotations

import re
import select
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from kgen.host.process import Child, spawn
from kgen.media import Payload
from kgen.media.img import DISK_BYTES, ENTRY_MAGIC, MAX_FLAT, SECTOR, bios_disk, checksum, write_disk
from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Source

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="qemu-system-i386 is not installed")

DEADLINE = 30.0  # seconds; a boot takes less than one, a loaded machine is slow
LOAD = 0x100000
BSS_BYTES = 0x1003
COM1, COM2 = 0x3F8, 0x2F8
KIB = 1024

# Checks what the loader promises and says so on the serial port, with the drive. `_flat` puts the constants in front.
PAYLOAD = """
.code32
.section .text, "ax"
begin:
    mov ebp, eax
    mov ebx, edx
    mov esi, text_magic
    cmp ebp, MAGIC
    jne report
    mov esi, text_flags
    pushfd
    pop eax
    test eax, 0x600
    jnz report
    mov esi, text_data
    lea eax, [filler]
    mov ecx, FILLER_BYTES
    xor edx, edx
.sum:
    rol edx, 1
    movzx edi, byte ptr [eax]
    add edx, edi
    inc eax
    dec ecx
    jnz .sum
    cmp edx, FILLER_SUM
    jne report
    mov esi, text_bss
    mov ecx, BSS_BYTES
.zero:
    cmp byte ptr [eax], 0
    jne report
    inc eax
    dec ecx
    jnz .zero
    cmp byte ptr [eax], 0xEE
    jne report
    mov esi, text_ok
report:
    lodsb
    test al, al
    jz .drive
    call putc
    jmp report
.drive:
    mov al, bl
    shr al, 4
    add al, '0'
    call putc
    mov al, bl
    and al, 15
    add al, '0'
    call putc
    mov al, 0x0A
    call putc
.stop:
    hlt
    jmp .stop
putc:
    mov dx, 0x3F8
    out dx, al
    ret
text_ok:
    .asciz "payload ok, drive "
text_magic:
    .asciz "payload: wrong EAX, drive "
text_flags:
    .asciz "payload: wrong flags, drive "
text_data:
    .asciz "payload: wrong data, drive "
text_bss:
    .asciz "payload: wrong bss, drive "
filler:
"""


def payload(
    size: int, serial_port: int = COM1, baud: int = 115200, bss: int = BSS_BYTES, magic: int = ENTRY_MAGIC
) -> Payload:
    """A kernel of exactly ``size`` bytes, followed by ``bss`` zeros, that expects ``magic`` in EAX."""
    return Payload(_flat(size, bss, magic), LOAD, LOAD, LOAD + size + bss, serial_port, baud)


@cache
def _flat(size: int, bss: int, magic: int) -> bytes:
    def code(filler: bytes) -> bytes:
        total = 0
        for byte in filler:
            total = ((total << 1 | total >> 31) + byte) & 0xFFFFFFFF
        values = {"MAGIC": magic, "FILLER_BYTES": len(filler), "FILLER_SUM": total, "BSS_BYTES": bss}
        head = "\n".join(f".equ {name}, {value:#x}" for name, value in values.items())
        return assemble(Source("payload.asm", head + PAYLOAD), origin=LOAD).section(".text").data

    pattern = b"".join(struct.pack("<I", 0x9E3779B1 * n & 0xFFFFFFFF) for n in range(1, size // 4 + 1))
    filler = pattern[: size - len(code(pattern[:KIB]))]
    return code(filler) + filler


@dataclass
class Booted:
    """A running QEMU whose COM1 or COM2 we read, and whose monitor we can ask."""

    child: Child
    monitor: Path
    text: str = ""

    def expect(self, pattern: str, seconds: float = DEADLINE) -> str:
        """Read the serial port until ``pattern`` matches; fails at the deadline or when QEMU ends."""
        deadline = time.monotonic() + seconds
        stdout = self.child.stdout
        assert stdout is not None
        while (found := re.search(pattern, self.text)) is None:
            ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in time, but {self.text!r}"
            data = stdout.read(4096)
            assert data, f"QEMU {self.child.epitaph()}: {self.child.stderr_lines()}; serial {self.text!r}"
            self.text += data.decode("latin-1")
        return found.group(0)

    def ask(self, command: str) -> str:
        """The monitor's answer to one command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            _connect(connection, str(self.monitor))
            _until_prompt(connection)
            connection.sendall(command.encode() + b"\n")
            return _until_prompt(connection)

    def port(self, address: int) -> int:
        """The byte read from an I/O port."""
        answer = re.search("= 0x([0-9a-f]{2})\\b", self.ask(f"i /1xb {address:#x}"))
        assert answer is not None
        return int(answer.group(1), 16)

    def screen(self) -> str:
        """The characters of the text screen."""
        cells = re.findall(r"0x([0-9a-f]{4})\b", self.ask("xp /2000xh 0xb8000").partition("\n")[2])
        assert len(cells) == 2000
        return "".join(chr(int(cell, 16) & 0xFF) for cell in cells)

    def until_screen(self, text: str) -> None:
        """Wait until ``text`` is on the screen."""
        deadline = time.monotonic() + DEADLINE
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"no {text!r} on the screen in time, but {screen.split()}"
            time.sleep(0.05)

    def is_halted(self) -> bool:
        """Whether the CPU comes to sit in HLT; asked again, because it may still be on its way to the serial port's
        bound, and the timer interrupt wakes it now and then."""
        deadline = time.monotonic() + DEADLINE
        while "HLT=1" not in self.ask("info registers"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def _connect(connection: socket.socket, address: str) -> None:
    """Connect as soon as QEMU, just started, listens there."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _until_prompt(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"(qemu) "):
        chunk = connection.recv(65536)
        assert chunk, "the monitor hung up"
        data += chunk
    return data.decode()


@contextmanager
def boot(
    folder: Path,
    *arguments: str,
    serial: Sequence[str] = ("-serial", "stdio"),
    binary: str = "qemu-system-i386",
) -> Iterator[Booted]:
    """Run QEMU with these arguments, a monitor and no window; it is ended with the block."""
    monitor = folder / "mon"
    command = [binary, "-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot", "-nic", "none"]
    command += ["-monitor", f"unix:{monitor},server=on,wait=off", *serial, *arguments]
    child = spawn(command, pipes=True)
    try:
        yield Booted(child, monitor)
    finally:
        child.stop()


def dirty(folder: Path, kernel: Payload) -> list[str]:
    """Arguments that fill the kernel's bss, and what follows it, with 0xEE at every reset of the machine."""
    file = folder / "dirt"
    end = LOAD + len(kernel.flat)
    file.write_bytes(b"\xee" * (kernel.bss_end - end + 1))
    return ["-device", f"loader,file={file},addr={end},force-raw=on"]


def drive(path: Path, interface: str) -> str:
    return f"file={path},format=raw,if={interface}"


MACHINES = {
    "ide": ([], "ide"),
    "ahci": (["-machine", "q35"], "ide"),
    "usb": (["-device", "usb-ehci", "-device", "usb-storage,drive=d"], "none,id=d"),
    "virtio": ([], "virtio"),
    "nvme": (["-device", "nvme,drive=d,serial=1"], "none,id=d"),
}


@pytest.mark.parametrize("size", [KIB, 31 * KIB - 7, 200 * KIB + 1, MAX_FLAT])
@pytest.mark.parametrize("machine", MACHINES)
def test_boots_from_every_disk(tmp_path: Path, machine: str, size: int) -> None:
    arguments, interface = MACHINES[machine]
    kernel = payload(size)
    disk = tmp_path / "disk.img"
    write_disk(kernel, disk)
    with boot(tmp_path, *arguments, "-drive", drive(disk, interface), *dirty(tmp_path, kernel)) as qemu:
        assert qemu.expect("payload.*\n") == "payload ok, drive 80\n"


@pytest.mark.parametrize("sectors", [2400, 2880, 5760])
def test_boots_from_a_floppy_by_cylinder_head_and_sector(tmp_path: Path, sectors: int) -> None:
    kernel = payload(300 * KIB)
    image = bios_disk(kernel)
    disk = tmp_path / "floppy.img"
    disk.write_bytes(image + bytes(sectors * SECTOR - len(image)))
    with boot(tmp_path, "-drive", drive(disk, "floppy"), *dirty(tmp_path, kernel)) as qemu:
        assert qemu.expect("payload.*\n") == "payload ok, drive 00\n"


@pytest.mark.parametrize("first", [0, 20], ids=["system area", "elsewhere"])
def test_boots_from_a_cd_without_emulation(tmp_path: Path, first: int) -> None:
    kernel = payload(25 * KIB)
    image = bios_disk(kernel, start_lba=first * 4)
    sectors = {
        17: b"\0CD001\1EL TORITO SPECIFICATION".ljust(71, b"\0") + struct.pack("<I", 18),
        18: struct.pack("<BBHx23xH2s", 1, 0, 0, 0x55AA, b"\x55\xaa")
        + struct.pack("<BBHBxHI20x", 0x88, 0, 0, 0, 4, first),
    }
    disk = tmp_path / "cd.iso"
    with disk.open("wb") as file:
        for sector, data in {first: image, **sectors}.items():
            file.seek(sector * 2048)
            file.write(data)
        file.truncate(100 * 2048)
    with boot(tmp_path, "-cdrom", str(disk), "-boot", "d", *dirty(tmp_path, kernel)) as qemu:
        assert re.fullmatch("payload ok, drive [^08].\n", qemu.expect("payload.*\n"))


def broken(tmp_path: Path, image: bytes | bytearray, size: int = DISK_BYTES) -> Path:
    """A disk that begins with ``image`` and ends after ``size`` bytes."""
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.write(image[:size])
        file.truncate(size)
    return disk


@pytest.mark.parametrize("offset", [2 * KIB, 100 * KIB + 3, 200 * KIB])
def test_a_flipped_bit_is_reported(tmp_path: Path, offset: int) -> None:
    image = bytearray(bios_disk(payload(200 * KIB)))
    image[offset] ^= 0x10
    with boot(tmp_path, "-drive", drive(broken(tmp_path, image), "ide")) as qemu:
        qemu.expect("kgen boot: image checksum error F1\r\n")
        qemu.until_screen("kgen boot: image checksum error F1 ")
        assert qemu.is_halted()


@pytest.mark.parametrize(
    ("machine", "size", "message"),
    [
        ("ide", SECTOR, "kgen boot: cannot read the loader, code "),
        ("ide", 64 * KIB, "kgen boot: disk error "),
        ("ahci", 64 * KIB, "kgen boot: disk error "),
        ("usb", 64 * KIB, "kgen boot: disk error "),
        ("virtio", 200 * KIB, "kgen boot: disk error "),
    ],
)
def test_a_disk_cut_short_is_reported(tmp_path: Path, machine: str, size: int, message: str) -> None:
    arguments, interface = MACHINES[machine]
    disk = broken(tmp_path, bios_disk(payload(200 * KIB)), size)
    with boot(tmp_path, *arguments, "-drive", drive(disk, interface)) as qemu:
        said = qemu.expect(message + "[0-9A-F]{2}\r\n").strip()
        assert not said.endswith(" 00")
        qemu.until_screen(said)
        assert qemu.is_halted()


def test_a_loader_of_another_image_is_not_started(tmp_path: Path) -> None:
    disk = broken(tmp_path, bios_disk(payload(KIB))[:SECTOR] + bios_disk(payload(2 * KIB))[SECTOR:])
    with boot(tmp_path, "-drive", drive(disk, "ide")) as qemu:
        qemu.expect("kgen boot: cannot read the loader, code F0\r\n")


def test_errors_go_to_the_chosen_port_at_the_chosen_speed(tmp_path: Path) -> None:
    image = bytearray(bios_disk(payload(KIB, serial_port=COM2, baud=9600)))
    image[2 * KIB] ^= 1
    serial = ("-serial", "null", "-serial", "stdio")
    with boot(tmp_path, "-drive", drive(broken(tmp_path, image), "ide"), serial=serial) as qemu:
        qemu.expect("image checksum error F1\r\n")
        assert qemu.port(COM2 + 3) == 0x03  # LCR: 8 data bits, no parity, 1 stop bit
        assert qemu.port(COM2 + 4) & 3 == 3  # MCR: DTR, RTS
        assert qemu.port(COM2 + 1) == 0  # IER
        qemu.ask(f"o /1xb {COM2 + 3:#x} 0x83")
        assert (qemu.port(COM2), qemu.port(COM2 + 1)) == (115200 // 9600, 0)


def test_errors_reach_the_screen_where_there_is_no_serial_port(tmp_path: Path) -> None:
    image = bytearray(bios_disk(payload(KIB)))
    image[2 * KIB] ^= 1
    with boot(tmp_path, "-drive", drive(broken(tmp_path, image), "ide"), serial=("-serial", "none")) as qemu:
        qemu.until_screen("kgen boot: image checksum error F1 ")
        assert qemu.is_halted()


def test_errors_reach_the_screen_where_the_serial_port_never_gets_ready(tmp_path: Path) -> None:
    dma = 0x08  # of its registers the one that would be the line status reads as zero
    image = bytearray(bios_disk(payload(KIB, serial_port=dma)))
    image[2 * KIB] ^= 1
    with boot(tmp_path, "-drive", drive(broken(tmp_path, image), "ide")) as qemu:
        qemu.until_screen("kgen boot: image checksum error F1 ")
        assert qemu.is_halted()
        assert qemu.port(dma + 5) == 0


# Stands in for the boot sector: loads the real one from the last sector, spoils the machine, starts it.
SABOTEUR = f"""
.code16
.section .text, "ax"
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7C00
    cld
    mov si, 0x7C00
    mov di, 0x600
    mov cx, 256
    rep movsw
    ljmp 0, moved
moved:
    sti
    mov [drive], dl
    mov si, packet
    mov ah, 0x42
    int 0x13
    jc dead
    mov ah, 0x08
    mov dl, [drive]
    int 0x13
    jc dead
    and cl, 63
    mov [track_sectors], cl
    mov eax, [0x13 * 4]
    mov [old_13], eax
    mov eax, [0x15 * 4]
    mov [old_15], eax
    SPOIL
    mov dl, [drive]
    ljmp 0, 0x7C00
dead:
    hlt
    jmp dead
say:
    mov dx, 0x3F8
    out dx, al
    ret
close_a20:
    in al, 0x92
    and al, 0xFC
    out 0x92, al
    mov ax, 0xFFFF
    mov es, ax
    mov eax, [0x7C00]
    cmp es:[0x7C10], eax
    jne dead
    mov al, '!'
    call say
    ret
no_int_15_24:
    cmp ah, 0x24
    je refuse
pass_15:
    .byte 0x2E, 0xFF, 0x2E
    .word old_15
no_ranges:
    cmp ax, 0xE820
    je refuse
    jmp pass_15
no_e8:
    cmp ah, 0xE8
    je refuse
    jmp pass_15
no_memory_calls:
    cmp ah, 0x88
    je refuse
    jmp no_e8
refuse_extensions:
    cmp ah, 0x41
    jae refuse
    jmp pass
refuse_packets:
    cmp ah, 0x42
    je refuse
    jmp pass
refuse_without_reset:
    cmp ah, 0x42
    je .read
    cmp ah, 0x02
    je .read
    cmp ah, 0x00
    je .reset
    cmp ah, 0x48
    jne pass
    mov byte ptr cs:[resets], 2
    jmp pass
.read:
    cmp byte ptr cs:[resets], 0
    jne refuse
    jmp pass
.reset:
    cmp byte ptr cs:[resets], 0
    je pass
    dec byte ptr cs:[resets]
    jmp pass
refuse_long_tracks:
    cmp ah, 0x41
    jae refuse
    cmp ah, 0x02
    jne pass
    push cx
    and cx, 63
    dec cx
    add cl, al
    cmp cl, cs:[track_sectors]
    pop cx
    ja refuse
    jmp pass
no_sector_size:
    cmp ah, 0x48
    jne pass
    pusha
    mov al, '?'
    call say
    popa
    mov word ptr [si + 0x18], 0
    mov ah, 0
    push bp
    mov bp, sp
    and byte ptr [bp + 6], 0xFE
    pop bp
    iret
pass:
    .byte 0x2E, 0xFF, 0x2E
    .word old_13
refuse:
    pusha
    mov al, '?'
    call say
    popa
    mov ah, 0x01
    push bp
    mov bp, sp
    or byte ptr [bp + 6], 1
    pop bp
    iret
MORE
packet:
    .word 16, 1, 0x7C00, 0
    .quad {DISK_BYTES // SECTOR - 1}
old_13:
    .long 0
old_15:
    .long 0
drive:
    .byte 0
resets:
    .byte 2
track_sectors:
    .byte 0
    .org 510
    .word 0xAA55
"""


def sabotaged(folder: Path, image: bytes, spoil: str, more: str = "") -> Path:
    """A disk that boots ``image`` after the statements ``spoil`` have run; ``more`` are further routines."""
    text = SABOTEUR.replace("SPOIL", spoil.replace(";", "\n")).replace("MORE", more)
    disk = broken(folder, assemble(Source("saboteur.asm", text), origin=0x600).section(".text").data + image[SECTOR:])
    with disk.open("r+b") as file:
        file.seek(DISK_BYTES - SECTOR)
        file.write(image[:SECTOR])
    return disk


def hook(vector: int, handler: str) -> str:
    return f"mov dword ptr [{vector} * 4], {handler}"


@pytest.mark.parametrize(
    ("handler", "refusals"),
    [
        ("refuse_extensions", 1),
        ("refuse_packets", 1),
        ("refuse_without_reset", 3),
        ("refuse_long_tracks", 1),
        ("no_sector_size", 1),
    ],
)
def test_survives_a_difficult_bios(tmp_path: Path, handler: str, refusals: int) -> None:
    kernel = payload(200 * KIB)
    disk = sabotaged(tmp_path, bios_disk(kernel), hook(0x13, handler))
    with boot(tmp_path, "-drive", drive(disk, "ide"), *dirty(tmp_path, kernel)) as qemu:
        qemu.expect("payload ok, drive 80\n")
        assert qemu.text.count("?") >= refusals


@dataclass(frozen=True)
class A20Way:
    """One of the loader's ways to open A20: the instructions that do it."""

    code: bytes


BIOS, PORT_92, CONTROLLER = A20Way(b"\xb8\x01\x24\xcd\x15"), A20Way(b"\xe6\x92"), A20Way(b"\xb0\xdf\xe6\x60")


def without(image: bytes, *ways: A20Way) -> bytes:
    """The image with these instructions of the loader replaced by NOPs, and the checksum made right again."""
    old = struct.pack("<I", checksum(image[SECTOR:]))
    for way in ways:
        assert image.count(way.code) == 1
        image = image.replace(way.code, b"\x90" * len(way.code))
    assert image[:SECTOR].count(old) == 1
    return image[:SECTOR].replace(old, struct.pack("<I", checksum(image[SECTOR:]))) + image[SECTOR:]


@pytest.mark.parametrize(
    "others",
    [(PORT_92, CONTROLLER), (BIOS, CONTROLLER), (BIOS, PORT_92)],
    ids=["by the BIOS", "by port 92", "by the keyboard controller"],
)
def test_opens_a20_in_each_way(tmp_path: Path, others: Sequence[A20Way]) -> None:
    kernel = payload(31 * KIB)
    disk = sabotaged(tmp_path, without(bios_disk(kernel), *others), "call close_a20")
    with boot(tmp_path, "-drive", drive(disk, "ide"), *dirty(tmp_path, kernel)) as qemu:
        assert qemu.expect("(?s)!.*payload.*\n") == "!payload ok, drive 80\n"


def test_a_bios_that_cannot_open_a20_is_no_obstacle(tmp_path: Path) -> None:
    kernel = payload(31 * KIB)
    disk = sabotaged(tmp_path, bios_disk(kernel), f"call close_a20; {hook(0x15, 'no_int_15_24')}")
    with boot(tmp_path, "-drive", drive(disk, "ide"), *dirty(tmp_path, kernel)) as qemu:
        assert qemu.expect("(?s)!.*payload.*\n") == "!?payload ok, drive 80\n"


def test_a20_that_stays_closed_is_reported(tmp_path: Path) -> None:
    image = without(bios_disk(payload(KIB)), BIOS, PORT_92, CONTROLLER)
    with boot(tmp_path, "-drive", drive(sabotaged(tmp_path, image, "call close_a20"), "ide")) as qemu:
        qemu.expect("kgen boot: A20 gate stays closed, code F2\r\n")
        qemu.until_screen("kgen boot: A20 gate stays closed, code F2 ")
        assert qemu.is_halted()


#: How much memory there is: asked in the newest way that the BIOS has.
MEMORY_CALLS = {"E820": "no_int_15_24", "E801": "no_ranges", "88": "no_e8"}


@pytest.mark.parametrize("handler", MEMORY_CALLS.values(), ids=MEMORY_CALLS)
def test_too_little_memory_is_reported(tmp_path: Path, handler: str) -> None:
    kernel = payload(KIB, bss=30 << 20)
    disk = sabotaged(tmp_path, bios_disk(kernel), hook(0x15, handler))
    with boot(tmp_path, "-drive", drive(disk, "ide"), "-m", "30") as qemu:
        qemu.expect("kgen boot: needs 32 MiB of memory, code F3\r\n")
        qemu.until_screen("kgen boot: needs 32 MiB of memory, code F3 ")
        assert qemu.is_halted()


@pytest.mark.parametrize("handler", [*MEMORY_CALLS.values(), "no_memory_calls"], ids=[*MEMORY_CALLS, "unknown"])
def test_memory_that_just_does_is_enough(tmp_path: Path, handler: str) -> None:
    # the BIOS keeps something for itself at the end
    kernel = payload(KIB, bss=(4 << 20) - LOAD - (192 * KIB))
    disk = sabotaged(tmp_path, bios_disk(kernel), hook(0x15, handler))
    with boot(tmp_path, "-drive", drive(disk, "ide"), *dirty(tmp_path, kernel), "-m", "4") as qemu:
        assert qemu.expect("payload.*\n") == "payload ok, drive 80\n"
        assert ("?" in qemu.text) == (handler != "no_int_15_24")


#: Memory from 1 to 32 MiB in two ranges, the second one first.
TWO_RANGES = """
two_ranges:
    cmp ax, 0xE820
    jne pass_15
    mov eax, 0x01000000
    xor bl, 1
    jnz .put
    mov eax, 0x00100000
.put:
    mov es:[di], eax
    neg eax
    and eax, 0x00F00000
    jnz .size
    mov eax, 0x01000000
.size:
    mov es:[di + 8], eax
    xor eax, eax
    mov es:[di + 4], eax
    mov es:[di + 12], eax
    inc ax
    mov es:[di + 16], eax
    mov eax, edx
    iret
"""


@pytest.mark.parametrize(("mib", "said"), [(30, "payload ok, drive 80"), (32, "kgen boot: needs 34 MiB of memory")])
def test_memory_in_several_ranges_counts_as_one(tmp_path: Path, mib: int, said: str) -> None:
    kernel = payload(KIB, bss=mib << 20)
    disk = sabotaged(tmp_path, bios_disk(kernel), hook(0x15, "two_ranges"), TWO_RANGES)
    with boot(tmp_path, "-drive", drive(disk, "ide"), *dirty(tmp_path, kernel)) as qemu:
        assert said in qemu.expect("(?:payload|kgen).*\n")
