"""QEMU's variants: every board, graphics adapter, firmware, CPU model and boot medium once, all with one kernel.

The product of them is among the soak tests.
"""

from __future__ import annotations

import pytest
from _kernel import built, memory_of, needs, run, spec_of

from kgen.build import Kernel
from kgen.errors import PlatformUnavailable, SpecError
from kgen.kernel.results_block import BootPath, Decode, KernelState
from kgen.media import formats
from kgen.platforms import _variant, platforms
from kgen.run.options import Options, check_choices, request_of
from kgen.verdict.model import VerdictKind

#: Models of different makers and ages. TCG has no FSGSBASE or x2APIC for some of them, which changes nothing here.
CPUS = ("pentium", "qemu32", "core2duo", "Nehalem", "EPYC", "max")


@pytest.fixture(scope="module")
def small() -> Kernel:
    return built(spec_of(target="vga-text", rounds=60))


def check(kernel: Kernel, platform: str = "qemu-tcg", **choice: str) -> None:
    """The kernel runs to its end, both channels agree, and QEMU says what its cells are."""
    where = needs(platform)
    try:
        check_choices(where, request_of(kernel.spec, Options(**choice)))  # type: ignore[arg-type]
        seen, verdict = run(kernel, where, **choice)
    except PlatformUnavailable as error:
        pytest.skip(error.line)
    record = memory_of(seen)
    assert (record.state, record.cpus_found, record.phases[-1].rounds) == (KernelState.FINISHED, 3, 60)
    disk = choice.get("boot", "kernel") != "kernel"
    assert (record.boot_path is BootPath.MULTIBOOT) == (not disk)
    ram = choice.get("vga") == "none"
    assert (seen.path.kind, record.phases[-1].decode) == (("ram", Decode.RAM) if ram else ("io", Decode.IO))
    if platform == "qemu-tcg":
        assert record.phases[-1].total == 0
        assert verdict.kind is (VerdictKind.RAM_BACKED if ram else VerdictKind.INCONCLUSIVE)


@pytest.mark.parametrize("machine", ["q35", "microvm", "pc-q35-6.2,hpet=off"])
def test_board(small: Kernel, machine: str) -> None:
    check(small, machine=machine)


@pytest.mark.parametrize("vga", _variant.VGA)
def test_graphics_adapter(small: Kernel, vga: str) -> None:
    check(small, vga=vga, machine="q35" if vga in ("qxl", "virtio", "none") else "pc")


@pytest.mark.parametrize("vga", ["cirrus", "none"])
def test_graphics_adapter_without_pci(small: Kernel, vga: str) -> None:
    check(small, machine="microvm", vga=vga)


@pytest.mark.parametrize("firmware", ["qboot", "seabios"])
def test_firmware(small: Kernel, firmware: str) -> None:
    check(small, firmware=firmware, machine="q35")


@pytest.mark.parametrize("cpu", CPUS)
def test_cpu(small: Kernel, cpu: str) -> None:
    check(small, cpu=cpu)


@pytest.mark.parametrize("boot", _variant.BOOT[1:])
def test_boot_medium(small: Kernel, boot: str) -> None:
    if boot == "cdrom" and "iso" not in formats():
        pytest.skip("there is no image format iso")
    check(small, boot=boot, machine="q35" if boot in ("ide", "usb") else "pc")


def test_on_kvm(small: Kernel) -> None:
    """Another board and adapter under another accelerator; the CPU model stays the host's."""
    check(small, "qemu-kvm", machine="q35", vga="virtio")


def test_ovmf(small: Kernel) -> None:
    if "iso" not in formats():
        pytest.skip("there is no image for UEFI")
    check(small, firmware="ovmf", boot="nvme", machine="q35")


@pytest.mark.parametrize("choice", [{"machine": "nosuch"}, {"machine": "pc,nosuch=1"}, {"cpu": "nosuch"}], ids=str)
def test_what_qemu_does_not_know_is_a_mistake_in_the_request(small: Kernel, choice: dict[str, str]) -> None:
    ((name, value),) = choice.items()
    with pytest.raises(SpecError, match=rf"--{name} {value}: .+; '.+ -{name} help' lists what there is"):
        run(small, **choice)


def test_a_cpu_without_a_local_apic(small: Kernel) -> None:
    seen, verdict = run(small, cpu="486")
    assert memory_of(seen).state is KernelState.TOO_FEW_CPUS
    assert "\nonly 1 of 3 CPUs started: this one has no local APIC to call the others with\r\n" in seen.log
    assert (verdict.kind, verdict.reason) == (
        VerdictKind.ERROR,
        "only 1 CPU started and the case needs 3: this one has no local APIC to call the others with",
    )


def test_a_board_for_one_cpu(small: Kernel) -> None:
    with pytest.raises(PlatformUnavailable, match="isapc takes one CPU and the case needs 3; choose pc, q35"):
        run(small, machine="isapc")


def test_a_suite_needs_the_command_line() -> None:
    request = request_of(spec_of(suite="x", budget=1), Options(boot="usb"))
    with pytest.raises(SpecError, match="--boot usb: a disk has no command line, and a suite needs one"):
        check_choices(platforms()["qemu-tcg"], request)
