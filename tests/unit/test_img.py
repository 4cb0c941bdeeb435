"""The raw disk image as a file: size, holes, partition table, and what is refused."""

from __future__ import annotations

import itertools
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import MediaError, OutputError
from kgen.media import ImageFormat, Payload, write_sparse
from kgen.media.efi import application
from kgen.media.img import (
    CYLINDERS,
    DISK_BYTES,
    DISK_SECTORS,
    FORMAT,
    HEADS,
    MAX_FLAT,
    SECTOR,
    TRACK_SECTORS,
    Partition,
    bios_disk,
    checksum,
    chs,
    extents,
    write_disk,
)
from kgen.registry import discover

LOAD = 0x100000
KERNEL = Payload(b"\xf4\xeb\xfd" * 1000, LOAD, LOAD, LOAD + 0x2000)
MIB = 1 << 20


def disk(kernel: Payload) -> bytes:
    """The whole image in memory."""
    image = bytearray(DISK_BYTES)
    for offset, data in extents(kernel):
        image[offset : offset + len(data)] = data
    return bytes(image)


def test_the_cd_image_is_the_disk_image(tmp_path: Path) -> None:
    discover("kgen.media", "FORMAT", ImageFormat)["iso"].write(KERNEL, tmp_path / "kernel.iso")
    assert (tmp_path / "kernel.iso").read_bytes() == disk(KERNEL)


def lba(head: int, sector: int, cylinder: int) -> int:
    """The sector number of three bytes in a partition entry, by the textbook formula."""
    return ((cylinder | (sector & 0xC0) << 2) * HEADS + head) * TRACK_SECTORS + (sector & 63) - 1


def test_it_is_a_registered_format() -> None:
    assert discover("kgen.media", "FORMAT", ImageFormat)["img"] is FORMAT
    assert FORMAT.write is write_disk


def test_the_file_is_17_mib_with_holes(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    FORMAT.write(KERNEL, path)
    pieces = extents(KERNEL)
    assert path.stat().st_size == DISK_BYTES == 17 * MIB == CYLINDERS * HEADS * TRACK_SECTORS * SECTOR
    if hasattr(path.stat(), "st_blocks"):
        assert path.stat().st_blocks * 512 <= sum(len(data) + 8192 for _, data in pieces)
    image = path.read_bytes()
    assert image == disk(KERNEL)
    end = 0
    for offset, data in pieces:
        assert offset >= end
        assert not any(image[end:offset])
        assert image[offset : (end := offset + len(data))] == data
    assert not any(image[end:])


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_the_file_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_disk(KERNEL, tmp_path / "disk.img")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "disk.img").stat().st_mode) == 0o640


def test_same_input_same_bytes_in_another_process() -> None:
    program = "import hashlib, tests.unit.test_img as t; print(hashlib.sha256(t.disk(t.KERNEL)).hexdigest())"
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        digests.add(
            subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True).stdout
        )
    assert len(digests) == 1


def test_the_boot_sector_is_one() -> None:
    image = bios_disk(KERNEL)
    assert image[510:512] == b"\x55\xaa"
    assert image[0] == 0xEB  # JMP short over what a BIOS may patch
    assert not any(image[2:0x5A])
    assert len(image) % 4096 == 0
    assert KERNEL.flat in image


def test_different_kernels_have_different_disk_signatures() -> None:
    signatures = {bios_disk(Payload(bytes([n]) * 99, LOAD, LOAD, LOAD + 99))[440:444] for n in range(3)}
    assert len(signatures) == 3


def test_the_partitions_lie_within_the_disk_and_agree_with_their_chs() -> None:
    table = disk(KERNEL)[446:510]
    end = 1
    for at, kind in ((0, 0x7F), (16, 0xEF)):
        active, h1, s1, c1, found, h2, s2, c2, first, count = struct.unpack("<8B2I", table[at : at + 16])
        assert (active, found) == (0x80 if at == 0 else 0, kind)
        assert lba(h1, s1, c1) == first >= end
        assert lba(h2, s2, c2) == first + count - 1 < DISK_SECTORS
        if at == 0:
            # A BIOS that derives the geometry from the first entry, or the active one, finds ours.
            assert (h2 + 1, s2 & 63) == (HEADS, TRACK_SECTORS)
        end = first + count
    assert not any(table[32:])


@given(st.integers(0, DISK_SECTORS - 1))
def test_chs_is_the_inverse_of_the_textbook_formula(sector: int) -> None:
    head, low, cylinder = chs(sector)
    assert lba(head, low, cylinder) == sector
    assert head < HEADS
    assert 1 <= low & 63 <= TRACK_SECTORS


def test_partitions_can_be_chosen() -> None:
    partitions = (Partition(2048, 2880, kind=0xEF, active=False), Partition(1, 63))
    image = bios_disk(Payload(b"\xf4", LOAD, LOAD, LOAD + 1), partitions=partitions)
    assert image[446:478] == partitions[0].entry() + partitions[1].entry()
    assert partitions[0].entry()[:1] == b"\0"
    assert partitions[0].entry()[4:5] == b"\xef"


