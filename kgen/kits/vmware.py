"""VMware Workstation, Player and Fusion.

The keys of a .vmx are documented in VMware's knowledge base only in part; these are the ones that Workstation itself
writes, and those of its debug stub.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _powershell, _shell
from kgen.kits._text import JUDGE, fill, readme

PRODUCT = "VMware Workstation, Player or Fusion"
#: The debug stub's usual port while the guest runs 32-bit code.
STUB_PORT = 8832
#: Of Workstation 14, Fusion 10 and newer.
HARDWARE_VERSION = 14

_VMX = """\
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "@HARDWARE@"
displayName = "@NAME@"
annotation = "made by kgen: @CASE@"
guestOS = "other"
firmware = "bios"
memsize = "64"
mainMem.useNamedFile = "TRUE"
numvcpus = "@CPUS@"
cpuid.coresPerSocket = "@CPUS@"
pciBridge0.present = "TRUE"
hpet0.present = "TRUE"
ide0:0.present = "TRUE"
ide0:0.deviceType = "disk"
ide0:0.fileName = "kernel.vmdk"
serial@COM@.present = "TRUE"
serial@COM@.startConnected = "TRUE"
serial@COM@.fileType = "file"
serial@COM@.fileName = "serial.txt"
serial@COM@.yieldOnMsrRead = "TRUE"
debugStub.listen.guest32 = "TRUE"
debugStub.port.guest32 = "@STUB@"
debugStub.hideBreakpoints = "TRUE"
answer.msg.serial.file.open = "Replace"
msg.autoAnswer = "TRUE"
uuid.action = "create"
floppy0.present = "FALSE"
ethernet0.present = "FALSE"
sound.present = "FALSE"
usb.present = "FALSE"
mks.enable3d = "FALSE"
tools.syncTime = "FALSE"
tools.upgrade.policy = "manual"
powerType.powerOff = "hard"
"""

_FIND_SH = """
kind=${KGEN_VMWARE_TYPE:-ws}
if [ "$(uname)" = Darwin ]; then
    kind=fusion
    for directory in Public Library; do
        PATH="$PATH:/Applications/VMware Fusion.app/Contents/$directory"
    done
fi
need vmrun 'it comes with VMware; or open kernel.vmx in VMware and power it on'
"""

_RUN_SH = (
    _FIND_SH
    + """
# VMware would ask what to do with a log that is there.
case $(vmrun -T "$kind" list) in
    *"$(pwd -P)/kernel.vmx"*) die "$name runs already; end it with: sh stop.sh" ;;
esac
machine_runs() {
    :
}
put_old_log_away
vmrun -T "$kind" start kernel.vmx "${1:-nogui}"
wait_for_end
"""
)

_STOP_SH = (
    _FIND_SH
    + """
vmrun -T "$kind" stop kernel.vmx hard || die "$name does not run"
"""
)

_FIND_PS1 = """
function Find-VMRun {
    $found = Get-Command vmrun.exe -ErrorAction SilentlyContinue
    if ($found) { return $found.Path }
    foreach ($root in @($env:ProgramFiles, ${env:ProgramFiles(x86)})) {
        if (-not $root) { continue }
        foreach ($product in @('VMware Workstation', 'VMware VIX', 'VMware Player')) {
            $path = Join-Path (Join-Path (Join-Path $root 'VMware') $product) 'vmrun.exe'
            if (Test-Path -LiteralPath $path) { return $path }
        }
    }
    Stop-Script 'vmrun.exe is nowhere; or open kernel.vmx in VMware and power it on'
}

$vmrun = Find-VMRun
$vmx = Join-Path $PSScriptRoot 'kernel.vmx'
$kind = 'ws'
if ($env:KGEN_VMWARE_TYPE) { $kind = $env:KGEN_VMWARE_TYPE }
"""

_RUN_PS1 = (
    _FIND_PS1
    + """
$running = @(& $vmrun -T $kind list)
if ($running -contains $vmx) { Stop-Script "$name runs already; end it with stop.cmd" }
Move-OldLog
$window = 'nogui'
if ($Gui) { $window = 'gui' }
& $vmrun -T $kind start $vmx $window
if ($LASTEXITCODE -ne 0) { Stop-Script "$name did not start" }
Wait-End
"""
)

_STOP_PS1 = (
    _FIND_PS1
    + """
& $vmrun -T $kind stop $vmx hard
if ($LASTEXITCODE -ne 0) { Stop-Script "$name does not run" }
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """The folder's files but for the kernel's own."""
    vmx = fill(
        _VMX,
        hardware=HARDWARE_VERSION,
        name=facts.name,
        case=facts.case,
        cpus=facts.cpus,
        com=facts.com - 1,
        stub=STUB_PORT,
    )
    what = "Starts the machine and waits for the end of its run."
    return {
        "kernel.vmx": vmx,
        "run.sh": _shell.script(facts, PRODUCT, "run.sh", f"{what} Usage: sh run.sh [gui|nogui]", _RUN_SH, waits=True),
        "stop.sh": _shell.script(facts, PRODUCT, "stop.sh", "Switches the machine off. Usage: sh stop.sh", _STOP_SH),
        "run.cmd": _powershell.launcher("run"),
        "run.ps1": _powershell.script(
            facts,
            PRODUCT,
            "run.ps1",
            f"{what} Usage: run.cmd [-Gui]",
            _RUN_PS1,
            parameters="param([switch]$Gui)",
            waits="file",
        ),
        "stop.cmd": _powershell.launcher("stop"),
        "stop.ps1": _powershell.script(facts, PRODUCT, "stop.ps1", "Switches the machine off.", _STOP_PS1),
        "README.txt": readme(
            facts,
            PRODUCT,
            [
                ("Start", "sh run.sh (Windows: run.cmd); or open kernel.vmx in VMware and power it on."),
                ("Serial log", "serial.txt in this folder; the script says when the run has ended."),
                ("Debugger", f"kgen inspect kernel.elf localhost:{STUB_PORT} --serial serial.txt"),
                ("Judge", JUDGE),
                ("Memory", "suspend the machine (vmrun suspend kernel.vmx); kgen judge --memory FILE.vmem"),
                ("Stop", "sh stop.sh (Windows: stop.cmd). VMware keeps nothing outside this folder."),
            ],
        ),
    }


KIT = Kit(
    name="vmware",
    product=PRODUCT,
    summary="a .vmx with its disk, scripts for vmrun",
    formats=("vmdk",),
    texts=texts,
    provides=frozenset({"hpet", "vga"}),
    # of Workstation 16; older ones take 16
    max_cpus=32,
    windows=True,
)
