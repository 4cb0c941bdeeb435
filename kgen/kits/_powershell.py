"""What the kits' Windows scripts share: PowerShell 5.1 or newer, and a batch file to start it by a double click."""

from __future__ import annotations

from kgen.kits import Facts
from kgen.kits._text import fill

#: The default execution policy of Windows allows no script. This batch file allows this one.
_LAUNCHER = """\
@echo off
rem kgen: starts @SCRIPT@ in this folder.
setlocal
where powershell.exe >nul 2>nul
if errorlevel 1 (
    echo @LAUNCHER@: there is no powershell.exe in the PATH 1>&2
    exit /b 1
)
powershell.exe -NoProfile -ExecutionPolicy Bypass -File "%~dp0@SCRIPT@" %*
set "code=%errorlevel%"
rem A double click opens a window that closes when this file ends; the command line then names this file.
set "line=%cmdcmdline:"=%"
if not defined KGEN_NO_PAUSE if not "%line:@LAUNCHER@=%"=="%line%" pause
exit /b %code%
"""

_HEAD = """\
# kgen on @PRODUCT@: @CASE@
# @WHAT@
@PARAMETERS@
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$name = '@NAME@'
$made = 'made by kgen: @CASE@'

function Stop-Script([string]$text) {
    [Console]::Error.WriteLine('@SCRIPT@: ' + $text)
    exit 1
}

if ($args.Count -gt 0) { Stop-Script '@USAGE@' }
"""

_WAIT = """
$seconds = @SECONDS@
if ($env:KGEN_SECONDS) {
    if ($env:KGEN_SECONDS -notmatch '^[0-9]{1,7}$') {
        Stop-Script "KGEN_SECONDS=$env:KGEN_SECONDS is not a number of seconds"
    }
    $seconds = [int]$env:KGEN_SECONDS
}
$serial = Join-Path $PSScriptRoot 'serial.txt'
$end = '(?m)^kgen:[0-9]+ end [^\\n]*\\n'

# Keep the log of the run before.
function Move-OldLog {
    if (Test-Path -LiteralPath $serial) {
        Move-Item -LiteralPath $serial -Destination (Join-Path $PSScriptRoot 'serial-old.txt') -Force
    }
}

function Show-End {
    Write-Host 'the run has ended; judge it with: kgen judge serial.txt'
}

function Stop-Late {
    Stop-Script "no end of the run in $seconds s (KGEN_SECONDS=N waits longer); the log so far: kgen judge serial.txt"
}
"""

_WATCH = """
function Test-End {
    if (-not (Test-Path -LiteralPath $serial)) { return $false }
    try {
        $file = [System.IO.File]::Open($serial, 'Open', 'Read', 'ReadWrite, Delete')
    } catch {
        return $false
    }
    try {
        $script:said = $file.Length
        $reader = New-Object System.IO.StreamReader($file, [System.Text.Encoding]::ASCII)
        return ($reader.ReadToEnd() -match $end)
    } finally {
        $file.Dispose()
    }
}

# $alive returns whether the machine still runs. It starts a program, so it is not called every second.
function Wait-End([scriptblock]$alive) {
    Write-Host 'waiting for the end of the run; its log is serial.txt'
    $clock = [System.Diagnostics.Stopwatch]::StartNew()
    $tries = 0
    $warned = $false
    $script:said = 0
    while (-not (Test-End)) {
        if (-not $warned -and $script:said -eq 0 -and $clock.Elapsed.TotalSeconds -gt 60) {
            $warned = $true
            Write-Warning 'serial.txt is empty: is its file the port that the kernel writes to?'
        }
        if ($clock.Elapsed.TotalSeconds -gt $seconds) { Stop-Late }
        Start-Sleep -Seconds 1
        $tries = $tries + 1
        if ($tries % 10 -eq 0 -and -not (& $alive)) {
            Start-Sleep -Seconds 1
            if (Test-End) { break }
            Stop-Script 'the machine has ended before the run; judge the log so far: kgen judge serial.txt'
        }
    }
    Start-Sleep -Seconds 2 # for what follows the last line
    Show-End
}
"""


def launcher(name: str) -> str:
    """Return the batch file that runs ``name``.ps1."""
    return fill(_LAUNCHER, script=f"{name}.ps1", launcher=f"{name}.cmd")


def script(
    facts: Facts,
    product: str,
    name: str,
    what: str,
    body: str,
    *,
    parameters: str = "param()",
    words: str = "",
    waits: str = "",
) -> str:
    """Return a PowerShell script: its head and ``body``.

    ``name`` is the script's file, ``what`` the comment that says what it does, ``words`` its arguments as the usage has
    them, ``parameters`` its ``param`` block. ``waits`` is "file" for the functions that watch a file that the product
    writes, "own" where the script itself writes ``$serial`` and looks for ``$end``.
    """
    head = fill(
        _HEAD,
        product=product,
        case=facts.case,
        what=what,
        parameters=parameters,
        name=facts.name,
        script=name,
        usage=f"usage: {name.removesuffix('.ps1')}.cmd {words}".rstrip(),
    )
    wait = fill(_WAIT, seconds=facts.seconds) if waits else ""
    return head + wait + (_WATCH if waits == "file" else "") + body
