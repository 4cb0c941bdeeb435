"""Xen, as an HVM domain by xl (xl.cfg(5), xl-disk-configuration(5), xl(1)).

xl needs absolute paths, and reads commas and quotes in them as its own syntax. The script therefore passes paths
through a link in a temporary directory, as settings on the command line, which override those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kernel.parameters import LOAD_ADDRESS
from kgen.kits import Facts, Kit, _shell
from kgen.kits._text import JUDGE, WAIT, fill, readme

PRODUCT = "Xen"
STUB_PORT = 9999
#: Where the kernel's memory begins, and as much of it as the largest kernel takes, for QEMU's monitor.
_START, _SIZE = f"{LOAD_ADDRESS:#x}", "0x200000"

_CFG = """\
# kgen: @CASE@
# run.sh adds disk and serial, which need absolute paths; by hand they are
#   disk = [ "format=raw, vdev=hda, access=rw, backendtype=qdisk, target=/DIRECTORY/kernel.img" ]
#   serial = @SERIAL@
name = "@NAME@"
uuid = "@UUID@"
type = "hvm"
memory = 128
vcpus = @CPUS@
maxvcpus = @CPUS@
acpi = 1
apic = 1
hpet = 1
bios = "seabios"
boot = "c"
vga = "stdvga"
videoram = 16
vnc = 1
vnclisten = "127.0.0.1"
vif = [ ]
on_poweroff = "preserve"
on_reboot = "destroy"
on_crash = "preserve"
"""

_RUN = """
need xl 'run this in dom0'
[ "$(id -u)" = 0 ] || die 'must be run as root'
if xl domid "$name" >/dev/null 2>&1; then
    die "Xen has a domain $name already; if it is of this folder, end it with: sh stop.sh"
fi
[ ! -e machine-made.txt ] || die 'this folder has its domain already; end it with: sh stop.sh'

machine_runs() {
    xl domid "$name" >/dev/null 2>&1
}

# Where the domain does not start, remove what was made.
give_up() {
    if machine_runs; then
        echo 'run.sh: the domain could not be started; sh stop.sh removes what was made of it' >&2
    else
        rm -f "$directory/kit" machine-made.txt
        rmdir "$directory" 2>/dev/null || :
    fi
}

directory=$(mktemp -d)
trap give_up EXIT
trap 'exit 1' HUP INT TERM
printf '%s\\n' "$directory" >machine-made.txt
ln -s "$(pwd -P)" "$directory/kit"
put_old_log_away
xl create xl.cfg "disk=['format=raw, vdev=hda, access=rw, backendtype=qdisk, target=$directory/kit/kernel.img']" \\
    "serial=@SERIAL@"
trap - EXIT HUP INT TERM
wait_for_end
"""

_STOP = """
need xl 'run this in dom0'
[ "$(id -u)" = 0 ] || die 'must be run as root'
[ -f machine-made.txt ] || die 'this folder has no domain'
if xl domid "$name" >/dev/null 2>&1; then
    xl destroy "$name"
fi
directory=$(cat machine-made.txt)
rm -f "$directory/kit" machine-made.txt
rmdir "$directory" 2>/dev/null || :
"""


def _serial(com: int, directory: str) -> str:
    """Return xl's setting for a machine whose COMn writes the log: a list where other ports come before it."""
    log = f"'file:{directory}/serial.txt'"
    return log if com == 1 else "[" + ", ".join(["'null'"] * (com - 1) + [log]) + "]"


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    config = fill(
        _CFG,
        case=facts.case,
        serial=_serial(facts.com, "/DIRECTORY"),
        name=facts.name,
        uuid=facts.uuid,
        cpus=facts.cpus,
    )
    run = fill(_RUN, serial=_serial(facts.com, "$directory/kit"))
    return {
        "xl.cfg": config,
        "run.sh": _shell.script(
            facts,
            PRODUCT,
            "run.sh",
            "Starts the domain and waits for the end of its run.",
            run,
            root=True,
            waits=True,
        ),
        "stop.sh": _shell.script(facts, PRODUCT, "stop.sh", "Ends the domain.", _STOP, root=True),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "as root in dom0 of Xen 4.10 or newer: sh run.sh; xl.cfg is the domain."),
                ("Serial log", f"serial.txt in this folder. The screen: xl vncviewer {facts.name}"),
                (
                    "Debugger",
                    f"gdbsx, then kgen inspect kernel.elf localhost:{STUB_PORT}; NOTES.txt first: it is open to all.",
                ),
                (
                    "",
                    f"1. as root in dom0, in a terminal of its own: gdbsx -a $(xl domid {facts.name}) 32 {STUB_PORT}",
                ),
                ("", "It LISTENS ON ALL ADDRESSES of dom0 and asks for no password: close the port to others first."),
                ("", f"2. in dom0: kgen inspect kernel.elf localhost:{STUB_PORT} --serial serial.txt"),
                (
                    "",
                    f"or elsewhere: ssh -L {STUB_PORT}:localhost:{STUB_PORT} DOM0; then the same, with both files.",
                ),
                ("", "Where Xen was built without gdbsx (Debian's is): see Memory."),
                ("Memory", f"as root in dom0: xl pause {facts.name}"),
                ("", f'xl qemu-monitor-command {facts.name} "pmemsave {_START} {_SIZE} \\"$PWD/kgen.mem\\""'),
                ("", "kgen judge serial.txt --memory kgen.mem; it takes some seconds a MiB."),
                ("", f"To let it go on: xl unpause {facts.name}"),
                ("Judge", JUDGE),
                ("Cause", "as root in dom0, while the case runs: xentrace -D -e 0x000af000 -T 5 kgen.trace"),
                ("", "records the requests that Xen sends to its device model: for one XCHG a read and a write."),
                ("Path", f'xl qemu-monitor-command {facts.name} "info mtree -f" names what has the cells.'),
                ("Measured", "4.14.6, 4.17.5 and 4.20.4 of Debian: XCHG on vga-text is NOT_ATOMIC; the request of"),
                ("", "another CPU comes between the two of one exchange. On RAM it is not violated."),
                ("", "Without this kit, and without a Xen: kgen verify --platform xen-lab --release bookworm"),
                ("Stop", "sh stop.sh"),
                ("Settings", WAIT),
            ],
        ),
    }


KIT = Kit(
    name="xen",
    product=PRODUCT,
    summary="a raw disk, xl.cfg for an HVM domain, scripts for xl",
    formats=("img",),
    texts=texts,
    provides=frozenset({"hpet", "vga"}),
    # HVM_MAX_VCPUS of all releases up to 4.19
    max_cpus=128,
)
