"""libvirt, with QEMU on KVM or on TCG (libvirt's "Domain XML format" and "QEMU command-line passthrough").

The domain is transient: it disappears when it is switched off, and it replaces no other domain. libvirt needs absolute
paths: the script replaces ``__DIRECTORY__`` by the folder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from kgen.kits import Facts, Kit, _shell
from kgen.kits._text import JUDGE, WAIT, debugger, fill, readme

PRODUCT = "libvirt"
STUB_PORT = 1234
#: The libvirt of an ordinary user, which needs no privileges.
URI = "qemu:///session"

_XML = """\
<!-- run.sh replaces __DIRECTORY__ by this folder. -->
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>@NAME@</name>
  <uuid>@UUID@</uuid>
  <description>made by kgen: @CASE@</description>
  <memory unit='MiB'>64</memory>
  <vcpu placement='static'>@CPUS@</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-passthrough'><feature policy='disable' name='arch-capabilities'/></cpu>
  <clock offset='utc'>
    <timer name='hpet' present='yes'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='__DIRECTORY__/kernel.qcow2'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <controller type='usb' index='0' model='none'/>
@SERIAL@
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <video>
      <model type='vga' vram='16384' heads='1' primary='yes'/>
    </video>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
@ARGUMENTS@
  </qemu:commandline>
</domain>
"""

_LOG_PORT = """\
    <serial type='file'>
      <source path='__DIRECTORY__/serial.txt'/>
      <target type='isa-serial' port='@PORT@'/>
    </serial>"""
#: QEMU numbers the ports in their order: without this one, the ports after it would have other numbers.
_NULL_PORT = """\
    <serial type='null'>
      <target type='isa-serial' port='@PORT@'/>
    </serial>"""

_VIRSH = """
need virsh "install libvirt's clients"
# The user's own libvirt: its QEMU reads and writes this folder as the user does.
export LIBVIRT_DEFAULT_URI="${LIBVIRT_DEFAULT_URI:-qemu:///session}"
"""

_RUN = (
    _VIRSH
    + """
accelerator=${1:-kvm}
case $accelerator in
    kvm) change='' ;;
    qemu) change="s/^<domain type='kvm'/<domain type='qemu'/; /<cpu mode='host-passthrough'/d" ;;
    *) die "the accelerator is kvm or qemu, not $accelerator" ;;
esac
virsh uri >/dev/null || die "libvirt does not answer at $LIBVIRT_DEFAULT_URI"
if virsh domuuid "$name" >/dev/null 2>&1; then
    die "libvirt has a domain $name already; if it is of this folder, end it with: sh stop.sh"
fi

machine_runs() {
    virsh domstate "$name" >/dev/null 2>&1
}

# The folder's path, quoted for XML and then for sed.
here=$(pwd -P | sed "s/&/\\\\&amp;/g; s/</\\\\&lt;/g; s/>/\\\\&gt;/g; s/'/\\\\&apos;/g" | sed 's/[&|\\]/\\\\&/g')
sed "s|__DIRECTORY__|$here|g; $change" domain.xml >domain-here.xml
put_old_log_away
virsh create --validate domain-here.xml
wait_for_end
"""
)

_STOP = (
    _VIRSH
    + """
uuid='@UUID@'
[ "$(virsh domuuid "$name" 2>/dev/null)" = "$uuid" ] || die "libvirt has no domain $name of this kit"
virsh destroy "$name"
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    ports = [fill(_NULL_PORT, port=port) for port in range(facts.com - 1)] + [fill(_LOG_PORT, port=facts.com - 1)]
    arguments = ("-gdb", f"tcp:127.0.0.1:{STUB_PORT}", *facts.fixtures)
    xml = fill(
        _XML,
        case=facts.case,
        name=facts.name,
        uuid=facts.uuid,
        cpus=facts.cpus,
        serial="\n".join(ports),
        arguments="\n".join(f"    <qemu:arg value={quoteattr(word)}/>" for word in arguments),
    )
    return {
        "domain.xml": xml,
        "run.sh": _shell.script(
            facts,
            PRODUCT,
            "run.sh",
            "Starts the domain and waits for the end of its run.",
            _RUN,
            words="[kvm|qemu]",
            most=1,
            waits=True,
        ),
        "stop.sh": _shell.script(facts, PRODUCT, "stop.sh", "Ends the domain.", fill(_STOP, uuid=facts.uuid)),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "as an ordinary user: sh run.sh (on TCG: sh run.sh qemu)"),
                ("Serial log", f"serial.txt in this folder. The screen: virt-viewer -c {URI} {facts.name}"),
                *debugger(STUB_PORT),
                ("Judge", JUDGE),
                ("Memory", f"virsh -c {URI} dump {facts.name} memory.elf --memory-only --live"),
                ("", "kgen judge serial.txt --memory memory.elf"),
                ("Stop", "sh stop.sh"),
                ("Settings", WAIT),
                ("", f"LIBVIRT_DEFAULT_URI=URI in the environment: another libvirt than {URI}."),
            ],
        ),
    }


KIT = Kit(
    name="libvirt",
    product=PRODUCT,
    summary="a qcow2 disk, the domain's XML, scripts for virsh",
    formats=("qcow2",),
    texts=texts,
    provides=frozenset({"edu", "hpet", "ivshmem", "pc-testdev", "vga"}),
    max_cpus=255,
    qemu=True,
)
