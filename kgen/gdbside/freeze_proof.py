"""``kgen freeze-proof``: the proof of a loss, with a second look after the consumers were let go for a moment."""

from __future__ import annotations

from kgen.errors import KgenError
from kgen.evidence.records import Witness
from kgen.gdbside import proof, session
from kgen.gdbside.base import Command, say
from kgen.gdbside.snapshot import Snapshot

#: How long each consumer runs between the two looks, in seconds.
MOMENT = 0.25


class FreezeProof(Command):
    """Explain why a recorded violation is proven, step by step, with two looks at the frozen machine.

    kgen freeze-proof         between the looks each consumer runs alone for a moment; CPU 0 is held
    kgen freeze-proof still   nothing is moved: the second look is the kernel's own

    It explains a violation whose batch is still in memory ('kgen until-violation' stops there): you see the evidence
    itself. Where there is none, it explains a violation of the case by the kernel's record. It prefers a lost token to
    one that was taken twice, and a later one to an earlier one. For a chain it lists the operations that wrote and got
    the value in question, and moves nothing.
    """

    name = "freeze-proof"
    words = ("still",)

    def run(self, arguments: list[str]) -> None:
        still = arguments[:1] == ["still"]
        self.refuse(arguments[still:])
        seen = session.snapshot()
        witness = proof.witness_to_prove(seen)
        first = second = None
        between = ""
        if seen.in_place(witness) and proof.can_be_looked_at(seen, witness):
            first = proof.look(seen, witness)
            second, between = (None, "You asked that nothing be moved.") if still else _second(seen, witness)
        say(proof.told(seen, witness, first, second, between))


def _second(seen: Snapshot, witness: Witness) -> tuple[proof.Look | None, str]:
    """Return the second look, and what the machine did between the two.

    CPU 0 is held: it would go on and overwrite the evidence.
    """
    threads = {thread.num: thread for thread in session.all_threads()}
    consumers = {cpu: seen.registers_of.get(cpu) for cpu in range(1, seen.cpus)}
    if any(entry is None for entry in consumers.values()):
        return None, "This stub does not show every consumer, so none can be let go."
    if not session.moves_one_cpu():
        return None, "This stub cannot move one CPU while CPU 0 is held, so nothing was let go."
    try:
        session.must_be_able_to_go()
        say(f"(each consumer runs alone for {MOMENT:g} s; gdb reports when it stops it)")
        for entry in consumers.values():
            assert entry is not None
            with session.alone(threads[entry.thread]):
                if not session.go("continue", MOMENT):
                    return None, "A consumer that was let run stopped by itself: by Ctrl-C or another breakpoint."
        again = session.snapshot()
    except KgenError as error:
        return None, f"The consumers could not be let go: {error.line}"
    who = " and ".join(f"CPU {cpu}" for cpu in consumers)
    return proof.look(again, witness), (
        f"{who} were let run for {MOMENT:g} s each while CPU 0 was held, then all was frozen again:"
    )
