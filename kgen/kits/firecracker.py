"""Firecracker (its docs/getting-started.md, pvh.md and snapshotting/snapshot-support.md).

It loads 64-bit ELF files only, and enters one that has a PVH note in 32-bit mode. The I/O APIC is KVM's own. Its serial
port is standard output, with which it mixes its messages unless they have a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from kgen.kits import Facts, Kit, _microvm
from kgen.kits._text import JUDGE, NEVER_RUN, WAIT, fill, readme

PRODUCT = "Firecracker"
_PROGRAM, _HINT = "firecracker", "install a release that boots by PVH"
_SOCKET = "firecracker.sock"
_MEMORY_MIB = 64
_COMMAND = """\
: >firecracker.txt
firecracker --id "$name" --api-sock @SOCKET@ --config-file vm.json --log-path firecracker.txt --level Warn \\
    </dev/null >serial.txt 2>stderr.txt"""
_ASK = f"curl --unix-socket {_SOCKET} -X"


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    machine = {
        "boot-source": {"kernel_image_path": "kernel.pvh64", "boot_args": ""},
        "drives": [],
        "machine-config": {"vcpu_count": facts.cpus, "mem_size_mib": _MEMORY_MIB, "smt": False},
    }
    command = fill(_COMMAND, socket=_SOCKET)
    snapshot = {"snapshot_type": "Full", "snapshot_path": "kgen.state", "mem_file_path": "kgen.mem"}
    return {
        "vm.json": json.dumps(machine, indent=2) + "\n",
        "snapshot.json": json.dumps(snapshot, indent=2) + "\n",
        **_microvm.scripts(facts, PRODUCT, program=_PROGRAM, hint=_HINT, command=command, socket=_SOCKET),
        **readme(
            facts,
            PRODUCT,
            [
                _microvm.START,
                (
                    "Serial log",
                    "serial.txt in this folder; what Firecracker itself says is in firecracker.txt and stderr.txt.",
                ),
                _microvm.DEBUGGER,
                ("Judge", JUDGE),
                ("Memory", f'{_ASK} PATCH http://localhost/vm -d \'{{"state": "Paused"}}\''),
                ("", f"{_ASK} PUT http://localhost/snapshot/create -d @snapshot.json"),
                ("", "kgen judge serial.txt --memory kgen.mem"),
                ("Stop", "sh stop.sh"),
                ("Target", "ioapic: Firecracker has no VGA, and leaves the I/O APIC to KVM."),
                ("Settings", WAIT),
                ("Never run", NEVER_RUN),
            ],
        ),
    }


KIT = Kit(
    name="firecracker",
    product=PRODUCT,
    summary="a 64-bit ELF, vm.json, scripts that start it",
    formats=("pvh64",),
    texts=texts,
    provides=frozenset(),
    max_cpus=32,
    coms=1,
)
