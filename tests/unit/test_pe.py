"""The UEFI application as a file: every header read back, by hand and by binutils."""

from __future__ import annotations

import ast
import ctypes
import re
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from kgen.media import ImageFormat, Payload, _pe
from kgen.media._pe import Machine
from kgen.media._uefi import GUIDS, offsets
from kgen.media.efi import application
from kgen.registry import discover

LOAD = 0x100000
KERNEL = Payload(bytes(range(256)) * 33 + b"!", LOAD, LOAD + 12, LOAD + 0x8000)
PAGE = 4096
CODE, EXECUTE, WRITE = 0x20, 0x20000000, 0x80000000


def test_packed_structures_name_their_layout() -> None:
    """Python 3.14 warns of those that do not, and 3.19 refuses them."""
    source = Path(_pe.__file__).read_text(encoding="utf-8")
    packed = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef | ast.Dict)]
    names = [_names(node) & {"_pack_", "_layout_"} for node in packed]
    assert [found for found in names if found] == [{"_pack_", "_layout_"}] * 4


def _names(node: ast.ClassDef | ast.Dict) -> set[str]:
    """The names that a class or a dictionary gives values."""
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    targets = [target for line in node.body if isinstance(line, ast.Assign) for target in line.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.fixture(scope="module", params=list(Machine), ids=lambda machine: machine.name)
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(request.param)


@pytest.fixture(scope="module")
def image(machine: Machine) -> bytes:
    return application(KERNEL, machine)


def sections(image: bytes) -> dict[str, tuple[int, int, bytes, int]]:
    """Of each section: address, size in memory, bytes in the file, characteristics."""
    (start,) = struct.unpack_from("<I", image, 60)
    count, optional = struct.unpack_from("<6xH12xH", image, start)
    found = {}
    for at in range(count):
        name, size, address, raw, offset, flags = struct.unpack_from(
            "<8s4I12xI", image, start + 24 + optional + 40 * at
        )
        found[name.rstrip(b"\0").decode()] = (address, size, image[offset : offset + raw], flags)
    return found


def test_the_headers_say_what_firmware_looks_at(machine: Machine, image: bytes) -> None:
    assert image[:2] == b"MZ"
    (start,) = struct.unpack_from("<I", image, 60)
    signature, kind, _, time, _, _, optional, flags = struct.unpack_from("<4s2H3I2H", image, start)
    assert (signature, kind, time) == (b"PE\0\0", machine, 0)
    assert flags & 2  # executable
    assert not flags & 1  # may be loaded anywhere
    wide = machine is Machine.X64
    assert optional == (240 if wide else 224)
    magic, entry = struct.unpack_from("<H14xI", image, start + 24)
    assert magic == (0x20B if wide else 0x10B)
    section_align, file_align, size, headers, checksum, subsystem, characteristics = struct.unpack_from(
        "<II16x3I2H", image, start + 24 + 32
    )
    assert (section_align, file_align, checksum) == (PAGE, 512, 0)
    assert subsystem == 10  # UEFI application
    assert characteristics & 0x100  # no code in data
    found = sections(image)
    assert list(found) == [".kernel", ".text", ".data", ".reloc"]
    address, length, _, flags = found[".text"]
    assert address <= entry < address + length
    end = headers
    assert headers % 512 == 0
    for address, length, data, flags in found.values():
        assert address % PAGE == 0
        assert address >= end
        assert len(data) % 512 == 0
        assert length <= len(data)
        assert not (flags & EXECUTE and flags & WRITE)
        assert bool(flags & EXECUTE) == bool(flags & CODE)
        end = address + length
    assert size == end + -end % PAGE
    directories = struct.unpack_from("<32I", image, start + 24 + (112 if wide else 96))
    assert directories[10:12] == found[".reloc"][:2]
    assert not any(directories[:10] + directories[12:])


def test_the_relocations_change_nothing(image: bytes) -> None:
    _, size, data, _ = sections(image)[".reloc"]
    page, length, *entries = struct.unpack("<IIHH", data[:size])
    assert length == size == 12
    assert page % PAGE == 0
    assert all(entry >> 12 == 0 for entry in entries)


def test_the_kernel_is_in_it_whole(image: bytes) -> None:
    _, size, data, flags = sections(image)[".kernel"]
    assert data[:size] == KERNEL.flat
    assert not flags & (EXECUTE | WRITE)


def test_each_kind_of_firmware_gets_its_own(image: bytes) -> None:
    assert len({application(KERNEL, machine) for machine in Machine}) == 2
    assert image in {application(KERNEL, machine) for machine in Machine}


def test_binutils_read_it(machine: Machine, image: bytes, tmp_path: Path) -> None:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump (binutils) is not installed")
    path = tmp_path / "kernel.efi"
    path.write_bytes(image)
    done = subprocess.run([objdump, "-x", path], capture_output=True, text=True, timeout=60, check=False)
    if "not recognized" in done.stderr:
        pytest.skip(f"this objdump knows no PE files: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "(EFI application)" in done.stdout
    assert ("pei-x86-64" if machine is Machine.X64 else "pei-i386") in done.stdout
    assert len(re.findall(r"^ +\d+ \.(?:kernel|text|data|reloc) ", done.stdout, re.MULTILINE)) == 4


def test_the_format_is_the_file_for_x64(tmp_path: Path) -> None:
    form = discover("kgen.media", "FORMAT", ImageFormat)["efi"]
    form.write(KERNEL, tmp_path / f"kernel{form.suffix}")
    assert (tmp_path / "kernel.efi").read_bytes() == application(KERNEL, Machine.X64)


#: From the tables of the specification, counted by hand.
BOOT_SERVICES = {
    "AllocatePages": 2,
    "GetMemoryMap": 4,
    "AllocatePool": 5,
    "HandleProtocol": 16,
    "ExitBootServices": 26,
    "Stall": 28,
    "LocateHandleBuffer": 36,
}


@pytest.mark.parametrize("pointer", [ctypes.c_uint32, ctypes.c_uint64])
def test_the_firmware_s_structures_are_laid_out_as_specified(pointer: type[ctypes.c_uint32]) -> None:
    size = ctypes.sizeof(pointer)
    found = offsets(pointer)
    for name, number in BOOT_SERVICES.items():
        assert found["boot"][name] == 24 + number * size
    # header, vendor, revision (padded), three handles with their protocols, run-time services
    assert found["system"]["ConOut"] == (64 if size == 8 else 44)
    assert found["system"]["BootServices"] == (96 if size == 8 else 60)
    assert found["system"]["ConfigurationTable"] == (112 if size == 8 else 68)
    assert found["descriptor"] | {"Padding": 4} == {
        "Type": 0,
        "Padding": 4,
        "PhysicalStart": 8,
        "VirtualStart": 16,
        "NumberOfPages": 24,
        "Attribute": 32,
    }
    assert found["mode"]["Info"] == 8
    assert found["mode"]["FrameBufferBase"] == (24 if size == 8 else 16)
    assert found["info"]["PixelsPerScanLine"] == 32


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("graphics_output", "9042a9de-23dc-4a38-96fb-7aded080516a"),
        ("acpi_1", "eb9d2d30-2d88-11d3-9a16-0090273fc14d"),
        ("acpi_2", "8868e871-e4f1-11d3-bc22-0080c73c8881"),
    ],
)
def test_a_guid_is_in_the_order_of_its_bytes(name: str, text: str) -> None:
    assert struct.pack("<4I", *GUIDS[name]) == uuid.UUID(text).bytes_le
