"""A short run that a new lab must pass before it is published."""

from __future__ import annotations

from kgen.build import build
from kgen.errors import MachineError
from kgen.lab.build import Tools
from kgen.lab.cache import Lab
from kgen.platforms import platform_named
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec import Case, KernelSpec
from kgen.systems import system_named
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

#: Three CPUs pass tokens through the inner machine's RAM, where KVM has no defect.
CANARY = KernelSpec(Case("xchg", target="ram"), rounds=100, controls=False)
CANARY_SECONDS = 180.0


def canary(lab: Lab, tools: Tools) -> None:
    """Run the canary in the lab. Raises MachineError where its result is not as expected."""
    there = system_named(lab.system)
    options = Options(qemu=tools.qemu, gdb=tools.gdb, timeout=CANARY_SECONDS, lab=lab.directory)
    seen = observe(build(CANARY), platform_named(there.platforms[0]), options)
    verdict = judge(CANARY, seen)
    # Without controls a clean run is INCONCLUSIVE.
    complete = seen.serial is not None and seen.serial.complete and seen.memory is not None and seen.memory.complete
    if verdict.kind is not VerdictKind.INCONCLUSIVE or not complete:
        raise MachineError(f"the canary in the lab failed: {verdict.reason}", where="the lab")
