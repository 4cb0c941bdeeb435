"""Machines that kgen did not start: their addresses, kernels and control sockets."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from kgen.errors import KgenError, LinkError, MachineError, SpecError, ending_with
from kgen.machine import greeting
from kgen.machine.address import is_socket, network_address
from kgen.machine.qmp import Qmp
from kgen.spec import KernelSpec
from kgen.toolchain.elf_reader import LoadedElf, read

#: Symbols that are needed to read anything.
NEEDED = ("results", "ram_cells", "text_version")


QMP_SECONDS = 10.0
#: No stub's greeting is longer, in bytes.
_GREETING = 4096


def must_be_an_address(text: str) -> None:
    """Raise SpecError for a text that is no address to gdb, but a command to run, a serial device or an option."""
    if network_address(text) and not text.startswith(("-", "|")):
        return
    if not is_socket(text):
        raise SpecError(
            f"'{text}' is neither HOST:PORT nor a socket",
            hint="give the address of QEMU's -gdb, such as localhost:1234",
        )


def kernel_of(elf: bytes, name: str) -> tuple[LoadedElf, KernelSpec]:
    """Return a kernel's ELF, and the request that it was built from.

    Raises SpecError for any other file, and for a kernel of another kgen: the user named the wrong file.
    """
    try:
        kernel = read(elf, name=name)
    except LinkError as error:
        raise SpecError(
            error.message, where=error.where, hint=error.hint or "name the kernel.elf of kgen build"
        ) from error
    try:
        spec = KernelSpec.from_json(kernel.spec_json)
    except SpecError as error:
        raise SpecError(f"was built by another version of kgen: {error.message}", where=name) from error
    missing = [symbol for symbol in NEEDED if symbol not in kernel.symbols]
    if missing:
        raise SpecError(f"has no symbol {missing[0]}", where=name, hint="build it again with this kgen")
    return kernel, spec


def ask_control(stack: ExitStack, path: str | None) -> tuple[Qmp | None, str]:
    """Return QEMU's control socket, at HOST:PORT or a path, which ``stack`` closes, and the machine's state in QEMU's
    words; None and "" without a socket. Call this before connecting to a stub: that stops the machine, and few report
    whether it ran before.

    Raises MachineError, and SpecError for "" (a variable that is not set): without the socket, a stopped machine would
    be regarded as running.
    """
    if path is None:
        return None, ""
    control = _connect_control(path)
    stack.callback(control.close)
    return control, status_of(control)


def _connect_control(path: str) -> Qmp:
    if not path:
        raise SpecError("names nothing", where="qmp", hint="name QEMU's control socket, or leave it out")
    try:
        control = greeting.connected(path, QMP_SECONDS)
    except OSError as error:
        raise MachineError(f"no QEMU answers: {error.strerror or error}", where=path, hint="check --qmp") from error
    kind = greeting.peek(control, QMP_SECONDS)
    if kind in ("", greeting.CONTROL):
        return Qmp(control, QMP_SECONDS, path)
    what, hint = greeting.instead_of_control(kind)
    with control, contextlib.suppress(OSError):
        if kind == greeting.STUB:
            # it has stopped the machine for us, and said so: a machine that ran. What is left unread resets the
            # connection, and what was sent with it
            control.recv(_GREETING)
            control.sendall(b"+$D;1#b0")
            control.settimeout(1.0)
            control.recv(_GREETING)
    raise MachineError(what, where=path, hint=hint)


@contextmanager
def left_in_order(leave: Callable[[], KgenError | None], how: Callable[[], str]) -> Iterator[None]:
    """Leave a machine as planned, whatever happens inside.

    ``leave`` returns what went wrong. After it, ``how`` returns how the machine was left, "" where none was touched; an
    error that is raised ends with that. What went wrong is raised where nothing failed before, and where a signal ends
    us, because a signal has no message that could contain it.
    """
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
    trouble = leave()
    if trouble and not isinstance(failure, KgenError):
        failure = trouble
    if isinstance(failure, KgenError) and (left := how()):
        raise ending_with(failure, left) from failure
    if failure:
        raise failure


def monitor_of(control: Qmp) -> Callable[[str], str]:
    """Return a function that runs a line of QEMU's human monitor and returns its output. It raises MachineError."""
    return lambda line: str(control.execute("human-monitor-command", {"command-line": line}, QMP_SECONDS))


def status_of(control: Qmp) -> str:
    """Return QEMU's word for the machine's state: ``running``, ``paused``, ``prelaunch`` ... Raises MachineError."""
    answer = control.execute("query-status", {}, QMP_SECONDS)
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, str) or not re.fullmatch(r"[a-z-]{1,40}", status):
        raise control.failed("QEMU's answer to query-status does not name a state of a machine")
    return status
