"""VMware Workstation, Player and Fusion.

The keys of a .vmx are documented in VMware's knowledge base only in part; these are the ones that Workstation itself
writes, and those of its debug stub.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _powershell, _shell
from kgen.kits._text import JUDGE, NEVER_RUN, WAIT, debugger, fill, readme

PRODUCT = "VMware Workstation, Player or Fusion"
#: The debug stub's usual port while the guest runs 32-bit code.
STUB_PORT = 8832
#: The virtual hardware of Workstation 14, Fusion 10 and newer, and the most CPUs that it has.
HARDWARE_VERSION = 14
HARDWARE_CPUS = 16
#: Of Workstation 16, Fusion 12 and newer, which take 32.
LARGE_HARDWARE_VERSION = 18

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
kind=${KGEN_VMWARE_TYPE:-}
if [ "$(uname)" = Darwin ]; then
    kind=${kind:-fusion}
    for directory in Public Library; do
        PATH="$PATH:/Applications/VMware Fusion.app/Contents/$directory"
    done
fi
need vmrun 'it comes with VMware; or open kernel.vmx in VMware and power it on'
# Where only VMware Player is installed, the type ws fails.
if [ -z "$kind" ]; then
    kind=ws
    if ! vmrun -T ws list >/dev/null 2>&1 && vmrun -T player list >/dev/null 2>&1; then
        kind=player
    fi
fi

is_listed() {
    case $(vmrun -T "$kind" list) in
        *"$(pwd -P)/kernel.vmx"*) return 0 ;;
        *) return 1 ;;
    esac
}

# VMware keeps a suspended machine's state beside its disk.
is_suspended() {
    for state in ./*.vmss; do
        [ ! -e "$state" ] || return 0
    done
    return 1
}
"""

_RUN_SH = (
    _FIND_SH
    + """
window=${1:-nogui}
case $window in
    gui | nogui) ;;
    *) die "$window is neither gui nor nogui; $usage" ;;
esac
! is_listed || die "$name runs already; end it with: sh stop.sh"
! is_suspended || die "$name is suspended and would go on where it was; end it with: sh stop.sh"

# The question starts a program, so it is not asked every second. Not every product lists what it runs.
listed=no
turns=0
machine_runs() {
    turns=$((turns + 1))
    [ "$listed" = no ] || [ $((turns % 10)) -ne 0 ] || is_listed
}

# VMware would ask what to do with an existing log.
put_old_log_away
vmrun -T "$kind" start kernel.vmx "$window" ||
    die "$name did not start as a machine of type $kind; for VMware Player set KGEN_VMWARE_TYPE=player"
! is_listed || listed=yes
wait_for_end
"""
)

