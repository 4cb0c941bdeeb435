"""The command that runs a kernel without kgen, made of the one that kgen ran it by."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

#: The port on which QEMU's isa-debug-exit listens: the kernel ends QEMU through it when its command line says so.
_EXIT_PORT = 0xF4
#: What QEMU gets to talk with kgen; option and value.
_CHANNELS = frozenset(("-mon", "-gdb", "-qmp", "-name"))
#: Options that stop the machine or keep it for a user who watches it.
_HELD = frozenset(("-S", "-no-shutdown"))
_SERIAL = "kgen-serial"
#: The file of a drive; two commas stand for one in its name.
_FILE = re.compile(r"\bfile=(?:,,|[^,])*")


@dataclass(frozen=True)
class Machine:
    """A command that runs the kernel and writes its serial port to a file."""

    words: tuple[str, ...]
    #: The most that it may take.
    seconds: int

    @property
    def line(self) -> str:
        """As a line of a shell; GNU's timeout ends what does not end by itself."""
        # a QEMU that the guest has ended exits with a code of its own
        return f"{shlex.join(('timeout', str(self.seconds), *self.words))} || true"


def machine_of(
    environment: Mapping[str, Any],
    *,
    directory: str,
    log: str,
    cpus: int,
    seconds: int,
    program: str = "",
    image: str = "kernel.elf",
) -> Machine | None:
    """Return the QEMU command of a result's environment with its channels replaced by a file for the serial port.

    None where the result has no command, or one that is not QEMU's. ``image`` is the file of ``directory`` that is
    booted, ``program`` what the user had called QEMU, "" for the usual name. ``cpus`` are needed where the command does
    not say how many. What is no word of text in a damaged result is left out.
    """
    lab = environment.get("lab")
    given = (lab if isinstance(lab, Mapping) else environment).get("command")
    if not isinstance(given, list | tuple):
        return None
    words = [word for word in given if isinstance(word, str) and word and word.isprintable()]
    if not words or not PurePosixPath(words[0]).name.startswith("qemu"):
        return None
    made = list(_arguments(words[1:], f"{directory}/{image}", log))
    if "-smp" not in made:
        made += ["-smp", str(cpus)]
    if "-kernel" in made:
        made += ["-append", f"isa-debug-exit={_EXIT_PORT:#x}"]
        made += ["-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=0x4"]
    return Machine((program or PurePosixPath(words[0]).name, *made), seconds)


def _arguments(words: Sequence[str], image: str, log: str) -> Iterator[str]:
    """QEMU's arguments one by one, exchanged or left out."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in _HELD:
            continue
        value = rest.pop(0) if rest and not rest[0].startswith("-") else None
        if word in _CHANNELS or word == "-append":
            continue
        if word == "-chardev" and value is not None and "id=kgen-" in value:
            if f"id={_SERIAL}" in value:
                yield from ("-chardev", f"file,id={_SERIAL},path={log}")
            continue
        yield word
        if value is None:
            continue
        if word == "-kernel":
            yield image
        elif word == "-drive" and "id=kgen-boot" in value:
            yield _FILE.sub(f"file={image}", value)
        else:
            yield value
