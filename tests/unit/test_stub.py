"""Our side of the GDB remote serial protocol, against a stub that answers as it is told, or does not answer."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from serving import serving

from kgen.errors import DebuggerError, GuestCrash
from kgen.machine import rsp as module
from kgen.machine.rsp import Stub

Answer = Callable[[str], "bytes | None"]
Serve = Callable[[Answer], tuple[Stub, "Server"]]


def packet(text: str) -> bytes:
    return b"$" + text.encode() + b"#%02x" % (sum(text.encode()) & 0xFF)


class Server(threading.Thread):
    """Listens on a socket and answers each packet with what a function says; None hangs up. ``again`` is what it says
    when it is asked to send a packet once more."""

    def __init__(self, path: Path, answer: Answer) -> None:
        super().__init__(daemon=True)
        self.asked: list[str] = []
        self.again = b""
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def run(self) -> None:
        connection, _ = self._listener.accept()
        data = b""
        with contextlib.suppress(BrokenPipeError), connection, self._listener:
            while chunk := connection.recv(4096):
                connection.sendall(self.again * chunk.count(b"-"))
                data += chunk.replace(b"+", b"").replace(b"-", b"")
                while (end := data.find(b"#")) >= 0 and len(data) >= end + 3:
                    asked, data = data[1:end].decode(), data[end + 3 :]
                    self.asked.append(asked)
                    answer = self._answer(asked)
                    if answer is None:
                        return
                    # in pieces, as they may come
                    for at in range(0, len(answer), 3):
                        connection.sendall(answer[at : at + 3])


#: What a stub says that is in order.
USUAL = {"qSupported:vContSupported+": "PacketSize=1000", "qfThreadInfo": "m01,02", "qsThreadInfo": "l"}


def usual(asked: str) -> bytes | None:
    return packet(USUAL.get(asked, "OK"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[tuple[Stub, Server]] = []

    def start(answer: Answer) -> tuple[Stub, Server]:
        server = Server(tmp_path / "gdb", lambda asked: usual(asked) if asked[0] == "q" else answer(asked))
        server.start()
        made.append((Stub(tmp_path / "gdb", wide=False), server))
        return made[-1]

    yield start
    for stub, server in made:
        stub.__exit__(None, None, None)
        server.join(5)
        assert not server.is_alive()


def test_threads_and_registers(serve: Serve) -> None:
    words = b"".join(value.to_bytes(4, "little") for value in range(1, 17))
    stub, _ = serve(lambda asked: packet(words.hex()) if asked == "g" else usual(asked))
    assert stub.numbers == (1, 2)
    found = stub.registers(2)
    assert (found.thread, found.cpu, found.eax, found.ebx, found.eip, found.eflags) == (2, 1, 1, 4, 9, 10)


def test_only_the_named_cpus_run(serve: Serve) -> None:
    stub, server = serve(lambda asked: packet("T05thread:02;") if asked.startswith("vCont") else usual(asked))
    assert stub.run([3, 2], 5).thread == 2
    assert stub.step(1).thread == 2
    assert [asked for asked in server.asked if asked.startswith("vCont;")] == ["vCont;c:2;c:3", "vCont;s:1"]


def test_memory_is_read_in_pieces(serve: Serve) -> None:
    def answer(asked: str) -> bytes | None:
        size = int(asked.partition(",")[2], 16)
        return packet("ab" * size)

    stub, server = serve(answer)
    assert stub.read_memory(0x1000, module.READ_CHUNK + 4) == b"\xab" * (module.READ_CHUNK + 4)
    assert server.asked[-2:] == ["m1000,7d0", "m17d0,4"]


@pytest.mark.parametrize("most", [1, 3, 256])
def test_a_stub_may_answer_with_less_memory(serve: Serve, most: int) -> None:
    memory = bytes(at % 251 for at in range(700))

    def answer(asked: str) -> bytes | None:
        at, size = (int(word, 16) for word in asked[1:].split(","))
        return packet(memory[at : at + min(size, most)].hex())

    stub, _ = serve(answer)
    assert stub.read_memory(7, 600) == memory[7:607]


@pytest.mark.parametrize(("size", "most"), [("200", 254), ("fff", 2000), ("40", 30), ("6", 1), ("1", 1), ("x", 2000)])
def test_no_more_is_asked_for_than_the_stub_can_send(tmp_path: Path, size: str, most: int) -> None:
    def answer(asked: str) -> bytes | None:
        if asked.startswith("qSupported"):
            return packet(f"swbreak+;PacketSize={size};hwbreak+")
        return packet("ab" * int(asked.partition(",")[2], 16)) if asked[0] == "m" else usual(asked)

    server = Server(tmp_path / "gdb", answer)
    server.start()
    with Stub(tmp_path / "gdb") as stub:
        assert stub.read_memory(0, most + 1) == b"\xab" * (most + 1)
    assert server.asked[-2:] == [f"m0,{most:x}", f"m{most:x},1"]


def shortened(text: str) -> bytes:
    """A packet in which every run of four and more is shortened, as long ones as one printable character can say."""

    def run(match: re.Match[str]) -> str:
        count = len(match[0])
        while chr(count + 28) in "#$+-":
            count -= 1
        return f"{match[1]}*{chr(count + 28)}" + match[1] * (len(match[0]) - count)

    return packet(re.sub(r"(.)\1{3,96}", run, text))


@pytest.mark.parametrize("memory", [bytes(600), b"\x11" * 5 + bytes(9) + b"\xff" * 300, bytes(range(256)), b"\0\0\1"])
def test_repeated_characters_may_be_shortened(serve: Serve, memory: bytes) -> None:
    stub, _ = serve(lambda asked: shortened(memory.hex()))
    assert stub.read_memory(0, len(memory)) == memory


def test_the_manual_s_example_of_run_lengths(serve: Serve) -> None:
    """gdb's manual: "0* " means "0000"."""
    stub, _ = serve(lambda asked: packet("0* 0* "))
    assert stub.read_memory(0, 4) == bytes(4)


