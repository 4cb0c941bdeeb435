"""From a specification to the kernel's source text: Jinja2 over ``kernel_templates/``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kgen import __version__
from kgen.data import data_dir
from kgen.errors import SourceError
from kgen.experiments import Poll
from kgen.plan import Phase, layout_of, phases
from kgen.protocol import LINE_PREFIX, RECORDS, TABLE_HEADER, guest_format
from kgen.results import BUILD_ID_BYTES, CPU_TABLE, LAYOUT_VERSION, MAGIC, NO_CPU, WITNESSES_PER_KIND
from kgen.spec import MAX_BATCH, KernelSpec, experiments
from kgen.units import Source

if TYPE_CHECKING:
    from jinja2 import Environment

#: EAX on entry from our own disk loader ("KGEN").
DISK_MAGIC = 0x4B47454E
#: Where the kernel is loaded, and the page below 1 MiB that the APs start in.
LOAD_ADDRESS = 0x100000
TRAMPOLINE_ADDRESS = 0x8000
STACK_SIZE = 2048
#: A token is its round times this odd number modulo 2^32 (2^32 divided by the golden ratio).
TOKEN_STEP = 0x9E3779B1
#: Rounds at the start that make a batch of their own, so that each has its row.
SINGLE_ROUNDS = 20
ROW_MS = 100
#: How long a CPU may take to finish a batch. Generous: a busy host is no evidence.
PARK_MS = 30_000
HALT_MS = 2_000
#: How long a cell must keep a pattern before a loss in it is recorded (witness) or counted.
LOSS_PROOF_MS = 100
LOSS_CHECK_MS = 1
#: The PIT counts at 1.193182 MHz; this many counts are PIT_MS milliseconds.
PIT_MS = 10
PIT_COUNT = 11_932
PIT_POLLS = 1_000_000
PIT_SHOTS = 3
#: Bounds on polling loops, in iterations: far above what any device needs, far below for ever.
SERIAL_POLLS = 200_000
ICR_POLLS = 100_000
AWAIT_POLLS = 65_536
MUSTER_POLLS = 16_384
#: Exchanges in a row that a consumer tries on an empty cell, and then looks at the producer's progress, each with a
#: PAUSE, between one exchange and the next.
POLL_EXCHANGES = 16
POLL_LOOKS = 64
#: Looks at a flag, each followed by PAUSE, before a waiting CPU goes to sleep.
SPIN_LOOKS = 32
BROADCAST_MS = 2_000
DIRECTED_MS = 3_000
SETTLE_MS = 50

#: Interrupts that wake a sleeping CPU: from another one, and the BSP's own safety net, in ticks of the APIC's bus
#: clock (a millisecond under QEMU, some tens of them on slow buses).
WAKE_VECTOR = 0x40
TIMER_VECTOR = 0x41
TIMER_TICKS = 1_000_000
SLEEP_TRIAL_MS = 100

MSR_APIC_BASE = 0x1B
MSR_X2APIC_ID = 0x802
MSR_X2APIC_EOI = 0x80B
MSR_X2APIC_SVR = 0x80F
MSR_X2APIC_TIMER_LVT = 0x832
MSR_X2APIC_TIMER_COUNT = 0x838
MSR_X2APIC_TIMER_DIVIDE = 0x83E
MSR_X2APIC_ICR = 0x830

#: Exceptions that push an error code (SDM volume 3, table 6-1).
VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})


@dataclass(frozen=True)
class _FormView:
    """An instruction form as the templates see it."""

    name: str
    routine: str
    exchange: tuple[str, ...]


@dataclass(frozen=True)
class _PhaseView:
    """A phase as the templates see it."""

    index: int
    role: Any
    label: str
    routine: str
    cell_address: str
    cells: int
    rounds: int
    enough: int
    vga: int
    announce: int


def routine(form_name: str) -> str:
    """The part of a label that names an instruction form: put_..., consume_exchange_..., consume_read_..."""
    return form_name.replace(".", "_").replace("-", "_")


def experiment_routines(spec: KernelSpec) -> dict[str, tuple[str, bytes]]:
    """The labels of the routines that touch cells, each with a statement it must contain and that one's encoding."""
    forms = {phase.form.name: phase.form for phase in phases(spec)}
    return {
        f"{prefix}_{routine(form.name)}": form.encoding
        for form in forms.values()
        for prefix in ("put", "consume_exchange", "consume_read")
    }


def _view(phase: Phase) -> _PhaseView:
    return _PhaseView(
        index=phase.index,
        role=phase.role,
        label=phase.label,
        routine=routine(phase.form.name),
        cell_address="ram_cells" if phase.target.address is None else f"{phase.target.address:#x}",
        cells=phase.cells,
        rounds=phase.rounds,
        enough=phase.enough,
        vga=int(phase.target.vga),
        announce=int(phase.role.name == "CASE"),
    )


