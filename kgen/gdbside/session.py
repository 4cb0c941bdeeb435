"""gdb and its machine: memory, registers, what the stub can do, and runs that end after a time."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from kgen.errors import DebuggerError, LinkError
from kgen.evidence import mtree
from kgen.evidence.mtree import PathEvidence
from kgen.gdbside.image import Image, load
from kgen.gdbside.snapshot import NotBegun, Snapshot, take
from kgen.machine.qemu_words import stopped_by
from kgen.machine.registers import CpuRegisters

_CPU = re.compile(r"CPU\s?#(\d+)")
_GENERAL = ("sp", "bp", "ax", "bx", "cx", "dx", "si", "di")
_WORD = 0xFFFFFFFF
#: CR0.PE (SDM volume 3, 2.5).
_PROTECTED = 1
#: A stub's answer as ``maint packet`` shows it.
_RECEIVED = re.compile(r'received: "(.*)"')
_ENABLED = re.compile(r"kvm support:\s+enabled", re.IGNORECASE)
_images: dict[tuple[str, int], Image] = {}


class GdbMachine:
    """The stopped machine: see ``engine.Frozen``."""

    def threads(self) -> tuple[CpuRegisters, ...]:
        """Return every CPU that the stub shows. gdb's selection does not change."""
        with selection():
            return tuple(self._registers(thread) for thread in all_threads())

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes at an address, which is a physical one: the kernel runs without paging."""
        try:
            return bytes(gdb.selected_inferior().read_memory(address, length))
        except gdb.error as error:
            raise DebuggerError(f"{length} bytes at {address:#x} cannot be read: {error}") from error

    @staticmethod
    def _registers(thread: gdb.InferiorThread) -> CpuRegisters:
        try:
            thread.switch()
            frame = gdb.newest_frame()
            letter = "r" if is_wide(frame) else "e"
            words = {f"e{name}": int(frame.read_register(letter + name)) & _WORD for name in _GENERAL}
            pointer = int(frame.read_register(f"{letter}ip")) & _WORD
            flags = int(frame.read_register("eflags")) & _WORD
        except (gdb.error, ValueError) as error:
            raise DebuggerError(f"the registers of thread {thread.num} cannot be read: {error}") from error
        target = f"Thread {thread.num} {thread.name or ''} {details(thread)}".strip()
        number = _CPU.search(target)
        return CpuRegisters(
            thread=thread.num, target=target, cpu=int(number[1]) if number else None, eip=pointer, eflags=flags, **words
        )


def details(thread: gdb.InferiorThread) -> str:
    """Return the stub's text for a thread: ``CPU#1 [halted ]``; "" where it has none."""
    return " ".join((getattr(thread, "details", None) or "").split())


@contextmanager
def selection() -> Iterator[None]:
    """Restore gdb's selected thread and frame afterwards."""
    thread, frame = selected_thread(), _selected_frame()
    try:
        yield
    finally:
        if thread is not None and thread.is_valid():
            thread.switch()
        if frame is not None and frame.is_valid():
            frame.select()


def selected_thread() -> gdb.InferiorThread | None:
    """gdb's selected CPU, None where there is none."""
    return gdb.selected_thread()


def _selected_frame() -> gdb.Frame | None:
    try:
        return gdb.selected_frame()
    except gdb.error:
        return None


def image() -> Image:
    """Return the kernel that gdb has loaded. Raises LinkError."""
    space = gdb.current_progspace()
    path = space.filename if space is not None else None
    if not path:
        raise LinkError("gdb has loaded no kernel", hint="give it kernel.elf: 'file PATH'")
    try:
        key = (path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise LinkError(f"cannot be read: {error.strerror}", where=path) from error
    if key not in _images:
        _images.clear()
        _images[key] = load(path)
    return _images[key]


def all_threads() -> list[gdb.InferiorThread]:
    """gdb's threads in the order of their numbers."""
    return sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num)


def in_real_mode(frame: gdb.Frame) -> bool:
    """Return whether the frame's CPU is in real mode, in which its code lies at CS and IP; False where the stub does
    not show CR0.
    """
    try:
        return not int(frame.read_register("cr0")) & _PROTECTED
    except (gdb.error, ValueError):
        return False


def must_be_stopped() -> None:
    """Raise DebuggerError where there is no machine, or it runs."""
    threads = all_threads()
    if not threads:
        raise DebuggerError("gdb is connected to no machine", hint="'target remote HOST:PORT' or '... SOCKET'")
    if any(thread.is_running() for thread in threads):
        raise DebuggerError("the machine is running", hint="stop it first: Ctrl-C, or 'interrupt'")


def snapshot() -> Snapshot:
    """Return the stopped machine. Raises one of the KgenErrors."""
    found = image()
    must_be_stopped()
    return take(found, GdbMachine(), boundaries)


def begun() -> Snapshot | None:
    """Return the stopped machine, None before its kernel has begun.

    Commands that move a CPU call this first: a machine that is not the ELF's must not change. Raises one of the
    KgenErrors.
    """
    try:
        return snapshot()
    except NotBegun:
        return None


def boundaries(begin: int, end: int) -> tuple[int, ...]:
    """Return the address of each instruction of the kernel between two addresses, () where gdb does not know it.

    They are taken from the ELF's line table, in which each instruction has a line: gdb decodes the code as 64-bit code
    where the stub is that of a 64-bit machine.
    """
    # None where the ELF has no line for the address
    symtab = getattr(gdb.find_pc_line(begin), "symtab", None)
    table = symtab.linetable() if symtab else None
    return tuple(sorted({int(entry.pc) for entry in table or () if begin <= entry.pc < end}))


