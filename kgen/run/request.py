"""A request: what the command line and the library both build and carry out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kgen.errors import SpecError
from kgen.files import check_program
from kgen.lab.build import Tools, Watcher, ensure
from kgen.lab.recipe import Choice
from kgen.lab.recipe import check as check_lab
from kgen.machine.platform import LaunchRequest, Platform
from kgen.run.canary import canary
from kgen.run.options import Options, check_available, check_choices, request_of
from kgen.spec import KernelSpec

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
    #: The parts that the lab is made of; by default the distribution's.
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
    if platform.engine != "qemu" and options.qemu:
        raise SpecError(f"--qemu is for QEMU, and {platform.name} is none", hint="leave it out")
    pieces = {"kernel": request.choice.kernel, "modules": request.choice.modules, "inner-qemu": request.choice.qemu}
    given = [f"--{name}" for name, value in pieces.items() if value]
    if platform.supervise is None and given:
        raise SpecError("this is a part of the lab", where=" and ".join(given), hint="choose --platform kvm-lab")
    check_choice(request.choice)
    check_choices(platform, request.launch)


def check_choice(choice: Choice) -> None:
    """Raise SpecError for parts of a lab that are of the wrong kind."""
    check_program("--inner-qemu", choice.qemu)
    check_lab(choice)


def ready(request: Request, watcher: Watcher = lambda stage: None) -> Request:
    """Return the request with the lab that it chose, which is made if it does not exist. ``watcher`` is called with
    each stage of that. Raises PlatformUnavailable where the request cannot run here, MachineError where the lab cannot
    be made."""
    if not request.choice.is_default:
        lab = ensure(request.choice, Tools(request.options.qemu, request.options.gdb), watcher, canary)
        request = replace(request, options=replace(request.options, lab=lab.directory))
    check_available(request.spec, request.platform, request.launch)
    return request
