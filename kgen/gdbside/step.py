"""Commands that move the machine: ``kgen step`` and ``kgen until-violation``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gdb

from kgen.errors import DebuggerError, ProtocolError
from kgen.gdbside import places, session
from kgen.gdbside.base import Command, say
from kgen.gdbside.image import Image
from kgen.gdbside.snapshot import Snapshot
from kgen.kernel.plan import decisive, layout_of
from kgen.kernel.results_block import KernelState
from kgen.report.text.case import describe

#: The most instructions that one command steps.
MOST_STEPS = 10_000
#: For one instruction, in seconds, on any stub.
STEP_SECONDS = 5.0
#: How long ``until-violation`` runs by default, in seconds.
RUN_SECONDS = 600
MOST_SECONDS = 100_000
_ALL = "let all run: 'kgen cell watch', then 'continue'"


class Step(Command):
    """Let one CPU carry out N instructions while all others stand still, and show each.

    kgen step [N [CPU]]    N is 1 by default, CPU the selected one; CPUs have the kernel's numbers

    A CPU that is stepped completes each instruction while no other CPU runs: what you see that way says nothing about
    LOCK.
    """

    name = "step"
    category = gdb.COMMAND_RUNNING
    place = 1

    def choices(self) -> Sequence[str]:
        return [str(cpu) for cpu in range(session.image().spec.case.cpus)]

    def run(self, arguments: list[str]) -> None:
        self.refuse(arguments[2:])
        count = self.number(arguments[0], "number of instructions", MOST_STEPS + 1) if arguments else 1
        seen = session.begun()
        session.must_be_able_to_go()
        threads = session.all_threads()
        thread, name = self._chosen(arguments[1], threads) if len(arguments) > 1 else _selected(seen, threads)
        if len(threads) > 1 and not session.moves_one_cpu():
            raise DebuggerError("this stub cannot move one CPU alone", hint="gdb's own 'stepi' moves all")
        if "halted" in session.details(thread):
            if seen is not None:
                seen.must_not_be_over()
            told = f"{name} sleeps (HLT) and wakes only by an interrupt from a CPU that runs"
            raise DebuggerError(told, hint=_ALL if name == "CPU 0" else f"step CPU 0 ('kgen step 1 0'), or {_ALL}")
        _step(thread, name, count)
        if count:
            say("(stepped alone, every instruction is atomic: this is no evidence about LOCK)")

    def _chosen(self, text: str, threads: Sequence[gdb.InferiorThread]) -> tuple[gdb.InferiorThread, str]:
        """Return the CPU that has the kernel's number."""
        seen = session.snapshot()
        cpu = self.number(text, "CPU", seen.cpus)
        entry = seen.registers_of.get(cpu)
        if entry is None:
            raise DebuggerError(f"this stub does not show CPU {cpu}, so it cannot be stepped")
        return next(each for each in threads if each.num == entry.thread), f"CPU {cpu}"


def _selected(seen: Snapshot | None, threads: Sequence[gdb.InferiorThread]) -> tuple[gdb.InferiorThread, str]:
    """Return gdb's selected CPU and its name: before the kernel has begun, its number is unknown."""
    thread = session.selected_thread() or threads[0]
    registers = seen.registers_of if seen else {}
    cpu = next((cpu for cpu, entry in registers.items() if entry.thread == thread.num), None)
    return thread, f"thread {thread.num}" if cpu is None else f"CPU {cpu}"


def _step(thread: gdb.InferiorThread, name: str, count: int) -> None:
    # in the style of the source beside it
    with session.alone(thread), session.setting("disassembly-flavor", "intel"):
        for _ in range(count):
            say(f"{name}  {_here()}")
            if session.go("stepi", STEP_SECONDS):
                raise DebuggerError(f"{name} did not finish that instruction within {STEP_SECONDS:g} s")
        say(f"{name}  now at {_here()}")


def _here() -> str:
    """Return a line with the selected CPU's next instruction and its source."""
    frame = gdb.newest_frame()
    pc = int(frame.pc())
    if session.in_real_mode(frame):
        segment = int(frame.read_register("cs"))
        return f"{segment:04x}:{pc:04x}, in real mode: gdb shows other code there, so none is shown"
    routine, distance = session.image().routine(pc)
    where = f"{routine}+{distance:#x}" if routine else "outside the kernel"
    # the source has the right text; gdb would decode it wrongly
    known = routine and session.is_wide(frame)
    code = "" if known else f"{' '.join(str(frame.architecture().disassemble(pc)[0]['asm']).split()):<40}"
    return f"{pc:08x} <{where}>  {code}{_source(frame)}".rstrip()


