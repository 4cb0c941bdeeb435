"""A machine of VirtualBox in a lab as an engine: QEMU runs the lab, VBoxManage in it stops and reads the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from kgen.host.environment import gathering
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.machine.qemu import Machine, launch
from kgen.machine.virtualbox_engine import CHUNK, VirtualBox, about, title

#: Where VirtualBox puts a core, in the lab.
_CORES = "/tmp"


class Domain(Supervisor, Protocol):
    """The lab's side of a machine."""

    #: The commands of VBoxManage so far.
    commands: list[list[str]]

    def manage(self, *words: str, seconds: float) -> str:
        """Run VBoxManage and return what it prints. Raises MachineError with its complaint."""
        ...

    def log(self) -> str:
        """Return VirtualBox's log of the machine so far, "" where it cannot be read."""
        ...

    def fetch_part(self, name: str, block: int, first: int, count: int) -> bytes:
        """Return so many blocks of a file of the lab, fewer bytes where it ends before. Raises DebuggerError."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file of the lab. Raises DebuggerError."""
        ...


def start(platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]) -> VirtualBox:
    """See ``engine.Start``. No gdb is needed."""
    with contextlib.ExitStack() as undo:
        with pinned:
            machine = undo.enter_context(launch(platform, request))
        gather = undo.enter_context(gathering(machine.command[0], ""))
        site = _InLab(machine, request, gather)
        return VirtualBox(site, request.cpus, platform.patience, site.facts, undo.pop_all())


class _InLab:
    """See ``virtualbox_engine.Site``."""

    def __init__(self, machine: Machine, request: LaunchRequest, gather: Callable[[], dict[str, Any]]) -> None:
        self._domain = cast(Domain, machine.supervisor)
        self._gather = gather
        self._command = machine.command
        self._ring3 = request.ring3
        self.supervisor: Supervisor | None = self._domain
        self.read_serial = machine.read_serial
        self.send_serial = machine.send_serial
        self.crashed = machine.crashed
        self.manage = self._domain.manage

    def core(self, name: str) -> str:
        return f"{_CORES}/{name}"

    def read_core(self, name: str, begin: int, length: int) -> bytes:
        return self._domain.fetch_part(self.core(name), CHUNK, begin // CHUNK, length // CHUNK)

    def drop_core(self, name: str) -> None:
        self._domain.remove(self.core(name))

    def facts(self) -> Mapping[str, Any]:
        """Return versions, the outer QEMU's command line, the lab, and what VirtualBox says of the machine."""
        found = self._gather()
        log = self._domain.log()
        own = about(log, driverless=False, ring3=self._ring3, commands=self._domain.commands)
        inside = dict(self._domain.facts())
        if title(log):
            # with the engine that ran
            inside["lab"] = dict(inside["lab"]) | {"qemu": title(log)}
        return found | {"command": list(self._command), "virtualbox": own} | inside
