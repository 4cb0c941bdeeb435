"""The numbers that the templates are rendered with: distances, deadlines, ports, registers, sizes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from kgen.experiments import Poll
from kgen.experiments.parity import STARTS as PARITY_STARTS
from kgen.instructions import TORN
from kgen.kernel import code_alphabet, font, live
from kgen.kernel.plan import Phase, experiment_of, layout_of, phases, work_in
from kgen.kernel.results_block import (
    BUILD_ID_BYTES,
    CPU_TABLE,
    EVENTS,
    LAYOUT_VERSION,
    NO_CPU,
    NO_PHASE,
    Cpu,
    KernelState,
    Operation,
)
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_BATCH, PAGE, resolve_target

#: EAX on entry from our own disk loader ("KGEN").
DISK_MAGIC = 0x4B47454E


#: EAX on entry from our own UEFI application ("KGEU"); EBX points to a Handover.
UEFI_MAGIC = 0x4B474555


#: Where the kernel is loaded, and the page below 1 MiB that the APs start in.
LOAD_ADDRESS = 0x100000


TRAMPOLINE_ADDRESS = 0x8000


STACK_SIZE = 2048


#: A token is its round number times this odd number (2^32 divided by the golden ratio), modulo 2^32.
TOKEN_STEP = 0x9E3779B1


TOKEN_INVERSE = pow(TOKEN_STEP, -1, 1 << 32)


#: The first rounds, each of which is a batch of its own and so has its own row.
SINGLE_ROUNDS = 20


ROW_MS = 100


#: How long a CPU may take to finish a batch. The limit is generous, because a busy host is no evidence of a defect.
PARK_MS = 30_000


HALT_MS = 2_000


#: How long a cell must keep a pattern before a loss in it is recorded (as a witness) or counted.
LOSS_PROOF_MS = 100


LOSS_CHECK_MS = 1


#: How long one measurement of the TSC takes, in milliseconds. The PIT counts at 1.193182 MHz: so many counts.
CLOCK_MS = 10


PIT_COUNT = 11_932


#: ACPI's power management timer counts at 3.579545 MHz (ACPI 6.5, 4.8.3.3); counts in a millisecond.
PM_TIMER_PER_MS = 3_580


#: Looks at a timer in one measurement; good measurements that are made, and attempts at them.
CLOCK_POLLS = 1_000_000


CLOCK_SHOTS = 3


CLOCK_TRIES = 8


#: How often the timers are measured until two sources agree.
CLOCK_ROUNDS = 5


#: Bounds on polling loops, in iterations, far above what any device needs.
SERIAL_POLLS = 200_000


ICR_POLLS = 100_000


AWAIT_POLLS = 65_536


MUSTER_POLLS = 16_384


#: How many exchanges in a row a consumer tries on an empty cell; and how often it then reads the producer's progress
#: between two exchanges, each time with a PAUSE.
POLL_EXCHANGES = 16


POLL_LOOKS = 64


#: How often a waiting CPU reads a flag, each time with a PAUSE, before it sleeps.
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


#: The default address of local APICs (SDM volume 3, 10.4.1), and how many APIC ids are distinguished.
APIC_HOME = 0xFEE00000


APIC_IDS = 4096


#: The longest ACPI table that is read, in bytes.
ACPI_TABLE_BYTES = 1 << 20


MSR_APIC_BASE = 0x1B


MSR_X2APIC_ID = 0x802


MSR_X2APIC_EOI = 0x80B


MSR_X2APIC_SVR = 0x80F


MSR_X2APIC_TIMER_LVT = 0x832


MSR_X2APIC_TIMER_COUNT = 0x838


MSR_X2APIC_TIMER_DIVIDE = 0x83E


MSR_X2APIC_ICR = 0x830


#: In a batch of a walk each CPU does this many operations, twice or four times as many, in turn.
FIRST_REPEAT = 8


#: How many batches of one phase follow each other before the next phase has its turn. Both styles are among them.
TURN = 4


#: Of this many batches of each style, a power of two, the last draws no tickets.
BLIND_EVERY = 8


#: Of this many batches of each style the first is for all CPUs, the others are for two. The number is odd, so that some
#: batches of both kinds draw no tickets.
ALL_EVERY = 15


#: How long a CPU waits in a race for the others to reach the next operation, in milliseconds. Measured on a busy KVM:
#: 0.77 ms gives four times as many violated batches a second as 77 ms.
RACE_MS = 1


#: How many reads a CPU that waits in a race makes between two PAUSEs.
LOOKS_A_PAUSE = 64


#: The longest random delay of a CPU in a FREE batch, in multiples of the time of an access.
FREE_ACCESSES = 4


#: The multiplier and the increment of the generator of delays (Knuth, The Art of Computer Programming 2, 3.3.4).
RANDOM_FACTOR = 1664525


RANDOM_STEP = 1013904223


#: From this number on a chain's values start again, far below the one that stands for two halves that differ.
CHAIN_TOP = 0x40000000


#: How many different delays a consumer has before it accesses a cell. They differ by 1 / 2^JITTER_SHIFT of the time of
#: an access. Measured on KVM: with both shorter and longer ones CPUs meet less often.
JITTERS = 32


JITTER_SHIFT = 6


#: How many PAUSEs there are between reading and writing what a lock guards.
GUARD_PAUSES = 8


#: The time between two progress lines of a phase that has no table.
BEAT_MS = 1_000


#: How long the guest waits for the serial port. The limit is generous, because a working port is slow on a busy host.
SERIAL_MS = 10_000


#: How long the guest waits until an attending host has looked at the machine, and the byte that the host then sends.
ATTEND_MS = 30_000


ATTEND_BYTE = b"g"


#: The same where ordinary memory backs a target that is declared to be i/o. The case is then kept short.
ATTEND_BRIEF_BYTE = b"r"


#: A case may take 1 / 2^GREED_SHIFT of the remaining budget, but not more than GREED_SHARES even shares, and at least
#: one even share.
GREED_SHIFT = 3


GREED_SHARES = 8


LEAST_SHARE_MS = 200


#: The screen: lines of text below those that are left to cells, and the milliseconds between one drawing and the next.
#: The usual cells take up to 128 x 8 bytes, six lines and a half of 160; on the eighth 18 lines are left of 25.
SCREEN_COLUMNS = 80


SCREEN_TOP = 7


SCREEN_ROWS = 18


SCREEN_MS = 250


#: Drawing may take one part in this many of the time.
SCREEN_SHARE = 100


#: Pages of 4 KiB in text memory, each of which may be the one on the screen.
SCREEN_PAGES = 8


#: How many lines of a suite's summary name violated cases.
SUMMARY_NAMES = 12


#: The words of the summary for the kernel's final state.
STATES: Mapping[KernelState, str] = {
    KernelState.FINISHED: "finished",
    KernelState.STOPPED: "stopped on request",
    KernelState.TOO_FEW_CPUS: "too few CPUs started: nothing was tested",
    KernelState.FAULTED: "a CPU faulted: the run was broken off",
    KernelState.NOT_PARKED: "a CPU did not finish its batch in time: the run was broken off",
}


#: Ends the symbols of a code's heading.
NO_SYMBOL = 0xFF


#: Where BARs are put that firmware has not placed: below the I/O APIC, above the memory of kgen's machines.
PCI_WINDOW = 0xE0000000


#: Exceptions that push an error code (SDM volume 3, table 6-1).
VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})


def stored(value: int, width: int) -> int:
    """Return what a cell holds when ``store_WIDTH`` has put a 32-bit value there (kernel_templates/cells.asm)."""
    return value | value << 32 if width == 64 else value & ((1 << width) - 1)


def crc_table() -> tuple[int, ...]:
    """Return the sixteen steps of CRC-32 (reflected polynomial 0xEDB88320) over four bits."""
    table = []
    for entry in range(16):
        value = entry
        for _ in range(4):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def constants(spec: KernelSpec) -> dict[str, int]:
    """Return every name that the templates use as a number."""
    layout = layout_of(spec)
    return layout.constants() | {
        "LAYOUT_VERSION": LAYOUT_VERSION,
        "BUILD_ID_BYTES": BUILD_ID_BYTES,
        "CPU_TABLE": CPU_TABLE,
        "CPUS_NEEDED": spec.case.cpus,
        "PHASES": layout.phases,
        "CASES": len(spec.cases),
        "WITNESSES_PER_KIND": layout.witnesses,
        "EVENTS": EVENTS,
        "CPU_SHIFT": ctypes.sizeof(Cpu).bit_length() - 1,
        "NO_PHASE": NO_PHASE,
        "TORN": TORN,
        "RAM_CELLS": resolve_target("ram").reach + PAGE,
        "OWNERS": _owners(spec),
        "PARITY_STARTS": PARITY_STARTS,
        "FIRST_REPEAT": FIRST_REPEAT,
        "TURN": TURN,
        "BLIND_EVERY": BLIND_EVERY,
        "ALL_EVERY": ALL_EVERY,
        "RACE_MS": RACE_MS,
        "FREE_ACCESSES": FREE_ACCESSES,
        "RANDOM_FACTOR": RANDOM_FACTOR,
        "RANDOM_STEP": RANDOM_STEP,
        "CHAIN_TOP": CHAIN_TOP,
        "CHAIN_VALUES": _chain_values(spec),
        "LOG_OPERATIONS": log_operations(spec),
        "LOG_BYTES": log_operations(spec) * ctypes.sizeof(Operation),
        "TICKETS": 2 * log_operations(spec) * spec.case.cpus,
        "REPEAT_SHIFT": FIRST_REPEAT.bit_length() - 1,
        "LIVE_LEAST": live.LEAST,
        "LIVE_MOST": live.MOST,
        "STRUCK_MOST": live.MOST_VIOLATED,
        "POWER_NEEDED": live.NEEDED,
        "PAIR_LEAST": live.PAIR_LEAST,
        "PROOF_MS": 1000 * spec.proof_seconds,
        "GUARD_PAUSES": GUARD_PAUSES,
        "JITTERS": JITTERS,
        "JITTER_SHIFT": JITTER_SHIFT,
        "LOOKS_A_PAUSE": LOOKS_A_PAUSE,
        "BEAT_MS": BEAT_MS,
        "SERIAL_MS": SERIAL_MS,
        "ATTEND_MS": ATTEND_MS,
        "ATTEND_BYTE": ATTEND_BYTE[0],
        "ATTEND_BRIEF_BYTE": ATTEND_BRIEF_BYTE[0],
        "GREED_SHIFT": GREED_SHIFT,
        "GREED_SHARES": GREED_SHARES,
        "LEAST_SHARE_MS": LEAST_SHARE_MS,
        "PCI_WINDOW": PCI_WINDOW,
        "SCREEN_COLUMNS": SCREEN_COLUMNS,
        "SCREEN_TOP": SCREEN_TOP,
        "SCREEN_ROWS": SCREEN_ROWS,
        "SCREEN_MS": SCREEN_MS,
        "SCREEN_SHARE": SCREEN_SHARE,
        "SCREEN_PAGES": SCREEN_PAGES,
        "SCREEN_VGA_AWAY": resolve_target("vga-text").vga,
        "NO_PAGE": 0xFFFFFFFF,
        "FONT_FIRST": font.FIRST,
        "FONT_LAST": font.LAST,
        "FONT_HEIGHT": font.HEIGHT,
        "CODE_MOST": code_alphabet.MOST_SYMBOLS,
        "CODE_CHECK": code_alphabet.WORD_SYMBOLS,
        "CODE_GROUP": code_alphabet.GROUP,
        "CODE_DECODES": code_alphabet.DECODES,
        "CODE_AS_PLANNED": code_alphabet.AS_PLANNED,
        "CODE_SHOWN": code_alphabet.MOST_SHOWN - code_alphabet.WORD_SYMBOLS,
        "CODE_STATES": code_alphabet.STATES,
        "CODE_MOST_DIGITS": code_alphabet.DIGITS[0],
        "CODE_LEAST_DIGITS": code_alphabet.DIGITS[-2],
        "CODE_BARE": code_alphabet.BARE,
        "CODE_HIGHEST": code_alphabet.HIGHEST,
        "CODE_IDLE": code_alphabet.IDLE,
        "CODE_PUTS": code_alphabet.PUTS,
        "CODE_REST": code_alphabet.REST,
        "CODE_FOREIGN": code_alphabet.FOREIGN,
        "CODE_LEFT": code_alphabet.LEFT,
        "NO_SYMBOL": NO_SYMBOL,
        "SUMMARY_NAMES": SUMMARY_NAMES,
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
        "TOKEN_INVERSE": TOKEN_INVERSE,
        "DISK_MAGIC": DISK_MAGIC,
        "UEFI_MAGIC": UEFI_MAGIC,
        "CODE_SELECTOR": 0x08,
        "DATA_SELECTOR": 0x10,
        "STACK_SIZE": STACK_SIZE,
        "TRAMPOLINE_ADDRESS": TRAMPOLINE_ADDRESS,
        "SERIAL_PORT": spec.serial_port,
        "SERIAL_DIVISOR": 115_200 // spec.baud,
        # a port read takes about a microsecond; this is four times as long as a FIFO of 16 bytes takes to drain
        "SERIAL_POLLS": max(SERIAL_POLLS, 4 * 16 * 10 * 1_000_000 // spec.baud),
        "PIT_COUNT": PIT_COUNT,
        "PM_TIMER_PER_MS": PM_TIMER_PER_MS,
        "CLOCK_MS": CLOCK_MS,
        "CLOCK_POLLS": CLOCK_POLLS,
        "CLOCK_SHOTS": CLOCK_SHOTS,
        "CLOCK_TRIES": CLOCK_TRIES,
        "CLOCK_ROUNDS": CLOCK_ROUNDS,
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
        "APIC_HOME": APIC_HOME,
        "APIC_IDS": APIC_IDS,
        "ACPI_TABLE_BYTES": ACPI_TABLE_BYTES,
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


def _walks(spec: KernelSpec) -> list[Phase]:
    return [phase for phase in phases(spec) if experiment_of(phase).walk]


def log_operations(spec: KernelSpec) -> int:
    """Return the largest number of operations of one CPU in one batch, at least 1."""
    return max((phase.cells * work_in(spec, phase).most for phase in _walks(spec)), default=1)


def _chain_values(spec: KernelSpec) -> int:
    """Return the largest number of values in one batch: one for each operation and one for each cell."""
    return spec.case.cpus * log_operations(spec) + MAX_BATCH


def _owners(spec: KernelSpec) -> int:
    """Return how many bytes the marks need: one for each operation of a batch, or one for each cell and CPU."""
    return max(spec.case.cpus * log_operations(spec), MAX_BATCH * min(spec.case.cpus, 64))
