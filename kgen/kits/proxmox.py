"""Proxmox VE 7.2 and newer, by qm on the node itself (qm(1), pvesm(1)).

The disk is copied into a storage. ``args``, which only root may set, adds the serial log and the gdb stub to QEMU's
arguments. Its words may hold neither blanks nor commas, so they name the folder by a link in a temporary directory.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _shell
from kgen.kits._text import JUDGE, WAIT, debugger, fill, readme

PRODUCT = "Proxmox VE"
STUB_PORT = 1234

_RUN = """
need qm 'run this on the node'
need pvesh 'run this on the node'
[ "$(id -u)" = 0 ] || die 'must be run as root'
[ ! -e machine-made.txt ] || die "this folder has its machine already; remove it with: sh stop.sh"
storage=${1:-local-lvm}
pvesm status --storage "$storage" >/dev/null 2>&1 ||
    die "there is no storage $storage; usage: sh run.sh STORAGE [VMID]; 'pvesm status' lists them"
vmid=${2:-$(pvesh get /cluster/nextid)}
case $vmid in
    '' | *[!0-9]*) die "VMID '$vmid' is not a number" ;;
esac
if qm status "$vmid" >/dev/null 2>&1; then
    die "there is a machine $vmid already; give another number: sh run.sh $storage VMID"
fi

machine_runs() {
    qm status "$vmid" 2>/dev/null | grep -q running
}

# Where the machine does not start, remove what was made, except the machine itself: stop.sh removes that.
give_up() {
    if qm status "$vmid" >/dev/null 2>&1; then
        echo "run.sh: the machine $vmid could not be started; sh stop.sh removes what was made of it" >&2
    else
        rm -f "$directory/kit" machine-made.txt
        rmdir "$directory" 2>/dev/null || :
    fi
}

directory=$(mktemp -d)
trap give_up EXIT
trap 'exit 1' HUP INT TERM
ln -s "$(pwd -P)" "$directory/kit"
printf '%s %s\\n' "$vmid" "$directory" >machine-made.txt
qm create "$vmid" --name "$name" --description 'made by kgen: @CASE@' --ostype other --machine pc --bios seabios \\
    --memory 64 --balloon 0 --sockets 1 --cores @CPUS@ --cpu host --vga std --tablet 0 --onboot 0 \\
    --args "@ARGUMENTS@"
qm set "$vmid" --ide0 "$storage:0,import-from=$directory/kit/kernel.qcow2" --boot order=ide0
put_old_log_away
qm start "$vmid"
trap - EXIT HUP INT TERM
wait_for_end
"""

_STOP = """
need qm 'run this on the node'
[ "$(id -u)" = 0 ] || die 'must be run as root'
[ -f machine-made.txt ] || die 'this folder has no machine'
read -r vmid directory <machine-made.txt
if qm status "$vmid" >/dev/null 2>&1; then
    qm config "$vmid" | grep -q "^name: $name\\$" || die "the machine $vmid is not of this kit; nothing was touched"
    qm stop "$vmid"
    qm destroy "$vmid" --purge
fi
rm -f "$directory/kit" machine-made.txt
rmdir "$directory" 2>/dev/null || :
"""


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    # QEMU numbers the ports in their order
    words = ["-serial null"] * (facts.com - 1) + ["-serial file:$directory/kit/serial.txt"]
    words += [f"-gdb tcp:127.0.0.1:{STUB_PORT}", *facts.fixtures]
    return {
        "run.sh": _shell.script(
            facts,
            PRODUCT,
            "run.sh",
            "Makes the machine, starts it and waits for the end of its run.",
            fill(_RUN, case=facts.case, cpus=facts.cpus, arguments=" ".join(words)),
            words="[STORAGE [VMID]]",
            most=2,
            root=True,
            waits=True,
        ),
        "stop.sh": _shell.script(
            facts,
            PRODUCT,
            "stop.sh",
            "Switches the machine off and removes it; the folder stays.",
            _STOP,
            root=True,
        ),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "copy this folder to the node, then as root: sh run.sh STORAGE (default: local-lvm)"),
                ("Serial log", "serial.txt in this folder. The screen: the machine's console in the web interface."),
                *debugger(STUB_PORT, "on the node: "),
                ("Judge", JUDGE),
                ("Memory", "dump-guest-memory FILE in 'qm monitor VMID'; kgen judge serial.txt --memory FILE"),
                ("Stop", "sh stop.sh removes the machine and its copy of the disk."),
                ("Settings", WAIT),
            ],
        ),
    }


KIT = Kit(
    name="proxmox",
    product=PRODUCT,
    summary="a qcow2 disk, scripts for qm",
    formats=("qcow2",),
    texts=texts,
    provides=frozenset({"edu", "hpet", "ivshmem", "pc-testdev", "vga"}),
    max_cpus=255,
    qemu=True,
)
