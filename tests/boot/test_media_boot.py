"""The kernel boots from every disk container, through QEMU's own driver for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from _kernel import built, check_table, console, spec_of

from kgen.build import Kernel
from kgen.kernel.results_block import BootPath, KernelState, PhaseStatus
from kgen.media import ImageFormat
from kgen.media._container import DiskContainer
from kgen.registry import discover

ROUNDS = 200
CONTAINERS = {
    name: entry
    for name, entry in discover("kgen.media", "FORMAT", ImageFormat).items()
    if isinstance(entry, DiskContainer)
}
#: QEMU's names of the formats, where they are others.
QEMU_NAMES = {"vhd": "vpc"}


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return built(spec_of(target="vga-text", rounds=ROUNDS))


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_boots_from_the_container(kernel: Kernel, container: DiskContainer, tmp_path: Path) -> None:
    path = tmp_path / f"kernel{container.suffix}"
    container.write(kernel.payload, path)
    before = path.read_bytes()
    # As an IDE disk can be written to, changes go elsewhere: some drivers note in the file that it was opened.
    drive = f"file={path},format={QEMU_NAMES.get(container.name, container.name)},if=ide,snapshot=on"
    machine = ("-accel", "tcg,thread=multi", "-m", "64M", "-smp", "3", "-boot", "c", "-net", "none")
    with console("-drive", drive, "-serial", "stdio", *machine) as qemu:
        _, record = qemu.record()
    check_table(qemu.heard, last=ROUNDS)
    assert record.boot_path is BootPath.DISK
    assert record.state is KernelState.FINISHED
    assert (record.phases[-1].status, record.phases[-1].rounds) == (PhaseStatus.DONE, ROUNDS)
    assert path.read_bytes() == before
