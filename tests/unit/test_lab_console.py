"""The conversation with the lab, over a real socket, with the lab's part played by the test."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from kgen.errors import MachineError, MachineStuck
from kgen.lab.console import Console

#: A lab's deadline, and what is far more than an answer takes, in seconds.
SOON, LONG = 0.3, 20.0


class Other:
    """The lab's end."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.file = line.makefile("rb")

    def say(self, *lines: str) -> None:
        self.line.sendall("".join(f"{line}\r\n" for line in lines).encode())


@pytest.fixture
def ends() -> Iterator[tuple[Console, Other]]:
    ours, theirs = socket.socketpair()
    console, other = Console(ours, lambda _seconds: ""), Other(theirs)
    theirs.settimeout(LONG)
    yield console, other
    console.close()
    console.close()
    other.file.close()
    theirs.close()


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_ready_and_what_kind_of_linux_it_is(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("[    0.000000] Linux", "kgen-lab: linux 6.1.0", "kgen-lab: ready")
    console.await_ready(LONG)
    assert console.linux == "6.1.0"
    assert other.line.recv(10).startswith(b"\n"), "it was asked"


def test_a_problem_is_told_when_it_is_ready(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("kgen-lab: problem kvm-amd cannot be loaded", "kgen-lab: ready")
    with pytest.raises(MachineError, match="booting the lab's Linux: kvm-amd cannot be loaded"):
        console.await_ready(LONG)


def test_silence_ends_with_the_stage_and_the_last_lines(ends: tuple[Console, Other]) -> None:
    console, other = ends
    with pytest.raises(MachineError, match=r"booting the lab's Linux: no answer within 0.3 s; it has printed nothing"):
        console.await_ready(SOON)
    other.say("one", "two", "Kernel panic", "4,1,2,-;not syncing", " SUBSYSTEM=cpu")
    with pytest.raises(MachineError, match=r"no answer within 0.3 s; its last lines: two / Kernel panic / not syncing"):
        console.await_ready(SOON)


def test_a_linux_that_got_stuck_is_not_waited_for(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("[   80.999668] watchdog: BUG: soft lockup - CPU#0 stuck for 71s! [init:1]")
    with pytest.raises(MachineStuck, match=r"booting the lab's Linux: it got stuck; its last lines: .*CPU#0"):
        console.await_ready(LONG)


def test_the_lab_hangs_up(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.file.close()
    other.line.close()
    with pytest.raises(MachineError, match="the outer machine hung up"):
        console.await_ready(LONG)


def test_the_outer_machine_dies() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        console = Console(ours, lambda _seconds: "QEMU was killed by SIGKILL")
        with pytest.raises(MachineError, match="QEMU was killed by SIGKILL"):
            console.await_ready(LONG)
        console.close()


def test_the_outer_machine_hangs_up_before_it_is_dead() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    console = Console(ours, lambda seconds: "QEMU was killed by SIGKILL" if seconds >= 1 else "")
    with pytest.raises(MachineError, match="QEMU was killed by SIGKILL"):
        console.await_ready(LONG)
    console.close()


def test_a_file_arrives_whole(ends: tuple[Console, Other]) -> None:
    console, other = ends
    data = bytes(range(256)) * 4096
    seen: list[bytes] = []

    def lab() -> None:
        seen.append(other.file.readline())
        seen.append(other.file.read(len(data)))
        other.say("kgen-lab: took kernel.elf")

    other.say("kgen-lab: ready", "kgen-lab: ready")  # answers of before must not be taken for this one's
    thread = beside(lab)
    console.send_file("kernel.elf", data, LONG)
    thread.join(LONG)
    assert seen == [b"file kernel.elf 1048576\n", data]


def test_a_lab_that_takes_no_bytes(ends: tuple[Console, Other]) -> None:
    console, _ = ends
    took = r"it took \d+ of 16777241 bytes within 0.3 s; it has printed nothing"
    with pytest.raises(MachineError, match=f"sending kernel.elf to the lab: {took}"):
        console.send_file("kernel.elf", bytes(1 << 24), SOON)


def filled(ours: socket.socket) -> None:
    """Put newlines into a line that nobody reads, as a boot does, until it takes none."""
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"\n")


def test_a_console_that_is_read_late_boots(ends: tuple[Console, Other], monkeypatch: pytest.MonkeyPatch) -> None:
    """The newlines of a long boot fill the line; that is no failure before the deadline, nor for the first command."""
    console, other = ends
    monkeypatch.setattr("kgen.lab.console.NUDGE_SECONDS", 0.0)
    filled(console._line)
    reading = threading.Event()

    def lab() -> None:
        reading.wait(LONG)
        other.say("kgen-lab: ready")
        while other.file.readline() == b"\n":
            pass
        other.say("kgen-lab: took kernel.elf")

    thread = beside(lab)
    threading.Timer(3 * SOON, reading.set).start()
    console.await_ready(LONG)
    # the newlines are still in the line when the first command follows
    filled(console._line)
    console.send_file("kernel.elf", b"\x7fELF\n", LONG)
    thread.join(LONG)


def test_a_full_line_does_not_end_the_boot_before_its_deadline(
    ends: tuple[Console, Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    console, _ = ends
    monkeypatch.setattr("kgen.lab.console.NUDGE_SECONDS", 0.0)
    filled(console._line)
    began = time.monotonic()
    with pytest.raises(MachineError, match=r"booting the lab's Linux: no answer within 0.3 s"):
        console.await_ready(SOON)
    assert time.monotonic() - began >= SOON


@pytest.mark.parametrize("stage", ["boot", "file", "run", "trace"])
def test_a_lab_that_talks_without_an_end_does_not_put_the_deadline_off(ends: tuple[Console, Other], stage: str) -> None:
    """Neither do answers to other questions."""
    console, other = ends
    stop = threading.Event()

    def lab() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                other.say("kgen-lab: another answer")

    thread = beside(lab)
    began = time.monotonic()
    try:
        if stage == "trace":
            assert console.trace_read("gpa", SOON) == ()
        else:
            asked: dict[str, Callable[[], object]] = {
                "boot": lambda: console.await_ready(SOON),
                "file": lambda: console.send_file("kernel.elf", b"", SOON),
                "run": lambda: console.run("qemu", lambda: False, SOON),
            }
            with pytest.raises(MachineError, match=r"within 0.3 s; its last lines|within 0.3 s; it has printed"):
                asked[stage]()
    finally:
        stop.set()
        console.close()
        thread.join(LONG)
    assert time.monotonic() - began < LONG


def test_an_answer_that_came_in_time_counts_where_we_were_delayed(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("kgen-lab: ready")
    time.sleep(0.05)
    console.await_ready(0.0)


def test_a_program_that_starts(ends: tuple[Console, Other]) -> None:
    console, other = ends
    answers = iter((False, True))
    console.run("qemu -x", lambda: next(answers), LONG)
    assert other.file.readline() == b"run qemu -x\n"


def test_a_program_that_ends_at_once_says_why(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("kgen-lab: said qemu: warning: x", "kgen-lab: said qemu: no such option", "kgen-lab: ended 1")
    with pytest.raises(MachineError, match=r"starting QEMU in the lab: it ended with status 1: qemu: no such option$"):
        console.run("qemu -x", lambda: False, LONG)
    assert console.ended == "ended with status 1: qemu: no such option"


def test_the_kernels_log_is_kept_apart(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("6,77,123456,-;kvm: emulating exchange as write", " DEVICE=c1:2", "kgen-lab: said 6,1,1,-;no", "noise")
    console.poll()
    assert console.kernel_log == ["kvm: emulating exchange as write"]


def test_a_line_may_come_in_pieces(ends: tuple[Console, Other]) -> None:
    console, other = ends
    for piece in (b"6,77,1", b"2,-;half", b" a line\n6,78,13,-;ano"):
        other.line.sendall(piece)
        console.poll()
    assert console.kernel_log == ["half a line"]


def test_the_trace(ends: tuple[Console, Other]) -> None:
    console, other = ends
    other.say("kgen-lab: traced on")
    # what was said before the question is no answer to it
    console.poll()
    assert not console.trace_on(0xB8000, 0xB8004, SOON)
    assert other.file.readline() == b"trace on gpa >= 0xb8000 && gpa < 0xb8004\n"

    def lab() -> None:
        other.file.readline()
        other.say("kgen-lab: trace a", "6,1,1,-;between", "kgen-lab: trace b", "kgen-lab: traced read")

    thread = beside(lab)
    assert console.trace_read("gpa", LONG) == ("a", "b")
    thread.join(LONG)
    beside(lambda: (other.file.readline(), other.say("kgen-lab: untraced read")))
    assert console.trace_read("gpa", LONG) == ()


def test_a_command_and_what_it_prints(ends: tuple[Console, Other]) -> None:
    console, other = ends
    # the answer to a command that was not waited for
    console.tell("kill 1")
    other.say("kgen-lab: out 0 late", "kgen-lab: done 0 1")
    thread = beside(lambda: other.say("kgen-lab: out 1 a b  c", "kgen-lab: out 1", "kgen-lab: done 1 7"))
    assert console.do("cat file", LONG) == (7, ("a b  c", ""))
    thread.join(LONG)
    assert other.file.readline() == b"do 0 kill 1\n"
    assert other.file.readline() == b"do 1 cat file\n"


def test_a_command_without_an_answer(ends: tuple[Console, Other]) -> None:
    console, _ = ends
    with pytest.raises(MachineError, match="carrying out 'sleep 9' in the lab: no answer within"):
        console.do("sleep 9", SOON)


def test_a_lab_that_boots_is_not_asked_before_it_has_spoken(ends: tuple[Console, Other]) -> None:
    console, other = ends
    with pytest.raises(MachineError, match="no answer within"):
        console.await_ready(SOON, cold=True)
    other.line.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.line.recv(10)
    other.say("kgen-lab: linux 6.1.0", "kgen-lab: ready")
    console.await_ready(LONG, cold=True)
