"""What QEMU prints on standard error: recorded words, of each release that changed them."""

from __future__ import annotations

from pathlib import Path

from kgen.errors import KgenError, MachineError, PlatformUnavailable
from kgen.host.process import spawn
from kgen.machine import qemu, qemu_words
from kgen.machine.platform import LaunchRequest

#: Of 11.1.3.
MON = (
    "qemu-system-x86_64: -mon chardev=c,mode=control: warning: '-mon' is deprecated, "
    "use '-object' with 'monitor-hmp' or 'monitor-qmp' types instead"
)
#: Of 7.2.22, one a feature that its translator lacks.
FEATURE = "qemu-system-x86_64: warning: TCG doesn't support requested feature: CPUID.80000001H:ECX.xop [bit 11]"
#: Of 10.0.13 and 11.1.3 without qemu-system-modules-spice.
QXL = "qemu-system-x86_64: QXL VGA not available. Perhaps you want to install qemu-system-modules-spice package?"
INTERNAL = "KVM internal error. Suberror: 1"


def test_a_warning_is_no_cause() -> None:
    assert qemu_words.causes((MON, FEATURE)) == ()
    assert qemu_words.causes((MON, INTERNAL, FEATURE)) == (INTERNAL,)
    about = "qemu-system-x86_64: -device warning:x: 'warning:x' is not a valid device model name"
    assert qemu_words.causes((about,)) == (about,), "an error that quotes the word"


def test_why_a_machine_stands_still() -> None:
    """The word in parentheses, also where the debugger's client wraps the line; "paused" alone says nothing."""
    assert qemu_words.stopped_by("VM status: paused (internal-error)\r\n") == "internal-error"
    assert qemu_words.stopped_by("VM status: paused (prelaunch)\n") == "prelaunch"
    assert qemu_words.stopped_by("VM status: paused\n") == ""
    assert qemu_words.stopped_by("VM status: running (single step mode)\n") == ""
    assert qemu_words.stopped_by("unknown command: 'info status' gave internal-error\n") == ""


def failed_start(said: str, request: LaunchRequest) -> KgenError:
    """What is reported of a QEMU that prints these words and ends."""
    child = spawn(("sh", "-c", 'printf "%s\\n" "$1" >&2; exit 1', "sh", said))
    child.wait(10.0)
    return qemu._failed_start(child, 1.0, request)


def test_a_start_that_failed_with_a_warning_alone() -> None:
    error = failed_start(MON, LaunchRequest(kernel=Path("kernel.elf")))
    assert isinstance(error, MachineError)
    assert error.line == "QEMU exited with status 1 without saying why; is this a QEMU? check --qemu"


def test_a_graphics_adapter_whose_package_is_not_installed() -> None:
    assert qemu_words.lacking_adapter(QXL) == ("QXL VGA", "qemu-system-modules-spice")
    assert qemu_words.lacking_adapter("qemu: QXL VGA not available") == ("QXL VGA", "")
    assert qemu_words.lacking_adapter("qemu-system-x86_64: unknown vga type: nosuch") is None
    error = failed_start(f"{MON}\n{QXL}", LaunchRequest(kernel=None, vga="qxl"))
    assert isinstance(error, PlatformUnavailable)
    assert error.line == (
        "--vga qxl: this QEMU lacks its QXL VGA; "
        "install it with 'apt install qemu-system-modules-spice', or choose another --vga"
    )
