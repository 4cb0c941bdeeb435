"""Logs and dumps that the user names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kgen.errors import SpecError
from kgen.files import bounded, read_or_stdin, unreadable

#: A kernel that runs for a day prints about 35 MB.
MAX_LOG = 64 << 20


def read_log(path: Path) -> bytes:
    """Return the bytes of a serial log. "-" is standard input.

    Raises SpecError where it cannot be read, and where it is another kind of file.
    """
    from kgen.offline.file_kind import not_a_log

    data, where = read_or_stdin(path, MAX_LOG)
    other = not_a_log(data)
    if other:
        message, _, hint = other.partition("; ")
        raise SpecError(message, where=where, hint=hint)
    return bounded(data, MAX_LOG, where)


@contextlib.contextmanager
def open_dump(path: Path) -> Iterator[BinaryIO]:
    """Yield an open dump of a machine's memory. Raises SpecError where it cannot be read."""
    if path.exists() and not path.is_file() and not path.is_block_device():
        raise SpecError("is no file", where=str(path), hint="name a dump of the machine's memory")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
