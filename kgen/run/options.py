"""How to run: the caller's choices, and checks that the platform supports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kgen.errors import PlatformUnavailable, SpecError
from kgen.machine.platform import CHOICES, LaunchRequest, Platform
from kgen.media import formats
from kgen.spec import Case, KernelSpec
from kgen.spec.case import resolve_target

#: The option that stops the run at the case's first violation.
STOP = "--stop-on-violation"


@dataclass(frozen=True)
class Options:
    """How to run. None leaves a choice to the platform."""

    #: The program to run as QEMU.
    qemu: str | None = None
    #: The program to run as gdb.
    gdb: str = "gdb"
    #: Further arguments of the emulator.
    extra: tuple[str, ...] = ()
    #: The time after which the case is ended, None for no such time.
    seconds: float | None = None
    #: The time after which the whole run is given up, None for no such time: then only a silent guest is given up.
    timeout: float | None = 600.0
    #: The host CPUs that the emulator may use; empty: all.
    pin: frozenset[int] = frozenset()
    #: The directory of the lab to use.
    lab: Path | None = None
    #: The directory with the emulator's programs of another release.
    programs: Path | None = None
    #: How lab or programs are made, for the observation's environment.
    origin: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the machine is frozen at the case's first violation.
    stop_on_violation: bool = False
    #: The moment of scene.place_to_begin at which it is frozen, "" for none.
    moment: str = ""
    #: The board; it and the fields after it choose the machine (LaunchRequest).
    machine: str | None = None
    vga: str | None = None
    firmware: str | None = None
    cpu: str | None = None
    boot: str | None = None
    engine: str | None = None
    ring3: bool = False

    @property
    def waits_for_breakpoint(self) -> bool:
        """Whether the machine is to be stopped at a breakpoint."""
        return self.stop_on_violation or bool(self.moment)


def request_of(spec: KernelSpec, options: Options) -> LaunchRequest:
    """Return the machine that a kernel of this specification needs, without the kernel.

    Raises SpecError for a suite that is to stop at a violation: a suite goes on after one.
    """
    if spec.suite and options.stop_on_violation:
        raise SpecError("it is for one case", where=STOP, hint="name the case")
    places = dict.fromkeys(resolve_target(case.target) for case in spec.cases)
    return LaunchRequest(
        kernel=None,
        cpus=spec.case.cpus,
        qemu=options.qemu,
        extra=options.extra,
        lab=options.lab,
        programs=options.programs,
        serial_port=spec.serial_port,
        append="attend=0x1" if spec.suite else "",
        paused=options.waits_for_breakpoint,
        fixtures=tuple(word for target in places for word in target.qemu),
        **{name: getattr(options, name) for name in CHOICES},
    )


def check_choices(platform: Platform, request: LaunchRequest) -> None:
    """Raise SpecError for choices that this platform does not have, or that exclude each other."""
    for name in CHOICES:
        if getattr(request, name) == "":
            raise SpecError("it names nothing", where=f"--{name}", hint="leave it out")
        if getattr(request, name) not in (None, False) and name not in platform.options:
            having = ", ".join(f"--{each}" for each in CHOICES if each in platform.options)
            hint = f"there you may choose {having}" if having else "leave it out"
            raise SpecError(f"{platform.name} offers no choice of it", where=f"--{name}", hint=hint)
    if request.paused and platform.breakpoints == "none":
        raise SpecError(
            f"no breakpoint hits on {platform.name}: it cannot be stopped there", where=STOP, hint="leave it out"
        )
    wanted = platform.medium(request)
    if wanted and wanted not in formats():
        where = f"--boot {request.boot}"
        raise SpecError(f"this kgen makes no {wanted} image", where=where, hint="choose another medium")


#: Words for capabilities of a platform whose names do not explain them.
_DEVICES = {
    "edu": "edu device",
    "hpet": "HPET",
    "ivshmem": "ivshmem device",
    "pc-testdev": "pc-testdev device",
    "vga": "VGA adapter",
}


def lacking(case: Case, platform: Platform) -> str:
    """Return what a platform does not have for this case, "" where it has everything."""
    missing = resolve_target(case.target).requires - platform.provides
    return " and ".join(f"no {_DEVICES.get(each, each)}" for each in sorted(missing))


def runnable(spec: KernelSpec, platform: Platform) -> KernelSpec:
    """Return a suite without the cases that a platform has no device for. One that would have no case left is returned
    as it is."""
    cases = tuple(case for case in spec.cases if not lacking(case, platform))
    return replace(spec, case=cases[0], more=cases[1:]) if cases else spec


def check_available(spec: KernelSpec, platform: Platform, request: LaunchRequest) -> None:
    """Raise PlatformUnavailable where one of these cases cannot run on this platform here."""
    for case in spec.cases:
        if missing := lacking(case, platform):
            raise PlatformUnavailable(f"the platform has {missing}", where=platform.name, hint="choose another target")
    reason = platform.unavailable(request)
    if reason:
        raise PlatformUnavailable(reason, where=platform.name)
