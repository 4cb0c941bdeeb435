"""The firmware's structures, as far as our application (kernel_templates/uefi.asm) reads them.

From the UEFI specification 2.10: 4.3 (system table), 4.4 (boot services), 4.6 (configuration tables), 7.2 (memory map),
12.4 (text output), 12.9 (graphics output), appendix A (GUIDs). ``pointer`` is the ctypes type as wide as an address.
"""

from __future__ import annotations

import ctypes
from ctypes import LittleEndianStructure, c_uint8, c_uint32, c_uint64

Pointer = type[c_uint32] | type[c_uint64]

#: Types of memory that are free after boot services have ended: loader code and data, boot services code and data,
#: conventional memory. One bit each.
USABLE_TYPES = sum(1 << kind for kind in (1, 2, 3, 4, 7))
#: EFI_OUT_OF_RESOURCES; the highest bit of the word marks an error.
OUT_OF_RESOURCES = 9

_HEADER_BYTES = 24
#: The boot services up to the last one we call, in the table's order. Each is a pointer.
_BOOT_SERVICES = """
    RaiseTPL RestoreTPL
    AllocatePages FreePages GetMemoryMap AllocatePool FreePool
    CreateEvent SetTimer WaitForEvent SignalEvent CloseEvent CheckEvent
    InstallProtocolInterface ReinstallProtocolInterface UninstallProtocolInterface HandleProtocol Reserved
    RegisterProtocolNotify LocateHandle LocateDevicePath InstallConfigurationTable
    LoadImage StartImage Exit UnloadImage ExitBootServices
    GetNextMonotonicCount Stall SetWatchdogTimer
    ConnectController DisconnectController
    OpenProtocol CloseProtocol OpenProtocolInformation
    ProtocolsPerHandle LocateHandleBuffer
""".split()

#: GUIDs by the name they have in the template, in the order of their bytes as four little-endian dwords.
GUIDS: dict[str, tuple[int, int, int, int]] = {
    name: (a, b | c << 16, int.from_bytes(d[:4], "little"), int.from_bytes(d[4:], "little"))
    for name, a, b, c, d in (
        ("graphics_output", 0x9042A9DE, 0x23DC, 0x4A38, bytes.fromhex("96fb7aded080516a")),
        ("acpi_1", 0xEB9D2D30, 0x2D88, 0x11D3, bytes.fromhex("9a160090273fc14d")),
        ("acpi_2", 0x8868E871, 0xE4F1, 0x11D3, bytes.fromhex("bc220080c73c8881")),
    )
}


def offsets(pointer: Pointer) -> dict[str, dict[str, int]]:
    """Return the offset in bytes of each field by the structure's name, for firmware with such addresses."""
    size = ctypes.sizeof(pointer)
    structures = {
        "system": (
            ("Header", c_uint8 * _HEADER_BYTES),
            ("FirmwareVendor", pointer),
            ("FirmwareRevision", c_uint32),
            ("ConsoleInHandle", pointer),
            ("ConIn", pointer),
            ("ConsoleOutHandle", pointer),
            ("ConOut", pointer),
            ("StandardErrorHandle", pointer),
            ("StdErr", pointer),
            ("RuntimeServices", pointer),
            ("BootServices", pointer),
            ("NumberOfTableEntries", pointer),
            ("ConfigurationTable", pointer),
        ),
        "descriptor": (
            ("Type", c_uint32),
            ("Padding", c_uint32),
            ("PhysicalStart", c_uint64),
            ("VirtualStart", c_uint64),
            ("NumberOfPages", c_uint64),
            ("Attribute", c_uint64),
        ),
        "console": (("Reset", pointer), ("OutputString", pointer)),
        "graphics": (("QueryMode", pointer), ("SetMode", pointer), ("Blt", pointer), ("Mode", pointer)),
        "mode": (
            ("MaxMode", c_uint32),
            ("Mode", c_uint32),
            ("Info", pointer),
            ("SizeOfInfo", pointer),
            ("FrameBufferBase", c_uint64),
            ("FrameBufferSize", pointer),
        ),
        "info": (
            ("Version", c_uint32),
            ("HorizontalResolution", c_uint32),
            ("VerticalResolution", c_uint32),
            ("PixelFormat", c_uint32),
            ("PixelInformation", c_uint32 * 4),
            ("PixelsPerScanLine", c_uint32),
        ),
    }
    found = {name: _offsets(fields) for name, fields in structures.items()}
    found["boot"] = {name: _HEADER_BYTES + size * at for at, name in enumerate(_BOOT_SERVICES)}
    return found


def _offsets(fields: tuple[tuple[str, type], ...]) -> dict[str, int]:
    structure = type("Structure", (LittleEndianStructure,), {"_fields_": fields})
    return {name: getattr(structure, name).offset for name, _ in fields}
