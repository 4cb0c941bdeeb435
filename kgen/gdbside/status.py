"""Commands that look: ``kgen status``, ``cpus``, ``witnesses``, ``judge``."""

from __future__ import annotations

import gdb

from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import Observation
from kgen.gdbside import describe, proof, session
from kgen.gdbside.base import Command, say
from kgen.inspection.stopped import cell_range, inspect
from kgen.kernel.plan import phases
from kgen.report.text.case import explanations
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind


class Status(Command):
    """Show where the machine is in the experiment: phase, round, counters, cell, each CPU.

    kgen status

    The machine must be stopped. Numbers of CPUs are the kernel's: 0 is the producer, the others are consumers."""

    name = "status"
    category = gdb.COMMAND_STATUS

    def run(self, arguments: list[str]) -> None:
        self.refuse(arguments)
        say(describe.status(session.snapshot()))
        if session.is_given_up():
            say("(QEMU has stopped this machine with an internal error: it can be looked at, and never goes on)")
        say(f"({line})" for line in session.shortcomings())


class Cpus(Command):
    """Show each CPU's place in the experiment, and the routine that it is in.

    kgen cpus

    gdb's own 'info threads' counts the CPUs from 1, in another order where they came up in another order."""

    name = "cpus"
    category = gdb.COMMAND_STATUS

    def run(self, arguments: list[str]) -> None:
        self.refuse(arguments)
        seen = session.snapshot()
        threads = {cpu: entry.thread for cpu, entry in seen.registers_of.items()}
        for cpu, line in enumerate(describe.cpu_lines(seen, where=True)):
            thread = f" (gdb's thread {threads[cpu]})" if cpu in threads else ""
            say(f"{line}{thread}")
        if len(threads) < seen.cpus:
            say(f"(this stub shows {len(threads)} of {seen.cpus} CPUs)")


class Witnesses(Command):
    """List the violations that the kernel has recorded, by phase.

    kgen witnesses

    Power controls must show some. The verdict depends on the case, the last phase, and on its proof, if there is one.
    """

    name = "witnesses"

    def run(self, arguments: list[str]) -> None:
        self.refuse(arguments)
        say(describe.witness_lines(session.snapshot()))


class Judge(Command):
    """Judge the record in the machine's memory, as 'kgen inspect' does without a serial log.

    kgen judge

    NOT_ATOMIC needs one witness. ATOMIC needs the serial log as well, which gdb does not have: then the verdict is
    INCONCLUSIVE."""

    name = "judge"

    def run(self, arguments: list[str]) -> None:
        self.refuse(arguments)
        image = session.image()
        session.must_be_stopped()
        machine = session.GdbMachine()
        seen = inspect(machine, image.spec, image.build_id, image.symbols, image.sections)
        last = phases(image.spec)[-1]
        where = cell_range(last, image.symbols, seen.memory) if seen.memory else None
        observation = Observation(
            platform="gdb",
            serial=None,
            memory=seen.memory,
            path=session.attest(*where) if where else NOT_ASKED,
            problems=seen.problems,
            cells=seen.cells,
            registers=seen.registers,
            symbols=seen.symbols,
        )
        verdict = judge(image.spec, observation)
        say(f"{verdict.kind.name}: {verdict.reason}")
        if verdict.kind is VerdictKind.NOT_ATOMIC and not last.form.lock:
            say(f"  {proof.without_lock(last)}")
        say(f"  {line}" for line in explanations(image.spec, verdict))
        say(
            f"  path: {observation.path.kind}"
            + (f" ({observation.path.line.strip()})" if observation.path.line else "")
        )
        say(
            "  from memory alone: the serial log, the second channel, is missing here; 'kgen inspect --serial' has both"
        )
