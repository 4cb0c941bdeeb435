"""Which machine QEMU makes: board, graphics adapter, firmware, CPU model, and what it boots from."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kgen.errors import SpecError, unknown
from kgen.host.process import output
from kgen.machine.platform import CHOICES, LaunchRequest, setting_value

#: What may be chosen: all there is; the accelerator is the platform's.
OPTIONS = frozenset(CHOICES) - {"engine", "ring3"}
VGA = ("std", "cirrus", "qxl", "vmware", "virtio", "none")
FIRMWARE = ("auto", "qboot", "seabios", "ovmf")
QBOOT = "qboot.rom"
#: OVMF writes over less.
OVMF_MIB = 256
OVMF_HINT = "install it with 'apt install ovmf' or 'dnf install edk2-ovmf'"

#: Boards without PCI have adapters of their own: the device, by what -vga calls its like.
_ISA_VGA = {"std": "isa-vga", "cirrus": "isa-cirrus-vga", "none": ""}
#: Where distributions keep OVMF beside QEMU's own firmware, and what they call its code and its variables. Not the
#: variants that demand a signature.
_OVMF_PLACES = ("/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/edk2/x64", "/usr/share/edk2-ovmf/x64")
_OVMF_NAMES = (
    ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    ("OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
    ("OVMF_CODE.fd", "OVMF_VARS.fd"),
    ("edk2-x86_64-code.fd", "edk2-i386-vars.fd"),
    ("ovmf-x86_64-4m-code.bin", "ovmf-x86_64-4m-vars.bin"),
    ("ovmf-x86_64-code.bin", "ovmf-x86_64-vars.bin"),
)

#: Where a firmware volume's header has its signature, and how many bytes before the end of a ROM a CPU starts.
_VOLUME = slice(40, 44)
_RESET = 16

_DRIVE = "drive=kgen-boot,bootindex=0"


def _ide(board: str) -> tuple[str, ...]:
    # the disks of q35 are on AHCI
    return ("piix3-ide,id=kgen-ide", f"ide-hd,bus=kgen-ide.0,{_DRIVE}") if board == "q35" else (f"ide-hd,{_DRIVE}",)


def _ahci(board: str) -> tuple[str, ...]:
    return (f"ide-hd,{_DRIVE}",) if board == "q35" else ("ich9-ahci,id=kgen-ahci", f"ide-hd,bus=kgen-ahci.0,{_DRIVE}")


#: The devices that put a boot medium on a board, by the name of the bus.
_BUSES: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "ide": _ide,
    "ahci": _ahci,
    "nvme": lambda _: (f"nvme,serial=kgen,{_DRIVE}",),
    "usb": lambda _: ("qemu-xhci", f"usb-storage,{_DRIVE}"),
    "virtio": lambda _: (f"virtio-blk-pci,{_DRIVE}",),
    "cdrom": lambda _: (f"ide-cd,{_DRIVE}",),
}
BOOT = ("kernel", *_BUSES)


def board_of(request: LaunchRequest) -> str:
    """Return the kind of board: pc, q35, or another machine's own name without version and properties."""
    name = (request.machine or "pc").partition(",")[0]
    if name.startswith("pc-q35"):
        return "q35"
    return "pc" if name.startswith("pc-") else name


def boot_of(request: LaunchRequest) -> str:
    """Return what the machine boots from. OVMF starts no ELF, so it gets a stick."""
    return request.boot or ("usb" if request.firmware == "ovmf" else "kernel")


def medium(request: LaunchRequest) -> str:
    """Return the format of the image that the machine boots, "" where it is given the ELF.

    Raises SpecError for choices that there are not, or that do not go together.
    """
    board, boot, vga, firmware = board_of(request), boot_of(request), request.vga or "std", request.firmware or "auto"
    for what, value, known in (("graphics adapter", vga, VGA), ("boot medium", boot, BOOT)):
        if value not in known:
            raise unknown(what, value, known)
    if request.cpu is not None and request.cpu.isdigit() and int(request.cpu) < 256:
        where = f"--cpu {request.cpu}"
        raise SpecError("that is no CPU model", where=where, hint=f"did you mean --cpus {request.cpu}?")
    if firmware not in FIRMWARE and not Path(firmware).is_file():
        raise unknown("firmware", firmware, (*FIRMWARE, "the path of a file"))
    if firmware not in FIRMWARE and _is_half(Path(firmware)):
        raise SpecError(
            "that is one of UEFI's two parts for flash memory, code and variables, and does not start alone",
            where=f"--firmware {firmware}",
            hint="give --firmware ovmf, which finds both",
        )
    if boot == "kernel":
        if firmware == "ovmf":
            raise SpecError("OVMF starts no ELF", where="--boot kernel", hint=f"give {_any(BOOT[1:])}")
    elif firmware == "qboot":
        raise SpecError("qboot boots no disk", where=f"--boot {boot}", hint="give --firmware seabios or ovmf")
    elif request.append:
        hint = "leave --boot and --firmware out"
        raise SpecError("a disk has no command line, and a suite needs one", where=f"--boot {boot}", hint=hint)
    if board in ("microvm", "isapc"):
        for name, value, possible in (
            ("vga", vga, tuple(_ISA_VGA)),
            ("firmware", firmware, ("auto", "qboot", "seabios")),
            ("boot", boot, ("kernel",)),
        ):
            # firmware may be a file, whose owner knows
            if value not in possible and (name != "firmware" or value in FIRMWARE):
                hint = f"give {_any(possible)}, or --machine q35"
                raise SpecError(f"{board} has no PCI", where=f"--{name} {value}", hint=hint)
    return {"kernel": "", "cdrom": "iso"}.get(boot, "img")


