"""Reading and writing the files that a person names."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from kgen.errors import OutputError, SpecError

if TYPE_CHECKING:
    pass

#: The name for standard output, and where something is read, for standard input.
STDOUT = STDIN = "-"
#: No kernel and no log of ours is as long, in bytes; /dev/zero is longer.
MAX_INPUT = 256 << 20
#: Bytes that are read at a time.
_PIECE = 1 << 20


def check_writable(path: Path | None, *inputs: Path | None) -> None:
    """Raise OutputError now where ``write_text`` would later, when a long run would be lost, and where the file is one
    of ``inputs``. None is no file."""
    if path is None:
        return
    if str(path) == STDOUT:
        _check_open(sys.stdout, "standard output")
        return
    try:
        for each in inputs:
            if each is not None and path.exists() and each.exists() and path.samefile(each):
                raise OutputError("is what is to be read", where=str(path), hint="write the result to another file")
        if path.is_dir():
            raise OutputError("is a directory", where=str(path), hint="name a file")
        descriptor = _descriptor(path)
        if descriptor is not None:
            os.fstat(descriptor)  # whether it is open
            return
        if _is_special(path):
            return
        temporary = _temporary(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; "-" is standard output. Raises OutputError."""
    if str(path) == STDOUT:
        _check_open(sys.stdout, "standard output")
        try:
            _take_any_text(sys.stdout)
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # the reader has closed the pipe
        except OSError as error:
            discard(sys.stdout.fileno())
            raise _unwritable("standard output", error) from error
        return
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OutputError."""
    try:
        descriptor = _descriptor(path)
        if descriptor is not None:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            return
        if _is_special(path):
            path.write_bytes(data)
            return
        # A link stays a link.
        whole = _resolved(path)
        temporary = _temporary(whole)
        try:
            temporary.write_bytes(data)
            with contextlib.suppress(FileNotFoundError):
                # who kept a file from others keeps its successor from them
                temporary.chmod(stat.S_IMODE(whole.stat().st_mode))
            os.replace(temporary, whole)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def read_bytes(path: Path, limit: int = MAX_INPUT) -> bytes:
    """Return a file's bytes, at most ``limit``. Raises SpecError where it cannot be read."""
    return bounded(_read(path, limit), limit, str(path))


def check_program(name: str, program: str | None) -> None:
    """Raise SpecError where the named program does not exist. None is no name."""
    if program is None or (program and shutil.which(program)):
        return
    if not program or os.path.dirname(program) == "":
        raise SpecError(f"there is no program '{program}' in the PATH", where=name, hint="name one that is there")
    what = "is no program that may be run" if os.path.exists(program) else "no such file"
    raise SpecError(what, where=f"{name} {program}", hint="name a program that is there")


def unreadable(path: Path, error: OSError) -> SpecError:
    """Return the error for a file that cannot be read."""
    return SpecError(error.strerror or str(error), where=str(path), hint="name a file that can be read")


def discard(descriptor: int) -> None:
    """Let what is written there go nowhere from now on: what is left in the buffer of a stream that failed would fail
    once more, without a name, when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _check_open(stream: TextIO | None, name: str) -> None:
    """Raise OutputError for a standard stream that was closed before the start (``>&-``): Python then has none."""
    if stream is None:
        raise OutputError("is closed", where=name, hint="name a file")


def _take_any_text(stream: TextIO) -> None:
    """Have a standard stream fail on no character. A terminal shows what it can; all else gets the bytes that a file
    would, whatever the locale: JUnit's XML says itself that it is UTF-8."""
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty():
            stream.reconfigure(errors="replace")
        else:
            stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")


def read_or_stdin(path: Path, limit: int) -> tuple[bytes, str]:
    """Return what ``_read`` gives, or as much of standard input where the path is "-", and the place's name for
    people.
    """
    if str(path) == STDIN:
        _check_open(sys.stdin, "standard input")
        # in whole, as bytes: no text is decoded, no line end changed
        return _pieces(sys.stdin.buffer, limit + 1), "standard input"
    return _read(path, limit), str(path)


def _read(path: Path, limit: int) -> bytes:
    """Return a file's bytes, one more than ``limit`` where it is longer. Raises SpecError."""
    try:
        with path.open("rb") as file:
            return _pieces(file, limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error


def _pieces(file: BinaryIO, limit: int) -> bytes:
    """Return what a file holds, at most ``limit`` bytes. Python would provide memory for as many at once."""
    pieces: list[bytes] = []
    left = limit
    while left and (piece := file.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def bounded(data: bytes, limit: int, where: str, what: str = "a kernel or a serial log") -> bytes:
    if len(data) > limit:
        raise SpecError(f"is longer than {limit >> 20} MiB", where=where, hint=f"name {what}")
    return data


def _temporary(path: Path) -> Path:
    return _resolved(path).with_name(f".kgen-{secrets.token_hex(4)}.tmp")


def _resolved(path: Path) -> Path:
    """Return the file that links lead to. Raises OSError where they lead nowhere but in a circle."""
    with contextlib.suppress(FileNotFoundError):
        # for a circle resolve() raises another error, or none, depending on Python's version
        path.stat()
    return path.resolve()


def _descriptor(path: Path) -> int | None:
    """Return the number of one of our own open files where the path is the system's name for it.

    Output is appended to its file: a replaced file would lose what others wrote there, and what we go on to write.
    """
    match = re.fullmatch(r"/dev/(stdout|stderr)|(?:/dev|/proc/self)/fd/([0-9]{1,6})", str(path))
    if not match:
        return None
    return {"stdout": 1, "stderr": 2}[match[1]] if match[1] else int(match[2])


def _is_special(path: Path) -> bool:
    """Return whether the path is there and is no ordinary file (/dev/null, a pipe): that must be written to, not
    replaced.
    """
    return path.exists() and not path.is_file()


def _unwritable(where: Path | str, error: OSError) -> OutputError:
    return OutputError(f"cannot be written: {error.strerror or error}", where=str(where), hint="name another file")
