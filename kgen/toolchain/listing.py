"""The listing that kgen writes as ``kernel.s`` beside ``kernel.elf``, and that the line table points at."""

from __future__ import annotations

from kgen.toolchain.assembly import Assembly

_SHOWN_BYTES = 8


def listing(assembly: Assembly) -> str:
    """Return one line of text for each source line, in order: line N of the listing is line N of the source.

    Columns: run address of the first byte (8 hex digits; what ``$``, the symbols and gdb say, also inside
    ``.phase``), the bytes (hex; the first eight, and a ``+`` if there are more), the line number, the source text.
    A line that emitted nothing has blank address and bytes.
    """
    first: dict[int, int] = {}
    emitted: dict[int, bytes] = {}
    for line in assembly.lines:
        first.setdefault(line.line, line.run_address)
        emitted[line.line] = emitted.get(line.line, b"") + line.data
    out = []
    # "\n" alone ends a line here and in gdb; str.splitlines() knows other line ends and would lose count.
    for number, text in enumerate(assembly.source.text.removesuffix("\n").split("\n"), start=1):
        data = emitted.get(number, b"")
        address = f"{first[number]:08x}" if data else ""
        shown = data[:_SHOWN_BYTES].hex() + ("+" if len(data) > _SHOWN_BYTES else "")
        out.append(f"{address:8} {shown:{2 * _SHOWN_BYTES + 1}} {number:5}  {text}".rstrip() + "\n")
    return "".join(out)
