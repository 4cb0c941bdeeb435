"""Setups of targets that are a PCI function's memory: the kernel looks for the function and opens its BAR."""

from __future__ import annotations


def function_bar(vendor: int, device: int, bar: int, offset: int = 0) -> tuple[str, ...]:
    """Return the setup for ``offset`` bytes into that BAR of the first function with these two identifiers."""
    return (
        "xor esi, esi",
        "mov ebx, 0xFFFFFFFF",
        f"mov edi, {device << 16 | vendor:#x}",
        "call pci_find",
        "jc .absent",
        f"mov ecx, {bar}",
        "call pci_bar",
        "jc .absent",
        f"add edi, {offset:#x}",
        "clc",
        ".absent:",
    )
