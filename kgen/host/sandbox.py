"""What a child process must not do: outlive its parent, open sockets."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import struct
import sys
from collections.abc import Callable

#: prctl(2), option PR_SET_PDEATHSIG of <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


#: prctl(2): PR_SET_SECCOMP with SECCOMP_MODE_FILTER, and PR_SET_NO_NEW_PRIVS, without which only root may filter.
_PR_SET_SECCOMP = 22


_SECCOMP_MODE_FILTER = 2


_PR_SET_NO_NEW_PRIVS = 38


#: By machine: AUDIT_ARCH_* of <linux/audit.h>, and the number of socket(2).
_SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}


def no_sockets() -> bytes:
    """Return the filter (seccomp(2), a program in classic BPF) that ends a thread which calls socket(2) for IPv4 or
    IPv6.

    The thread ends, because a program may give up where the call fails. This is for Bochs: its display for remote
    viewers listens on every address of the host, in a thread of its own that nothing else needs. Raises OSError for an
    architecture whose numbers are not listed here.
    """
    if sys.platform != "linux" or platform.machine() not in _SOCKET_CALL:
        raise OSError(errno.ENOSYS, "this system has no filter to keep it off the network")
    arch, call = _SOCKET_CALL[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    end, allow = 0, 0x7FFF0000
    # struct seccomp_data: the number at 0, the architecture at 4, the first argument at 16. Jumps count what they skip.
    program = (
        (load, 0, 0, 4),
        (equal, 0, 6, arch),
        (load, 0, 0, 0),
        (equal, 0, 3, call),
        (load, 0, 0, 16),
        (equal, 2, 0, socket.AF_INET),
        (equal, 1, 0, socket.AF_INET6),
        (give, 0, 0, allow),
        (give, 0, 0, end),
    )
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def die_with_parent(deaf: bytes | None = None) -> Callable[[], None] | None:
    """Return the function that the child runs between fork and exec: the kernel then kills the child with us, and
    applies the filter ``deaf``. None where the system has no such call.

    The library is loaded here, in the parent: after a fork it is not safe to load anything.
    """
    if sys.platform != "linux":
        return None
    import ctypes  # not needed to build and judge

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    # struct sock_fprog: how many instructions, and where; what it points to must last as long as ``arm``
    code = ctypes.create_string_buffer(deaf) if deaf else None
    program = struct.pack("@HP", len(deaf) // 8, ctypes.addressof(code)) if deaf and code else b""

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if code and (
            prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)
        ):
            raise OSError  # spawn reports what failed
        if os.getppid() != parent:  # it died before the call; the signal will never come
            os._exit(1)

    return arm
