"""Oracle VirtualBox 6.1 and 7, by VBoxManage (user manual, chapter "VBoxManage").

The debugger's options are of 7.0 and newer ("VBoxManage modifyvm", guest debugging).
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _powershell, _shell
from kgen.kits._text import JUDGE, WAIT, debugger, fill, readme

PRODUCT = "VirtualBox"
STUB_PORT = 8833
#: Interrupt lines of COM1 to COM4.
_LINES = (4, 3, 4, 3)

_RUN_SH = """
need VBoxManage 'install VirtualBox'
mark=machine-made.txt
here=$(pwd -P)
window=${1:-headless}
case $window in
    gui | headless) ;;
    *) die "$window is neither gui nor headless; $usage" ;;
esac

machine_runs() {
    VBoxManage showvminfo "$name" --machinereadable | grep -q '^VMState="\\(starting\\|running\\|paused\\)"'
}

if VBoxManage showvminfo "$name" >/dev/null 2>&1; then
    die "VirtualBox has a machine $name already; if it is of this folder, remove it with: sh stop.sh"
fi
trap 'echo "run.sh: the machine could not be started; sh stop.sh removes what was made of it" >&2' EXIT
echo "$name" >"$mark"
VBoxManage createvm --name "$name" --ostype Other --basefolder "$here/machine" --register
VBoxManage modifyvm "$name" --memory 64 --vram 16 --cpus @CPUS@ --ioapic on --hpet on --firmware bios \\
    --graphicscontroller vboxvga --boot1 disk --boot2 none --boot3 none --boot4 none --nic1 none \\
    --uart@COM@ @PORT@ @LINE@ --uartmode@COM@ file "$here/serial.txt"
# Warnings may come before the version.
case $(VBoxManage --version | tail -n 1) in
    [1-6].*) ;;
    *)
        VBoxManage modifyvm "$name" --guest-debug-provider gdb --guest-debug-io-provider tcp \\
            --guest-debug-address 127.0.0.1 --guest-debug-port @STUB@
        ;;
esac
VBoxManage storagectl "$name" --name IDE --add ide --controller PIIX4 --bootable on
VBoxManage storageattach "$name" --storagectl IDE --port 0 --device 0 --type hdd --medium "$here/kernel.vdi"
put_old_log_away
VBoxManage startvm "$name" --type "$window"
trap - EXIT
wait_for_end
"""

_STOP_SH = """
need VBoxManage 'install VirtualBox'
mark=machine-made.txt
[ -f "$mark" ] || die 'this folder has no machine'

attached() {
    VBoxManage showvminfo "$name" --machinereadable 2>/dev/null | grep -q '^"IDE-0-0"=".*kernel\\.vdi"'
}

if VBoxManage showvminfo "$name" >/dev/null 2>&1; then
    VBoxManage controlvm "$name" poweroff >/dev/null 2>&1 || :
    # Detach the disk first: it would be deleted with the machine. A machine that was just switched off is locked.
    tries=20
    while attached; do
        [ "$tries" -gt 0 ] || die "the disk of $name cannot be detached"
        VBoxManage storageattach "$name" --storagectl IDE --port 0 --device 0 --medium none >/dev/null 2>&1 || sleep 1
        tries=$((tries - 1))
    done
    VBoxManage closemedium disk "$(pwd -P)/kernel.vdi" >/dev/null 2>&1 || :
    VBoxManage unregistervm "$name" --delete
fi
rm -f "$mark"
"""

_FIND_PS1 = """
function Find-VBoxManage {
    $found = Get-Command VBoxManage.exe -ErrorAction SilentlyContinue
    if ($found) { return $found.Path }
    foreach ($root in @($env:VBOX_MSI_INSTALL_PATH, (Join-Path $env:ProgramFiles 'Oracle\\VirtualBox'))) {
        if (-not $root) { continue }
        $path = Join-Path $root 'VBoxManage.exe'
        if (Test-Path -LiteralPath $path) { return $path }
    }
    Stop-Script 'VBoxManage.exe was not found; install VirtualBox'
}

# Output on standard error is no error by itself; the exit code reports one.
function Test-VBox([string[]]$words) {
    $ErrorActionPreference = 'Continue'
    & $vbox $words 2>$null | Out-Null
    return ($LASTEXITCODE -eq 0)
}

function Invoke-VBox([string[]]$words) {
    $ErrorActionPreference = 'Continue'
    & $vbox $words
    if ($LASTEXITCODE -ne 0) { Stop-Script "VBoxManage $($words[0]) failed; stop.cmd removes what was made" }
}

$vbox = Find-VBoxManage
$mark = Join-Path $PSScriptRoot 'machine-made.txt'
$disk = Join-Path $PSScriptRoot 'kernel.vdi'
$place = @('storageattach', $name, '--storagectl', 'IDE', '--port', '0', '--device', '0')
"""

_RUN_PS1 = (
    _FIND_PS1
    + """
