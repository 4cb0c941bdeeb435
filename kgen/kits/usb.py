"""A real PC, from a USB stick.

The script writes only to a whole disk that Linux calls removable (/sys/block/*/removable) and that is not mounted.
Most PCs have no COM1: the result is on the screen too.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _shell
from kgen.kits._text import fill, readme

PRODUCT = "a real PC"

_WRITE = """
[ "$(uname)" = Linux ] || die 'this script is for Linux only; NOTES.txt says what to do on other systems'

# Removable whole disks, one a line.
candidates() {
    for path in /sys/block/*; do
        [ "$(cat "$path/removable" 2>/dev/null)" = 1 ] || continue
        [ "$(cat "$path/size" 2>/dev/null)" != 0 ] || continue
        case $path in */sr* | */fd*) continue ;; esac
        printf '  /dev/%s  %s MiB  %s\\n' "${path##*/}" "$(($(cat "$path/size") / 2048))" \\
            "$(cat "$path/device/model" 2>/dev/null || :)"
    done
}

if [ $# -ne 1 ]; then
    echo "$usage"
    echo 'removable disks here:'
    candidates
    exit 1
fi
[ -b "$1" ] || die "$1 is not a disk; $usage"
device=$(readlink -f -- "$1")
disk=${device##*/}
[ -d "/sys/block/$disk" ] || die "$1 is not a whole disk; $usage"
[ "$(cat "/sys/block/$disk/removable")" = 1 ] || die "$1 is not removable: nothing was written; $usage"
for part in "/sys/block/$disk" "/sys/block/$disk/$disk"*; do
    [ -d "$part" ] || continue
    node=/dev/${part##*/}
    if grep -q "^$node " /proc/self/mounts /proc/swaps; then
        die "$node is in use; unmount it first"
    fi
    for holder in "$part"/holders/*; do
        [ ! -e "$holder" ] || die "$node is in use by ${holder##*/}"
    done
done
[ -w "$device" ] || die "$1 may not be written to; $usage"
[ "$(cat "/sys/block/$disk/size")" -ge @SECTORS@ ] || die "$1 is smaller than the image"

printf 'Everything on %s (%s) will be lost. Type its name, %s, to go on: ' \\
    "$device" "$(cat "/sys/block/$disk/device/model" 2>/dev/null || echo 'no model')" "$disk"
read -r answer || answer=
[ "$answer" = "$disk" ] || die 'nothing was written'
dd if=kernel.img of="$device" bs=1048576 conv=fsync
cmp -n "$(wc -c <kernel.img)" kernel.img "$device" || die "$device does not hold what was written to it"
echo "written: $name. Boot the PC from it; Secure Boot must be off."
"""

#: What a disk must hold, in sectors of 512 bytes: the image's 17 MiB.
SECTORS = 17 * 2048


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    port = f"COM{facts.com}, {facts.baud} 8N1"
    return {
        "write.sh": _shell.script(
            facts,
            PRODUCT,
            "write.sh",
            "Writes the image to a USB stick.",
            fill(_WRITE, sectors=SECTORS),
            words="/dev/NAME",
            most=1,
            root=True,
        ),
        **readme(
            facts,
            PRODUCT,
            [
                ("Write", "everything on it is lost. Linux, as root: sh write.sh /dev/NAME. Other systems: NOTES.txt."),
                ("", "Linux: sh write.sh without a name lists the removable disks."),
                ("", "Windows: Rufus, select kernel.img, 'DD image'."),
                ("", "macOS: diskutil list names the stick; diskutil unmountDisk /dev/diskN; then"),
                ("", "sudo dd if=kernel.img of=/dev/rdiskN bs=1m"),
                ("Start", f"boot from the stick, BIOS or UEFI, Secure Boot off; the PC needs {facts.cpus} CPUs."),
                ("Serial log", f"{port}, if the PC has that port; otherwise read the screen, which stays."),
                ("", "Connect it by a null-modem cable to another computer, whose terminal program saves serial.txt."),
                ("Judge", "kgen judge --code CODE with the code on the screen; with a log: kgen judge serial.txt"),
                ("Stop", "switch the PC off."),
            ],
        ),
    }


KIT = Kit(
    name="usb",
    product=PRODUCT,
    summary="a raw disk for a USB stick, a script that writes it",
    formats=("img",),
    texts=texts,
    provides=frozenset({"hpet", "vga"}),
    max_cpus=255,
    windows=True,
)
