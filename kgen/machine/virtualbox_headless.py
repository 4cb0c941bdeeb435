"""Start VirtualBox's VBoxHeadless without its driver: headless DIRECTORY ARGUMENT...

The program itself refuses to run where /dev/vboxdrv is missing. This does what its main() does (VBoxHeadless.cpp), but
lets the support library go without a driver, in which case VirtualBox's own interpreter or recompiler carries the guest
(SUPR3InitEx in <VBox/sup.h>). It uses the standard library alone and runs in any Python; ``DIRECTORY`` is where
VirtualBox's libraries are.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

#: <VBox/sup.h>: SUPR3INIT_F_UNRESTRICTED, SUPR3INIT_F_DRIVERLESS, SUPR3INIT_F_DRIVERLESS_IEM_ALLOWED.
_FLAGS = 1 << 0 | 1 << 2 | 1 << 3


def _strings(words: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def main(place: str, arguments: Sequence[str]) -> int:
    """Run the virtual machine to its end. Return VBoxHeadless's exit status."""
    runtime = ctypes.CDLL(f"{place}/VBoxRT.so", mode=ctypes.RTLD_GLOBAL)
    words = [os.fsencode(word) for word in (f"{place}/VBoxHeadless", *arguments)]
    argv = _strings(words)
    pointer = ctypes.cast(argv, ctypes.c_void_p)
    environment = _strings([name + b"=" + value for name, value in os.environb.items()])
    for what, status in (
        ("RTR3InitExe", runtime.RTR3InitExe(len(words), ctypes.byref(pointer), 0)),
        ("SUPR3InitEx", runtime.SUPR3InitEx(_FLAGS, ctypes.byref(ctypes.c_void_p()))),
    ):
        if status < 0:
            print(f"{what} failed with status {status}", file=sys.stderr)
            return 1
    headless = ctypes.CDLL(f"{place}/VBoxHeadless.so", mode=ctypes.RTLD_GLOBAL)
    return int(headless.TrustedMain(len(words), argv, environment))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
