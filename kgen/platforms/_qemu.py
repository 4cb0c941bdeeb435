"""What the QEMU platforms share: finding the binary and its firmware, and the command line but for the accelerator."""

from __future__ import annotations

import shutil

from kgen.errors import SpecError
from kgen.machine.platform import COM1, LaunchRequest
from kgen.platforms import _variant

#: The 32-bit binary first: gdb needs no architecture set to talk to its stub.
BINARIES = ("qemu-system-i386", "qemu-system-x86_64")
INSTALL_HINT = "install it with 'apt install qemu-system-x86' or 'dnf install qemu-system-x86', or name it with --qemu"

#: Capabilities of the PC that QEMU emulates, whatever the accelerator.
PROVIDES = frozenset({"edu", "gdb", "hpet", "ivshmem", "mtree", "pc-testdev", "qmp", "serial", "smp", "vga"})


def find_binary(request: LaunchRequest) -> str | None:
    """Return the path of the QEMU to run, None when there is none."""
    names = (request.qemu,) if request.qemu else _binaries(request)
    place = str(request.programs) if request.programs else None
    return next((path for name in names if (path := shutil.which(name, path=place))), None)


def missing_binary(request: LaunchRequest) -> str | None:
    """Return why there is no QEMU to run, None when there is one."""
    if find_binary(request):
        return None
    wanted = f"'{request.qemu}'" if request.qemu else " or ".join(_binaries(request))
    return f"{wanted} is not to be found; {INSTALL_HINT}"


def _binaries(request: LaunchRequest) -> tuple[str, ...]:
    """Return the programs that will do. OVMF is 64-bit code."""
    return BINARIES[1:] if request.firmware == "ovmf" else BINARIES


def unavailable(request: LaunchRequest) -> str | None:
    """Return why the machine that is asked for cannot be had here, None when it can."""
    return missing_binary(request) or _variant.missing(request, find_binary(request) or "")


def command(
    request: LaunchRequest,
    accelerator: tuple[str, ...],
    *,
    serial: tuple[str, ...] | None = None,
    firmware: str | None = None,
) -> tuple[str, ...]:
    """Return the whole command line. QEMU lets later options override or add, so the user's own come last.

    ``accelerator`` may name a CPU model, the default where the user chose none. ``serial`` takes the place of the
    request's channels and ``firmware`` of the search for the best one, where QEMU does not run on this host.

    Raises SpecError for choices that do not go together, and for another accelerator than the platform's among the
    user's arguments: of several, QEMU takes the first.
    """
    # in the lab it is another one that has this name
    binary = (find_binary(request) if serial is None else None) or request.qemu or BINARIES[0]
    parts = [binary, *_accelerator(request.extra, accelerator)]
    if request.cpu is not None and "-cpu" in parts:
        parts[parts.index("-cpu") + 1] = request.cpu
    elif request.cpu is not None:
        parts += ["-cpu", request.cpu]
    parts += ["-nodefaults", "-no-user-config", "-display", "none"]
    # A triple fault must not restart the guest, and must leave its state to be looked at.
    parts += ["-no-reboot", "-no-shutdown"]
    parts += _variant.arguments(request, binary, firmware)
    parts += ["-append", request.append] if request.append else []
    for device in request.devices:
        parts += ["-device", device]
    parts += request.fixtures
    parts += ["-S"] if request.paused else []
    return (*parts, *(_channels(request) if serial is None else serial), *request.extra)


def _accelerator(extra: tuple[str, ...], ours: tuple[str, ...]) -> tuple[str, ...]:
    """Our accelerator's arguments, without ``-accel`` where the user gives the same one settings of his own."""
    flags = [argument.lstrip("-") if argument.startswith("-") else "" for argument in extra]
    if "enable-kvm" in flags:
        raise SpecError("the platform decides the accelerator", where="-enable-kvm", hint="give --platform qemu-kvm")
    given = [value for flag, value in zip(flags, extra[1:], strict=False) if flag == "accel"]
    at = ours.index("-accel")
    name = ours[at + 1].split(",")[0]
    for value in given:
        if value.removeprefix("accel=").split(",")[0] != name:
            raise SpecError(f"the platform runs on {name}", where=f"-accel {value}", hint="choose another --platform")
    return (*ours[:at], *ours[at + 2 :]) if given else ours


def _channels(request: LaunchRequest) -> tuple[str, ...]:
    """Return the arguments for serial port, monitor and gdb stub on descriptors that QEMU inherits: no port, no
    race.
    """
    given = request.channels
    if given is None:
        return ("-serial", "stdio") if request.serial_port == COM1 else serial_port(request, "stdio")
    serial = serial_port(request, f"socket,fd={given.serial}")
    qmp = ("-chardev", f"socket,id=kgen-qmp,fd={given.qmp}", "-qmp", "chardev:kgen-qmp")
    stub = f"socket,id=kgen-gdb,fd={given.gdb},server=on,wait=off"
    return (*serial, *qmp, "-chardev", stub, "-gdb", "chardev:kgen-gdb")


def serial_port(request: LaunchRequest, backend: str) -> tuple[str, ...]:
    """Return the arguments for the kernel's serial port on a character device: a kind and its settings."""
    kind, comma, settings = backend.partition(",")
    chardev = ("-chardev", f"{kind},id=kgen-serial{comma}{settings}")
    if request.serial_port == COM1:
        return (*chardev, "-serial", "chardev:kgen-serial")
    # The kernel asks for no interrupt, so the port's does not matter.
    return (*chardev, "-device", f"isa-serial,iobase={request.serial_port:#x},chardev=kgen-serial")
