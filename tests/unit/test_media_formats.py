"""The disk containers as files: other people's readers find the raw disk in them, and nothing wrong with them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

pytest.importorskip("dissect.hypervisor")
from dissect.hypervisor.disk.c_qcow2 import c_qcow2
from dissect.hypervisor.disk.qcow2 import QCow2
from dissect.hypervisor.disk.vdi import VDI
from dissect.hypervisor.disk.vhd import VHD
from dissect.hypervisor.disk.vhdx import VHDX
from dissect.hypervisor.disk.vmdk import VMDK, SparseDisk
from hypothesis import given, settings
from hypothesis import strategies as st

from kgen.errors import MediaError, OutputError
from kgen.media import ImageFormat, Payload
from kgen.media._container import PAGE, Disk, DiskContainer, Stored, disk_from
from kgen.media.img import CYLINDERS, DISK_BYTES, HEADS, MAX_FLAT, SECTOR, TRACK_SECTORS, extents
from kgen.media.img import FORMAT as RAW
from kgen.media.vhd import footer
from kgen.media.vhdx import crc32c
from kgen.registry import discover

LOAD = 0x100000
KERNEL = Payload(b"\xf4\xeb\xfd" * 5000, LOAD, LOAD, LOAD + 0x5000)
MIB = 1 << 20

FORMATS = discover("kgen.media", "FORMAT", ImageFormat)
CONTAINERS = {name: entry for name, entry in FORMATS.items() if isinstance(entry, DiskContainer)}


def in_blocks(stream: BinaryIO) -> bytes:
    """All of a stream, a MiB at a time: dissect.hypervisor 3.21 follows a VDI's map for the first block of a read
    only."""
    return b"".join(iter(lambda: stream.read(MIB), b""))


#: dissect's readers: the whole disk in an opened file.
READERS: Mapping[str, Callable[[BinaryIO], bytes]] = {
    "qcow2": lambda file: QCow2(file).open().read(),
    "vdi": lambda file: in_blocks(VDI(file).open()),
    "vhd": lambda file: VHD(file).read(),
    "vhdx": lambda file: VHDX(file).read(),
    "vmdk": lambda file: VMDK(file).read(),
}
#: QEMU's names of the formats, where they are others.
QEMU_NAMES = {"vhd": "vpc"}

QEMU_IMG = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")

#: Bytes that no page and no block has by chance.
NOISE = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(128))

#: Disks at the borders of what a container tells apart.
DISKS = {
    "empty": (),
    "full": tuple((at, NOISE) for at in range(0, DISK_BYTES, PAGE)),
    "its first and last byte": ((0, b"\x01"), (DISK_BYTES - 1, b"\x02")),
    "the last block alone": ((DISK_BYTES - MIB, b"\x03"),),
    "across every border": tuple((at - 2048, NOISE) for at in range(MIB, DISK_BYTES, MIB)),
    "zeros that were written": ((3 * MIB, bytes(2 * MIB)), (9 * MIB, b"\x04")),
}

containers = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


def qemu_name(container: ImageFormat) -> str:
    return QEMU_NAMES.get(container.name, container.name)


def raw_of(parts: tuple[tuple[int, bytes], ...]) -> bytes:
    """The raw disk that the extents describe."""
    raw = bytearray(DISK_BYTES)
    for offset, data in parts:
        raw[offset : offset + len(data)] = data
    return bytes(raw)


def file_of(stored: Stored) -> bytes:
    """A container's whole file; its extents must be in order and not overlap."""
    file, end = bytearray(stored.size), 0
    for offset, data in stored.extents:
        assert end <= offset, "extents overlap"
        end = offset + len(data)
        file[offset:end] = data
    assert end <= len(file) == stored.size
    return bytes(file)


def contained(container: DiskContainer, parts: tuple[tuple[int, bytes], ...]) -> bytes:
    return file_of(container.contain(disk_from(parts), f"kernel{container.suffix}"))


def read_back(container: ImageFormat, file: bytes) -> bytes:
    """The raw disk as dissect reads it."""
    return READERS[container.name](io.BytesIO(file))


def difference(one: bytes, other: bytes) -> str:
    """Where two disks differ first, "" if nowhere: a readable difference of 17 MiB takes pytest minutes."""
    if one == other:
        return ""
    low, high = 0, max(len(one), len(other))  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return f"{len(one)} and {len(other)} bytes, differ at {low:#x}"


