"""QEMU as an engine: the machine, gdb at its stub, and the monitor, which attests what backs an address."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kgen.errors import DebuggerError
from kgen.evidence.mtree import PathEvidence
from kgen.host.environment import accelerator, gathering
from kgen.machine.gdb import INSTALL_HINT, GdbSession, has_python
from kgen.machine.platform import LaunchRequest, Platform, Supervisor
from kgen.machine.qemu import Machine, launch
from kgen.resources import data_dir

CONNECT_SECONDS = 20.0

Gather = Callable[[], dict[str, Any]]


def start(platform: Platform, request: LaunchRequest, *, gdb: str, pinned: AbstractContextManager[None]) -> QemuEngine:
    """See ``engine.Start``."""
    if shutil.which(gdb) is None:
        raise DebuggerError(f"'{gdb}' is not to be found", hint=INSTALL_HINT)
    with contextlib.ExitStack() as undo:
        with pinned:
            machine = undo.enter_context(launch(platform, request))
        # gdb takes longer to start than the guest takes to boot: it starts while the guest runs. So do the versions'
        # programs.
        session = undo.enter_context(GdbSession.start(gdb))
        gather = undo.enter_context(gathering(machine.command[0], gdb))
        return QemuEngine(machine, session, platform.patience, gather, undo.pop_all(), gdb)


class QemuEngine:
    """See ``engine.Engine``. ``machine`` and ``session`` are for what only QEMU and gdb can do."""

    def __init__(
        self,
        machine: Machine,
        session: GdbSession,
        patience: float,
        gather: Gather,
        ends: contextlib.ExitStack,
        gdb: str = "gdb",
    ) -> None:
        self.machine = machine
        self.session = session
        self._patience = patience
        self._gather = gather
        self._ends = ends
        self._gdb = gdb
        self._inner: str | None = None
        #: Whether gdb was requested to connect: it is connected unless something has broken.
        self._debugged = False
        self.read_serial = machine.read_serial

    def __enter__(self) -> QemuEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def supervisor(self) -> Supervisor | None:
        return self.machine.supervisor

    @property
    def died(self) -> str | None:
        return self.session.died

    def crashed(self) -> str | None:
        return self.machine.crashed(broken=self._debugged and not self.session.connected)

    @property
    def gdb_address(self) -> str:
        """The path of the stub's socket."""
        return self.machine.gdb_address

    def freeze(self) -> GdbSession:
        if self.session.connected:
            self.session.interrupt()
            return self.session
        if self.machine.supervisor:
            # Where the stub is at the end of a serial line, connecting does not stop the machine.
            self.machine.qmp("stop")
        self._debugged = True
        self.session.connect(self.machine.gdb_address, timeout=CONNECT_SECONDS * self._patience)
        return self.session

    def thaw(self) -> None:
        self.session.resume()

    def run_until(self, address: int, condition: str) -> None:
        session = self.freeze()
        # the kind of breakpoint that no accelerator refuses; it changes no byte of the guest
        session.insert_breakpoint(f"*{address:#x}", hardware=True, condition=condition)
        session.resume()

    def caught(self) -> bool:
        stop = self.session.stopped()
        return stop is not None and stop.reason == "breakpoint-hit"

    def attest(self, address: int, length: int, cpus: int) -> PathEvidence:
        return self.machine.attest(address, length, cpus)

    def attend(self, address: int, length: int, cpus: int, *, declared: str) -> PathEvidence:
        return self.machine.attend(address, length, cpus, declared=declared)

    def ask_to_stop(self, word: int) -> None:
        # the machine keeps running; a debugger would stop it to write the word
        self.machine.send_serial(b"s")

    def facts(self) -> Mapping[str, Any]:
        """Return versions, QEMU's command line, the accelerator, and the lab, if there is one."""
        found = dict(self.supervisor.facts()) if self.supervisor else {}
        inner = found.get("lab", {}).get("command", self.machine.command)
        return self._gather() | {"command": list(self.machine.command)} | accelerator(inner) | found

    def let_in(self) -> None:
        if self.supervisor and self.session.connected:
            self._inner = self.session.architecture()
        # the stub serves one client
        self._debugged = False
        self.session.close()

    def join(self, elf: Path) -> tuple[str, ...]:
        scripts = data_dir("gdb_scripts")
        # a gdb without Python would take kgen.py for a script of its own
        commands = "kgen.py" if has_python(self._gdb) else "no_python.gdb"
        loaded = [word for name in ("attach.gdb", commands) for word in ("-x", str(scripts / name))]
        # a stub at the end of a serial line is that of a machine inside, of which our monitor knows nothing
        wide = self._inner if self.supervisor else self.machine.gdb_architecture()
        told = ("-ex", f"set architecture {wide}") if wide else ()
        # the listing is beside the ELF; gdb runs in the user's directory, where the files that it writes belong
        return (self._gdb, "-d", str(elf.parent), str(elf), *loaded, *told, "-ex", f"target remote {self.gdb_address}")
