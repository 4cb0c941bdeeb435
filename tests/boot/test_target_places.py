"""Every target where it is: found on other machines too, missed where it is not, refused where it cannot hold cells."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from _kernel import built, needs, run
from _places import FOUND, IO, check_place, spec_of, suite_of

from kgen.errors import MachineError
from kgen.kernel.parameters import PCI_WINDOW
from kgen.machine.platform import LaunchRequest, Platform
from kgen.spec import KernelSpec
from kgen.spec.case import PAGE, Case
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

OTHER_WIDTHS = [
    (target.name, width)
    for target in IO
    for width in (8, 16, 32, 64)
    if width not in target.widths and width // 8 <= target.reach
]
#: For a suite of places, in seconds; a case of few rounds takes a moment.
BUDGET = 30


def verdicts_on(spec: KernelSpec, platform: str | Platform, *machine: str) -> dict[str, Verdict]:
    """The verdict on each case, by its id, of one boot."""
    seen, _ = run(built(spec), platform, *machine)
    return {case.id: judge(spec, seen, number) for number, case in enumerate(spec.cases)}


def verdict_on(spec: KernelSpec, platform: str | Platform, *machine: str) -> Verdict:
    """The verdict of one run."""
    return run(built(spec), platform, *machine)[1]


@pytest.mark.parametrize("machine", [(), ("-machine", "q35")], ids=["pc", "q35"])
def test_firmware_that_assigns_addresses(machine: tuple[str, ...]) -> None:
    """SeaBIOS does, qboot does not: then the kernel itself does, and what it places does not overlap."""
    spec = suite_of(*(Case("xchg", target=target.name) for target in FOUND), budget=BUDGET)
    kernel = built(spec)

    def pages(*firmware: str) -> list[int]:
        seen, _ = run(kernel, "qemu-tcg", *machine, *firmware)
        return sorted(check_place(spec, seen, number) & -PAGE for number in range(len(spec.cases)))

    placed, ours = pages("-bios", "bios-256k.bin"), pages()
    assert len(ours) == len(FOUND)
    assert PCI_WINDOW not in placed
    assert ours[0] == PCI_WINDOW
    # the smallest of them has 1 MiB
    assert all(later - earlier >= 1 << 20 for earlier, later in itertools.pairwise(ours))


@pytest.mark.parametrize("name", ["cirrus", "qxl", "vmware", "virtio"])
def test_the_framebuffer_of_other_adapters(name: str) -> None:
    """One has I/O ports in its first BAR, one a BAR of 64 bits, one does not mark its memory as prefetchable."""
    try:
        verdict = verdict_on(spec_of("framebuffer"), "qemu-tcg", "-vga", name)
    except MachineError as error:
        if "not available" not in error.line:
            raise
        pytest.skip(error.line)
    assert verdict.kind is VerdictKind.RAM_BACKED, verdict.reason


def test_widths_that_the_place_does_not_take() -> None:
    cases = [Case("cmpxchg8b" if width == 64 else "xchg", width, target=target) for target, width in OTHER_WIDTHS]
    found = verdicts_on(suite_of(*cases, budget=BUDGET), "qemu-tcg")
    assert len(found) == len(OTHER_WIDTHS)
    assert {name: verdict.kind for name, verdict in found.items()} == dict.fromkeys(found, VerdictKind.NO_STORAGE)


def without_fixtures(platform: Platform) -> Platform:
    """The same machine, but without what the targets bring."""

    def command(request: LaunchRequest) -> tuple[str, ...]:
        return platform.command(dataclasses.replace(request, fixtures=()))

    return dataclasses.replace(platform, command=command)


#: Where devices on PCI are looked for.
SEARCHED = " on PCI bus 0, the only one that is searched"


def test_a_machine_without_them() -> None:
    """What is not there is named; what has something else at its place is judged by that."""
    cases = {name: Case("xchg", target=name) for name in ("edu", "ivshmem", "framebuffer", "hpet")}
    others = {name: Case("xchg", target=name) for name in ("vga-graphics", "pc-testdev")}
    machine = ("-vga", "none", "-machine", "hpet=off")
    spec = suite_of(*cases.values(), *others.values(), budget=BUDGET)
    found = verdicts_on(spec, without_fixtures(needs("qemu-tcg")), *machine)
    for name, case in cases.items():
        verdict = found[case.id]
        where = "" if name == "hpet" else SEARCHED
        assert (verdict.kind, verdict.reason) == (VerdictKind.SKIP, f"the machine has no {name}{where}")
    assert {name: found[case.id].kind for name, case in others.items()} == {
        "vga-graphics": VerdictKind.RAM_BACKED,
        # nothing answers at its address, which says no more than that
        "pc-testdev": VerdictKind.NO_STORAGE,
    }


def test_larger_than_the_window() -> None:
    """It is there, but larger than what is left below 4 GiB."""
    machine = ("-object", "memory-backend-ram,id=m,size=1G,share=on", "-device", "ivshmem-plain,memdev=m")
    verdict = verdict_on(spec_of("ivshmem"), without_fixtures(needs("qemu-tcg")), *machine)
    assert (verdict.kind, verdict.reason) == (VerdictKind.SKIP, f"the machine has no ivshmem{SEARCHED}")
