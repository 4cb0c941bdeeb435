"""Every board with every graphics adapter, firmware and boot medium reaches its verdict on XCHG, controls and all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kgen.build import Kernel, build
from kgen.errors import PlatformUnavailable, SpecError
from kgen.media import formats
from kgen.platforms import _variant, platforms
from kgen.run.observe import observe
from kgen.run.options import Options, check_choices, request_of
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

pytestmark = pytest.mark.timeout(600)

#: With versions and a property that change what the kernel sees.
BOARDS = ("pc", "pc-i440fx-2.12", "q35", "pc-q35-5.0,hpet=off", "microvm")
CPUS = ("486", "pentium", "qemu32", "qemu64", "core2duo", "Nehalem", "Denverton", "EPYC", "max")


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Four CPUs."""
    return build(KernelSpec(Case("xchg", cpus=4), rounds=1000))


def possible() -> Iterator[dict[str, str]]:
    """Everything that goes together."""
    request = request_of(KernelSpec(Case("xchg")), Options())
    firmware = [name for name in _variant.FIRMWARE if name != "auto"]
    for machine, vga, name, boot in itertools.product(BOARDS, _variant.VGA, firmware, _variant.BOOT):
        choice = {"machine": machine, "vga": vga, "firmware": name, "boot": boot}
        # OVMF takes its seconds: every adapter once, every medium once
        if name == "ovmf" and ("-" in machine or (vga != "std" and boot != "usb")):
            continue
        try:
            wanted = _variant.medium(replace(request, **choice))
        except SpecError:
            continue
        if wanted not in ("", *formats()) or (name == "ovmf" and "iso" not in formats()):
            continue
        yield choice


@pytest.mark.parametrize("choice", list(possible()), ids=lambda choice: "-".join(choice.values()))
def test_each_reaches_its_verdict(kernel: Kernel, choice: dict[str, str]) -> None:
    check(kernel, Options(timeout=300, **choice), choice["vga"])  # type: ignore[arg-type]


@pytest.mark.parametrize("cpu", CPUS)
def test_each_cpu(kernel: Kernel, cpu: str) -> None:
    options = Options(timeout=300, cpu=cpu)
    if cpu != "486":
        check(kernel, options, "std")
        return
    verdict = judge(kernel.spec, observe(kernel, platforms()["qemu-tcg"], options))
    assert verdict.kind is VerdictKind.ERROR
    assert verdict.reason.startswith("only 1 CPU started and the case needs 4: this one has no local APIC")


def check(kernel: Kernel, options: Options, vga: str) -> None:
    """The verdict is the known one. A power control may be too silent where the host is busy; nothing else may be."""
    platform = platforms()["qemu-tcg"]
    check_choices(platform, request_of(kernel.spec, options))
    try:
        seen = observe(kernel, platform, options)
    except PlatformUnavailable as error:
        pytest.skip(error.line)
    verdict = judge(kernel.spec, seen)
    wanted = VerdictKind.RAM_BACKED if vga == "none" else VerdictKind.ATOMIC
    if "showed only" in verdict.reason:
        pytest.xfail(verdict.reason)
    assert verdict.kind is wanted, verdict.reason
