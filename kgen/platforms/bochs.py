"""Bochs: an interpreter that carries the CPUs out in turn, a few whole instructions each, on one host thread.

So every instruction is atomic there, with or without LOCK, and no control of one instruction can fail: kgen can find a
violation on Bochs, but never say ATOMIC.
"""

from __future__ import annotations

from kgen.machine import bochs_config
from kgen.machine.platform import Platform

PLATFORM = Platform(
    name="bochs",
    summary="Bochs, whose CPUs take turns",
    provides=frozenset({"hpet", "serial", "smp", "vga"}),
    unavailable=bochs_config.unavailable,
    command=bochs_config.command,
    boot_seconds=60.0,
    known="INCONCLUSIVE",
    breakpoints="none",
    engine="bochs",
    options=frozenset({"boot", "cpu"}),
    medium=bochs_config.medium,
)
