"""What is known of every target, asked there, with the controls."""

from __future__ import annotations

from typing import Any

import pytest
from _kernel import built, decided, needs, run, run_until
from _places import BACKED_BY_RAM, IO, check_place, spec_of

from kgen.spec import resolve_target, room
from kgen.targets import MemoryTarget
from kgen.verdict import VerdictKind


def check(target: MemoryTarget, rounds: int = 0, **case: Any) -> None:
    """What QEMU's translator is known to get there, and QEMU's own word on what there is. Where there is one
    cell each round is a handshake of its own: a few of them, and more only where the power controls need them."""
    ram = target.name in BACKED_BY_RAM
    rounds = rounds or (400 if ram or room(target, 0, 32) == 1 else 1500)
    spec = spec_of(target.name, rounds=rounds, controls=True, **case)
    seen, verdict = run_until(decided, built(spec))
    assert verdict.kind is (VerdictKind.RAM_BACKED if ram else VerdictKind.ATOMIC), verdict.reason
    check_place(target, seen)


@pytest.mark.parametrize("target", IO, ids=lambda target: target.name)
def test_tcg(target: MemoryTarget) -> None:
    check(target)


@pytest.mark.parametrize(
    ("target", "case"),
    [
        ("pc-testdev", {"instruction": "xadd", "rounds": 6000}),
        ("pc-testdev", {"width": 16}),
        ("hpet", {"instruction": "cmpxchg8b"}),
        ("vga-graphics", {"width": 8}),
        ("edu", {"instruction": "bts", "rounds": 20_000}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_other_instructions(target: str, case: dict[str, Any]) -> None:
    check(resolve_target(target), **case)


def test_kvm() -> None:
    """The least device there is, and KVM loses or doubles tokens in it."""
    kernel = built(spec_of("pc-testdev", rounds=500))
    kvm = needs("qemu-kvm")
    for _ in range(5):
        seen, verdict = run(kernel, kvm)
        if verdict.kind is VerdictKind.NOT_ATOMIC:
            break
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    check_place(resolve_target("pc-testdev"), seen)
