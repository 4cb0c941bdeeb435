"""QEMU's own translator: runs anywhere, and its LOCKed operations on emulated memory are atomic."""

from __future__ import annotations

from kgen.machine.platform import LaunchRequest, Platform
from kgen.platforms import _qemu, _variant


def _command(request: LaunchRequest) -> tuple[str, ...]:
    return _qemu.command(request, ("-accel", f"tcg,thread={request.thread}"))


PLATFORM = Platform(
    name="qemu-tcg",
    summary="QEMU with its translator (TCG)",
    provides=_qemu.PROVIDES,
    unavailable=_qemu.unavailable,
    command=_command,
    boot_seconds=30.0,
    known="ATOMIC",
    breakpoints="any",
    options=_variant.OPTIONS,
    medium=_variant.medium,
)
