"""Report which tools are installed, which are missing and how to install them, and boot each platform once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kgen import __version__
from kgen.build import build
from kgen.errors import KgenError, PlatformUnavailable
from kgen.host.environment import environment, first_line, kvm_parameters
from kgen.lab import cache
from kgen.lab.programs import installed
from kgen.machine.gdb import INSTALL_HINT
from kgen.machine.platform import LaunchRequest, Platform
from kgen.platforms import platforms
from kgen.platforms._qemu import find_binary, missing_binary
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.systems import systems
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

#: Starts three CPUs and passes tokens through RAM, in about a second.
CANARY = KernelSpec(Case("xchg", target="ram"), rounds=200, controls=False)
_CANARY_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    #: A tool, a platform, or a part of the host.
    subject: str
    #: ok, missing, unavailable or broken.
    state: str
    #: A version, or what is wrong and what to do.
    detail: str
    #: Whether it is the result of a canary's boot on a platform.
    platform: bool = False


def examine(options: Options) -> Iterator[Finding]:
    """Yield all findings, the fast ones first."""
    yield from tools(options)
    yield from canaries(options)


def tools(options: Options) -> Iterator[Finding]:
    """Yield findings on kgen, the host, and the programs that kgen runs."""
    about = environment()
    host = about["host"]
    yield Finding("kgen", "ok", f"{__version__} on Python {about['versions']['python']}")
    microcode = f", microcode {host['microcode']}" if "microcode" in host else ""
    cpu = host.get("cpu", host["machine"])
    yield Finding("host", "ok", f"{cpu}{microcode}, {host['cpus']} CPUs, {host['system']} {host['kernel']}")
    request = LaunchRequest(kernel=None, qemu=options.qemu)
    yield _tool("qemu", find_binary(request), missing_binary(request) or "")
    yield _tool("gdb", shutil.which(options.gdb), f"'{options.gdb}' is not to be found; {INSTALL_HINT}")
    parameters = ", ".join(f"{name}={value}" for name, value in kvm_parameters().items() if name.startswith("kvm_"))
    yield Finding("kvm", "ok" if parameters else "missing", parameters or "no KVM module with parameters is loaded")


def _tool(name: str, path: str | None, missing: str) -> Finding:
    if path is None:
        return Finding(name, "missing", missing)
    version = first_line([path, "--version"])
    return Finding(name, "ok" if version else "broken", f"{path}: {version or 'does not report its version'}")


def _places(options: Options) -> Iterator[tuple[str, Platform, Options]]:
    """Yield every platform as it is by itself, then the labs and programs of other releases that were made."""
    known = platforms()
    for name, platform in known.items():
        yield name, platform, options
    for lab in cache.labs():
        for name in cache.names(lab.key):
            if name not in systems():
                yield name, known[systems()[lab.system].platforms[0]], replace(options, lab=lab.directory)
    for made in installed():
        if made.name not in systems():
            yield (
                made.name,
                known[systems()[made.system].platforms[0]],
                replace(options, programs=made.programs, qemu=None),
            )


def canaries(options: Options) -> Iterator[Finding]:
    """Boot the canary on every platform, in every lab, and on every emulator that was made, one after the other."""
    kernel = build(CANARY)
    for name, platform, where in _places(replace(options, timeout=_CANARY_SECONDS)):
        try:
            seen = observe(kernel, platform, where)
        except PlatformUnavailable as error:
            yield Finding(name, "unavailable", error.message, platform=True)
            continue
        except KgenError as error:
            yield Finding(name, "broken", error.line, platform=True)
            continue
        verdict = judge(CANARY, seen)
        # Without controls a clean run is INCONCLUSIVE, which is what a healthy canary gives.
        well = verdict.kind is VerdictKind.INCONCLUSIVE and seen.serial is not None and seen.serial.complete
        detail = f"a canary passed {verdict.rounds} tokens in {seen.timings.get('run', 0):.1f} s"
        yield Finding(name, "ok" if well else "broken", detail if well else verdict.reason, platform=True)
