"""FreeBSD's bhyve (bhyve(8), bhyvectl(8)).

bhyve has no BIOS: its UEFI firmware starts the image's UEFI application. The framebuffer decodes the VGA memory only
with ``vga=on``. Standard input is a FIFO that stays open for writing, so that the guest receives nothing: any byte
would stop its run.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _shell
from kgen.kits._text import JUDGE, WAIT, debugger, fill, readme

PRODUCT = "bhyve"
STUB_PORT = 1234
VNC_PORT = 5900
FIRMWARE = "/usr/local/share/uefi-firmware/BHYVE_UEFI.fd"

_NAME = "\nname='@SHORT@' # older releases take no more than 31 characters\n"

_RUN = (
    _NAME
    + """
need bhyve 'this is for FreeBSD'
need bhyvectl 'this is for FreeBSD'
[ "$(id -u)" = 0 ] || die 'must be run as root'
firmware=${KGEN_FIRMWARE:-@FIRMWARE@}
[ -f "$firmware" ] || die "there is no $firmware; install it with: pkg install edk2-bhyve"
kldstat -q -m vmm || kldload vmm
[ ! -e "/dev/vmm/$name" ] || die "bhyve has a machine $name already; if it is of this folder: sh stop.sh"

put_old_log_away
rm -f stdin.fifo
mkfifo stdin.fifo
bhyve -A -H -w -c @CPUS@ -m 256M -U @UUID@ -G 127.0.0.1:@STUB@ \\
    -s 0,hostbridge -s 3,ahci-hd,kernel.img -s 29,fbuf,tcp=127.0.0.1:@VNC@,w=1024,h=768,vga=on \\
    -s 31,lpc -l com@COM@,stdio -l "bootrom,$firmware" "$name" 0<>stdin.fifo >serial.txt 2>bhyve.txt &
machine=$!
echo "$machine" >machine-made.txt

machine_runs() {
    kill -0 "$machine" 2>/dev/null
}

wait_for_end
"""
)

_STOP = (
    _NAME
    + """
need bhyvectl 'this is for FreeBSD'
[ "$(id -u)" = 0 ] || die 'must be run as root'
[ -f machine-made.txt ] || die 'this folder has no machine'
if [ -e "/dev/vmm/$name" ]; then
    bhyvectl --vm="$name" --force-poweroff || :
    sleep 1
    [ ! -e "/dev/vmm/$name" ] || bhyvectl --vm="$name" --destroy
fi
rm -f machine-made.txt stdin.fifo
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    run = fill(
        _RUN,
        short=facts.short,
        firmware=FIRMWARE,
        cpus=facts.cpus,
        uuid=facts.uuid,
        stub=STUB_PORT,
        vnc=VNC_PORT,
        com=facts.com,
    )
    return {
        "run.sh": _shell.script(
            facts,
            PRODUCT,
            "run.sh",
            "Starts the machine and waits for the end of its run.",
            run,
            root=True,
            waits=True,
        ),
        "stop.sh": _shell.script(
            facts, PRODUCT, "stop.sh", "Ends the machine.", fill(_STOP, short=facts.short), root=True
        ),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", f"as root: pkg install edk2-bhyve; sh run.sh. (UEFI: {FIRMWARE})"),
                ("Serial log", f"serial.txt in this folder. The screen: VNC at localhost:{VNC_PORT}"),
                *debugger(STUB_PORT),
                ("Judge", JUDGE),
                ("Stop", "sh stop.sh"),
                ("Settings", WAIT),
                ("", "KGEN_FIRMWARE=FILE in the environment: another firmware."),
            ],
        ),
    }


KIT = Kit(
    name="bhyve",
    product=PRODUCT,
    summary="a raw disk, scripts that start it with UEFI",
    formats=("img",),
    texts=texts,
    provides=frozenset({"hpet", "vga"}),
    # up to FreeBSD 13; later releases accept as many as the host has
    max_cpus=16,
)
