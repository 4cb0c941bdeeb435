"""Microsoft Hyper-V, by its PowerShell module (docs of the Hyper-V module: New-VM, Set-VMComPort ...).

Generation 1 has a BIOS and a VGA adapter with text memory, and is what the kit makes by default. Generation 2 has UEFI,
and no VGA memory at all. There is no debug stub. A machine may have no more CPUs than the host has logical processors.
A serial port is a named pipe, which the script reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from kgen.kits import Facts, Kit, _powershell
from kgen.kits._text import JUDGE, NEVER_RUN, WAIT, fill, readme

PRODUCT = "Hyper-V"

_HYPERV = """
if (-not (Get-Command New-VM -Module Hyper-V -ErrorAction SilentlyContinue)) {
    Stop-Script 'the Hyper-V module for PowerShell is not here; turn Hyper-V on under Windows features'
}
try {
    $vm = Get-VM | Where-Object { $_.Name -eq $name }
} catch {
    Stop-Script "Hyper-V does not answer: $_ (start this as administrator)"
}
"""

_RUN = (
    _HYPERV
    + """
if ($vm) { Stop-Script "Hyper-V has a machine $name already; if it is of this folder, remove it with stop.cmd" }
if ($Generation -ne '1' -and $Generation -ne '2') { Stop-Script '-Generation is 1 (BIOS) or 2 (UEFI)' }
$Generation = [int]$Generation
$logical = [Environment]::ProcessorCount
if ($logical -lt @CPUS@) { Stop-Script "the case needs @CPUS@ CPUs, and this computer has $logical" }
$disk = Join-Path $PSScriptRoot 'kernel.vhd'
$memory = 64MB
if ($Generation -eq 2) {
    $disk = Join-Path $PSScriptRoot 'kernel.vhdx'
    $memory = 256MB
}
$unusable = [System.IO.FileAttributes]'Compressed, SparseFile, Encrypted'
if ((Get-Item -LiteralPath $disk).Attributes -band $unusable) {
    Stop-Script "$disk is a compressed, sparse or encrypted file, which Hyper-V does not open; copy it"
}

$pipeName = $name
try {
    $vm = New-VM -Name $name -Generation $Generation -MemoryStartupBytes $memory -VHDPath $disk
    Set-VM -VM $vm -Notes $made -StaticMemory -AutomaticStartAction Nothing -AutomaticStopAction TurnOff
    Set-VM -VM $vm -CheckpointType Disabled
    Set-VMProcessor -VM $vm -Count @CPUS@
    Get-VMNetworkAdapter -VM $vm | Remove-VMNetworkAdapter
    Set-VMComPort -VM $vm -Number @COM@ -Path "\\\\.\\pipe\\$pipeName"
    if ($Generation -eq 1) {
        Set-VMBios -VM $vm -StartupOrder @('IDE', 'CD', 'LegacyNetworkAdapter', 'Floppy')
    } else {
        Set-VMFirmware -VM $vm -EnableSecureBoot Off
    }
} catch {
    Stop-Script "the machine could not be made: $_ (is this run as administrator? stop.cmd removes what was made)"
}

# The machine is the pipe's server, from its start on. What it sends before there is a reader is lost.
Move-OldLog
Write-Host 'starting; the log is serial.txt'
$clock = [System.Diagnostics.Stopwatch]::StartNew()
$start = Start-VM -VM $vm -AsJob
$pipe = New-Object System.IO.Pipes.NamedPipeClientStream('.', $pipeName, 'InOut', 'Asynchronous')
$log = [System.IO.File]::Open($serial, 'Create', 'Write', 'Read')
$ended = $false
try {
    try {
        $pipe.Connect(60000)
    } catch {
        $start | Wait-Job -Timeout 5 | Out-Null
        $start | Receive-Job -ErrorAction Continue
        Stop-Script "no serial port within 60 s: $_"
    }
    $buffer = New-Object byte[] 4096
    $tail = ''
    $quiet = [System.Diagnostics.Stopwatch]::StartNew()
    while ($true) {
        $read = $pipe.ReadAsync($buffer, 0, $buffer.Length)
        while (-not $read.Wait(500)) {
            # something may follow the last line
            if ($ended -and $quiet.Elapsed.TotalSeconds -gt 2) { break }
            if (-not $ended -and $clock.Elapsed.TotalSeconds -gt $seconds) { Stop-Late }
        }
        if (-not $read.IsCompleted -or $read.Result -eq 0) { break }
        $quiet.Restart()
        $log.Write($buffer, 0, $read.Result)
        $log.Flush()
        $tail += [System.Text.Encoding]::ASCII.GetString($buffer, 0, $read.Result)
        $ended = $ended -or ($tail -match $end)
        if ($tail.Length -gt 1000) { $tail = $tail.Substring($tail.Length - 1000) }
        if (-not $ended -and $clock.Elapsed.TotalSeconds -gt $seconds) { Stop-Late }
    }
} finally {
    $log.Dispose()
    $pipe.Dispose()
}
if (-not $ended) { Stop-Script 'the machine has ended before the run; judge the log so far: kgen judge serial.txt' }
Show-End
"""
)

_STOP = (
    _HYPERV
    + """
if (-not $vm) { Stop-Script "Hyper-V has no machine $name" }
if ($vm.Notes -ne $made) { Stop-Script "the machine $name is not of this kit: its notes are not '$made'" }
if ($vm.State -ne 'Off') { Stop-VM -VM $vm -TurnOff -Force }
Remove-VM -VM $vm -Force
"""
)


def texts(facts: Facts) -> Mapping[str, str]:
    """Return the folder's files without the kernel's own."""
    what = "Makes the machine, starts it, writes serial.txt and waits for the end of its run."
    return {
        "run.cmd": _powershell.launcher("run"),
        "run.ps1": _powershell.script(
            facts,
            PRODUCT,
            "run.ps1",
            what,
            fill(_RUN, cpus=facts.cpus, com=facts.com),
            parameters="param($Generation = '1')",
            words="[-Generation 1|2]",
            waits="own",
        ),
        "stop.cmd": _powershell.launcher("stop"),
        "stop.ps1": _powershell.script(
            facts, PRODUCT, "stop.ps1", "Switches the machine off and removes it; the folder stays.", _STOP
        ),
        **readme(
            facts,
            PRODUCT,
            [
                ("Start", "right-click run.cmd, Run as administrator."),
                ("", "UEFI, and no VGA memory: in an administrator's terminal, run.cmd -Generation 2"),
                ("Serial log", "serial.txt in this folder. run.cmd writes it, and reports the end of the run."),
                ("Screen", f"vmconnect localhost {facts.name}. Hyper-V has no debugger's stub."),
                ("Judge", JUDGE),
                ("Tried", NEVER_RUN),
                ("Stop", "stop.cmd, also as administrator, removes the machine from Hyper-V."),
                ("Settings", WAIT),
                ("", "KGEN_NO_PAUSE=1: run.cmd and stop.cmd never wait for a key at their end."),
            ],
        ),
    }


KIT = Kit(
    name="hyperv",
    product=PRODUCT,
    summary="disks for generations 1 and 2, PowerShell that also keeps the serial log",
    formats=("vhd", "vhdx"),
    texts=texts,
    provides=frozenset({"vga"}),
    max_cpus=64,
    coms=2,
    windows=True,
)