def _source(frame: gdb.Frame) -> str:
    """Return the line of the listing, with the source's text."""
    found = frame.find_sal()
    if not found.line:
        return ""
    try:
        lines = Path(found.symtab.fullname()).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return f"  {found.symtab.filename}:{found.line}"
    # address, bytes and number are before the text (kgen.toolchain.listing)
    text = lines[found.line - 1][34:].strip() if found.line <= len(lines) else ""
    return f"  {found.symtab.filename}:{found.line}  {text}"


class UntilViolation(Command):
    """Let the machine run until it has recorded the next violation of the case, and stop it then.

    kgen until-violation [any] [SECONDS]

    Violations of the proof, on which the verdict on the case rests too, count as violations of the case. With 'any',
    violations of the controls count as well; power controls must have some. SECONDS is a limit, 600 by default; Ctrl-C
    stops earlier. The command also stops where the run ends.
    """

    name = "until-violation"
    category = gdb.COMMAND_RUNNING
    words = ("any",)

    def run(self, arguments: list[str]) -> None:
        anywhere = "any" in arguments
        rest = [each for each in arguments if each != "any"]
        self.refuse(rest[1:])
        seconds = self.number(rest[0], "number of seconds", MOST_SECONDS) if rest else RUN_SECONDS
        seen = session.begun()
        session.must_be_able_to_go()
        if seen is not None:
            seen.must_not_be_over()
        if gdb.parameter("scheduler-locking") == "on":
            told = "with gdb's 'scheduler-locking' on, only one CPU would run"
            raise DebuggerError(told, hint="'set scheduler-locking off'")
        points = _Points(session.image(), anywhere)
        try:
            expired = points.go(seconds)
        finally:
            points.remove()
        _tell(expired, seconds)


class _Points:
    """Two breakpoints: where a violation has been recorded, and where the run ends."""

    def __init__(self, image: Image, anywhere: bool) -> None:
        place, back = image.place_of_violation()
        condition = f"*(unsigned int *)$sp == {back:#x}"
        if not anywhere:
            phase = image.symbols["results"] + layout_of(image.spec).constants()["Results.phase_index"]
            # the phases whose violations are the case's are the last ones
            condition += f" && *(unsigned int *){phase:#x} >= {decisive(image.spec)[0].index}"
        # the other CPUs rest a little earlier, when the state is not final yet
        state = image.symbols["results"] + layout_of(image.spec).constants()["Results.state"]
        over = f"*(unsigned int *){state:#x} >= {int(KernelState.FINISHED)}"
        self._places = ((place, condition), (image.symbols["final_park"], over))
        self._made: list[gdb.Breakpoint] = []

    def go(self, seconds: float) -> bool:
        """Run. Return whether the time was over. Raises DebuggerError where the stub accepts no breakpoint."""
        # hardware first: no accelerator refuses it, and it changes no byte of the guest
        kinds = {1: gdb.BP_HARDWARE_BREAKPOINT, 0: gdb.BP_BREAKPOINT}
        # the stub itself is asked: where it has no breakpoints, gdb writes its own into the guest, which would execute
        # them
        taken = next((kind for kind in kinds if session.takes_breakpoint(kind, self._places[0][0])), None)
        if taken is None:
            told = "this stub accepts no breakpoints (Z0 and Z1), so it cannot stop where a violation is recorded"
            raise DebuggerError(told, hint="'continue', stop it by Ctrl-C, and see 'kgen witnesses'")
        for address, condition in self._places:
            point = gdb.Breakpoint(f"*{address:#x}", type=kinds[taken], internal=True)
            self._made.append(point)
            point.condition = condition
        return session.go("continue", seconds)

    def remove(self) -> None:
        """Remove the breakpoints. May be called twice."""
        for point in self._made:
            if point.is_valid():
                point.delete()
        self._made.clear()


def _tell(expired: bool, seconds: float) -> None:
    session.must_be_stopped()
    seen = session.snapshot()
    if seen.at_violation and seen.record.witnesses:
        witness = seen.record.witnesses[-1]
        phase = seen.planned[witness.phase]
        say(f"stopped at witness #{witness.index} of {phase.label}:")
        say(f"  {describe(witness, phase.experiment)}")
        return
    if seen.is_over:
        raise ProtocolError("the run has ended without another violation", hint="'kgen witnesses' lists what there was")
    if expired:
        raise ProtocolError(
            f"no violation was recorded within {seconds:g} s, or breakpoints do not hit on this machine",
            hint="'kgen status' shows how far it is",
        )
    session.must_be_able_to_go()
    entry = seen.registers_of.get(0)
    where = f"; CPU 0 is at {places.place(seen, entry)}" if entry is not None else ""
    say(f"stopped before a violation was recorded, by Ctrl-C or another breakpoint{where}")
