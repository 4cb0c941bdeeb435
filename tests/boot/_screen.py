"""What a machine's screen shows: a picture of it, and the text in that picture read back by the kernel's own font."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from _kernel import DEADLINE, Console, console

from kgen.build import Kernel
from kgen.evidence.from_memory import from_memory
from kgen.evidence.records import Record
from kgen.kernel.font import FIRST, HEIGHT, LAST, WIDTH, picture
from kgen.kernel.plan import layout_of
from kgen.machine.qmp import Qmp

_GLYPHS = {picture(chr(code)): chr(code) for code in range(FIRST, LAST + 1)}


@dataclass(frozen=True)
class Picture:
    """A screen shot: ``pixels`` holds a byte a dot, 0 where it is black."""

    width: int
    height: int
    pixels: bytes

    @staticmethod
    def load(path: Path) -> Picture:
        """A PPM file with one byte a colour, as QEMU writes it."""
        magic, size, depth, data = path.read_bytes().split(b"\n", 3)
        assert (magic, depth) == (b"P6", b"255")
        width, height = map(int, size.split())
        return Picture(width, height, bytes(map(max, data[0::3], data[1::3], data[2::3])))

    def text(self, cell: int = WIDTH) -> list[str]:
        """Its lines, read by the font; what is no character of it becomes a question mark. ``cell`` is a column's width
        in dots: text mode's are nine wide."""
        return ["".join(self._read(row, column, cell) for column in range(80)).rstrip() for row in range(25)]

    def _read(self, row: int, column: int, cell: int) -> str:
        lines = []
        for y in range(row * HEIGHT, (row + 1) * HEIGHT):
            at = y * self.width + column * cell
            dots = self.pixels[at : at + WIDTH]
            lines.append(sum(bool(dot) << WIDTH - 1 - place for place, dot in enumerate(dots)))
        return _GLYPHS.get(tuple(lines), "?")


class Watched:
    """A QEMU by hand whose screen can be looked at."""

    def __init__(self, serial: Console, qmp: Qmp, directory: Path) -> None:
        self.serial = serial
        self.qmp = qmp
        self._directory = directory

    def look(self) -> Picture:
        """What is shown now."""
        path = self._directory / "screen.ppm"
        self.qmp.execute("screendump", {"filename": str(path)}, DEADLINE)
        return Picture.load(path)

    def memory(self, address: int, size: int) -> bytes:
        """Physical memory, of devices too, as a CPU would read it."""
        path = self._directory / "memory.bin"
        self.qmp.execute("pmemsave", {"val": address, "size": size, "filename": str(path)}, DEADLINE)
        return path.read_bytes()

    def until(self, shows: Callable[[list[str]], object], cell: int) -> list[str]:
        """The text once it satisfies ``shows``; fails where it never does."""
        end = time.monotonic() + DEADLINE
        while True:
            text = self.look().text(cell)
            if shows(text):
                return text
            assert time.monotonic() < end, "\n".join(text)
            time.sleep(0.2)


@contextmanager
def watched(kernel: Kernel, directory: Path, *arguments: str) -> Iterator[Watched]:
    """The kernel on QEMU with these arguments; its serial port is the console."""
    elf, control = directory / "kernel.elf", directory / "qmp"
    elf.write_bytes(kernel.elf.data)
    # not before somebody looks: an event must not come before the greeting
    more = ("-S", "-kernel", elf, "-m", "32", "-qmp", f"unix:{control},server=on,wait=off", *arguments)
    with console(*more) as serial, socket.socket(socket.AF_UNIX) as connection:
        end = time.monotonic() + DEADLINE
        while connection.connect_ex(str(control)):
            assert time.monotonic() < end, "QEMU does not come up"
            time.sleep(0.05)
        qmp = Qmp(connection, DEADLINE)
        try:
            qmp.execute("cont", {}, DEADLINE)
            yield Watched(serial, qmp, directory)
        finally:
            qmp.close()


def memory_now(kernel: Kernel, machine: Watched) -> Record:
    """The results block, read without stopping the machine; it is complete once the kernel has ended."""
    symbol = next(symbol for symbol in kernel.assembly.symbols if symbol.name == "results")
    layout = layout_of(kernel.spec)
    return from_memory(layout, machine.memory(symbol.value, layout.size))


def memory_record(kernel: Kernel, machine: Watched) -> Record:
    """The same, once the kernel has ended."""
    end = time.monotonic() + DEADLINE
    while not (record := memory_now(kernel, machine)).complete:
        assert time.monotonic() < end, record.gap
    return record
