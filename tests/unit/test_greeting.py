"""Stub, control socket and monitor, each in the place of another: one line that says which it is."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from serving import serving

from kgen.build import build, write
from kgen.cli import main
from kgen.errors import DebuggerError, MachineError
from kgen.machine import foreign, greeting
from kgen.machine.rsp import Stub
from kgen.spec import Case, KernelSpec

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
PEOPLE = b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "
STOPPED = b"$T05thread:01;#07"
KINDS = {greeting.CONTROL: GREETING, greeting.MONITOR: PEOPLE, greeting.STUB: STOPPED}


@contextlib.contextmanager
def greeter(path: Path, said: bytes) -> Iterator[list[bytes]]:
    """Greets everybody who connects, in two pieces, and hears them out."""
    heard: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(4)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(said[:3])
                    connection.sendall(said[3:])
                    while data := connection.recv(4096):
                        heard.append(data)

    threading.Thread(target=serve, daemon=True).start()
    yield heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_recognised(kind: str, tmp_path: Path) -> None:
    assert greeting.kind_of(KINDS[kind]) == kind
    with greeter(tmp_path / "s", KINDS[kind]):
        assert greeting.listening(str(tmp_path / "s"), 5.0) == kind


@pytest.mark.parametrize("said", [b"", b"+", b"{", b"$", b"HTTP/1.1 400 Bad Request", b"(qemu) ", b"$OK#9a"])
def test_what_is_none_of_them_is_not(said: bytes) -> None:
    assert greeting.kind_of(said) == ""


@pytest.mark.parametrize("kind", [greeting.CONTROL, greeting.MONITOR])
def test_another_socket_as_the_stub(kind: str, tmp_path: Path) -> None:
    with greeter(tmp_path / "s", KINDS[kind]), pytest.raises(DebuggerError) as failure:
        Stub(tmp_path / "s", timeout=5.0)
    assert failure.value.line.startswith(
        f"{tmp_path / 's'}: is {kind} ({greeting.OPTIONS[kind]}), and no gdb stub; give"
    )
    assert failure.value.line.endswith("what QEMU's -gdb was given")


@pytest.mark.parametrize("kind", [greeting.MONITOR, greeting.STUB])
def test_another_socket_as_the_control_socket(kind: str, tmp_path: Path) -> None:
    with greeter(tmp_path / "s", KINDS[kind]) as heard, pytest.raises(MachineError) as failure:
        foreign.ask_control(contextlib.ExitStack(), str(tmp_path / "s"))
    assert failure.value.line == (
        f"{tmp_path / 's'}: is {kind} ({greeting.OPTIONS[kind]}), and not QEMU's control socket; give --qmp what "
        "QEMU's -qmp was given"
    )
    # a machine that was stopped by the mistake is let run
    assert b"".join(heard) == (b"+$D;1#b0" if kind == greeting.STUB else b"")


def answering(connection: socket.socket) -> None:
    """QEMU's control socket."""
    connection.sendall(GREETING)
    # one command at a time is on its way, and no line end comes with it
    while data := connection.recv(4096):
        asked = json.loads(data)
        connection.sendall(json.dumps({"return": {"status": "running"}, "id": asked.get("id")}).encode() + b"\r\n")


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("[::1]", socket.AF_INET6)])
def test_a_control_socket_in_the_network(host: str, family: socket.AddressFamily) -> None:
    try:
        listener = socket.create_server((host.strip("[]"), 0), family=family)
    except OSError:
        pytest.skip(f"there is no {host} here")

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            answering(connection)

    threading.Thread(target=serve, daemon=True).start()
    with listener, contextlib.ExitStack() as stack:
        control, status = foreign.ask_control(stack, f"{host}:{listener.getsockname()[1]}")
        assert control is not None
        assert status == "running"


def test_no_control_socket_in_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MachineError, match=rf"127.0.0.1:{port}: no QEMU answers: .*; check --qmp"):
        foreign.ask_control(contextlib.ExitStack(), f"127.0.0.1:{port}")


@pytest.mark.parametrize("greets", [False, True])
def test_an_answer_of_many_megabytes_is_one_line(greets: bool, tmp_path: Path) -> None:
    """asyncio raises a ValueError for it."""

    def talk(connection: socket.socket) -> None:
        if greets:
            connection.sendall(GREETING)
            asked = json.loads(connection.recv(4096))
            connection.sendall(json.dumps({"return": {}, "id": asked.get("id")}).encode() + b"\r\n")
            connection.recv(4096)
        connection.sendall(b'{"return": "' + b"a" * (30 << 20) + b'"}\r\n')

    with serving(tmp_path / "s", talk), pytest.raises(MachineError) as failure, contextlib.ExitStack() as stack:
        foreign.ask_control(stack, str(tmp_path / "s"))
    assert failure.value.line.startswith(f"{tmp_path / 's'}: QEMU")
    assert len(failure.value.line) < 400
    assert failure.value.line.endswith(
        "check --qmp, which QEMU serves to one at a time; a gdb stub goes first, without --qmp"
    )


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernel")
    write(build(KernelSpec(Case.from_id("xchg.32.vga-text.token"))), folder)
    return folder / "kernel.elf"


@pytest.mark.skipif(shutil.which("gdb") is None, reason="there is no gdb")
@pytest.mark.parametrize("kind", [greeting.CONTROL, greeting.MONITOR])
@pytest.mark.parametrize("command", ["inspect", "watch"])
def test_another_socket_as_the_stub_of_a_command(command: str, kind: str, elf: Path, tmp_path: Path) -> None:
    where = str(tmp_path / "s")
    words = [str(elf), where] if command == "inspect" else [where, str(elf)]
    with greeter(tmp_path / "s", KINDS[kind]):
        done: Result = CliRunner().invoke(main, [command, *words, "--timeout", "2"])
    assert done.exit_code == 9
    (line,) = done.output.splitlines()
    assert line.startswith(f"kgen: error: {where}: is {kind} ({greeting.OPTIONS[kind]}), and no gdb stub; give")
    assert "the machine was left" not in line