_STOP_SH = (
    _FIND_SH
    + """
if ! is_listed && is_suspended; then
    # Only VMware can discard a suspended state: resume the machine and switch it off.
    # Its log starts anew.
    [ ! -e serial.txt ] || [ -e serial-kept.txt ] || cp -p serial.txt serial-kept.txt
    vmrun -T "$kind" start kernel.vmx nogui || die "$name is suspended and does not go on; discard its state in VMware"
fi
code=0
vmrun -T "$kind" stop kernel.vmx hard || code=$?
[ ! -e serial-kept.txt ] || mv -f serial-kept.txt serial.txt
[ "$code" = 0 ] || die "$name does not run; if it does: for VMware Player set KGEN_VMWARE_TYPE=player"
rm -f ./*.vmss # a machine that is off has none
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
    Stop-Script 'vmrun.exe was not found; open kernel.vmx in VMware and power it on'
}

$vmrun = Find-VMRun
$vmx = Join-Path $PSScriptRoot 'kernel.vmx'
$player = 'for VMware Player set KGEN_VMWARE_TYPE=player'

# Output on standard error is no error by itself; the exit code reports one.
function Test-VMRun([string[]]$words) {
    $ErrorActionPreference = 'Continue'
    & $vmrun $words 2>$null | Out-Null
    return ($LASTEXITCODE -eq 0)
}

# Where only VMware Player is installed, the type ws fails.
$kind = $env:KGEN_VMWARE_TYPE
if (-not $kind) {
    $kind = 'ws'
    if (-not (Test-VMRun @('-T', 'ws', 'list')) -and (Test-VMRun @('-T', 'player', 'list'))) { $kind = 'player' }
}

function Test-Listed {
    return (@(& $vmrun -T $kind list) -contains $vmx)
}

# VMware keeps a suspended machine's state beside its disk.
function Test-Suspended {
    return (@(Get-ChildItem -LiteralPath $PSScriptRoot | Where-Object { $_.Extension -eq '.vmss' }).Count -gt 0)
}
"""

_RUN_PS1 = (
    _FIND_PS1
    + """
if (Test-Listed) { Stop-Script "$name runs already; end it with stop.cmd" }
if (Test-Suspended) { Stop-Script "$name is suspended and would go on where it was; end it with stop.cmd" }
$window = 'nogui'
if ($Gui) { $window = 'gui' }
Move-OldLog
& $vmrun -T $kind start $vmx $window
if ($LASTEXITCODE -ne 0) { Stop-Script "$name did not start as a machine of type $kind; $player" }
# Not every product lists what it runs.
$listed = Test-Listed
Wait-End { -not $listed -or (Test-Listed) }
"""
)

_STOP_PS1 = (
    _FIND_PS1
    + """
$log = Join-Path $PSScriptRoot 'serial.txt'
$kept = Join-Path $PSScriptRoot 'serial-kept.txt'
if (-not (Test-Listed) -and (Test-Suspended)) {
    # Only VMware can discard a suspended state: resume the machine and switch it off.
    # Its log starts anew.
    if ((Test-Path -LiteralPath $log) -and -not (Test-Path -LiteralPath $kept)) {
        Copy-Item -LiteralPath $log -Destination $kept
    }
    & $vmrun -T $kind start $vmx nogui
    if ($LASTEXITCODE -ne 0) { Stop-Script "$name is suspended and does not go on; discard its state in VMware" }
}
& $vmrun -T $kind stop $vmx hard
$code = $LASTEXITCODE
if (Test-Path -LiteralPath $kept) { Move-Item -LiteralPath $kept -Destination $log -Force }
if ($code -ne 0) { Stop-Script "$name does not run; if it does: $player" }
# A machine that is off has no suspended state.
Get-ChildItem -LiteralPath $PSScriptRoot | Where-Object { $_.Extension -eq '.vmss' } | Remove-Item
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    vmx = fill(
        _VMX,
        hardware=HARDWARE_VERSION if facts.cpus <= HARDWARE_CPUS else LARGE_HARDWARE_VERSION,
        name=facts.name,
        case=facts.case,
        cpus=facts.cpus,
        com=facts.com - 1,
        stub=STUB_PORT,
    )
    large = [("CPUs", "this many need Workstation 16, Fusion 12 or newer.")] if facts.cpus > HARDWARE_CPUS else []
    what = "Starts the machine and waits for the end of its run."
    return {
        "kernel.vmx": vmx,
        "run.sh": _shell.script(facts, PRODUCT, "run.sh", what, _RUN_SH, words="[gui|nogui]", most=1, waits=True),
        "stop.sh": _shell.script(facts, PRODUCT, "stop.sh", "Switches the machine off.", _STOP_SH),
        "run.cmd": _powershell.launcher("run"),
        "run.ps1": _powershell.script(
            facts,
            PRODUCT,
            "run.ps1",
            what,
            _RUN_PS1,
            parameters="param([switch]$Gui)",
            words="[-Gui]",
            waits="file",
        ),
        "stop.cmd": _powershell.launcher("stop"),
        "stop.ps1": _powershell.script(facts, PRODUCT, "stop.ps1", "Switches the machine off.", _STOP_PS1),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "sh run.sh (Windows: double-click run.cmd); or open kernel.vmx in VMware and power it on."),
                ("", "With the screen: sh run.sh gui (Windows: in a terminal, run.cmd -Gui)."),
                ("Serial log", "serial.txt in this folder; the script says when the run has ended."),
                *debugger(STUB_PORT),
                ("Judge", JUDGE),
                ("Tried", NEVER_RUN),
                (
                    "Memory",
                    "suspend the machine (vmrun suspend kernel.vmx), judge it, then stop it:",
                ),
                ("", "kgen judge serial.txt --memory FILE.vmem"),
                ("Stop", "sh stop.sh (Windows: stop.cmd), suspended or not. VMware keeps nothing outside this folder."),
                ("Hosts", "x86 only, no Apple silicon. On Windows VMware may itself run on Hyper-V, where that is"),
                ("", "turned on: then Hyper-V is what is measured."),
                *large,
                ("Settings", WAIT),
                ("", "KGEN_VMWARE_TYPE=player: VMware Player, where the script does not detect it."),
                ("", "KGEN_NO_PAUSE=1: run.cmd and stop.cmd never wait for a key at their end."),
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
    # of virtual hardware 18
    max_cpus=32,
    windows=True,
)
