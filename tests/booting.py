"""Boots of an image in QEMU by every firmware and from every kind of drive, and what its log says."""

from __future__ import annotations

import re
import select
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.evidence.records import Record
from kgen.host.process import spawn
from kgen.kernel.protocol import parse_log
from kgen.spec import KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict

#: For one boot and run, in seconds; a loaded machine is slow.
DEADLINE = 150.0
END = re.compile(rb"^kgen:\d+ end [^\n]*\n", re.MULTILINE)
#: What the firmware's console adds to a text on its way to the serial port.
ESCAPES = re.compile(rb"\x1b\[[0-9;=?]*[A-Za-z]")

#: QEMU's arguments for a drive whose image is {image}.
DRIVES = {
    "ide": "-drive file={image},format=raw,if=ide",
    "ahci": "-device ahci,id=sata -device ide-hd,bus=sata.0,drive=d -drive file={image},format=raw,if=none,id=d",
    "nvme": "-device nvme,drive=d,serial=1 -drive file={image},format=raw,if=none,id=d",
    "usb": "-device qemu-xhci -device usb-storage,drive=d -drive file={image},format=raw,if=none,id=d",
    "virtio": "-drive file={image},format=raw,if=virtio",
    "cd": "-drive file={image},format=raw,if=ide,media=cdrom -boot d",
}

_OVMF = Path("/usr/share/OVMF")
#: Code and variables of a firmware, and what its machine must be besides.
FIRMWARE: dict[str, tuple[str, str, str]] = {
    "seabios": ("", "", ""),
    "ovmf": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", ""),
    # Debian builds it for machines with SMM only
    "ovmf-ia32": (
        "OVMF32_CODE_4M.secboot.fd",
        "OVMF32_VARS_4M.fd",
        "-machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on",
    ),
    # with Microsoft's keys, and so with Secure Boot
    "ovmf-secure": (
        "OVMF_CODE_4M.ms.fd",
        "OVMF_VARS_4M.ms.fd",
        "-machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on",
    ),
}


def machine(firmware: str, drive: str, image: Path, folder: Path) -> list[str]:
    """The command line of a QEMU with that firmware and the image in such a drive, without serial port and monitor.

    The firmware's variables are a copy in ``folder``. Skips the test, with the reason, where there is no such firmware.
    """
    code, variables, more = FIRMWARE[firmware]
    words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-smp", "4", "-display", "none", "-no-reboot"]
    words += ["-nic", "none", *more.split()]
    if code:
        for name in (code, variables):
            if not (_OVMF / name).exists():
                package = "ovmf-ia32" if "32" in name else "ovmf"
                pytest.skip(f"{_OVMF / name} is not there; install the package {package}")
        shutil.copyfile(_OVMF / variables, folder / variables)
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_OVMF / code}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={folder / variables}"]
    if "q35" in more and drive == "ide":
        drive = "ahci"  # q35 has no other
    return words + DRIVES[drive].format(image=image).split()


def listen(command: Sequence[str], until: re.Pattern[bytes] = END, seconds: float = DEADLINE) -> bytes:
    """What the first serial port says up to the line that matches; QEMU is ended then."""
    child = spawn([*command, "-serial", "stdio", "-monitor", "none"], pipes=True)
    heard = b""
    end = time.monotonic() + seconds
    try:
        assert child.stdout is not None
        while not until.search(heard):
            left = end - time.monotonic()
            assert left > 0, f"nothing more in {seconds:g} s:\n{heard.decode(errors='replace')}"
            if select.select([child.stdout], [], [], left)[0]:
                data = child.stdout.read(65536)
                assert data, f"QEMU {child.epitaph()}: {child.stderr_lines()}\n{heard!r}"
                heard += data
    finally:
        child.kill()
    return heard


def verdict_of(spec: KernelSpec, heard: bytes) -> tuple[Record, Verdict]:
    """The whole log's record, which must be unbroken, and the verdict from it alone."""
    log = parse_log(heard)
    record = from_log(log)
    assert log.intact, log.fault
    assert record is not None
    assert record.complete, record.gap
    seen = Observation(platform=SERIAL_ONLY, serial=record, memory=None, path=NOT_ASKED, rows=log.rows)
    return record, judge(spec, seen)
