"""Every target where it is: found on other machines too, missed where it is not, refused where it cannot hold cells."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from _kernel import built, memory_of, needs, run
from _places import FOUND, IO, check_place, spec_of

from kgen.kernel.parameters import PCI_WINDOW
from kgen.machine.platform import LaunchRequest, Platform
from kgen.spec import KernelSpec
from kgen.spec.case import PAGE, Case
from kgen.targets import MemoryTarget
from kgen.verdict.model import Verdict, VerdictKind

OTHER_WIDTHS = [(target.name, width) for target in IO for width in (8, 16, 32, 64) if width not in target.widths]


def verdict_on(spec: KernelSpec, platform: str | Platform, *machine: str) -> Verdict:
    """The verdict of one run."""
    return run(built(spec), platform, *machine)[1]


@pytest.mark.parametrize("machine", [(), ("-machine", "q35")], ids=["pc", "q35"])
@pytest.mark.parametrize("target", FOUND, ids=lambda target: target.name)
def test_firmware_that_assigns_addresses(target: MemoryTarget, machine: tuple[str, ...]) -> None:
    """SeaBIOS does, qboot does not: then the kernel itself does."""
    kernel = built(spec_of(target.name))
    placed = check_place(target, run(kernel, "qemu-tcg", *machine, "-bios", "bios-256k.bin")[0])
    ours = check_place(target, run(kernel, "qemu-tcg", *machine)[0])
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
    where = " on PCI bus 0, the only one that is searched" if target != "hpet" else ""
    assert (verdict.kind, verdict.reason) == (VerdictKind.SKIP, f"the machine has no {target}{where}")


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