def test_a_packet_that_is_long_when_written_out_is_one_line(serve: Serve) -> None:
    stub, _ = serve(lambda asked: packet("0*~" * 1000))
    with pytest.raises(DebuggerError, match="a packet of more than 65536 characters"):
        stub.read_memory(0, 4)


@pytest.mark.parametrize("wide", [None, True])
@pytest.mark.parametrize("size", [536, 560, 608, 1000])
def test_registers_of_64_bits_are_known_by_their_length(tmp_path: Path, wide: bool | None, size: int) -> None:
    words = b"".join(value.to_bytes(8, "little") for value in range(1, 19)).ljust(size, b"\0")
    server = Server(tmp_path / "gdb", lambda asked: packet(words.hex()) if asked == "g" else usual(asked))
    server.start()
    with Stub(tmp_path / "gdb", wide=wide) as stub:
        found = stub.registers(1)
    assert (found.eax, found.ebx, found.ecx, found.edx, found.eip, found.eflags) == (1, 2, 3, 4, 17, 18)


@pytest.mark.parametrize(
    ("names", "asked"), [("p1.1,p1.2", "p1.2"), ("p1.1", "2"), ("01,02", "2"), ("pa.1,pa.2", "pa.2")]
)
def test_threads_are_asked_for_as_the_stub_names_them(tmp_path: Path, names: str, asked: str) -> None:
    said = USUAL | {"qfThreadInfo": f"m{names}"}
    server = Server(
        tmp_path / "gdb", lambda question: packet(said.get(question, "00" * 312 if question == "g" else "OK"))
    )
    server.start()
    with Stub(tmp_path / "gdb") as stub:
        assert stub.registers(2).cpu == 1
    assert f"Hg{asked}" in server.asked


@pytest.mark.parametrize("told", ["", "E14", "abc", "ab" * 5])
def test_memory_that_cannot_be_read(serve: Serve, told: str) -> None:
    stub, _ = serve(lambda asked: packet(told))
    with pytest.raises(DebuggerError):
        stub.read_memory(0x1000, 4)


@pytest.mark.parametrize("told", ["T03thread:01;", "T06thread:01;", "W00"])
def test_a_machine_that_dies(serve: Serve, told: str) -> None:
    stub, _ = serve(lambda asked: packet(told))
    with pytest.raises(GuestCrash):
        stub.step(1)


def test_a_stub_that_hangs_up(serve: Serve) -> None:
    stub, _ = serve(lambda asked: None)
    with pytest.raises(GuestCrash, match="hung up"):
        stub.step(1)


def test_a_cpu_that_never_stops(serve: Serve) -> None:
    stub, _ = serve(lambda asked: b"")
    begun = time.monotonic()
    with pytest.raises(DebuggerError, match=r"no CPU reached a breakpoint .*within 0.2 s"):
        stub.run([1], 0.2)
    assert time.monotonic() - begun < 5


def test_an_answer_that_is_no_ok(serve: Serve) -> None:
    stub, _ = serve(lambda asked: packet("E01"))
    for act in (lambda: stub.write_u32(0, 1), lambda: stub.insert_breakpoints({1}), lambda: stub.registers(1)):
        with pytest.raises(DebuggerError):
            act()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(DebuggerError, match="no stub answers"):
        Stub(tmp_path / "gdb", wide=False)


def _lone(tmp_path: Path, told: dict[str, bytes]) -> tuple[Stub, Server]:
    """A stub whose first answers are given here, too. The server drops every +, not only acknowledgements."""
    server = Server(tmp_path / "gdb", lambda asked: told.get(asked) or usual(asked))
    server.start()
    return Stub(tmp_path / "gdb"), server


def test_a_stop_that_nobody_asked_for_tells_that_the_machine_ran(tmp_path: Path) -> None:
    greeting = packet("T02thread:01;") + packet("PacketSize=1000")
    stub, _ = _lone(tmp_path, {"qSupported:vContSupported": greeting})
    with stub:
        assert stub.announced
        assert stub.numbers == (1, 2)


