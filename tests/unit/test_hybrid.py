"""The file systems of the image: read back by hand, and by mtools and xorriso where they are installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kgen.errors import MediaError
from kgen.media import Payload
from kgen.media._bios import LOADED_BYTES
from kgen.media._fat12 import fat12
from kgen.media._iso9660 import BootEntry, Extent, iso9660
from kgen.media._pe import Machine
from kgen.media.efi import application
from kgen.media.img import DISK_BYTES, extents, write_disk

LOAD = 0x100000
KERNEL = Payload(bytes(range(256)) * 99 + b"!", LOAD, LOAD, LOAD + 0x10000, title="xchg.32.vga-text.token")
README = (
    b"This disk boots xchg.32.vga-text.token, a kernel made by kgen; it reports on the serial port and the screen.\r\n"
)
BLOCK, SECTOR = 2048, 512
ESP = 2040 * SECTOR


@pytest.fixture(scope="module")
def disk() -> bytes:
    image = bytearray(DISK_BYTES)
    for offset, data in extents(KERNEL):
        image[offset : offset + len(data)] = data
    return bytes(image)


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    """What both file systems show."""
    return {
        "README.TXT": README,
        "EFI/BOOT/BOOTX64.EFI": application(KERNEL, Machine.X64),
        "EFI/BOOT/BOOTIA32.EFI": application(KERNEL, Machine.IA32),
    }


# --- FAT12 -----------------------------------------------------------------------------------------------------------


def fat_files(volume: bytes) -> dict[str, bytes]:
    """Every file by its path, along the chains of both FATs, which must agree; no cluster may be in two chains."""
    sector, per_cluster, reserved, fats, entries, total, media, length = struct.unpack_from("<HBHBHHBH", volume, 11)
    assert (sector, per_cluster, total * sector) == (SECTOR, 1, len(volume))
    tables = [volume[(reserved + n * length) * sector :][: length * sector] for n in range(fats)]
    assert len(set(tables)) == 1
    root = (reserved + fats * length) * sector
    data = root + entries * 32
    clusters = (len(volume) - data) // sector
    assert clusters < 4085  # else it would be FAT16

    def following(cluster: int) -> int:
        pair = int.from_bytes(tables[0][cluster * 3 // 2 :][:2], "little")
        return pair >> 4 if cluster % 2 else pair & 0xFFF

    assert following(0) == 0xF00 | media
    used: set[int] = set()

    def chain(cluster: int) -> bytes:
        contents = b""
        while cluster < 0xFF8:
            assert 2 <= cluster < clusters + 2
            assert cluster not in used
            used.add(cluster)
            contents += volume[data + (cluster - 2) * sector :][:sector]
            cluster = following(cluster)
        return contents

    def walk(table: bytes, path: str, own: int, parent: int) -> Iterator[tuple[str, bytes]]:
        for at in range(0, len(table), 32):
            name, attributes, cluster, size = struct.unpack_from("<11sB14xHI", table, at)
            if not name[0]:
                break
            stem = name[:8].rstrip().decode() + ("." + name[8:].rstrip().decode()).rstrip(".")
            if attributes == 0x08:
                assert path == ""
            elif name[0] == ord("."):
                assert cluster == (own if name[:2] == b". " else parent)
            elif attributes & 0x10:
                yield from walk(chain(cluster), f"{path}{stem}/", cluster, own)
            else:
                assert attributes == 0x20
                contents = chain(cluster) if cluster else b""
                assert len(contents) - sector < size <= len(contents)
                yield path + stem, contents[:size]

    found = dict(walk(volume[root:data], "", 0, 0))
    assert all(bool(following(cluster)) == (cluster in used) for cluster in range(2, clusters + 2))
    return found


def test_the_efi_system_partition_holds_the_applications(disk: bytes, expected: dict[str, bytes]) -> None:
    volume = disk[ESP : ESP + 2880 * SECTOR]
    assert fat_files(volume) == expected
    assert volume[510:512] == b"\x55\xaa"
    hidden, serial, label, kind = struct.unpack_from("<28xI7xI11s8s", volume)
    assert (hidden, serial) == (2040, zlib.crc32(KERNEL.flat))
    assert (label, kind) == (b"KGEN       ", b"FAT12   ")


def test_files_are_aligned_where_asked_and_empty_ones_have_no_cluster() -> None:
    files = {"A": b"a" * 513, "D/EMPTY": b"", "D/B.C": b"b", "D/E/F": b"f" * 4096}
    volume = fat12(files, label="X", serial=1, hidden=0, align=BLOCK)
    assert fat_files(volume.data) == files
    for path, offset in volume.offsets.items():
        assert offset % BLOCK == 0
        assert volume.data[offset : offset + len(files[path])] == files[path]
    assert set(volume.offsets) == set(files) - {"D/EMPTY"}


def test_the_largest_file_fits_and_no_larger_one() -> None:
    room = 2880 * SECTOR - 33 * SECTOR
    assert len(fat_files(fat12({"A": bytes(room)}, label="X", serial=1, hidden=0).data)["A"]) == room
    with pytest.raises(MediaError, match="do not fit"):
        fat12({"A": bytes(room + 1)}, label="X", serial=1, hidden=0)


@pytest.mark.parametrize("name", ["lower", "TOOLONGNAME", "A.LONG", "", ".X", "A B", "Ä"])
def test_names_that_need_more_than_8_and_3_are_refused(name: str) -> None:
    with pytest.raises(MediaError, match="8 and 3"):
        fat12({name: b"x"}, label="X", serial=1, hidden=0)


def test_mtools_read_the_partition(disk: bytes, expected: dict[str, bytes], tmp_path: Path) -> None:
    mcopy = shutil.which("mcopy")
    if mcopy is None:
        pytest.skip("mtools are not installed")
    path = tmp_path / "kernel.img"
    write_disk(KERNEL, path)
    subprocess.run([mcopy, "-s", "-i", f"{path}@@{ESP}", "::/", tmp_path / "out"], check=True, timeout=60)
    copied = {str(file.relative_to(tmp_path / "out")): file for file in (tmp_path / "out").rglob("*.*")}
    assert {name: file.read_bytes() for name, file in copied.items()} == expected


# --- ISO 9660 --------------------------------------------------------------------------------------------------------


def both(data: bytes, at: int, size: int) -> int:
    """A number that is there in both byte orders."""
    little, big = data[at : at + size], data[at + size : at + 2 * size]
    assert int.from_bytes(little, "little") == int.from_bytes(big, "big")
    return int.from_bytes(little, "little")


def records(disk: bytes, block: int, size: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Of each record of a directory: name, first block, size in bytes, flags."""
    table, at = disk[block * BLOCK :][:size], 0
    while at < len(table) and table[at]:
        name = table[at + 33 : at + 33 + table[at + 32]]
        yield name, both(table, at + 2, 4), both(table, at + 10, 4), table[at + 25]
        at += table[at]


