"""Observe a machine that another program started, through its gdb stub."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from kgen import __version__
from kgen.build import build
from kgen.errors import DebuggerError, KgenError
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED, PathEvidence, ask
from kgen.evidence.observation import Observation
from kgen.host.environment import gathering
from kgen.inspection.stopped import Inspection, cell_range, inspect
from kgen.kernel.plan import layout_of, phases
from kgen.kernel.protocol import parse_log
from kgen.machine import greeting
from kgen.machine.foreign import ask_control, kernel_of, left_in_order, monitor_of, must_be_an_address, status_of
from kgen.machine.gdb import GdbSession, Unreachable
from kgen.machine.qemu_words import FOR_EVER
from kgen.machine.qmp import Qmp
from kgen.machine.rsp import UNKNOWN
from kgen.spec import KernelSpec
from kgen.spec.kernel_spec import OLD_RULES
from kgen.toolchain.elf_reader import LoadedElf

#: How many words one command reads through QEMU's monitor.
_WORDS = 1024
#: How long a server that is no stub may take to send its greeting, in seconds.
_GREETING_SECONDS = 2.0


@dataclass(frozen=True)
class Attachment:
    """Which machine to read, and how to leave it."""

    #: The gdb stub's address: HOST:PORT or a socket.
    address: str
    #: QEMU's control socket, None for none.
    qmp: str | None = None
    #: The machine's serial log, None for none.
    log: bytes | None = None
    #: How to leave the machine; "found" as it was found, where ``qmp`` can tell.
    after: Literal["found", "resume", "stop"] = "found"
    #: The gdb to run.
    gdb: str = "gdb"
    #: The longest time for an answer of the stub, in seconds.
    timeout: float = 20.0


def attach(elf: bytes, name: str, wanted: Attachment) -> tuple[KernelSpec, Observation, str]:
    """Stop the machine, read it, leave it. Return what it runs, the observation, and how it was left.

    Raises SpecError for an invalid address and for an ELF that is not kgen's, DebuggerError for a stub that does not
    answer, MachineError for a control socket that does not.
    """
    kernel, spec = kernel_of(elf, name)
    must_be_an_address(wanted.address)
    foreign = _foreign(kernel, spec)
    with ExitStack() as stack:
        gather = stack.enter_context(gathering("", wanted.gdb))
        control, found = ask_control(stack, wanted.qmp)
        resume = _is_to_run(wanted.after, found)
        session = stack.enter_context(GdbSession.start(wanted.gdb))
        left = _in_words(wanted, found, resume)
        held = _Held(session, resume, f"the machine was left {left}")
        with left_in_order(held.leave, held.how):
            held.connect(wanted)
            seen = inspect(session, spec, kernel.build_id, kernel.symbols, kernel.sections)
            other = _other_machine(control, found, session, kernel.symbols["results"], spec, seen) if control else []
            path = _path(control, cell_range(phases(spec)[-1], kernel.symbols, seen.memory), spec.case.cpus)
        about = gather()
    log = parse_log(wanted.log) if wanted.log is not None else None
    observation = Observation(
        platform=f"stub at {wanted.address}",
        serial=from_log(log) if log else None,
        memory=seen.memory,
        path=PathEvidence("unknown", "", other[0], "") if other else path,
        problems=(*foreign, *seen.problems, *other),
        cells=seen.cells,
        registers=seen.registers,
        symbols=seen.symbols,
        rows=log.rows if log else (),
        log=wanted.log.decode("latin-1") if wanted.log is not None else "",
        environment=about,
    )
    return spec, observation, left


def _is_to_run(after: Literal["found", "resume", "stop"], found: str) -> bool:
    """Return whether to let the machine run afterwards. One that only a reset could let run stays as it is."""
    return found == "running" if after == "found" else after == "resume" and found not in FOR_EVER


def _in_words(wanted: Attachment, found: str, resume: bool) -> str:
    """Return in words how the machine is left. ``found`` is how it was found, "" where there was no way to ask."""
    how = "running" if resume else "stopped"
    if found:
        return f"{how} (found {found})"
    return how if wanted.after != "found" else f"{how} (no --qmp to ask how it was found)"


@dataclass
class _Held:
    """A machine that kgen's debugger holds."""

    session: GdbSession
    #: Whether the machine runs on afterwards.
    resume: bool
    #: How the machine is left if that succeeds, in words; "" where it was not touched.
    left: str

    def connect(self, wanted: Attachment) -> None:
        """Connect the debugger, which stops the machine. Raises DebuggerError."""
        try:
            self.session.connect(wanted.address, timeout=wanted.timeout)
        except Unreachable:
            self.left = ""
            raise
        except DebuggerError as error:
            self.session.close()  # it may still hold the connection, for which the next attempt would wait
            kind = greeting.listening(wanted.address, _GREETING_SECONDS)
            if kind in ("", greeting.STUB):
                raise
            self.left = ""
            what, hint = greeting.instead_of_a_stub(kind)
            raise DebuggerError(what, where=wanted.address, hint=hint) from error

    def leave(self) -> KgenError | None:
        """Leave the machine running or stopped, as chosen. Return the error where that failed."""
        try:
            if self.left and self.resume:
                self.session.detach()
            elif self.left:
                self.session.disconnect()
        except KgenError as error:
            self.left = UNKNOWN
            return error
        return None

    def how(self) -> str:
        """Return how the machine was left, "" where it was not touched."""
        return self.left


