"""The listing: one line for each source line, whatever the line holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kgen.toolchain.assembler import assemble
from kgen.toolchain.assembly import Assembly, Line, Source
from kgen.toolchain.listing import listing


def lines_of(text: str, *lines: Line) -> list[str]:
    return listing(Assembly(Source("kernel.s", text), (), (), lines)).split("\n")


def test_columns() -> None:
    line = Line(2, 0x100000, 0x100000, b"\xb8\x01\0\0\0", ".text", True)
    assert lines_of("start:\n  mov eax, 1\n", line) == [
        "                               1  start:",
        "00100000 b801000000            2    mov eax, 1",
        "",
    ]


def test_eight_bytes_are_shown_whole_and_nine_are_shortened() -> None:
    text = ".byte 1\n.byte 2\n"
    eight = Line(1, 0, 0, bytes(range(8)), ".data", False)
    nine = Line(2, 8, 8, bytes(range(9)), ".data", False)
    assert lines_of(text, eight, nine)[:2] == [
        "00000000 0001020304050607      1  .byte 1",
        "00000008 0001020304050607+     2  .byte 2",
    ]


def test_address_is_where_it_runs() -> None:
    assert lines_of("hlt", Line(1, 0x100010, 0x8000, b"\xf4", ".text", True))[0].startswith("00008000 f4 ")


def test_two_records_of_one_line_are_joined() -> None:
    first = Line(1, 0x10, 0x10, b"\x01", ".text", True)
    second = Line(1, 0x11, 0x11, b"\x02", ".text", True)
    assert lines_of("x", first, second)[0] == "00000010 0102                  1  x"


@given(st.text())
def test_every_source_line_has_its_line(text: str) -> None:
    source = text.removesuffix("\n").split("\n")
    listed = listing(Assembly(Source("kernel.s", text), (), (), ())).removesuffix("\n").split("\n")
    assert len(listed) == len(source)
    for number, (row, wanted) in enumerate(zip(listed, source, strict=True), start=1):
        assert row == f"{'':26} {number:5}  {wanted}".rstrip()


def test_listing_of_assembled_source() -> None:
    source = 'start:\n    mov eax, 5 ; five\n.skip 3, 0x90\n\n.ascii "a long string"\n'
    assembly = assemble(Source("kernel.s", f'.section .text, "ax"\n{source}'))
    assert listing(assembly) == (
        '                               1  .section .text, "ax"\n'
        "                               2  start:\n"
        "00100000 b805000000            3      mov eax, 5 ; five\n"
        "00100005 909090                4  .skip 3, 0x90\n"
        "                               5\n"
        '00100008 61206c6f6e672073+     6  .ascii "a long string"\n'
    )