def test_a_stub_that_names_processes_too(tmp_path: Path) -> None:
    """QEMU's does so for everybody once a gdb was connected, and lets no process go that is not named."""
    stub, server = _lone(tmp_path, {"qfThreadInfo": packet("mp01.01,p01.02"), "D": packet("E22")})
    with stub:
        assert not stub.announced
        assert stub.numbers == (1, 2)
        stub.leave()
    assert server.asked[-1] == "D;1"


@pytest.mark.parametrize("threads", ["mx", "m", "mp1", "mp.1", "m01,"])
def test_threads_without_numbers_are_one_line(tmp_path: Path, threads: str) -> None:
    with pytest.raises(DebuggerError, match="names its threads"):
        _lone(tmp_path, {"qfThreadInfo": packet(threads)})


def test_the_monitor_behind_the_stub(tmp_path: Path) -> None:
    asked = "qRcmd," + b"info status".hex()
    said = packet("O" + b"VM status: ".hex()) + packet("O" + b"paused".hex()) + packet("OK")
    stub, _ = _lone(tmp_path, {asked: said, "qRcmd," + b"info version".hex(): packet("E01")})
    with stub:
        assert stub.monitor("info status") == "VM status: paused"
        assert stub.monitor("info version") == ""


# --- stubs that do not come to an end


@contextlib.contextmanager
def talker(path: Path, said: Iterable[bytes]) -> Iterator[None]:
    """A stub that talks without having been asked, until nobody listens any more."""

    def talk(connection: socket.socket) -> None:
        for each in said:
            connection.sendall(each)

    with serving(path, talk):
        yield


@pytest.mark.parametrize(
    ("begin", "then", "words"),
    [
        (b"", b"A" * 65536, "the stub did not answer within 0.2 s; the answer is no packet"),
        (b"$", b"A" * 65536, "a packet of more than 65536 characters; does a gdb stub listen there"),
        (b"", b"$m1#ff" * 1000, "the stub did not answer within 0.2 s; its packets had wrong checksums"),
    ],
)
def test_one_that_never_stops_talking_is_one_line(tmp_path: Path, begin: bytes, then: bytes, words: str) -> None:
    said = itertools.chain([begin], itertools.repeat(then))
    with talker(tmp_path / "gdb", said), pytest.raises(DebuggerError, match=words) as failure:
        Stub(tmp_path / "gdb", timeout=0.2)
    assert failure.value.where == str(tmp_path / "gdb")


def test_a_list_of_threads_without_an_end_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DebuggerError, match="the stub's list of threads has no end; "):
        _lone(tmp_path, {"qsThreadInfo": packet("m1")})


def test_a_monitor_without_an_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 1000)
    said = packet("O" + "41" * 200) * 6
    stub, _ = _lone(tmp_path, {"qRcmd," + b"info status".hex(): said})
    with stub, pytest.raises(DebuggerError, match="the stub's answer to 'info status' has no end; "):
        stub.monitor("info status")


def test_many_packets_to_one_question_have_one_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these comes at once, and none of them says a thing: only the clock ends it."""
    times = itertools.count(0.0, 0.01)
    said = itertools.chain([packet("PacketSize=1000") + packet("l")], itertools.repeat(packet("O")))
    with talker(tmp_path / "gdb", said), Stub(tmp_path / "gdb", timeout=1) as stub:
        monkeypatch.setattr("kgen.machine.rsp.time.monotonic", lambda: next(times))
        with pytest.raises(DebuggerError, match="has no end"):
            stub.monitor("info status")


# --- damaged and odd answers


def test_a_damaged_packet_is_asked_for_again(serve: Serve) -> None:
    stub, server = serve(lambda asked: b"$abcd#00")
    server.again = packet("0102")
    assert stub.read_memory(0x1000, 2) == b"\x01\x02"


def test_packets_that_stay_damaged_are_one_line(tmp_path: Path) -> None:
    server = Server(tmp_path / "gdb", lambda asked: b"$l#zz")
    server.start()
    with pytest.raises(DebuggerError, match=r"did not answer within 0\.2 s; its packets had wrong checksums"):
        Stub(tmp_path / "gdb", timeout=0.2)


def test_an_odd_answer_is_cut(serve: Serve) -> None:
    stub, _ = serve(lambda asked: packet("Z" * 30_000))
    for act in (lambda: stub.read_memory(0, 4), lambda: stub.write_u32(0, 1), lambda: stub.step(1)):
        with pytest.raises((DebuggerError, GuestCrash), match=r"\(30000 characters\)") as failure:
            act()
        assert len(failure.value.line) < 300


def test_a_stop_in_other_words_is_none(serve: Serve) -> None:
    """So it is not known that the machine stands still: it is asked to stop, and let go, whatever comes of it."""
    stub, server = serve(lambda asked: packet("OK"))
    stub.go()
    with pytest.raises(DebuggerError, match="the stub says 'OK' where a stop was expected"):
        stub.halted(5)
    assert server.asked[-1] == "c"


def test_a_stub_that_does_not_answer_says_when_and_then_why(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "gdb"))
        listener.listen(1)
        with pytest.raises(DebuggerError, match=r"the stub did not answer within 0.2 s; is another debugger connected"):
            Stub(tmp_path / "gdb", timeout=0.2)