def _foreign(kernel: LoadedElf, spec: KernelSpec) -> list[str]:
    """Return a sentence where an ELF of this version of kgen differs from what this kgen builds.

    A kernel with the rules of an older kgen is read, and cannot be built: there is nothing to compare it with. It is
    never proof of ATOMIC.
    """
    if spec.rules == OLD_RULES or _version(kernel) != __version__ or build(spec).elf.build_id == kernel.build_id:
        return []
    return ["the ELF is not what this kgen builds: it was changed after it was built, or built from other sources"]


def _version(kernel: LoadedElf) -> str:
    """Return the version of kgen that the kernel prints when it boots, "" where the ELF does not hold it."""
    at = kernel.symbols["text_version"]
    holders = (part for part in kernel.sections if part.address <= at < part.address + part.size)
    text = next((part.data[at - part.address :] for part in holders), b"")
    return text.partition(b"\0")[0].decode("latin-1")


def _other_machine(
    control: Qmp, found: str, session: GdbSession, results: int, spec: KernelSpec, seen: Inspection
) -> list[str]:
    """Return a sentence where the control socket is of another machine than the one that gdb has stopped. Of one
    machine, both read the same bytes.

    The results block holds times, which differ from run to run.
    """
    what = "--qmp is of another machine than the stub"
    if status_of(control) == "running":
        return [f"{what}: it runs while the debugger holds this one"]
    if found == "prelaunch" and seen.memory is not None:
        return [f"{what}: it has not been started, and here a kernel runs"]
    size = layout_of(spec).size & ~3
    if _memory(control, results, size) != session.read_memory(results, size):
        return [f"{what}: the results block in its memory is not the one that the debugger sees"]
    return []


def _memory(control: Qmp, address: int, size: int) -> bytes:
    """Return guest memory as QEMU's monitor prints it, fewer bytes where it prints less. Raises MachineError."""
    data = b""
    for start in range(0, size // 4, _WORDS):
        line = f"xp /{min(_WORDS, size // 4 - start)}xw {address + 4 * start:#x}"
        text = monitor_of(control)(line)
        words = (word for row in text.splitlines() for word in re.findall(r"0x([0-9a-f]{8})\b", row.partition(":")[2]))
        data += b"".join(int(word, 16).to_bytes(4, "little") for word in words)
    return data


def _path(control: Qmp | None, cells: tuple[int, int] | None, cpus: int) -> PathEvidence:
    if control is None or cells is None:
        return NOT_ASKED
    try:
        return ask(monitor_of(control), *cells, cpus=cpus)
    except KgenError as error:
        return PathEvidence("unknown", "", error.line, "")
