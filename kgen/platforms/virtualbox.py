"""VirtualBox: the one that is installed on this host, or the one of 'kgen lab build virtualbox'."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kgen.errors import SpecError, unknown
from kgen.host.process import finish
from kgen.lab.choice import Choice
from kgen.lab.programs import load
from kgen.lab.system import title
from kgen.machine import virtualbox, virtualbox_engine, virtualbox_words
from kgen.machine.platform import LaunchRequest, Platform
from kgen.systems import system_named

#: The graphics adapters: VirtualBox's names, the default first.
ADAPTERS = (virtualbox_engine.VGA, "vmsvga", "none")
_MAX_CPUS = 64
_ASK_SECONDS = 30.0
BUILD_HINT = "install VirtualBox, or run 'kgen lab build virtualbox', which says what it downloads"


def starter(request: LaunchRequest) -> str | None:
    """Return the program that starts VirtualBox: VBoxManage of this host, or the starter of a private root; None where
    there is neither."""
    programs = request.programs
    if programs is None:
        installed = shutil.which("VBoxManage")
        if installed:
            return installed
        made = load(title(system_named("virtualbox"), Choice()))
        programs = made.programs if made else None
    place = programs / virtualbox.INSIDE if programs else None
    return str(place) if place and place.is_file() else None


def unavailable(request: LaunchRequest) -> str | None:
    """See ``Platform.unavailable``."""
    if sys.platform not in ("linux", "darwin"):
        return "VirtualBox is driven on Linux and macOS only; elsewhere use 'kgen kit virtualbox'"
    program = starter(request)
    if program is None:
        return f"there is no VBoxManage; {BUILD_HINT}"
    return lacking(request) or (_no_namespace(program) if Path(program).name == virtualbox.INSIDE else None)


def lacking(request: LaunchRequest) -> str | None:
    """Return what of a request VirtualBox's machines do not have, wherever they run."""
    if request.cpus > _MAX_CPUS:
        return f"VirtualBox has at most {_MAX_CPUS} CPUs"
    if request.serial_port not in virtualbox_words.SERIAL_PORTS:
        return f"VirtualBox's serial ports are not at {request.serial_port:#x}"
    return None


def _no_namespace(program: str) -> str | None:
    """Return why a private root cannot be entered here, None where it can."""
    if shutil.which("unshare") is None:
        return "there is no unshare, of util-linux, to enter VirtualBox's private root with"
    enter = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
    # in the mount namespace, which ends with it
    done = finish((*enter, "mount", "-t", "tmpfs", "kgen", "/tmp"), _ASK_SECONDS)
    if done.status == 0:
        return None
    why = (done.text.strip().splitlines() or ["no reason given"])[-1]
    return f"this host lets this user make no namespaces for VirtualBox's private root: {why}"


def command(request: LaunchRequest) -> tuple[str, ...]:
    """See ``Platform.command``: what starts VirtualBox. The engine makes the rest of it."""
    return (starter(request) or "VBoxManage",)


def medium(request: LaunchRequest) -> str:
    """See ``Platform.medium``. Raises SpecError for choices that VirtualBox does not have."""
    if request.vga is not None and request.vga not in ADAPTERS:
        raise unknown("graphics adapter", request.vga, ADAPTERS)
    if request.engine is not None and request.engine not in virtualbox.ENGINES:
        raise unknown("engine", request.engine, virtualbox.ENGINES)
    if request.boot not in (None, "ide"):
        raise SpecError("kgen boots VirtualBox from an IDE disk", where=f"--boot {request.boot}", hint="leave it out")
    return "vdi"


def known_by(environment: Mapping[str, Any]) -> str:
    """See ``Platform.known_by``. With hardware virtualisation VirtualBox's driver holds the device's lock around a
    whole instruction, with LOCK or without; its interpreter and recompiler, and its process in ring 3, read, then
    write."""
    about = environment.get("virtualbox", {})
    return "ATOMIC" if about.get("engine", "").startswith("HM") and not about.get("ring3") else "NOT_ATOMIC"


PLATFORM = Platform(
    name="virtualbox",
    summary="VirtualBox, installed or in a private root",
    provides=frozenset({"hpet", "serial", "smp", "vga"}),
    unavailable=unavailable,
    command=command,
    boot_seconds=60.0,
    known="NOT_ATOMIC",
    known_by=known_by,
    breakpoints="none",
    engine="virtualbox",
    options=frozenset({"vga", "engine", "ring3"}),
    medium=medium,
    # The interpreter carries out some hundred exchanges a second; so many show ten violations and more.
    rounds=5000,
)
