"""A request: what the command line and the library both build and carry out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from kgen.errors import SpecError
from kgen.files import check_program
from kgen.lab import cache
from kgen.lab.build import Tools, command, ensure
from kgen.lab.choice import Choice
from kgen.lab.programs import ensure_programs
from kgen.lab.system import System, Watcher, choice_of
from kgen.lab.system import check as check_system
from kgen.machine.platform import LaunchRequest, Platform
from kgen.run.canary import canary
from kgen.run.options import Options, check_available, check_choices, request_of, runnable
from kgen.spec import KernelSpec
from kgen.systems import system_of, systems

#: Arguments of QEMU with which kgen would lose control of the machine, and why. Of several gdb stubs QEMU opens only
#: the last.
_OURS = {
    f"{dashes}{name}": why
    for dashes in ("-", "--")
    for name, why in (
        ("daemonize", "kgen must be able to watch and end QEMU"),
        ("gdb", "the gdb stub is how kgen reads the machine; --keep leaves it to you"),
        ("s", "the gdb stub is how kgen reads the machine; --keep leaves it to you"),
    )
}


@dataclass(frozen=True)
class Request:
    """What to run, where, and how."""

    #: The kernel to build.
    spec: KernelSpec
    #: Where it runs.
    platform: Platform
    #: How it runs.
    options: Options = field(default_factory=Options)
    #: The parts that the lab is made of, or the release that the emulator is of; by default the distribution's.
    choice: Choice = field(default_factory=Choice)

    @property
    def launch(self) -> LaunchRequest:
        """The machine that the request needs, without the kernel."""
        return request_of(self.spec, self.options)


def check(request: Request) -> None:
    """Check a request before anything is built. Raises SpecError for what is wrong."""
    options, platform = request.options, request.platform
    check_program("--gdb", options.gdb if options.gdb != Options().gdb else None)
    check_program("--qemu", options.qemu)
    for argument in options.extra:
        if argument in _OURS:
            raise SpecError(_OURS[argument], where=argument, hint="leave it out")
    if platform.engine != "qemu" and platform.supervise is None and options.qemu:
        raise SpecError(f"--qemu is for QEMU, and {platform.name} is none", hint="leave it out")
    system = system_of(platform.name)
    if not request.choice.is_default:
        _check_parts(platform, system, request.choice)
        assert system is not None
        check_choice(system, request.choice)
        if not system.in_lab and options.qemu:
            raise SpecError("the release brings its own", where=f"--qemu {options.qemu}", hint="leave one out")
    check_choices(platform, request.launch)


def _check_parts(platform: Platform, system: System | None, choice: Choice) -> None:
    """Raise SpecError for parts that this platform does not have, with the platform that does."""
    known = frozenset() if system is None else system.options
    given = [option for option in choice.options() if option.removeprefix("--") not in known]
    if not given:
        return
    wanted = {option.removeprefix("--") for option in choice.options()}
    having = [each.platforms[0] for each in systems().values() if wanted <= each.options]
    hint = f"choose --platform {' or '.join(having)}" if having else "no system has all of these: leave one out"
    raise SpecError(f"this is no part of {platform.name}", where=" and ".join(given), hint=hint)


def check_choice(system: System, choice: Choice) -> None:
    """Raise SpecError for parts of a system that it does not offer, or that are of the wrong kind."""
    check_program("--inner-qemu", choice.qemu)
    check_system(system, choice)


def ready(request: Request, watcher: Watcher = lambda stage: None) -> Request:
    """Return the request with the lab, or the programs, that it chose. A lab is made if it does not exist and nothing
    has to be downloaded for it. ``watcher`` is called with each stage of that. Raises PlatformUnavailable where the
    request cannot run here, MachineError where the lab cannot be made."""
    system = system_of(request.platform.name)
    if system is not None and (system.in_lab or not request.choice.is_default):
        options = request.options
        if request.choice.is_default and not system.of_host and (used := cache.last_used(system.name)):
            request = replace(request, choice=choice_of(system, used.name))
        origin: dict[str, Any] = {"prepare": list(command(system, request.choice))}
        if request.choice.is_default:
            options = replace(options, origin=origin)
        elif system.in_lab:
            lab = ensure(system, request.choice, Tools(options.qemu, options.gdb), watcher, canary)
            options = replace(options, lab=lab.directory, origin=origin)
        else:
            made = ensure_programs(system, request.choice)
            origin |= {"release": request.choice.release, "sources": dict(made.sources)}
            options = replace(options, programs=made.programs, origin=origin)
        request = replace(request, options=options)
    check_available(runnable(request.spec, request.platform), request.platform, request.launch)
    return request
