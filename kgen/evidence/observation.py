"""The raw observation of a run: one record from each channel, the guest's serial log and the debugger's reading."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from kgen.evidence.channels import differences
from kgen.evidence.kvm_trace import TraceEvent
from kgen.evidence.mtree import PathEvidence
from kgen.evidence.records import (
    Record,
)
from kgen.evidence.scene import Scene

#: The platform whose only channel is the log: the kernel was run elsewhere.
SERIAL_ONLY = "serial-log"


class Cut(Enum):
    """Why kgen ended a run before the guest ended by itself."""

    #: The user pressed Ctrl-C.
    USER = "user"
    #: The case's time was over (--seconds).
    SECONDS = "seconds"
    #: The whole run's time was over (--timeout).
    TIMEOUT = "timeout"
    #: The guest has never printed anything.
    NO_BOOT = "no boot"
    #: The guest stopped printing.
    SILENCE = "silence"
    #: The machine could not be read, or its debugger died.
    LOST = "lost"


#: The user ended a run that was cut for one of these: a suite is not continued.
ASKED_FOR = frozenset({Cut.USER, Cut.SECONDS, Cut.TIMEOUT})


@dataclass(frozen=True)
class Observation:
    """The observation of one run."""

    platform: str
    #: The guest's own account, and the debugger's reading of its memory.
    serial: Record | None
    memory: Record | None
    #: What backs the cells of the last case.
    path: PathEvidence
    #: How the guest or the emulator died.
    crash: str = ""
    #: Why the run was ended before the guest ended by itself.
    cut: str = ""
    #: The same as a value, None where the guest ended by itself. It is not written to results.
    cut_by: Cut | None = field(default=None, compare=False)
    #: Failures of kgen or its tools.
    problems: tuple[str, ...] = ()
    #: The cells of the last case as the debugger saw them.
    cells: tuple[int, ...] = ()
    registers: tuple[Mapping[str, Any], ...] = ()
    #: The rows of the original's table, as they were printed.
    rows: tuple[tuple[int, int, int, int], ...] = ()
    #: The serial log, byte by byte (Latin-1).
    log: str = ""
    #: How long each stage took, in seconds.
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    #: What the hypervisor's kernel logged during the run, None where its log was not read.
    kernel_log: tuple[str, ...] | None = None
    #: The accesses to one cell around a witness, where that kernel records them.
    trace: tuple[TraceEvent, ...] = ()
    #: What backs the cells of a suite's cases, by the index of their phase. QEMU was asked while the guest waited
    #: before the case.
    paths: Mapping[int, PathEvidence] = field(default_factory=dict)
    #: The machine at the case's first violation, where the run was stopped there.
    scene: Scene | None = None
    #: The addresses that the handshake in memory is compared with, by the names in the kernel's ELF
    #: (kgen.verdict.consistency.symbols_of); empty where there is no ELF.
    symbols: Mapping[str, int] = field(default_factory=dict)

    @property
    def best(self) -> Record | None:
        """The record that is judged: the debugger's where there is one, otherwise the serial one."""
        return self.memory or self.serial

    @property
    def could_not_emulate(self) -> bool:
        """Return whether the accelerator ended the machine because it could not carry out an instruction."""
        return self.crash.startswith(EMULATION_FAILURE)

    @functools.cached_property
    def differences(self) -> tuple[str, ...]:
        """Where the two channels contradict each other. Computed once for all cases."""
        return differences(self.serial, self.memory) if self.serial and self.memory else ()


#: The platform of an observation from a dump of a machine's memory.
MEMORY_DUMP = "memory-dump"
#: The platform of an observation from the result code on a kernel's screen.
RESULT_CODE = "result-code"
#: The platforms without a machine whose memory could be read.
WITHOUT_MEMORY = frozenset({SERIAL_ONLY, RESULT_CODE})
#: How the crash of an accelerator that cannot carry out an instruction begins.
EMULATION_FAILURE = "the accelerator stopped with an internal error"