def crc_table() -> tuple[int, ...]:
    """The sixteen steps of CRC-32 (reflected polynomial 0xEDB88320) over four bits."""
    table = []
    for entry in range(16):
        value = entry
        for _ in range(4):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def constants(spec: KernelSpec) -> dict[str, int]:
    """Every name that the templates use as a number."""
    layout = layout_of(spec)
    return layout.constants() | {
        "LAYOUT_VERSION": LAYOUT_VERSION,
        "BUILD_ID_BYTES": BUILD_ID_BYTES,
        "CPU_TABLE": CPU_TABLE,
        "CPUS_NEEDED": spec.case.cpus,
        "PHASES": layout.phases,
        "WITNESSES_PER_KIND": WITNESSES_PER_KIND,
        "NO_CPU": NO_CPU,
        "MAX_BATCH": MAX_BATCH,
        "PRINT_EVERY": spec.print_every,
        "SINGLE_ROUNDS": SINGLE_ROUNDS,
        "ROW_MS": ROW_MS,
        "PARK_MS": PARK_MS,
        "HALT_MS": HALT_MS,
        "LOSS_PROOF_MS": LOSS_PROOF_MS,
        "LOSS_CHECK_MS": LOSS_CHECK_MS,
        "TOKEN_STEP": TOKEN_STEP,
        "TOKEN_INVERSE": pow(TOKEN_STEP, -1, 1 << 32),
        "DISK_MAGIC": DISK_MAGIC,
        "CODE_SELECTOR": 0x08,
        "DATA_SELECTOR": 0x10,
        "STACK_SIZE": STACK_SIZE,
        "TRAMPOLINE_ADDRESS": TRAMPOLINE_ADDRESS,
        "SERIAL_PORT": spec.serial_port,
        "SERIAL_DIVISOR": 115_200 // spec.baud,
        # a port read takes about a microsecond: four times as long as a FIFO of 16 bytes takes to drain
        "SERIAL_POLLS": max(SERIAL_POLLS, 4 * 16 * 10 * 1_000_000 // spec.baud),
        "PIT_COUNT": PIT_COUNT,
        "PIT_MS": PIT_MS,
        "PIT_POLLS": PIT_POLLS,
        "PIT_SHOTS": PIT_SHOTS,
        "ICR_POLLS": ICR_POLLS,
        "AWAIT_POLLS": AWAIT_POLLS,
        "MUSTER_POLLS": MUSTER_POLLS,
        "SPIN_LOOKS": SPIN_LOOKS,
        "POLL_LOOKS": POLL_LOOKS,
        "POLL_EXCHANGES": POLL_EXCHANGES,
        # where consumers differ, the odd ones exchange at once
        "PARTNER_STEP": 2 if spec.poll is Poll.BOTH else 1,
        "BROADCAST_MS": BROADCAST_MS,
        "DIRECTED_MS": DIRECTED_MS,
        "SETTLE_MS": SETTLE_MS,
        "MSR_APIC_BASE": MSR_APIC_BASE,
        "MSR_X2APIC_ID": MSR_X2APIC_ID,
        "MSR_X2APIC_EOI": MSR_X2APIC_EOI,
        "MSR_X2APIC_SVR": MSR_X2APIC_SVR,
        "MSR_X2APIC_TIMER_LVT": MSR_X2APIC_TIMER_LVT,
        "MSR_X2APIC_TIMER_COUNT": MSR_X2APIC_TIMER_COUNT,
        "MSR_X2APIC_TIMER_DIVIDE": MSR_X2APIC_TIMER_DIVIDE,
        "WAKE_VECTOR": WAKE_VECTOR,
        "TIMER_VECTOR": TIMER_VECTOR,
        "TIMER_TICKS": TIMER_TICKS,
        "SLEEP_TRIAL_MS": SLEEP_TRIAL_MS,
        "MSR_X2APIC_ICR": MSR_X2APIC_ICR,
    }


def environment() -> Environment:
    """Jinja2 over the templates: an undefined name is an error, and each file's lines are marked with its name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    class Marked(FileSystemLoader):
        """Puts ``;@ FILE`` before each template, from which the assembler tells where a bad line came from."""

        def get_source(self, environment: Environment, template: str) -> Any:
            text, filename, uptodate = super().get_source(environment, template)
            return f";@ {template}\n{text}", filename, uptodate

    made = Environment(
        loader=Marked(data_dir("kernel_templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    made.filters["quoted"] = lambda text: json.dumps(str(text))
    return made


def render_template(name: str, **values: Any) -> str:
    """One template as text. Raises SourceError."""
    from jinja2 import TemplateError

    try:
        return environment().get_template(name).render(**values)
    except TemplateError as error:
        where = getattr(error, "name", None) or name
        line = getattr(error, "lineno", None)
        raise SourceError(str(error), where=f"{where}:{line}" if line else str(where)) from error


def render(spec: KernelSpec) -> Source:
    """The kernel's whole source. Raises SourceError."""
    planned = phases(spec)
    forms = {phase.form.name: phase.form for phase in planned}
    text = render_template(
        "kernel.asm",
        constants=constants(spec),
        phases=[_view(phase) for phase in planned],
        forms=[_FormView(form.name, routine(form.name), form.exchange) for form in forms.values()],
        experiment_template=experiments()[spec.case.experiment].template,
        poll=spec.poll.name.lower(),
        print_every=spec.print_every,
        crc_table=crc_table(),
        vectors_with_error_code=VECTORS_WITH_ERROR_CODE,
        magic_low=int.from_bytes(MAGIC[:4], "little"),
        magic_high=int.from_bytes(MAGIC[4:], "little"),
        guess_ticks_per_ms=(1 << 33) // 10_000,
        table_header=TABLE_HEADER,
        line_prefix=LINE_PREFIX,
        formats={kind: guest_format(kind) for kind in RECORDS},
        version=__version__,
        case_id=spec.case.id,
        digest=spec.digest(),
    )
    return Source(name="kernel.s", text=text)
