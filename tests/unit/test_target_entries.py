"""Every entry of the targets' registry: what it says of itself is possible, and a kernel can be made of it."""

from __future__ import annotations

import importlib
import re

import pytest

from kgen.build import build
from kgen.platforms import platforms
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH, PAGE, RESERVED, Case, room
from kgen.targets import MemoryTarget, targets

TARGETS = tuple(targets().values())
PLACED = tuple(target for target in TARGETS if target.address is not None)
PREPARED = tuple(target for target in TARGETS if target.setup)


def named(target: MemoryTarget) -> str:
    return target.name


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_names(target: MemoryTarget) -> None:
    """A name is a word of a case's id and of a command line, and the name of its file."""
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", target.name)
    module = importlib.import_module(f"kgen.targets.{target.name.replace('-', '_')}")
    assert target == module.TARGET
    # it stands in a column, and in the middle of a sentence
    assert 0 < len(target.summary) <= 60
    assert not target.summary.endswith(".")


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_somewhere_to_be(target: MemoryTarget) -> None:
    """Known now, at a symbol of the kernel, or found when it runs; and where in its page, in any case."""
    assert target.address is not None or target.symbol or target.setup
    assert target.address is None or not target.symbol
    assert 0 <= target.page_offset < PAGE
    assert target.page_offset % 4 == 0
    assert target.address is None or target.address % PAGE == target.page_offset


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_sizes(target: MemoryTarget) -> None:
    assert target.size >= 4
    assert target.extent == 0 or target.extent > target.size
    assert target.reach == max(target.size, target.extent)


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_widths(target: MemoryTarget) -> None:
    """At least a cell of each width fits, and no more than there is room for."""
    assert 32 in target.widths
    assert set(target.widths) <= {8, 16, 32, 64}
    assert list(target.widths) == sorted(set(target.widths))
    for width in target.widths:
        cells = room(target, 0, width)
        assert 1 <= cells <= MAX_BATCH
        assert (cells - 1) * max(4, width // 8) + width // 8 <= target.reach


@pytest.mark.parametrize("target", PLACED, ids=named)
def test_nothing_that_must_be_left_alone(target: MemoryTarget) -> None:
    assert target.address is not None
    end = target.address + target.reach
    assert end <= 1 << 32
    assert not [what for low, high, what in RESERVED if target.address < high and end > low]


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_some_platform_has_it(target: MemoryTarget) -> None:
    assert any(target.requires <= platform.provides for platform in platforms().values())


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_what_qemu_is_told(target: MemoryTarget) -> None:
    """What must be added to a machine is something that others may not have. Pairs of an option and its value."""
    assert not target.qemu or target.requires
    assert all(option.startswith("-") for option in target.qemu[::2])
    assert not any(value.startswith("-") for value in target.qemu[1::2])
    assert len(target.qemu) % 2 == 0


def test_no_two_add_the_same() -> None:
    """All of them may be in one suite."""
    values = [value for target in TARGETS for value in target.qemu[1::2]]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("target", [target for target in TARGETS if target.vga], ids=named)
def test_the_probe_of_vga(target: MemoryTarget) -> None:
    """Graphics controller register 6 that sends the decode elsewhere: bits 2 and 3 choose where."""
    assert "vga" in target.requires
    assert target.address is not None
    ranges = ((0xA0000, 0xC0000), (0xA0000, 0xB0000), (0xB0000, 0xB8000), (0xB8000, 0xC0000))
    low, high = ranges[target.vga >> 2 & 3]
    assert not low < target.address + target.reach or not high > target.address


@pytest.mark.parametrize("target", PREPARED, ids=named)
def test_a_setup(target: MemoryTarget) -> None:
    """It tells by CF whether there is such a place, and where it is: at the address that the target states, if any."""
    assert target.setup[-1] in ("clc", ".absent:")
    text = "\n".join(target.setup)
    assert ".absent:" in text or "jc" not in text
    if target.address is not None:
        assert f"mov edi, {target.address:#x}" in text.lower()


@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_a_kernel(target: MemoryTarget) -> None:
    kernel = build(KernelSpec(Case("xchg", target=target.name), rounds=1))
    label = f"setup_{target.name.replace('-', '_')}"
    assert (label in kernel.elf.symbols) == bool(target.setup)