def qemu_img(*arguments: str | Path, accept: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in accept, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout


@functools.cache
def files(container: DiskContainer) -> Mapping[str, bytes]:
    """The container's file of each of DISKS."""
    return {name: contained(container, parts) for name, parts in DISKS.items()}


# --- what every format keeps


def test_there_are_the_formats_that_hypervisors_ask_for() -> None:
    assert set(CONTAINERS) == set(READERS) == {"qcow2", "vdi", "vhd", "vhdx", "vmdk"}
    assert set(CONTAINERS) < set(FORMATS)


def test_no_two_formats_write_the_same_file() -> None:
    suffixes = [entry.suffix for entry in FORMATS.values()]
    assert len(set(suffixes)) == len(suffixes)
    assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in suffixes)


@pytest.mark.parametrize("entry", FORMATS.values(), ids=FORMATS)
def test_a_kernels_disk_is_read_back_byte_for_byte(entry: ImageFormat, tmp_path: Path) -> None:
    if not isinstance(entry, DiskContainer):
        pytest.skip(f"{entry.name} is no container of the raw disk; it has tests of its own")
    path, raw = tmp_path / f"kernel{entry.suffix}", tmp_path / "kernel.img"
    entry.write(KERNEL, path)
    RAW.write(KERNEL, raw)
    with path.open("rb") as file:
        assert not difference(READERS[entry.name](file), raw.read_bytes())
    assert [each.name for each in sorted(tmp_path.iterdir())] == sorted([raw.name, path.name])
    if hasattr(path.stat(), "st_blocks"):
        stored = sum(len(data) + 2 * PAGE for _, data in extents(KERNEL))
        assert path.stat().st_blocks * 512 < stored + (256 << 10), "zeros are stored"


@containers
def test_borders_are_read_back(container: DiskContainer) -> None:
    for name, parts in DISKS.items():
        assert not difference(read_back(container, files(container)[name]), raw_of(parts)), name


_PARTS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, DISK_BYTES - 1), st.integers(0, DISK_BYTES // 65536 - 1).map(lambda n: n * 65536)),
        st.one_of(st.binary(min_size=1, max_size=64), st.integers(1, 3 * 65536).map(lambda n: (NOISE * 48)[:n])),
    ),
    max_size=6,
).map(lambda parts: tuple((at, data[: DISK_BYTES - at]) for at, data in parts))


@containers
@settings(max_examples=20, deadline=None)
@given(parts=_PARTS)
def test_any_disk_is_read_back(container: DiskContainer, parts: tuple[tuple[int, bytes], ...]) -> None:
    assert not difference(read_back(container, contained(container, parts)), raw_of(parts))


@settings(max_examples=20, deadline=None)
@given(parts=_PARTS, size=st.integers(1000, 6_400_000))
def test_only_the_content_counts(parts: tuple[tuple[int, bytes], ...], size: int) -> None:
    """The same disk cut in another way, with zeros written out, is the same to every format."""
    raw = raw_of(parts)
    other = tuple((at, raw[at : at + size]) for at in range(0, DISK_BYTES, size))
    assert disk_from(other) == disk_from(parts)


def test_same_kernel_same_bytes_in_another_process(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, tests.unit.test_media_formats as t\n"
        "for name, entry in t.CONTAINERS.items(): entry.write(t.KERNEL, pathlib.Path(sys.argv[1], name))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    subprocess.run([sys.executable, "-c", program, there], env=environment, check=True, timeout=60)
    for name, entry in CONTAINERS.items():
        entry.write(KERNEL, here / name)
        assert not difference((here / name).read_bytes(), (there / name).read_bytes()), name


@containers
def test_a_refused_kernel_leaves_the_old_file(container: DiskContainer, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"old")
    with pytest.raises(MediaError, match="bytes; the disk loader takes"):
        container.write(Payload(bytes(MAX_FLAT + 1), LOAD, LOAD, LOAD + 2 * MAX_FLAT), path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])
    container.write(KERNEL, path)
    assert (path.read_bytes() != b"old", list(tmp_path.iterdir())) == (True, [path])


