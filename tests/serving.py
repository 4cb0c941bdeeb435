"""A socket's other end, played by a thread of the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def serving(path: Path, talk: Callable[[socket.socket], object]) -> Iterator[None]:
    """Listen there and ``talk`` with the one who comes, until either hangs up."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield
    thread.join(5)
    assert not thread.is_alive()
