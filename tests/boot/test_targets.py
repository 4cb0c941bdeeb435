"""Every target where it is: found, holding cells, and attested for what it is."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from _kernel import DEADLINE, built, memory_of, needs, run

from kgen.observation import Observation
from kgen.pipeline import Options, observe_until_told
from kgen.platforms import LaunchRequest, Platform
from kgen.source import PCI_WINDOW
from kgen.spec import PAGE, Case, KernelSpec, resolve_target, room, targets
from kgen.targets import MemoryTarget
from kgen.verdict import Verdict, VerdictKind, judge

#: They say that they are a device's memory, and QEMU maps RAM there.
BACKED_BY_RAM = frozenset({"framebuffer", "ivshmem", "vga-chained"})
SEABIOS = ("-bios", "bios-256k.bin")
IO = tuple(target for target in targets().values() if target.declared == "io")
#: Where the kernel must look for the place itself.
FOUND = tuple(target for target in IO if target.address is None)
OTHER_WIDTHS = [(target.name, width) for target in IO for width in (8, 16, 32, 64) if width not in target.widths]


def spec_of(target: str, *, rounds: int = 100, controls: bool = False, **case: Any) -> KernelSpec:
    """A short run there, of XCHG unless another instruction is named."""
    return KernelSpec(Case(**{"instruction": "xchg", "target": target, **case}), rounds=rounds, controls=controls)


def check(target: MemoryTarget, *machine: str, rounds: int = 0, **case: Any) -> int:
    """What QEMU's translator is known to get there, and QEMU's own word on what there is; the address. Where there is
    one cell each round is a handshake of its own: a few of them, and more only where the power controls need them."""
    ram = target.name in BACKED_BY_RAM
    rounds = rounds or (400 if ram or room(target, 0, 32) == 1 else 1500)
    spec = spec_of(target.name, rounds=rounds, controls=True, **case)
    options = Options(extra=machine, timeout=DEADLINE)
    seen = observe_until_told(built(spec), needs("qemu-tcg"), options)
    verdict = judge(spec, seen)
    assert verdict.kind is (VerdictKind.RAM_BACKED if ram else VerdictKind.ATOMIC), verdict.reason
    return check_place(target, seen)


def check_place(target: MemoryTarget, seen: Observation) -> int:
    """QEMU says what it should of the place, and that is where the target says. Its address."""
    assert seen.path.kind == ("ram" if target.name in BACKED_BY_RAM else "io")
    address = memory_of(seen).phases[-1].address
    assert address % PAGE == target.page_offset
    assert target.address in (None, address)
    return address


def verdict_on(spec: KernelSpec, platform: str | Platform, *machine: str) -> Verdict:
    """The verdict of one run."""
    return run(built(spec), platform, *machine)[1]


@pytest.mark.parametrize("target", IO, ids=lambda target: target.name)
def test_tcg(target: MemoryTarget) -> None:
    check(target)


@pytest.mark.parametrize("target", FOUND, ids=lambda target: target.name)
def test_seabios(target: MemoryTarget) -> None:
    """It assigns addresses, where qboot does not."""
    assert check(target, *SEABIOS) & -PAGE != PCI_WINDOW


@pytest.mark.parametrize("target", FOUND, ids=lambda target: target.name)
def test_another_chipset(target: MemoryTarget) -> None:
    kernel = built(spec_of(target.name))
    placed = check_place(target, run(kernel, "qemu-tcg", "-machine", "q35", *SEABIOS)[0])
    ours = check_place(target, run(kernel, "qemu-tcg", "-machine", "q35")[0])
    assert ours & -PAGE == PCI_WINDOW
    assert placed & -PAGE != PCI_WINDOW


def test_all_bars_in_one_kernel() -> None:
    """Where firmware has placed none of them, they do not overlap."""
    cases = [Case("xchg", target=target.name) for target in FOUND]
    spec = KernelSpec(cases[0], more=tuple(cases[1:]), suite="bars", budget=3, rounds=100, controls=False)
    record = memory_of(run(built(spec), "qemu-tcg")[0])
    at = sorted(phase.address & -PAGE for phase in record.phases)
    assert len(at) == len(FOUND)
    assert at[0] == PCI_WINDOW
    # the smallest of them has 1 MiB
    assert all(later - earlier >= 1 << 20 for earlier, later in itertools.pairwise(at))


@pytest.mark.parametrize("name", ["cirrus", "qxl", "vmware", "virtio"])
def test_the_framebuffer_of_other_adapters(name: str) -> None:
    """One has I/O ports in its first BAR, one a BAR of 64 bits, one does not mark its memory as prefetchable."""
    verdict = verdict_on(spec_of("framebuffer"), "qemu-tcg", "-vga", name)
    assert verdict.kind is VerdictKind.RAM_BACKED, verdict.reason


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


@pytest.mark.parametrize(("target", "width"), OTHER_WIDTHS)
def test_widths_that_the_place_does_not_take(target: str, width: int) -> None:
    instruction = "cmpxchg8b" if width == 64 else "xchg"
    verdict = verdict_on(spec_of(target, instruction=instruction, width=width), "qemu-tcg")
    assert verdict.kind is VerdictKind.NO_STORAGE, verdict.reason


def without_fixtures(platform: Platform) -> Platform:
    """The same machine, but without what the targets bring."""

    def command(request: LaunchRequest) -> tuple[str, ...]:
        return platform.command(dataclasses.replace(request, fixtures=()))

    return dataclasses.replace(platform, command=command)


@pytest.mark.parametrize(
    ("target", "machine"),
    [
        ("edu", ()),
        ("ivshmem", ()),
        # there, but larger than what is left below 4 GiB
        ("ivshmem", ("-object", "memory-backend-ram,id=m,size=1G,share=on", "-device", "ivshmem-plain,memdev=m")),
        ("framebuffer", ("-vga", "none")),
        ("hpet", ("-machine", "hpet=off")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[-2:]),
)
def test_a_machine_without_it(target: str, machine: tuple[str, ...]) -> None:
    verdict = verdict_on(spec_of(target), without_fixtures(needs("qemu-tcg")), *machine)
    assert (verdict.kind, verdict.reason) == (VerdictKind.SKIP, f"the machine has no {target}")


@pytest.mark.parametrize(
    ("target", "machine", "kind"),
    [
        ("vga-graphics", ("-vga", "none"), VerdictKind.RAM_BACKED),
        # nothing answers at its address, which says no more than that
        ("pc-testdev", (), VerdictKind.NO_STORAGE),
    ],
)
def test_a_machine_with_something_else(target: str, machine: tuple[str, ...], kind: VerdictKind) -> None:
    verdict = verdict_on(spec_of(target), without_fixtures(needs("qemu-tcg")), *machine)
    assert verdict.kind is kind, verdict.reason


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
