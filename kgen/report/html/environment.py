"""Where a result was obtained, as rows for people: the environment of an observation may hold anything."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kgen.evidence.observation import Observation
from kgen.kernel.results_block import BootPath

#: Rows of one table; a forged result may have any number.
_MOST = 200
#: Labels for names that do not explain themselves.
_NAMES = {
    "host.cpu": "host CPU",
    "host.cpus": "host's CPUs",
    "host.kernel": "host kernel",
    "host.system": "host system",
    "host.machine": "host machine",
    "host.microcode": "microcode",
    "host.vendor": "CPU vendor",
    "host.hypervisor": "host is itself virtual",
    "versions.kgen": "kgen that ran it",
    "versions.python": "Python",
    "versions.emulator": "hypervisor",
    "versions.gdb": "debugger",
    "lab.qemu": "hypervisor in the lab",
    "lab.linux": "kernel in the lab",
    "started": "began",
    "accel": "accelerator",
    "thread": "translator's threads",
    "command": "command line",
}
_KVM = "kvm"


@dataclass(frozen=True)
class Place:
    """The environment of a run."""

    #: What matters.
    rows: tuple[tuple[str, str], ...]
    #: The parameters of the host's KVM modules, which few people read.
    parameters: tuple[tuple[str, str], ...]


def place(observation: Observation, kgen: str) -> Place:
    """Return the environment of an observation, and what the guest found itself.

    ``kgen`` is the version that wrote it.
    """
    rows = [("kgen that wrote it", kgen), ("platform", observation.platform)]
    known = observation.environment
    rows += [row for name, value in known.items() if name != _KVM for row in _rows(name, value)]
    rows += _of_guest(observation)
    rows += [(f"{name} took", f"{seconds:.1f} s") for name, seconds in observation.timings.items()]
    return Place(_bounded(rows), _bounded(_rows("", known.get(_KVM, {}))))


def _of_guest(observation: Observation) -> list[tuple[str, str]]:
    record = observation.best
    if record is None:
        return []
    rows = [("guest's CPUs", f"{record.cpus_found} found, {record.cpus_needed} needed")]
    if record.boot_path is not BootPath.UNKNOWN:
        rows.append(("booted by", record.boot_path.name.lower()))
    if record.khz:
        rows.append(("guest's TSC", f"{record.khz // 1000} MHz ({record.clock.words})"))
    if record.build_id:
        rows.append(("kernel's build id", record.build_id))
    return rows


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the rows of a value, one for each value in it."""
    if isinstance(value, Mapping):
        return [row for key, entry in value.items() for row in _rows(f"{name}.{key}" if name else str(key), entry)]
    return [(_NAMES.get(name, name), _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return shlex.join(map(str, value))
    return str(value)


def _bounded(rows: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    rest = len(rows) - _MOST
    return (*rows[:_MOST], ("and more", f"{rest} rows")) if rest > 0 else tuple(rows)
