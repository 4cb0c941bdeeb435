"""The code that the CPUs ran: the part of the listing in which they touch the cells, from the kernel built again."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen.experiments import Poll
from kgen.kernel.plan import experiment_of, phases_of, work_of
from kgen.report.reproduce.rebuilt import rebuilt
from kgen.spec import KernelSpec

if TYPE_CHECKING:
    from kgen.toolchain.assembly import Assembly


@dataclass(frozen=True)
class Loop:
    """Routines of the kernel that some CPUs run in a phase."""

    #: The CPUs, in words.
    cpus: str
    routines: tuple[str, ...]


def loops(spec: KernelSpec, number: int) -> tuple[Loop, ...]:
    """Return which CPUs run which routines in the case of that number, the routine with the tested instruction last."""
    phase = phases_of(spec, number)[-1]
    case = spec.cases[number]
    work = work_of(phase, case.instruction)
    experiment = experiment_of(phase)
    if not experiment.tabled:
        routines = tuple(dict.fromkeys(routine.label for routine in work.routines))
        return (Loop(f"every CPU, 0 to {case.cpus - 1}", ("walk_work", f"{experiment.prefix}_visit", *routines)),)
    producer = Loop("CPU 0, the producer", ("token_put", work.put.label))
    if spec.poll is not Poll.BOTH:
        each = f"CPUs 1 to {case.cpus - 1}, the consumers"
        return producer, Loop(each, (f"consume_{spec.poll.name.lower()}", work.take.label))
    return (
        producer,
        Loop(f"{_numbers(1, case.cpus)}, exchanging at once", ("consume_exchange", work.take.label)),
        Loop(f"{_numbers(2, case.cpus)}, reading first", ("consume_read", work.take.label)),
    )


@functools.lru_cache(maxsize=16)
def listed(spec: KernelSpec, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the listing of each of these routines without line numbers, with an empty line between two routines; ()
    where the kernel cannot be built."""
    kernel = rebuilt(spec).kernel
    return tuple(_listed(kernel.assembly, names)) if kernel else ()


def _listed(assembly: Assembly, names: Iterable[str]) -> Iterator[str]:
    from kgen.toolchain.listing import listing

    source = assembly.source.text.split("\n")
    lines = listing(assembly).split("\n")
    for count, name in enumerate(names):
        code = assembly.code_of(name)
        label = f"{name}:"
        if not code or label not in source:
            continue
        if count:
            yield ""
        first = source.index(label)
        for line in lines[first : max(each.line for each in code)]:
            # address and bytes, then the text: columns of the listing
            yield f"{line[:27]}{line[34:]}".rstrip()


def _numbers(first: int, cpus: int) -> str:
    """Return every other CPU from that one on."""
    found = [str(number) for number in range(first, cpus, 2)]
    shown = ", ".join(found[:3]) + (f" ... {found[-1]}" if len(found) > 3 else "")
    return f"CPU{'s' if len(found) > 1 else ''} {shown}"
