"""``kgen cell``: what the cells hold, and a watchpoint on one."""

from __future__ import annotations

import gdb

from kgen.errors import ProtocolError
from kgen.evidence.mtree import NOT_ASKED
from kgen.gdbside import cells, session
from kgen.gdbside.base import Command, say
from kgen.gdbside.snapshot import Snapshot


class Cell(Command):
    """Show the cells of the running batch, or stop when one changes.

    kgen cell              the first cells of the batch, 16 at most: address, value, what the value means
    kgen cell NUMBER       one cell
    kgen cell watch [NUMBER]   a watchpoint on it, for 'continue'

    A watchpoint on i/o memory stops nothing where the hypervisor carries the access out itself; the command then prints
    what is known of this machine.
    """

    name = "cell"
    words = ("watch",)

    def run(self, arguments: list[str]) -> None:
        seen = session.snapshot()
        if seen.phase is None or not seen.block.handshake.address:
            raise ProtocolError("there is no cell yet: no phase has begun", hint="let the machine run")
        watch = arguments[:1] == ["watch"]
        rest = arguments[1:] if watch else arguments
        self.refuse(rest[1:])
        number = self.number(rest[0], "cell", seen.phase.cells) if rest else None
        if watch:
            seen.must_not_be_over()
            _watch(seen, cells.interesting(seen) if number is None else number)
            return
        say(cells.lines(seen, number))
        say(_path(seen))


def _path(seen: Snapshot) -> str:
    """Return what backs the cells according to QEMU."""
    assert seen.phase is not None
    evidence = session.attest(seen.block.handshake.address, seen.phase.length)
    if evidence == NOT_ASKED:
        return "what backs them is unknown: this stub has no QEMU monitor"
    return f"what backs them, according to QEMU: {evidence.kind} ({evidence.line.strip()})"


def _watch(seen: Snapshot, number: int) -> None:
    assert seen.phase is not None
    size = min(seen.phase.form.width // 8, 4)
    kind = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int"}[size]
    address = seen.cell_address(number)
    gdb.execute(f"watch *({kind} *){address:#x}")
    what = "its value changes" if size == seen.phase.form.width // 8 else f"one of its low {size} bytes changes"
    say(f"cell {number} at {address:#x}; 'continue' runs until {what}")
    is_ram = seen.phase.target.name == "ram"
    kvm = session.is_kvm()
    if kvm and not is_ram:
        say("warning: this is KVM: accesses to i/o memory are emulated by it and hit no watchpoint")
    elif kvm is None:
        say("warning: not every hypervisor's stub stops at accesses to i/o memory, and this one cannot be asked")
