"""UEFI application: the kernel and our code that leaves the firmware (kernel_templates/uefi.asm), as one PE file.

Copied to ``EFI/BOOT/BOOTX64.EFI`` on any FAT file system, or started from a UEFI shell, it needs nothing else.
"""

from __future__ import annotations

import ctypes
import json
from ctypes import c_uint32, c_uint64
from pathlib import Path
from typing import NamedTuple

from kgen.errors import MediaError
from kgen.kernel.parameters import TRAMPOLINE_ADDRESS, UEFI_MAGIC
from kgen.kernel.render import render_template
from kgen.kernel.results_block import Handover
from kgen.media import ImageFormat, Payload, write_sparse
from kgen.media._bios import UART_CLOCK, check
from kgen.media._pe import PAGE, Access, Machine, PeSection, link
from kgen.media._uefi import GUIDS, OUT_OF_RESOURCES, USABLE_TYPES, offsets
from kgen.toolchain.assembler import assemble, keystone_version
from kgen.toolchain.assembly import Source
from kgen.toolchain.kept import kept, key_of, toolchain_digest

#: The files that firmware looks for on removable media.
FILE_NAMES = {Machine.X64: "BOOTX64.EFI", Machine.IA32: "BOOTIA32.EFI"}

#: In the block of memory that the application allocates: its own page, and on x64 as many page tables as it may need
#: (fifth and fourth level, one of the third, four of the second).
_CODE_BYTES, _TABLE_BYTES = PAGE, 7 * PAGE


def application(payload: Payload, machine: Machine = Machine.X64) -> bytes:
    """Return the whole file, for firmware of that kind. Deterministic. Raises MediaError, SourceError, AsmError."""
    check(payload)
    wide = machine is Machine.X64
    kernel = PeSection(".kernel", PAGE, payload.flat, Access.DATA | Access.READ)
    text_address = PAGE + len(payload.flat) + -len(payload.flat) % PAGE
    parts = _assembled(_text(payload, wide, kernel.address), text_address)
    sections = (
        kernel,
        PeSection(".text", parts.code_address, parts.code, Access.CODE | Access.EXECUTE | Access.READ),
        PeSection(".data", parts.data_address, parts.data, Access.DATA | Access.READ | Access.WRITE),
    )
    return link(machine, sections, parts.start)


class _Parts(NamedTuple):
    """What the application is linked from beside the kernel: bytes, and the addresses that they are linked for."""

    #: The address at which the application begins to run.
    start: int
    code_address: int
    code: bytes
    data_address: int
    data: bytes


def _assembled(text: str, origin: int) -> _Parts:
    """Return the application's own code and data. They depend on the text alone, which holds only numbers of the
    kernel, so they are kept in the user's cache. Raises MediaError, AsmError."""

    def make() -> bytes:
        assembly = assemble(Source("uefi.asm", text), origin=origin)
        code, data = assembly.section(".text"), assembly.section(".data")
        if assembly.address("drop_end") - assembly.address("drop") > _CODE_BYTES // 2:
            raise MediaError("the code that leaves the firmware is larger than its page")
        made = [assembly.address("start"), code.address, code.data.hex(), data.address, data.data.hex()]
        return json.dumps(made).encode()

    try:
        key = key_of("uefi", toolchain_digest(), keystone_version(), str(origin), text)
        found = kept(key, make)
    except OSError:  # this installation has no source files
        found = make()
    start, code_address, code, data_address, data = json.loads(found)
    return _Parts(start, code_address, bytes.fromhex(code), data_address, bytes.fromhex(data))


def _text(payload: Payload, wide: bool, kernel_address: int) -> str:
    pointer = c_uint64 if wide else c_uint32
    found = offsets(pointer)
    handover = {name: getattr(Handover, name).offset for name, _ in Handover._fields_}
    end = payload.bss_end
    return render_template(
        "uefi.asm",
        wide=wide,
        pointer_bytes=ctypes.sizeof(pointer),
        system=found["system"],
        boot=found["boot"],
        descriptor=found["descriptor"],
        graphics=found["graphics"],
        mode=found["mode"],
        info=found["info"],
        output_string=found["console"]["OutputString"],
        guids=GUIDS,
        usable_types=USABLE_TYPES,
        out_of_resources=f"{OUT_OF_RESOURCES | 1 << (8 * ctypes.sizeof(pointer) - 1):#x}",
        handover=handover | {"SIZE": ctypes.sizeof(Handover)},
        trampoline=TRAMPOLINE_ADDRESS,
        eax_magic=UEFI_MAGIC,
        kernel_address=kernel_address,
        load_address=payload.load_address,
        entry_point=payload.entry,
        bss_end=end,
        flat_bytes=len(payload.flat),
        zero_bytes=end - payload.load_address - len(payload.flat),
        copy_offset=_CODE_BYTES + (_TABLE_BYTES if wide else 0),
        needs=f" (needed are 0x{payload.load_address:08X} to 0x{end:08X} and 0x{TRAMPOLINE_ADDRESS:08X})",
        serial_port=payload.serial_port,
        uart_divisor=UART_CLOCK // payload.baud,
    )


def write_application(payload: Payload, path: Path) -> None:
    """Write the application for x64. Raises MediaError or OutputError."""
    data = application(payload)
    write_sparse(path, [(0, data)], len(data))


FORMAT = ImageFormat(
    name="efi", suffix=".efi", summary="UEFI application for x64 (BOOTX64.EFI)", write=write_application
)
