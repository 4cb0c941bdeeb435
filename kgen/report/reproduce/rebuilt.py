"""The kernel of a result, built again: the same request makes the same bytes, in the same version of kgen."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kgen.errors import KgenError
from kgen.report.results.model import Run
from kgen.spec import KernelSpec

if TYPE_CHECKING:
    from kgen.build import Kernel


@dataclass(frozen=True)
class Rebuilt:
    """The kernel of a result, built again."""

    #: None where this kgen cannot build it.
    kernel: Kernel | None
    #: The reason, where it cannot.
    why: str = ""


@functools.lru_cache(maxsize=8)
def rebuilt(spec: KernelSpec) -> Rebuilt:
    """Return the kernel of that request."""
    from kgen.build import build

    try:
        return Rebuilt(build(spec))
    except KgenError as error:
        return Rebuilt(None, error.line)


def build_ids(run: Run) -> tuple[str, ...]:
    """Return the build ids that the guests of a run named, in order, each once. They are whatever the result holds."""
    records = (result.observation.best for result in run.results)
    return tuple(dict.fromkeys(record.build_id for record in records if record is not None and record.build_id))
