"""Image formats: one module for each, with a ``FORMAT = ImageFormat(...)``, and what they all share."""

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
    """A kernel as an image's loader needs it."""

    #: The bytes to store at physical address ``load_address``.
    flat: bytes
    load_address: int
    #: Where execution starts, in 32-bit protected mode.
    entry: int
    #: The bytes from the end of ``flat`` up to this address are zeroed.
    bss_end: int
    #: The I/O address of a 16550. The loaders use it for error messages only, like ``baud``.
    serial_port: int = 0x3F8
    #: In bits a second.
    baud: int = 115200
    #: What the disk is, for people who read it.
    title: str = "a test"
    #: Where execution starts after a boot by PVH, in 32-bit protected mode; 0 where there is no such entry point.
    pvh_entry: int = 0


@dataclass(frozen=True)
class ImageFormat:
    """One way to store a bootable image."""

    #: What the command line calls it.
    name: str
    #: The customary end of the file name, with the dot.
    suffix: str
    #: One line for people.
    summary: str
    #: Makes the file whole or not at all. Raises MediaError or OutputError.
    write: Callable[[Payload, Path], None]


def write_sparse(path: Path, extents: Iterable[tuple[int, bytes]], size: int) -> None:
    """Write a file of exactly ``size`` bytes: each (offset, data) of ``extents``, holes everywhere else.

    The file appears under ``path`` complete or not at all. An existing regular file is replaced. Anything of another
    kind is refused, because a device would be replaced by a file, not written. Raises MediaError when an extent does
    not fit into ``size``, OutputError when the file cannot be written.
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
