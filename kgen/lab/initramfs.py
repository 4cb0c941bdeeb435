"""The archive that the lab's Linux unpacks into its root file system: cpio in the "newc" format.

Format: the Linux kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Same input, same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

_MAGIC = b"070701"
_ALIGNMENT = 4


def archive(files: Mapping[str, bytes], programs: frozenset[str]) -> Iterator[bytes]:
    """Yield the archive's bytes, piece by piece. ``files`` maps absolute paths to contents, ``programs`` are
    executable.

    Directories come before what is in them. Raises ValueError for a path that is not absolute.
    """
    number = 0
    directories: dict[str, None] = {}
    for path in sorted(files):
        if not path.startswith("/"):
            raise ValueError(f"not an absolute path: {path}")
        for parent in reversed(PurePosixPath(path).parents):
            directories.setdefault(str(parent), None)
    for directory in sorted(directories):
        if directory != "/":
            number += 1
            yield _entry(number, directory, stat.S_IFDIR | 0o755, b"")
    for path in sorted(files):
        number += 1
        yield _entry(number, path, stat.S_IFREG | (0o755 if path in programs else 0o644), files[path])
    yield _entry(0, "/TRAILER!!!", 0, b"")


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.removeprefix("/").encode() + b"\0"
    # inode, mode, uid, gid, links, time, size, device of the file and of its node (major, minor), length of the name,
    # checksum (not in this format)
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
