"""QEMU on the Linux kernel's hypervisor, which emulates a LOCKed exchange on emulated memory as a plain write."""

from __future__ import annotations

import os
import sys

from kgen.machine.platform import LaunchRequest, Platform
from kgen.platforms import _qemu, _variant

_DEVICE = "/dev/kvm"
#: <linux/kvm.h>: _IO(KVMIO, 0x00) and _IO(KVMIO, 0x01); the version has been 12 since Linux 2.6.22.
_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_API_VERSION = 12


def _unavailable(request: LaunchRequest) -> str | None:
    """QEMU is there, and the device does not only exist: it makes a virtual machine."""
    return _qemu.unavailable(request) or _no_kvm(_DEVICE)


def _no_kvm(device: str) -> str | None:
    """Return why KVM cannot be used through this device, None when it can."""
    if sys.platform != "linux":
        return "KVM needs Linux"
    import fcntl  # does not exist on every system that builds and judges

    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"there is no {device}; load kvm_intel or kvm_amd, or turn on (nested) virtualisation"
    except PermissionError:
        return f"{device} may not be opened; add yourself to the group kvm"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    try:
        version = fcntl.ioctl(handle, _KVM_GET_API_VERSION, 0)
        if version != _API_VERSION:
            return f"{device} speaks version {version} of KVM's interface, not {_API_VERSION}"
        os.close(fcntl.ioctl(handle, _KVM_CREATE_VM, 0))
    except OSError as error:
        return f"{device} makes no virtual machine: {error.strerror}"
    finally:
        os.close(handle)
    return None


def _command(request: LaunchRequest) -> tuple[str, ...]:
    # The default CPU model asks for features that a nested or a software KVM does not have, and on some of these QEMU
    # aborts when it sets IA32_ARCH_CAPABILITIES ("failed to set MSR 0x10a"), which no kernel of ours reads.
    return _qemu.command(request, ("-accel", "kvm", "-cpu", "host,-arch-capabilities"))


PLATFORM = Platform(
    name="qemu-kvm",
    summary="QEMU on KVM",
    provides=_qemu.PROVIDES,
    unavailable=_unavailable,
    command=_command,
    boot_seconds=30.0,
    known="NOT_ATOMIC",
    breakpoints="hardware",
    options=_variant.OPTIONS,
    medium=_variant.medium,
)
