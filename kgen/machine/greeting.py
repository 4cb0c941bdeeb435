"""What listens at an address, by what it says first: a gdb stub, QEMU's control socket, or its monitor for people.

They are mistaken for each other, since one command line of QEMU opens all three. A stub says nothing, or that the
machine has stopped; the others greet.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time

from kgen.machine.address import is_socket, network_address

#: How long the rest of a greeting may take that has begun, in seconds.
_REST = 0.5
#: As much of a greeting is looked at, in bytes.
HEAD = 256
_STOPPED = re.compile(rb"\+*\$[TS][0-9a-f]{2}")
CONTROL, MONITOR, STUB = "QEMU's control socket", "QEMU's monitor for people", "a gdb stub"
#: What QEMU's command line calls them.
OPTIONS = {CONTROL: "-qmp", MONITOR: "-monitor", STUB: "-gdb"}


def connected(address: str, timeout: float) -> socket.socket:
    """Return a connection to HOST:PORT or to a socket's path. Raises OSError."""
    network = None if is_socket(address) else network_address(address)
    if network:
        found = socket.create_connection(network, timeout)
        # a question waits for no other: each is answered before the next is sent
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(timeout)
        found.connect(address)
    except BaseException:
        found.close()
        raise
    return found


def kind_of(head: bytes) -> str:
    """Return what says this first, "" where that is not known."""
    if head.startswith(b'{"QMP"'):
        return CONTROL
    if re.match(rb"QEMU [^\r\n]* monitor\b", head):
        return MONITOR
    return STUB if _STOPPED.match(head) else ""


def peek(connection: socket.socket, timeout: float) -> str:
    """Return what the other end of a connection is, without taking anything of what it says."""
    until = time.monotonic() + timeout
    head = b""
    with contextlib.suppress(OSError):
        while select.select([connection], [], [], max(0.0, until - time.monotonic()))[0]:
            more = connection.recv(HEAD, socket.MSG_PEEK)
            if kind_of(more) or not more or time.monotonic() >= until:
                return kind_of(more)
            if not head:
                until = min(until, time.monotonic() + _REST)
            head = more
            time.sleep(0.02)
    return kind_of(head)


def listening(address: str, timeout: float) -> str:
    """Return what listens there, "" where that is not known. A stub stops its machine at each connection."""
    try:
        with connected(address, timeout) as connection:
            return peek(connection, timeout)
    except OSError:
        return ""


def instead_of_a_stub(kind: str) -> tuple[str, str]:
    """Return what is wrong where such a thing was given as a stub, and what to do."""
    also = "give it as --qmp, and as the stub" if kind == CONTROL else "give"
    return f"is {kind} ({OPTIONS[kind]}), and no gdb stub", f"{also} what QEMU's -gdb was given"


def instead_of_control(kind: str) -> tuple[str, str]:
    """Return what is wrong where such a thing was given as the control socket, and what to do."""
    return f"is {kind} ({OPTIONS[kind]}), and not QEMU's control socket", "give --qmp what QEMU's -qmp was given"