def _is_half(file: Path) -> bool:
    """Return whether a file is UEFI's code without its variables, or the variables without the code.

    All begin with a firmware volume (UEFI Platform Initialization, volume 3). Both together fill a flash chip, whose
    size is a power of two; the code alone does not, and variables end where a CPU starts with erased bytes.
    """
    try:
        with file.open("rb") as data:
            head = data.read(_VOLUME.stop)
            size = data.seek(0, os.SEEK_END)
            data.seek(max(0, size - _RESET))
            end = data.read()
    except OSError:
        return False
    return head[_VOLUME] == b"_FVH" and (size & (size - 1) != 0 or end == b"\xff" * _RESET)


def missing(request: LaunchRequest, binary: str) -> str | None:
    """Return why this machine cannot be made here, None where it can."""
    if board_of(request) == "isapc" and request.cpus > 1:
        return f"isapc takes one CPU and the case needs {request.cpus}; choose pc, q35 or microvm"
    if request.firmware == "qboot" and not ships_qboot(binary):
        return "this QEMU ships no qboot.rom; choose another --firmware"
    if request.firmware == "ovmf" and _ovmf(binary) is None:
        return f"OVMF is not to be found; {OVMF_HINT}"
    return None


def arguments(request: LaunchRequest, binary: str, lab_firmware: str | None) -> tuple[str, ...]:
    """QEMU's arguments for the board and what is on it. ``lab_firmware`` is what boots a kernel where QEMU does not run
    on this host. Raises SpecError."""
    medium(request)
    board, boot, vga = board_of(request), boot_of(request), request.vga or "std"
    parts = ["-machine", request.machine or "pc"]
    if board == "microvm":
        parts += ["-device", _ISA_VGA[vga]] if _ISA_VGA[vga] else []
    else:
        parts += ["-vga", vga]
    memory = max(request.memory_mib, OVMF_MIB) if request.firmware == "ovmf" else request.memory_mib
    parts += ["-m", str(memory), "-smp", str(request.cpus)]
    parts += _firmware(request, binary, lab_firmware)
    if request.image is not None:
        drive = f"if=none,id=kgen-boot,format=raw,file={setting_value(request.image)}"
        parts += ["-drive", f"{drive},readonly=on" if boot == "cdrom" else drive]
        for device in _BUSES[boot](board):
            parts += ["-device", device]
    elif request.kernel is not None:
        parts += ["-kernel", str(request.kernel)]
    return tuple(parts)


def _firmware(request: LaunchRequest, binary: str, lab_firmware: str | None) -> list[str]:
    """Return the firmware to name, nothing for QEMU's own choice, which is SeaBIOS. qboot starts a kernel but no
    disk.
    """
    wanted = request.firmware or "auto"
    if wanted == "ovmf":
        code, variables = _ovmf(binary) or ("OVMF_CODE.fd", "OVMF_VARS.fd")
        pieces = ((0, "readonly=on", code), (1, "snapshot=on", variables))
        drives = [f"if=pflash,unit={unit},format=raw,{how},file={setting_value(file)}" for unit, how, file in pieces]
        return [word for drive in drives for word in ("-drive", drive)]
    if wanted == "auto":
        if request.kernel is None or request.image is not None:
            return []
        fast = lab_firmware or (QBOOT if ships_qboot(binary) else None)
        return ["-bios", fast] if fast else []
    if wanted == "seabios":
        return []
    return ["-bios", QBOOT if wanted == "qboot" else wanted]


@functools.lru_cache
def _directories(binary: str) -> tuple[Path, ...]:
    """Return the firmware directories that this QEMU itself names."""
    return tuple(Path(line) for line in output([binary, "-L", "help"], 5.0).splitlines() if line.strip())


def ships_qboot(binary: str) -> bool:
    """Return whether this QEMU finds qboot."""
    return any((place / QBOOT).is_file() for place in _directories(binary))


def _ovmf(binary: str) -> tuple[Path, Path] | None:
    """OVMF's code and variables."""
    places = (*_directories(binary), *map(Path, _OVMF_PLACES))
    pairs = ((place / code, place / variables) for code, variables in _OVMF_NAMES for place in places)
    return next((pair for pair in pairs if all(file.is_file() for file in pair)), None)


def _any(names: tuple[str, ...]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
