"""The lab's own control: all as in kvm_lab, but the inner QEMU translates. The nesting itself must break nothing."""

from __future__ import annotations

from kgen.platforms import _lab

PLATFORM = _lab.platform(
    "tcg-lab",
    "the lab's control: the same machine without KVM",
    ("-accel", "tcg,thread=multi"),
    known="ATOMIC",
    # Its power controls show about two violations in a thousand.
    rounds=10_000,
)