def iso_files(disk: bytes) -> tuple[dict[str, bytes], dict[str, int]]:
    """Every file by its path, and the block of every directory."""
    descriptor = disk[16 * BLOCK : 17 * BLOCK]
    assert descriptor[:7] == b"\1CD001\1"
    assert both(descriptor, 128, 2) == BLOCK
    files: dict[str, bytes] = {}
    folders: dict[str, int] = {}

    def walk(path: str, block: int, size: int, parent: int) -> None:
        folders[path] = block
        own, above, *rest = records(disk, block, size)
        assert (own[0], own[1], own[2]) == (b"\0", block, size)
        assert (above[0], above[1]) == (b"\1", parent)
        assert [record[0] for record in rest] == sorted(record[0] for record in rest)
        for name, first, length, flags in rest:
            text = name.decode()
            if flags & 2:
                walk(f"{path}{text}/", first, length, block)
            else:
                assert text.endswith(";1")
                files[path + text[:-2]] = disk[first * BLOCK :][:length]

    root = both(descriptor, 156 + 2, 4)
    walk("", root, both(descriptor, 156 + 10, 4), root)
    return files, folders


def test_the_cd_file_system_shows_what_is_there(disk: bytes, expected: dict[str, bytes]) -> None:
    files, folders = iso_files(disk)
    esp = files.pop("ESP.IMG")
    assert fat_files(esp) == expected
    assert files == expected | {"KERNEL.BIN": KERNEL.flat}
    descriptor = disk[16 * BLOCK :][:BLOCK]
    assert both(descriptor, 80, 4) * BLOCK == DISK_BYTES
    assert descriptor[40:72].rstrip() == b"KGEN"
    # both path tables lead to the same directories, in the order of their depth
    for where, order in ((140, "<"), (148, ">")):
        (block,) = struct.unpack_from(f"{order}I", descriptor, where)
        table = disk[block * BLOCK :][: both(descriptor, 132, 4)]
        found: list[tuple[str, int]] = []
        at = 0
        while at < len(table):
            length, _, first, parent = struct.unpack_from(f"{order}BBIH", table, at)
            name = table[at + 8 : at + 8 + length].decode()
            found.append(("" if name == "\0" else f"{found[parent - 1][0]}{name}/", first))
            at += 8 + length + length % 2
        assert dict(found) == folders


