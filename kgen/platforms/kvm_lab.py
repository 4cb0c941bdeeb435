"""KVM in the lab: the real KVM of a real Linux, under this host's QEMU/TCG, where there is no /dev/kvm."""

from __future__ import annotations

from kgen.platforms import _lab

PLATFORM = _lab.platform(
    "kvm-lab",
    "QEMU on KVM in a Linux of its own, all inside QEMU/TCG",
    ("-accel", "kvm", "-cpu", "host"),
    known="NOT_ATOMIC",
    # Every access to the cell costs about 0.1 ms; so many show about ten violations.
    rounds=1000,
)