@containers
def test_a_file_that_cannot_be_replaced_leaves_nothing(container: DiskContainer, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        container.write(KERNEL, tmp_path / "kernel")
    assert [each.name for each in tmp_path.iterdir()] == ["kernel"]


@pytest.mark.parametrize("part", [(-1, b"x"), (DISK_BYTES, b"x"), (DISK_BYTES - 1, b"xy")])
def test_what_lies_outside_the_disk_is_refused(part: tuple[int, bytes]) -> None:
    with pytest.raises(MediaError, match="not within the disk"):
        disk_from([part])


def test_different_disks_have_different_identifiers() -> None:
    disks = [disk_from(parts) for parts in DISKS.values()]
    for purpose in ("a", "b"):
        assert len({disk.uuid(purpose) for disk in disks}) == len(disks)
    assert disks[0].uuid("a") != disks[0].uuid("b")
    # Where a page lies counts, too.
    assert disk_from([(0, b"x")]).uuid("a") != disk_from([(PAGE, b"x")]).uuid("a")
    assert disks[0].uuid("a").version == 5


# --- QEMU's own judgement


@QEMU_IMG
@containers
def test_qemu_img_finds_the_same_disk_and_nothing_wrong(container: DiskContainer, tmp_path: Path) -> None:
    path, raw = tmp_path / "file", tmp_path / "raw"
    for name, parts in DISKS.items():
        path.write_bytes(files(container)[name])
        raw.write_bytes(raw_of(parts))
        compared = qemu_img("compare", "-f", qemu_name(container), "-F", "raw", path, raw)
        assert "identical" in compared, name
        # 63: QEMU has no check for this format. A leak would be 3.
        checked = qemu_img("check", "-f", qemu_name(container), path, accept=(0, 63))
        assert "No errors were found" in checked or container.name == "vhd", name


@QEMU_IMG
@containers
def test_qemu_img_recognises_it_unasked(container: DiskContainer, tmp_path: Path) -> None:
    """By its first bytes; a fixed VHD has nothing there, which is why it must be named as one."""
    path = tmp_path / "file"
    path.write_bytes(files(container)["full"])
    about = json.loads(qemu_img("info", "--output=json", path))
    assert about["format"] == ("raw" if container.name == "vhd" else container.name)
    if container.name == "vhd":
        about = json.loads(qemu_img("info", "--output=json", "-f", "vpc", path))
    assert about["virtual-size"] == DISK_BYTES
    assert not about.get("dirty-flag", False)


# --- what the specifications say and these readers do not ask


def test_vhd_footer() -> None:
    disk = disk_from(DISKS["its first and last byte"])
    data = footer(disk)
    assert len(data) == 512
    cookie, features, version, offset, time = struct.unpack_from(">8sIIQI", data)
    assert (cookie, features, version, offset, time) == (b"conectix", 2, 0x10000, (1 << 64) - 1, 0)
    original, current, cylinders, heads, sectors, kind, checksum = struct.unpack_from(">QQHBBII", data, 40)
    assert original == current == DISK_BYTES == cylinders * heads * sectors * 512
    assert kind == 2
    assert checksum == (sum(data[:64]) + sum(data[68:])) ^ 0xFFFFFFFF
    assert (cylinders, heads, sectors) == _vhd_geometry(DISK_BYTES // SECTOR)
    assert data[68:84] == disk.uuid("vhd").bytes
    file = files(CONTAINERS["vhd"])["full"]
    assert len(file) == DISK_BYTES + 512
    assert not difference(file[:DISK_BYTES], raw_of(DISKS["full"]))


def _vhd_geometry(sectors: int) -> tuple[int, int, int]:
    """The appendix "CHS Calculation" of the specification, as far as small disks need it."""
    track = 17
    heads = max((sectors // track + 1023) // 1024, 4)
    assert heads <= 16
    assert sectors // track < heads * 1024
    return sectors // track // heads, heads, track


def test_crc32c() -> None:
    # RFC 3720, B.4: the check values of iSCSI, which uses the same checksum
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


def test_vhdx_has_everything_twice() -> None:
    """Readers stop at the first good copy: either must do alone."""
    file = bytearray(files(CONTAINERS["vhdx"])["across every border"])
    raw = raw_of(DISKS["across every border"])
    kib64 = 64 << 10
    for at, size in ((1, 4096), (2, 4096), (3, kib64), (4, kib64)):
        part = bytes(file[at * kib64 : at * kib64 + size])
        (stored,) = struct.unpack_from("<I", part, 4)
        assert stored == crc32c(part[:4] + bytes(4) + part[8:]), at
    assert file[3 * kib64 : 4 * kib64] == file[4 * kib64 : 5 * kib64]
    first, second = VHDX(io.BytesIO(file)).headers
    assert (first.sequence_number, second.sequence_number) == (1, 2)
    assert first.file_write_guid == second.file_write_guid != bytes(16)
    assert first.log_guid == second.log_guid == bytes(16)
    assert not difference(VHDX(io.BytesIO(file)).read(), raw)


@QEMU_IMG
@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_vhdx_survives_the_loss_of_a_copy(damaged: int, tmp_path: Path) -> None:
    """QEMU checks the checksums: it falls back to the other copy, and accepts that."""
    file = bytearray(files(CONTAINERS["vhdx"])["the last block alone"])
    file[damaged * (64 << 10) + 100] ^= 1
    (tmp_path / "file").write_bytes(file)
    (tmp_path / "raw").write_bytes(raw_of(DISKS["the last block alone"]))
    if damaged == 3:  # QEMU reads the first region table only, and must say that it is bad
        assert qemu_img("compare", "-f", "vhdx", "-F", "raw", tmp_path / "file", tmp_path / "raw", accept=(2,)) == ""
        return
    assert "identical" in qemu_img("compare", "-f", "vhdx", "-F", "raw", tmp_path / "file", tmp_path / "raw")


def test_vhdx_lies_on_whole_mebibytes_without_overlap() -> None:
    file = files(CONTAINERS["vhdx"])["across every border"]
    image = VHDX(io.BytesIO(file))
    places = [(0, MIB), (image.header.log_offset, image.header.log_length)]
    table = image.region_table
    places += [(entry.file_offset, entry.length) for entry in table.entries]
    blocks = [image.bat.pb(block) for block in range(DISK_BYTES // image.block_size)]
    assert {block.state for block in blocks} == {6}
    places += [(block.file_offset_mb * MIB, image.block_size) for block in blocks]
    places.sort()
    assert all(offset % MIB == size % MIB == 0 for offset, size in places)
    assert [offset for offset, _ in places] == [0, *(offset + size for offset, size in places)][: len(places)]
    assert len(file) == sum(size for _, size in places)


def test_vhdx_zero_blocks_are_defined_to_be_zeros() -> None:
    """Of a block that is merely not present, [MS-VHDX] 2.5.1.1 does not promise what is read."""
    image = VHDX(io.BytesIO(files(CONTAINERS["vhdx"])["the last block alone"]))
    blocks = [image.bat.pb(block) for block in range(DISK_BYTES // image.block_size)]
    assert [(block.state, block.file_offset_mb) for block in blocks[:-1]] == [(2, 0)] * 16
    assert (blocks[-1].state, blocks[-1].file_offset_mb) == (6, 4)


def test_vdi_header() -> None:
    name = "the last block alone"
    image = VDI(io.BytesIO(files(CONTAINERS["vdi"])[name]))
    header = image.header
    assert header.cbHeader == 400
    assert (image.size, image.block_size, image.number_of_blocks) == (DISK_BYTES, MIB, 17)
    assert header.cBlocksAllocated == 1
    assert image.blocks_offset >= 72 + header.cbHeader
    assert image.data_offset >= image.blocks_offset + 4 * image.number_of_blocks
    assert image.blocks_offset % SECTOR == image.data_offset % SECTOR == 0
    identifiers = [bytes(header.uuidCreate), bytes(header.uuidModify)]
    assert len({*identifiers, bytes(16)}) == 3, "two identifiers, neither of them nil"
    assert bytes(header.uuidLinkage) == bytes(header.uuidParentModify) == bytes(16)
    geometry = struct.pack("<4I", 512, 4, 17, 512)
    assert header.LegacyGeometry.dumps() == geometry
    # The BIOS's geometry is at the end of the header; dissect leaves it out.
    assert files(CONTAINERS["vdi"])[name][72 + 400 - 16 : 72 + 400] == geometry
    assert len(files(CONTAINERS["vdi"])[name]) == image.data_offset + MIB


def test_vmdk_descriptor() -> None:
    file = files(CONTAINERS["vmdk"])["full"]
    descriptor = SparseDisk(io.BytesIO(file)).descriptor
    assert descriptor.attr["version"] == "1"
    assert descriptor.attr["createType"] == "monolithicSparse"
    assert descriptor.attr["parentCID"] == "ffffffff"
    assert re.fullmatch("[0-7][0-9a-f]{7}", descriptor.attr["CID"])
    (extent,) = descriptor.extents
    assert (extent.access_mode, extent.sectors, extent.type) == ("RW", DISK_BYTES // SECTOR, "SPARSE")
    assert extent.filename == "kernel.vmdk"
    ddb = descriptor.ddb
    assert ddb["ddb.adapterType"] == "ide"
    geometry = [int(ddb[f"ddb.geometry.{name}"]) for name in ("cylinders", "heads", "sectors")]
    assert geometry == [CYLINDERS, HEADS, TRACK_SECTORS]
    # By the specification the text is the descriptor's sectors up to the first zero.
    text = file[SECTOR : 21 * SECTOR].rstrip(b"\0")
    assert text.startswith(b"# Disk DescriptorFile\nversion=1\n")
    assert b"\0" not in text


def test_vmdk_redundant_directory_tells_the_same() -> None:
    for parts, file in zip(DISKS.values(), files(CONTAINERS["vmdk"]).values(), strict=True):
        header = struct.unpack_from("<4sIIQQQQIQQQB4sH", file)
        assert header[:3] == (b"KDMV", 1, 3)
        capacity, grain, _, _, entries, redundant, directory, overhead, unclean, line_end, compressed = header[3:]
        assert (capacity * SECTOR, grain, entries) == (DISK_BYTES, 128, 512)
        assert (unclean, line_end, compressed) == (0, b"\n \r\n", 0)
        tables = []
        for at in (redundant, directory):
            (table,) = struct.unpack_from("<I", file, at * SECTOR)
            tables.append(struct.unpack_from("<512I", file, table * SECTOR))
            assert at < table < overhead
        assert tables[0] == tables[1]
        used = [place for place in tables[0] if place]
        assert used == list(range(overhead, overhead + len(used) * grain, grain))
        assert len(file) == (overhead + len(used) * grain) * SECTOR
        assert overhead % grain == 0
        raw = raw_of(parts)
        for number, place in enumerate(tables[0][: capacity // grain]):
            expected = raw[number * 65536 : (number + 1) * 65536]
            assert not difference(file[place * SECTOR :][:65536] if place else bytes(65536), expected)


def test_vmdk_holds_the_name_of_its_file(tmp_path: Path) -> None:
    vmdk = CONTAINERS["vmdk"]
    vmdk.write(KERNEL, tmp_path / "größer than.vmdk")
    with (tmp_path / "größer than.vmdk").open("rb") as file:
        assert SparseDisk(file).descriptor.extents[0].filename == "größer than.vmdk"
    with pytest.raises(MediaError, match="holds its own name"):
        vmdk.contain(Disk(()), 'a"b.vmdk')
    with pytest.raises(MediaError, match="holds its own name"):
        vmdk.contain(Disk(()), "a\nb.vmdk")
    with pytest.raises(MediaError, match="holds its own name"):
        vmdk.contain(Disk(()), os.fsdecode(b"\xff.vmdk"))


def test_qcow2_header() -> None:
    header = QCow2(io.BytesIO(files(CONTAINERS["qcow2"])["full"])).header
    assert (header.version, header.cluster_bits, header.refcount_order, header.header_length) == (3, 16, 4, 104)
    assert header.incompatible_features == header.compatible_features == header.autoclear_features == 0
    assert header.backing_file_offset == header.crypt_method == header.nb_snapshots == 0
    assert len(c_qcow2.QCowHeader) >= 104


def test_a_field_takes_zeros_and_no_more_than_it_holds() -> None:
    from kgen.media._container import octets

    assert bytes(octets(b"a\0b", 5)) == b"a\0b\0\0"
    assert ctypes.sizeof(octets(b"", 16)) == 16
    with pytest.raises(ValueError, match="do not fit"):
        octets(b"abc", 2)
