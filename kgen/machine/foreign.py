"""Machines that kgen did not start: their addresses, kernels and control sockets."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from kgen.errors import KgenError, LinkError, MachineError, SpecError, ending_with
from kgen.machine.address import is_socket, network_address
from kgen.machine.qmp import Qmp
from kgen.spec import KernelSpec
from kgen.toolchain.elf_reader import LoadedElf, read

#: Symbols without which nothing can be read.
NEEDED = ("results", "ram_cells", "text_version")


QMP_SECONDS = 10.0


def must_be_an_address(text: str) -> None:
    """Raise SpecError for what gdb would take for something else: a command to run, a serial device, an option."""
    if network_address(text) and not text.startswith(("-", "|")):
        return
    if not is_socket(text):
        raise SpecError(
            f"'{text}' is neither HOST:PORT nor a socket",
            hint="give what QEMU's -gdb was given, such as localhost:1234",
        )


def kernel_of(elf: bytes, name: str) -> tuple[LoadedElf, KernelSpec]:
    """Return a kernel's file, and what it was built from.

    Raises SpecError for any other file, and for one of another kgen: it is the wrong file that was named.
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
    """QEMU's control socket, which ``stack`` closes, and what it calls the state of the machine; None and "" without
    one. To be asked first: connecting to a stub stops the machine, and few stubs tell whether it ran before.

    Raises MachineError, and SpecError for "" (a variable that is not set): without it a machine that stands still would
    be taken for one that runs.
    """
    if path is None:
        return None, ""
    control = _connect_control(path)
    stack.callback(control.close)
    return control, status_of(control)


def _connect_control(path: str) -> Qmp:
    if not path:
        raise SpecError("names nothing", where="qmp", hint="name QEMU's control socket, or leave it out")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.settimeout(QMP_SECONDS)
        control.connect(path)
    except OSError as error:
        control.close()
        raise MachineError(f"no QEMU answers: {error.strerror or error}", where=path, hint="check --qmp") from error
    return Qmp(control, QMP_SECONDS, path)


@contextmanager
def left_in_order(leave: Callable[[], KgenError | None], how: Callable[[], str]) -> Iterator[None]:
    """Leave a machine as it is to be left, whatever happens inside.

    ``leave`` returns what went wrong, ``how`` says after it how the machine was left, "" where none was touched; an
    error that is raised ends with that. What went wrong is raised where nothing failed before, or where a signal ends
    us: a signal has no line that could say it.
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
    """Return what runs a line of QEMU's human monitor and returns what it prints. That raises MachineError."""
    return lambda line: str(control.execute("human-monitor-command", {"command-line": line}, QMP_SECONDS))


def status_of(control: Qmp) -> str:
    """QEMU's word for what the machine does: ``running``, ``paused``, ``prelaunch`` ... Raises MachineError."""
    answer = control.execute("query-status", {}, QMP_SECONDS)
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, str) or not re.fullmatch(r"[a-z-]{1,40}", status):
        raise control.failed("what QEMU answers to query-status names no state of a machine")
    return status
