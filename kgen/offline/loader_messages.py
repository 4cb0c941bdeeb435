"""Messages of kgen's loaders and of firmware where no kernel starts, and what to do about each.

The sentences are those of the templates (mbr.asm, loader.asm, uefi.asm). docs/images.md describes them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kgen.wording import quoted

#: How a line of the BIOS's loader begins, and one of the UEFI application's.
BIOS_PREFIX = "kgen boot: "
UEFI_PREFIX = "kgen: "
#: How the sentences begin with which the image's loader stops, and the remedies.
BIOS_ERRORS: Mapping[str, str] = {
    "cannot read the loader": "is the image whole, and does the BIOS read its first sectors?",
    "disk error": "the image was cut or the medium is bad: write it again",
    "image checksum error": "write the image again; the medium or the memory changes bytes",
    "A20 gate stays closed": "neither BIOS nor port 92h nor keyboard controller opens it: not a PC that kgen knows",
    "needs": "give the machine more memory",
}
#: The same for the UEFI application, after ``CANNOT_START``.
CANNOT_START = "cannot start, "
UEFI_ERRORS: Mapping[str, str] = {
    "memory is taken": "the firmware keeps something there; other firmware, or its BIOS mode, may not",
    "too little memory": "give the machine more memory",
    "the firmware has too little memory left": "give the machine more memory",
    "the firmware does not let go": "boot services could not be left: start it by BIOS, or with other firmware",
}
#: The application's last line where it starts the kernel.
LEAVING = "leaving UEFI"
#: Words with which firmware refuses an application that is not signed.
_REFUSALS = re.compile(r"(?:Security Violation|Access Denied|Secure ?Boot Violation|Invalid signature detected)", re.I)
#: No loader's line is longer.
_LONGEST = 160


def last_words(text: str) -> str:
    """Return why a log has no lines of a kernel: the loader's own line and the remedy, or that firmware has refused the
    application; "" where the log does not show why. ``text`` is a cleaned log (serial_log.clean)."""
    said = ""
    for line in text.split("\n"):
        said = _of_line(line.strip()) or said
    if said:
        return said
    refused = _REFUSALS.search(text)
    if refused:
        return f"the firmware says '{refused[0]}': Secure Boot must be off (docs/images.md says how)"
    return ""


def _of_line(line: str) -> str:
    """Return what a line of a loader means, "" for any other line.

    Firmware may have left the cursor in the middle of a line.
    """
    for prefix, errors in ((BIOS_PREFIX, BIOS_ERRORS), (UEFI_PREFIX + CANNOT_START, UEFI_ERRORS)):
        at = line.rfind(prefix)
        words = line[at + len(prefix) :]
        remedy = next((remedy for start, remedy in errors.items() if words.startswith(start)), None)
        if at >= 0 and remedy is not None:
            return f"the kernel was not started: '{quoted(line[at:], _LONGEST)}'; {remedy}"
    at = line.rfind(UEFI_PREFIX + LEAVING)
    if at >= 0:
        return (
            f"the last line is '{quoted(line[at:], _LONGEST)}', and nothing of the kernel follows; is the log whole, "
            "and of the port the image was built for?"
        )
    return ""
