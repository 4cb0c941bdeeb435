"""Addresses of gdb stubs and control sockets."""

from __future__ import annotations

import re
from pathlib import Path


def is_socket(text: str) -> bool:
    """Return whether this is the path of a socket; False for a text that cannot be a path."""
    try:
        return Path(text).is_socket()
    except (OSError, ValueError):
        return False


def network_address(text: str) -> tuple[str, int] | None:
    """Return the host and the port of HOST:PORT, None for other texts. No part of a host's name is empty or longer than
    63 bytes."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not host.isprintable() or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        return None
    try:
        host.encode("idna")
    except UnicodeError:
        return None
    return host, int(port)
