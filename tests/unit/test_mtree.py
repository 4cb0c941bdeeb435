"""The path is read from QEMU's own words, and doubtful words are never read as i/o."""

from __future__ import annotations

from pathlib import Path

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st

from kgen.evidence.mtree import attest

CAPTURES = {
    path.stem: path.read_text() for path in sorted((Path(__file__).parents[1] / "replay" / "mtree").glob("*.txt"))
}
VGA = (0xB8000, 4000)


def view(number: int, spaces: list[str], *regions: str) -> str:
    """A flat view as QEMU prints it."""
    names = "".join(f' AS "{space}", root: system\n' for space in spaces)
    body = "".join(f"  {region}\n" for region in regions)
    return f"FlatView #{number}\n{names} Root memory region: system\n{body}\n"


RAM = "0000000000000000-00000000000bffff (prio 0, ram): pc.ram"
LOW = "0000000000000000-000000000009ffff (prio 0, ram): pc.ram"
IO = "00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem"


@pytest.mark.parametrize(
    ("name", "kind", "region"),
    [
        ("qemu-7.2-tcg-std", "io", "vga-lowmem"),
        ("qemu-7.2-kvm-std", "io", "vga-lowmem"),
        ("qemu-7.2-x86_64-tcg-std", "io", "vga-lowmem"),
        ("qemu-7.2-tcg-none", "ram", "pc.ram"),
        ("qemu-7.2-tcg-chain4", "ram", "vga.vram"),
        ("qemu-5.2-tcg-std", "io", "vga-lowmem"),
        ("qemu-5.2-tcg-none", "ram", "pc.ram"),
        ("qemu-10.0-tcg-std", "io", "vga-lowmem"),
        ("qemu-10.0-tcg-none", "ram", "pc.ram"),
        ("qemu-11.1-tcg-std", "io", "vga-lowmem"),
        ("qemu-11.1-tcg-none", "ram", "pc.ram"),
    ],
)
def test_text_memory_of_real_machines(name: str, kind: str, region: str) -> None:
    evidence = attest(CAPTURES[name], *VGA, cpus=3)
    assert (evidence.kind, evidence.region) == (kind, region)
    assert '"' not in evidence.view
    assert "cpu-memory-0, cpu-memory-1, cpu-memory-2" in evidence.view
    assert region in evidence.line


def test_every_capture_is_judged() -> None:
    assert len(CAPTURES) == 11


@pytest.mark.parametrize(
    ("start", "length", "kind", "region"),
    [
        (0xA0000, 4, "io", "vga-lowmem"),
        (0xB7FFC, 4, "io", "vga-lowmem"),
        (0xB7FFE, 4, "unknown", "vga-lowmem, vga.vram"),  # half i/o, half RAM
        (0x100000, 4096, "ram", "pc.ram"),
        (0xC0000, 16, "rom", "pc.ram"),
        (0xFEC00000, 4, "io", "ioapic"),
        (0xFEBF0400, 0x200, "io", "vga ioports remapped, vga.mmio, bochs dispi interface"),
        (0xE0000000, 4, "hole", ""),
        (0xFFFFFFFE, 4, "unknown", "pc.bios"),  # runs out of the last region
        (1 << 40, 4, "hole", ""),
    ],
)
def test_ranges_of_the_chain_4_machine(start: int, length: int, kind: str, region: str) -> None:
    evidence = attest(CAPTURES["qemu-7.2-tcg-chain4"], start, length)
    assert (evidence.kind, evidence.region) == (kind, region)


def test_names_with_offset_and_accelerator_are_taken_apart() -> None:
    assert attest(CAPTURES["qemu-7.2-kvm-std"], 0x100000, 4).region == "pc.ram"


def test_line_ends_of_the_monitor() -> None:
    text = CAPTURES["qemu-7.2-tcg-std"].replace("\n", "\r\n")
    assert attest(text, *VGA) == attest(CAPTURES["qemu-7.2-tcg-std"], *VGA)