def is_wide(frame: gdb.Frame) -> bool:
    """Return whether gdb regards the machine as a 64-bit one: then it disassembles the kernel's 32-bit code wrongly."""
    return bool(frame.architecture().name().startswith("i386:x86-64"))


# --- what the stub can do ------------------------------------------------------------------------------------------


def packet(text: str) -> str:
    """Return a stub's answer to a packet of the remote protocol, "" where it has none or is no remote stub."""
    try:
        answer = _RECEIVED.search(gdb.execute(f"maint packet {text}", to_string=True))
    except gdb.error:
        return ""
    return answer[1] if answer else ""


def moves_one_cpu() -> bool:
    """Return whether the stub can move one CPU while the others stand still."""
    return "c" in packet("vCont?").split(";")


def takes_breakpoint(kind: int, address: int) -> bool:
    """Return whether the stub sets a breakpoint itself: 0 by software, 1 by hardware. It is removed again."""
    taken = packet(f"Z{kind},{address:x},1") == "OK"
    if taken:
        packet(f"z{kind},{address:x},1")
    return taken


def monitor(line: str) -> str:
    """Return what QEMU's monitor answers, "" where the stub has no such monitor."""
    try:
        return gdb.execute(f"monitor {line}", to_string=True).replace("\r", "")
    except gdb.error:
        return ""


def attest(address: int, length: int) -> PathEvidence:
    """Return what backs these bytes according to QEMU, NOT_ASKED where the stub has no QEMU monitor."""
    text = monitor(mtree.COMMAND)
    if not mtree.is_answer(text):
        return mtree.NOT_ASKED
    return mtree.attest(text, address, length, cpus=image().spec.case.cpus)


def is_given_up() -> bool:
    """Return whether the emulator has given up the machine: it would never run again, and so never stop."""
    return stopped_by(monitor("info status")) == "internal-error"


def must_be_able_to_go() -> None:
    """Raise DebuggerError where the machine cannot go on."""
    if is_given_up():
        raise DebuggerError(
            "QEMU has stopped the machine with an internal error, and it cannot go on",
            hint="start another one; on some KVMs 'break' does that, where 'hbreak' works",
        )


def is_kvm() -> bool | None:
    """Return whether QEMU runs the machine on KVM, None where there is no QEMU to ask."""
    answer = monitor("info kvm")
    if "kvm support" not in answer:
        return None
    return bool(_ENABLED.search(answer))


def shortcomings() -> list[str]:
    """Return what this stub cannot do, one line each; none for QEMU's."""
    found = []
    cpus = image().spec.case.cpus
    if len(all_threads()) < cpus:
        found.append(
            f"this stub shows {len(all_threads())} of {cpus} CPUs: of the others only their own records are known"
        )
    if not moves_one_cpu():
        found.append(
            "this stub cannot move one CPU alone: 'kgen step' and the second look of 'kgen freeze-proof' need it"
        )
    if not mtree.is_answer(monitor(mtree.COMMAND)):
        found.append("this stub has no QEMU monitor: only the kernel's own probe shows what backs the cells")
    return found


# --- moving --------------------------------------------------------------------------------------------------------


@contextmanager
def alone(thread: gdb.InferiorThread) -> Iterator[None]:
    """Let only that CPU move; restore gdb's selection and setting afterwards."""
    with selection():
        thread.switch()
        # gdb 13 aborts where a stop is reported for another CPU than the one that it resumed: name that one to the stub
        # too
        process, number, _ = thread.ptid
        packet(f"Hcp{process:x}.{number:x}")
        with setting("scheduler-locking", "on"):
            yield


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Set a setting of gdb to this value; restore it afterwards."""
    before = gdb.parameter(name)
    gdb.execute(f"set {name} {value}", to_string=True)
    try:
        yield
    finally:
        gdb.execute(f"set {name} {before}", to_string=True)


def go(command: str, seconds: float) -> bool:
    """Let the machine run by a command of gdb, and stop it after so many seconds where it does not stop by itself.
    Return whether it had to be stopped. A Ctrl-C stops it as well."""
    run = _Run()
    # the timer's thread may not call gdb: gdb's own thread does it
    timer = threading.Timer(seconds, lambda: gdb.post_event(run.stop))
    timer.daemon = True
    timer.start()
    try:
        with _quietly():
            gdb.execute(command, to_string=True)
    finally:
        run.is_going = False
        timer.cancel()
    return run.expired


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep gdb from printing where it stopped: the command prints that itself. gdb 13 and newer have a setting for
    it."""
    try:
        before = gdb.parameter("suppress-cli-notifications")
    except RuntimeError:
        yield
        return
    gdb.execute("set suppress-cli-notifications on", to_string=True)
    try:
        yield
    finally:
        gdb.execute(f"set suppress-cli-notifications {'on' if before else 'off'}", to_string=True)


class _Run:
    """Return whether the machine runs; gdb must not be asked while it does."""

    def __init__(self) -> None:
        self.is_going = True
        self.expired = False

    def stop(self) -> None:
        """Stop the machine, if it has not stopped meanwhile. Called by gdb."""
        if self.is_going:
            self.expired = True
            gdb.execute("interrupt", to_string=True)