if (Test-VBox @('showvminfo', $name)) {
    Stop-Script "VirtualBox has a machine $name already; if it is of this folder, remove it with stop.cmd"
}
Set-Content -LiteralPath $mark -Value $made -Encoding Ascii
$base = Join-Path $PSScriptRoot 'machine'
Invoke-VBox @('createvm', '--name', $name, '--ostype', 'Other', '--basefolder', $base, '--register')
Invoke-VBox @('modifyvm', $name, '--memory', '64', '--vram', '16', '--cpus', '@CPUS@', '--ioapic', 'on')
Invoke-VBox @('modifyvm', $name, '--hpet', 'on', '--firmware', 'bios')
Invoke-VBox @('modifyvm', $name, '--graphicscontroller', 'vboxvga', '--nic1', 'none')
Invoke-VBox @('modifyvm', $name, '--boot1', 'disk', '--boot2', 'none', '--boot3', 'none', '--boot4', 'none')
Invoke-VBox @('modifyvm', $name, '--uart@COM@', '@PORT@', '@LINE@', '--uartmode@COM@', 'file', $serial)
$version = & $vbox --version | Select-Object -Last 1
if ($version -notmatch '^[1-6][.]') {
    Invoke-VBox @('modifyvm', $name, '--guest-debug-provider', 'gdb', '--guest-debug-io-provider', 'tcp')
    Invoke-VBox @('modifyvm', $name, '--guest-debug-address', '127.0.0.1', '--guest-debug-port', '@STUB@')
}
Invoke-VBox @('storagectl', $name, '--name', 'IDE', '--add', 'ide', '--controller', 'PIIX4', '--bootable', 'on')
Invoke-VBox ($place + @('--type', 'hdd', '--medium', $disk))
$window = 'headless'
if ($Gui) { $window = 'gui' }
Move-OldLog
Invoke-VBox @('startvm', $name, '--type', $window)
Wait-End {
    [bool](@(& $vbox showvminfo $name --machinereadable) -match '^VMState="(starting|running|paused)"')
}
"""
)

_STOP_PS1 = (
    _FIND_PS1
    + """
if (-not (Test-Path -LiteralPath $mark)) { Stop-Script 'this folder has no machine' }

function Test-Attached {
    $lines = @(& $vbox showvminfo $name --machinereadable)
    return [bool]($lines -match '^"IDE-0-0"=".*kernel[.]vdi"')
}

if (Test-VBox @('showvminfo', $name)) {
    Test-VBox @('controlvm', $name, 'poweroff') | Out-Null
    # Detach the disk first: it would be deleted with the machine. A machine that was just switched off is locked.
    $tries = 20
    while (Test-Attached) {
        if ($tries -le 0) { Stop-Script "the disk of $name cannot be detached" }
        $off = Test-VBox ($place + @('--medium', 'none'))
        if (-not $off) { Start-Sleep -Seconds 1 }
        $tries = $tries - 1
    }
    Test-VBox @('closemedium', 'disk', $disk) | Out-Null
    Invoke-VBox @('unregistervm', $name, '--delete')
}
Remove-Item -LiteralPath $mark
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    machine = {
        "cpus": facts.cpus,
        "com": facts.com,
        "port": f"0x{facts.port:X}",
        "line": _LINES[facts.com - 1],
        "stub": STUB_PORT,
    }
    what = "Makes the machine, starts it and waits for the end of its run."
    end = "Switches the machine off and removes it; the folder stays."
    return {
        "run.sh": _shell.script(
            facts,
            PRODUCT,
            "run.sh",
            what,
            fill(_RUN_SH, **machine),
            words="[gui|headless]",
            most=1,
            waits=True,
        ),
        "stop.sh": _shell.script(facts, PRODUCT, "stop.sh", end, _STOP_SH),
        "run.cmd": _powershell.launcher("run"),
        "run.ps1": _powershell.script(
            facts,
            PRODUCT,
            "run.ps1",
            what,
            fill(_RUN_PS1, **machine),
            parameters="param([switch]$Gui)",
            words="[-Gui]",
            waits="file",
        ),
        "stop.cmd": _powershell.launcher("stop"),
        "stop.ps1": _powershell.script(facts, PRODUCT, "stop.ps1", end, _STOP_PS1),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "sh run.sh (Windows: double-click run.cmd)."),
                ("", "With the screen: sh run.sh gui (Windows: in a terminal, run.cmd -Gui)."),
                ("Serial log", "serial.txt in this folder; the script says when the run has ended."),
                *debugger(STUB_PORT, "VirtualBox 7: "),
                ("Judge", JUDGE),
                ("Memory", f"VBoxManage controlvm {facts.name} pause"),
                ("", f"VBoxManage debugvm {facts.name} dumpvmcore --filename=memory.elf"),
                ("", "kgen judge serial.txt --memory memory.elf"),
                ("Engine", "What carries the guest out decides the verdict. VBox.log, below machine/, names it:"),
                ("", "'HM: HMR3Init: AMD-V' or 'VT-x' with 'fIemExecutesAll=false': hardware virtualisation;"),
                ("", "'fIemExecutesAll=true': VirtualBox's interpreter ('execution engine 4') or recompiler (5)."),
                ("Path", f"VBoxManage debugvm {facts.name} info mmio"),
                ("", "names the range that the cells are in, and the rings (R3, R0) that carry accesses out."),
                ("Measured", "7.2.22: XCHG on vga-text is NOT_ATOMIC in the interpreter and in the recompiler, and"),
                ("", "where ring 3 has the device (VBoxInternal/Devices/vga/0/R0Enabled 0). With AMD-V no"),
                ("", "violation, and none without LOCK either: ring 0 locks the device for a whole instruction."),
                ("", "Without this kit, on Linux and macOS: kgen verify --platform virtualbox"),
                ("Stop", "sh stop.sh (Windows: stop.cmd) removes the machine from VirtualBox."),
                ("Hosts", "x86 only, no Apple silicon. On Windows VirtualBox may itself run on Hyper-V (a turtle in"),
                ("", "the status bar): then Hyper-V is what is measured."),
                ("Settings", WAIT),
                ("", "KGEN_NO_PAUSE=1: run.cmd and stop.cmd never wait for a key at their end."),
            ],
        ),
    }


KIT = Kit(
    name="virtualbox",
    product=PRODUCT,
    summary="a disk, scripts for VBoxManage",
    formats=("vdi",),
    texts=texts,
    provides=frozenset({"hpet", "vga"}),
    # what the manual promises; some releases accept more
    max_cpus=32,
    windows=True,
)
