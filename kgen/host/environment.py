"""Where a result was obtained: host CPU, microcode, kernel, KVM's parameters, tools and their versions."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from kgen import __version__
from kgen.host.process import Answer, output

_VERSION_SECONDS = 10.0
#: Date and time of a run, to the second, in UTC (ISO 8601).
WHEN = "%Y-%m-%dT%H:%M:%SZ"


def host() -> dict[str, Any]:
    """Return facts of this host and its kernel. What cannot be read is left out."""
    fields = {"system": platform.system(), "kernel": platform.release(), "machine": platform.machine()}
    return fields | {"cpus": os.cpu_count() or 0} | _cpuinfo(_read(Path("/proc/cpuinfo")))


def _cpuinfo(text: str) -> dict[str, Any]:
    """Return model and microcode revision of the first CPU in /proc/cpuinfo's text."""
    found = {}
    for key, name in (("model name", "cpu"), ("microcode", "microcode"), ("vendor_id", "vendor")):
        match = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            found[name] = match[1].strip()
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    if flags:
        found["hypervisor"] = "hypervisor" in flags[1].split()
    return found


def kvm_parameters() -> dict[str, str]:
    """Return ``/sys/module/kvm*/parameters/*``, as ``module.parameter``."""
    found = {}
    for path in sorted(Path("/sys/module").glob("kvm*/parameters/*")):
        text = _read(path)
        if text:
            found[f"{path.parent.parent.name}.{path.name}"] = text.strip()
    return found


def first_line(command: Sequence[str]) -> str:
    """Return the first line that a program prints, "" when it cannot be run."""
    return _first(output(command, _VERSION_SECONDS))


def accelerator(command: Sequence[str]) -> dict[str, str]:
    """Return the accelerator, from QEMU's command line: ``accel`` and, for TCG, its ``thread`` mode.

    QEMU uses the first of several accelerators that works; ours comes first.
    """
    given = (value for option, value in pairwise(command) if option.lstrip("-") == "accel")
    name, *settings = next(given, "").split(",")
    found = {"accel": name} if name else {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == "thread":
            found[key] = value
    return found


@contextmanager
def gathering(emulator: str, gdb: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Read the versions of the programs ``emulator`` and ``gdb`` (either may be "") in the background.

    The function that it returns waits for the answers, and returns everything about the place of a run that may
    influence its result.
    """
    started = datetime.now(timezone.utc).strftime(WHEN)
    with ExitStack() as stack:
        asked = {}
        for name, program in (("emulator", emulator), ("gdb", gdb)):
            if program:
                asked[name] = Answer([program, "--version"])
                stack.callback(asked[name].close)

        def gather() -> dict[str, Any]:
            versions = {"kgen": __version__, "python": platform.python_version()}
            versions |= {name: _first(answer.text(_VERSION_SECONDS)) for name, answer in asked.items()}
            return {"started": started, "host": host(), "kvm": kvm_parameters(), "versions": versions}

        yield gather


def environment(emulator: str = "", gdb: str = "") -> dict[str, Any]:
    """Return what ``gathering`` gathers, at once."""
    with gathering(emulator, gdb) as gather:
        return gather()


def _first(text: str) -> str:
    lines = text.splitlines()
    return lines[0].strip() if lines else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
