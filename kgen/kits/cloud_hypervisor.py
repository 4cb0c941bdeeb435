"""Cloud Hypervisor (its README.md, docs/device_model.md and docs/snapshot_restore.md).

It loads 64-bit ELF files with a PVH note, and enters them in 32-bit mode. It emulates the I/O APIC itself, where there
is a serial port.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _microvm
from kgen.kits._text import JUDGE, NEVER_RUN, WAIT, fill, readme

PRODUCT = "Cloud Hypervisor"
_PROGRAM, _HINT = "cloud-hypervisor", "install Cloud Hypervisor"
_SOCKET = '"$name.sock"'
_COMMAND = """\
cloud-hypervisor --api-socket @SOCKET@ --kernel kernel.pvh64 --cpus boot=@CPUS@ --memory size=64M \\
    --serial file=serial.txt --console off </dev/null >cloud-hypervisor.txt 2>&1"""


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    command = fill(_COMMAND, socket=_SOCKET, cpus=facts.cpus)
    ask = f"ch-remote --api-socket {facts.name}.sock"
    return {
        **_microvm.scripts(facts, PRODUCT, program=_PROGRAM, hint=_HINT, command=command, socket=_SOCKET),
        **readme(
            facts,
            PRODUCT,
            [
                _microvm.START,
                ("Serial log", "serial.txt in this folder; its own messages are in cloud-hypervisor.txt."),
                _microvm.DEBUGGER,
                ("Judge", JUDGE),
                ("Memory", f"{ask} pause; mkdir kgen.snapshot"),
                ("", f'{ask} snapshot "file://$PWD/kgen.snapshot"'),
                ("", "kgen judge serial.txt --memory kgen.snapshot/memory-ranges"),
                ("Stop", "sh stop.sh"),
                ("Target", "ioapic: there is no VGA; the I/O APIC is Cloud Hypervisor's own, in user space."),
                ("Settings", WAIT),
                ("Never run", NEVER_RUN),
            ],
        ),
    }


KIT = Kit(
    name="cloud-hypervisor",
    product=PRODUCT,
    summary="a 64-bit ELF, scripts that start it",
    formats=("pvh64",),
    texts=texts,
    provides=frozenset(),
    max_cpus=254,
    coms=1,
)
