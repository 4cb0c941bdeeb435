"""One image, every firmware, every kind of drive: the question is answered, and what stands in the way is said."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from booting import DRIVES, ESCAPES, listen, machine, verdict_of

from kgen.build import Kernel, build, write
from kgen.kernel.parameters import UEFI_MAGIC
from kgen.kernel.results_block import BootPath
from kgen.media import formats
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import VerdictKind

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from test_disk_boot import KIB, MAX_FLAT, dirty, payload

pytestmark = pytest.mark.timeout(900)

UEFI = ("ovmf", "ovmf-ia32")
#: The image boots from each by each; 32-bit firmware is slow, and its drivers are the same.
WAYS = [
    *(("seabios", drive) for drive in DRIVES),
    *(("ovmf", drive) for drive in DRIVES),
    *(("ovmf-ia32", drive) for drive in ("ide", "cd")),
]


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return build(KernelSpec(Case("xchg", cpus=4), rounds=2000))


@pytest.fixture(scope="module")
def images(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write(kernel, folder, ("img", "iso"))
    return folder


@pytest.mark.parametrize(("firmware", "drive"), WAYS)
def test_the_question_is_answered(firmware: str, drive: str, kernel: Kernel, images: Path, tmp_path: Path) -> None:
    image = images / ("kernel.iso" if drive == "cd" else "kernel.img")
    for _ in range(5):  # on a busy machine the CPUs of the power control may not meet
        record, verdict = verdict_of(kernel.spec, listen(machine(firmware, drive, image, tmp_path)))
        assert record.boot_path is (BootPath.DISK if firmware == "seabios" else BootPath.UEFI)
        assert record.cpus_found == 4
        if "showed only" not in verdict.reason:
            break
    assert verdict.kind is VerdictKind.ATOMIC, verdict.reason


MEMORY_LINE = re.compile(rb"kgen: cannot start, [^\r\n]*\r\n")


@pytest.mark.parametrize("firmware", UEFI)
@pytest.mark.parametrize(
    ("load", "end", "said"),
    [
        # OVMF keeps a page there for waking from sleep
        (0x100000, 0x900000, r"memory is taken \(type 0x0000000A\) at 0x008[0-9A-F]{5} \(needed are 0x00100000 to"),
        (0x20000000, 0x20100000, "too little memory: nothing is at 0x20000000 "),
        # below 256 MiB there is something of the firmware's own
        (0x04000000, 0x0FF80000, r"memory is taken \(type 0x[0-9A-F]{8}\) at 0x0[C-F][0-9A-F]{6} "),
    ],
    ids=["taken", "missing", "too much"],
)
def test_uefi_says_what_is_wrong_with_the_memory(
    firmware: str, load: int, end: int, said: str, kernel: Kernel, tmp_path: Path
) -> None:
    moved = dataclasses.replace(kernel.payload, load_address=load, entry=load, bss_end=end)
    formats()["img"].write(moved, tmp_path / "kernel.img")
    heard = listen(machine(firmware, "ide", tmp_path / "kernel.img", tmp_path), MEMORY_LINE)
    (line,) = set(MEMORY_LINE.findall(ESCAPES.sub(b"", heard)))
    assert re.search(said, line.decode()), line


@pytest.mark.parametrize("firmware", UEFI)
@pytest.mark.parametrize("size", [KIB, 31 * KIB - 7, MAX_FLAT])
def test_uefi_puts_every_byte_in_its_place(firmware: str, size: int, tmp_path: Path) -> None:
    kernel = payload(size, magic=UEFI_MAGIC)
    formats()["img"].write(kernel, tmp_path / "kernel.img")
    command = machine(firmware, "ide", tmp_path / "kernel.img", tmp_path)
    heard = listen([*command, *dirty(tmp_path, kernel)], re.compile(rb"payload[^\n]*\n"))
    assert b"payload ok" in heard


def test_the_efi_file_alone_is_enough(kernel: Kernel, tmp_path: Path) -> None:
    folder = tmp_path / "esp" / "EFI" / "BOOT"
    folder.mkdir(parents=True)
    write(kernel, tmp_path, ("efi",))
    (tmp_path / "kernel.efi").rename(folder / "BOOTX64.EFI")
    command = machine("ovmf", "ide", Path("IMAGE"), tmp_path)
    words = [word.replace("file=IMAGE,format=raw", f"file=fat:rw:{tmp_path / 'esp'},format=raw") for word in command]
    record, _ = verdict_of(kernel.spec, listen(words))
    assert record.boot_path is BootPath.UEFI


def test_secure_boot_refuses_it_by_name(images: Path, tmp_path: Path) -> None:
    """What the documentation says of it: the firmware's own words, and nothing of ours."""
    command = machine("ovmf-secure", "ide", images / "kernel.img", tmp_path)
    heard = listen(command, re.compile(rb"failed to load [^\n]*Access Denied[^\n]*\n"))
    assert b"kgen" not in heard