@pytest.mark.parametrize("partition", [Partition(0, 5), Partition(5, 0), Partition(DISK_SECTORS - 1, 2)])
def test_partitions_outside_the_disk_are_refused(partition: Partition) -> None:
    with pytest.raises(MediaError, match="not within sectors"):
        partition.entry()


def test_five_partitions_are_refused() -> None:
    with pytest.raises(MediaError, match="holds 4"):
        bios_disk(Payload(b"\xf4", LOAD, LOAD, LOAD + 1), partitions=[Partition(1, 1)] * 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flat": b""}, "0 bytes"),
        ({"flat": bytes(MAX_FLAT + 1)}, "bytes; the disk loader takes"),
        ({"load_address": LOAD - 1}, "not in this order"),
        ({"entry": LOAD - 1}, "not in this order"),
        ({"entry": LOAD + 4}, "not in this order"),
        ({"bss_end": LOAD + 3}, "not in this order"),
        ({"bss_end": (1 << 32) + 1}, "not in this order"),
        ({"serial_port": 0x3F9}, "not the address of a 16550"),
        ({"serial_port": 0x10000}, "not the address of a 16550"),
        ({"baud": 0}, "baud"),
        ({"baud": 7000}, "baud"),
        ({"baud": 1}, "baud"),
    ],
)
def test_what_the_loader_cannot_serve_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"flat": b"\xf4" * 4, "load_address": LOAD, "entry": LOAD, "bss_end": LOAD + 4}
    arguments |= change
    with pytest.raises(MediaError, match=message):
        bios_disk(Payload(**arguments))  # type: ignore[arg-type]
    with pytest.raises(MediaError, match=message):
        application(Payload(**arguments))  # type: ignore[arg-type]


def test_the_largest_kernel_fits_below_the_ebda() -> None:
    assert len(bios_disk(Payload(bytes(MAX_FLAT), LOAD, LOAD, LOAD + MAX_FLAT))) <= 0x80000 - 0x10000


def test_the_largest_kernel_fits_the_disk() -> None:
    flat = bytes(range(1, 251)) * (MAX_FLAT // 250)
    pieces = extents(Payload(flat.ljust(MAX_FLAT, b"\1"), LOAD, LOAD, LOAD + MAX_FLAT))
    for (offset, data), (following, _) in itertools.pairwise(pieces):
        assert offset + len(data) <= following


@given(st.binary(max_size=64).map(lambda data: data + bytes(-len(data) % 4)), st.data())
def test_the_checksum_sees_every_single_bit(data: bytes, draw: st.DataObject) -> None:
    if not data:
        assert checksum(data) == 0
        return
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    assert checksum(bytes(flipped)) != checksum(data)


def test_the_checksum_by_hand() -> None:
    assert checksum(struct.pack("<3I", 0x80000000, 2, 0xFFFFFFFF)) == ((1 + 2) * 2 + 0xFFFFFFFF) & 0xFFFFFFFF
    assert checksum(struct.pack("<2I", 1, 2)) != checksum(struct.pack("<2I", 2, 1))


def no_such_directory(folder: Path) -> Path:
    return folder / "none" / "disk.img"


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "disk.img"


def a_directory(folder: Path) -> Path:
    (folder / "disk.img").mkdir()
    return folder / "disk.img"


@pytest.mark.parametrize("target", [no_such_directory, below_a_file, a_directory])
def test_a_failed_write_leaves_nothing(tmp_path: Path, target: Callable[[Path], Path]) -> None:
    path = target(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"disk\.img"):
        write_disk(KERNEL, path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_directory_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_disk(KERNEL, tmp_path / "disk.img")
        assert not list(tmp_path.iterdir())
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "disk.img"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            write_disk(KERNEL, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"old")
    write_disk(KERNEL, path)
    assert path.stat().st_size == DISK_BYTES
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs a device")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="not a regular file"):
        write_disk(KERNEL, device)
    assert list(tmp_path.iterdir()) == [device]
    assert device.is_symlink()


@pytest.mark.parametrize("extent", [(-1, b"x"), (10, b"x"), (0, bytes(11))])
def test_extents_outside_the_file_are_refused(tmp_path: Path, extent: tuple[int, bytes]) -> None:
    with pytest.raises(MediaError, match="do not fit"):
        write_sparse(tmp_path / "file", [extent], 10)
    assert not list(tmp_path.iterdir())


def test_extents_go_where_they_belong(tmp_path: Path) -> None:
    write_sparse(tmp_path / "file", [(8, b"cd"), (0, b"ab")], 12)
    assert (tmp_path / "file").read_bytes() == b"ab" + bytes(6) + b"cd" + bytes(2)
