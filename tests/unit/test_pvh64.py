"""The 64-bit ELF with a PVH note, as other readers see it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from kgen.errors import MediaError
from kgen.media import Payload
from kgen.media.pvh64 import FORMAT, executable

LOAD, ENTRY = 0x100000, 0x10001C
#: Multiboot's magic is in its first bytes, as in every kernel.
FLAT = bytes.fromhex("02b0ad1b") + b"\xf4\xeb\xfd" * 3000
KERNEL = Payload(FLAT, LOAD, LOAD, LOAD + 0x5000, pvh_entry=ENTRY)


def test_other_readers_find_the_kernel_and_the_entry() -> None:
    file = ELFFile(io.BytesIO(executable(KERNEL)))
    assert (file.elfclass, file.little_endian, file["e_machine"], file["e_type"]) == (64, True, "EM_X86_64", "ET_EXEC")
    # Firecracker refuses one below its high memory, which begins at 1 MiB
    assert file["e_entry"] == ENTRY
    load, told = file.iter_segments()
    assert (load["p_type"], load["p_paddr"], load["p_vaddr"], load["p_memsz"]) == ("PT_LOAD", LOAD, LOAD, 0x5000)
    assert load["p_offset"] % load["p_align"] == load["p_paddr"] % load["p_align"]
    assert load.data() == FLAT
    assert isinstance(told, NoteSegment)
    (note,) = told.iter_notes()
    assert (note["n_name"], note["n_type"]) == ("Xen", 18)
    assert struct.unpack("<Q", note["n_descdata"]) == (ENTRY,)


def test_no_loader_of_multiboot_takes_it_for_its_own() -> None:
    assert FLAT[:4] not in executable(KERNEL)[:8192]


def test_it_is_written_whole(tmp_path: Path) -> None:
    FORMAT.write(KERNEL, tmp_path / "kernel.pvh64")
    assert (tmp_path / "kernel.pvh64").read_bytes() == executable(KERNEL)


def test_a_kernel_without_the_entry() -> None:
    with pytest.raises(MediaError, match="no entry point for PVH"):
        executable(Payload(FLAT, LOAD, LOAD, LOAD + 0x5000))
