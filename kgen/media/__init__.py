"""Image formats: one module a format, each with a ``FORMAT = ImageFormat(...)``, and what they all share."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kgen import registry
from kgen.errors import MediaError, OutputError


@dataclass(frozen=True)
class Payload:
    """A kernel as a disk loader needs it.

    ``flat`` is stored at physical address ``load_address``; the bytes from its end up to ``bss_end`` are zeroed;
    execution starts at ``entry`` in 32-bit protected mode. ``serial_port`` is the I/O address of a 16550 and ``baud``
    its speed, used by the loaders for error messages only; ``title`` says what it is, to people who read the disk.
    """

    flat: bytes
    load_address: int
    entry: int
    bss_end: int
    serial_port: int = 0x3F8
    baud: int = 115200
    title: str = "a test"


@dataclass(frozen=True)
class ImageFormat:
    """One way to store a bootable image.

    ``name`` is what the command line calls it, ``suffix`` the customary end of the file name (with the dot),
    ``summary`` one line for people. ``write(payload, path)`` makes the file whole or not at all;
    it raises MediaError or OutputError.
    """

    name: str
    suffix: str
    summary: str
    write: Callable[[Payload, Path], None]


def write_sparse(path: Path, extents: Iterable[tuple[int, bytes]], size: int) -> None:
    """Write a file of exactly ``size`` bytes: each (offset, data) of ``extents``, holes everywhere else.

    The file appears under ``path`` complete or not at all; an existing regular file is replaced, anything else there is
    refused (a device would be replaced by a file, not written). Raises MediaError when an extent does not fit into
    ``size``, OutputError when the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise OutputError("not a regular file", where=str(path), hint="write an image file and copy it there")
        with temporary.open("xb") as file:
            for offset, data in extents:
                if offset < 0 or offset + len(data) > size:
                    raise MediaError(f"{len(data)} bytes at offset {offset} do not fit into {size}", where=str(path))
                file.seek(offset)
                file.write(data)
            file.truncate(size)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def formats() -> Mapping[str, ImageFormat]:
    """Return every image format by name."""
    return registry.discover("kgen.media", "FORMAT", ImageFormat)