def test_other_spaces_do_not_count() -> None:
    text = view(0, ["I/O", "cpu-smm-0", "memory", "cpu-memory-0-old"], LOW, IO)
    assert attest(text, *VGA).kind == "unknown"


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("FlatView #", "Flat view no. ", "'Flat view no. 0'"),
        (' AS "', ' address space "', """'address space "i440FX", root: bus master...'"""),
        ("  0000", "  0x0000", "'0x0000000000000000-0000000000000007 (pri...'"),
        ("(prio ", "(priority ", "'0000000000000000-0000000000000007 (prior...'"),
    ],
)
def test_an_unknown_form_is_named_as_such(old: str, new: str, shown: str) -> None:
    """With the first line that is not understood; it may be that of a QEMU yet to come."""
    text = CAPTURES["qemu-7.2-x86_64-tcg-std"].replace(old, new)
    if old in ("  0000", "(prio "):
        text = text.replace("cpu-memory-", "cpu-")
    evidence = attest(text, *VGA, cpus=3)
    assert evidence.kind == "unknown"
    assert evidence.line == f"QEMU's answer to 'info mtree -f' has an unknown form: {shown}"


def test_a_line_that_is_not_understood_is_shown_and_harmless() -> None:
    text = view(0, ["cpu-memory-0"], LOW, IO, "\x1b[2J 00 (alias)")
    assert attest(text, *VGA).line == "a line of the view is not understood: '[2J 00 (alias)'"


def test_a_machine_without_views_of_its_cpus_is_no_unknown_form() -> None:
    assert attest(view(0, ["I/O"], LOW), *VGA).line == "no view of a CPU's own memory"
    assert attest("", *VGA).line == "no view of a CPU's own memory"


def test_views_that_agree_and_differ() -> None:
    io, ram = view(0, ["cpu-memory-0"], LOW, IO), view(1, ["cpu-memory-1"], RAM)
    same = view(1, ["cpu-memory-1"], LOW, IO)
    assert attest(io + same, *VGA).kind == "io"
    assert attest(io + ram, *VGA).kind == "unknown"
    assert attest(io + same, *VGA, cpus=2).kind == "io"
    assert attest(io, *VGA, cpus=2).kind == "unknown"
    assert attest(same, *VGA).kind == "unknown"  # CPU 0's view is missing
    assert attest(io + io, *VGA).kind == "unknown"  # CPU 0 cannot have two


@pytest.mark.parametrize("kind", ["ramd", "alias", "container", "i/o, broken", ""])
def test_unfamiliar_regions_are_unknown(kind: str) -> None:
    region = f"00000000000a0000-00000000000bffff (prio 1, {kind}): thing"
    assert attest(view(0, ["cpu-memory-0"], LOW, region), *VGA).kind == "unknown"


@pytest.mark.parametrize("noise", ["  Dispatch", "garbage", "  00000000000b0000-00000000000bffff (prio 0, ram): over"])
def test_lines_that_do_not_fit_make_the_view_unknown(noise: str) -> None:
    text = view(0, ["cpu-memory-0"], LOW, IO).replace("vga-lowmem\n", f"vga-lowmem\n{noise}\n")
    assert attest(text, *VGA).kind == "unknown"


@pytest.mark.parametrize(("start", "length"), [(0, 0), (-1, 4), (4, -1)])
def test_an_empty_range_is_a_mistake_of_the_caller(start: int, length: int) -> None:
    with pytest.raises(ValueError, match="no such range"):
        attest("", start, length)


@settings(max_examples=draws(150), deadline=None)
@given(st.sampled_from(sorted(CAPTURES)), st.data())
def test_a_cut_text_is_never_read_wrong(name: str, data: st.DataObject) -> None:
    text = CAPTURES[name]
    begin = data.draw(st.one_of(st.just(0), st.integers(0, len(text))))
    end = data.draw(st.integers(begin, len(text)))
    start = data.draw(st.sampled_from([0xB8000, 0x9FFFE, 0xA0000, 0xFEC00000, 0xE0000000, 0x100000, 0xFFFFFFFC]))
    length = data.draw(st.sampled_from([1, 4, 4000]))
    truth = attest(text, start, length)
    seen = attest(text[begin:end], start, length)
    assert seen.kind in ("unknown", truth.kind)
    if seen.kind != "unknown":
        assert seen.region == truth.region


DIFFERING = view(0, ["cpu-memory-0"], LOW, IO) + view(1, ["cpu-memory-1"], RAM)


@given(st.integers(0, len(DIFFERING)))
def test_a_cut_that_hides_a_differing_cpu_is_noticed(end: int) -> None:
    assert attest(DIFFERING[:end], *VGA, cpus=2).kind == "unknown"


@given(st.text(alphabet='FlatView #0\n AS"cpu-memory-0",root:system(prio 1i/)abf', max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    assert attest(text, *VGA).kind in ("unknown", "hole")
