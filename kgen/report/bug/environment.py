"""Where a result was obtained, in lines for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from kgen.kernel.results_block import BootPath
from kgen.report.markdown import code, words
from kgen.report.reproduce.steps import ran_by_kgen
from kgen.report.results.document import SCHEMA
from kgen.report.results.model import Run
from kgen.wording import fact, plural

#: KVM's parameters that influence how accesses to devices are carried out.
_TELLING = ("kvm.mmio_caching", "kvm.force_emulation_prefix", "kvm.tdp_mmu", "kvm_intel.ept", "kvm_amd.npt")


def place_lines(run: Run) -> list[str]:
    """Return host, hypervisor, guest and versions as a list. What the result does not hold is left out or named as
    missing."""
    first = run.results[0]
    seen = first.observation
    environment = seen.environment
    found = [("Platform", code(run.platform))]
    if not ran_by_kgen(run.platform):
        found.append(("Where it ran", "kgen did not run the machine, so the result does not say; please add it here"))
    found += [("Hypervisor", _hypervisor(environment)), ("In the lab", _lab(environment)), ("Host", _host(environment))]
    parameters = [f"{name}={fact(environment, 'kvm', name)}" for name in _TELLING if fact(environment, "kvm", name)]
    # under TCG KVM does nothing
    if fact(environment, "accel") == "kvm":
        found.append(("KVM's parameters", code(" ".join(parameters))))
    found += [("Guest", _guest(run)), ("gdb", code(fact(environment, "versions", "gdb")))]
    version = f"{code(first.kgen)}, result schema {SCHEMA}" if first.kgen else ""
    found.append(("kgen", version))
    found.append(("When", code(fact(environment, "started"))))
    if first.invocation:
        found.append(("Made by", code(shlex.join(first.invocation))))
    return [f"- {name}: {text}" for name, text in found if text]


def _host(environment: Mapping[str, Any]) -> str:
    system = " ".join(fact(environment, "host", name) for name in ("system", "kernel", "machine")).strip()
    cpu = fact(environment, "host", "cpu")
    number = fact(environment, "host", "cpus")
    microcode = fact(environment, "host", "microcode")
    host = environment.get("host")
    nested = isinstance(host, Mapping) and host.get("hypervisor") is True
    parts = [
        code(system),
        f"{number + ' × ' if number else ''}{code(cpu)}" if cpu else "",
        f"microcode {code(microcode)}" if microcode else "",
        "itself a virtual machine" if nested else "",
    ]
    return ", ".join(part for part in parts if part)


def _hypervisor(environment: Mapping[str, Any]) -> str:
    emulator, how = fact(environment, "versions", "emulator"), fact(environment, "accel")
    return ", ".join(part for part in (code(emulator), f"accelerator {code(how)}" if how and emulator else "") if part)


def _lab(environment: Mapping[str, Any]) -> str:
    qemu, linux = fact(environment, "lab", "qemu"), fact(environment, "lab", "linux")
    return f"{code(qemu)} on Linux {code(linux)}, all inside the hypervisor above" if qemu or linux else ""


def _guest(run: Run) -> str:
    record = run.results[0].observation.best
    if record is None:
        return ""
    boot = "" if record.boot_path is BootPath.UNKNOWN else f", booted by {record.boot_path.name.lower()}"
    build = f", build id {code(record.build_id)}" if record.build_id else ""
    cpus = plural(record.cpus_found, "CPU")
    return f"kgen's kernel for {words(run.spec.name) if run.spec else 'a case unknown'}, {cpus}{boot}{build}"