def test_the_boot_catalog_has_a_bios_and_a_uefi_entry(disk: bytes) -> None:
    record = disk[17 * BLOCK :][:BLOCK]
    assert record[:7] == b"\0CD001\1"
    assert record[7:39].rstrip(b"\0") == b"EL TORITO SPECIFICATION"
    assert disk[18 * BLOCK :][:7] == b"\xffCD001\1"
    (block,) = struct.unpack_from("<I", record, 71)
    catalog = disk[block * BLOCK :][:BLOCK]
    assert sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF == 0
    assert (catalog[0], catalog[1], catalog[30:32]) == (1, 0, b"\x55\xaa")
    bootable, media, segment, _, sectors, first = struct.unpack_from("<BBHHHI", catalog, 32)
    assert (bootable, media, segment, sectors) == (0x88, 0, 0, LOADED_BYTES // SECTOR)
    # boot sector and loader, the same as at the start of the disk
    assert disk[first * BLOCK :][:LOADED_BYTES] == disk[:LOADED_BYTES]
    assert first > 0
    assert struct.unpack_from("<BBH", catalog, 64) == (0x91, 0xEF, 1)
    bootable, media, segment, _, sectors, first = struct.unpack_from("<BBHHHI", catalog, 96)
    assert (bootable, media, segment) == (0x88, 0, 0)
    assert (first * BLOCK, sectors) == (ESP, 2880)
    assert not any(catalog[128:])


def test_directories_that_reach_into_what_follows_are_refused() -> None:
    files = {f"{letter}/A": Extent(99, 1) for letter in "ABCDEFGH"}
    with pytest.raises(MediaError, match="beyond block 30"):
        iso9660(files, [BootEntry(30, 4)], label="X", blocks=100, end=30)
    with pytest.raises(MediaError, match="too many files"):
        iso9660({f"F{n}": Extent(99, 1) for n in range(99)}, [BootEntry(30, 4)], label="X", blocks=100, end=30)


def test_xorriso_reads_the_cd(disk: bytes, expected: dict[str, bytes], tmp_path: Path) -> None:
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("xorriso is not installed")
    path = tmp_path / "kernel.iso"
    write_disk(KERNEL, path)
    words = ["-indev", path, "-report_el_torito", "plain", "-report_system_area", "plain"]
    words += ["-osirrox", "on", "-extract", "/", tmp_path / "out"]
    done = subprocess.run([xorriso, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Volume id    : 'KGEN'" in done.stderr + done.stdout
    assert [line.split()[6:9:2] for line in done.stdout.splitlines() if line.startswith("El Torito boot img")] == [
        ["BIOS", "none"],
        ["UEFI", "none"],
    ]
    assert "MBR heads per cyl  : 4" in done.stdout
    copied = {str(file.relative_to(tmp_path / "out")): file for file in (tmp_path / "out").rglob("*.*")}
    contents = {name: file.read_bytes() for name, file in copied.items()}
    assert fat_files(contents.pop("ESP.IMG")) == expected
    assert contents == expected | {"KERNEL.BIN": KERNEL.flat}
