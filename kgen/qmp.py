"""QEMU's control socket, through QEMU's own library, and the one place where a machine is waited for.

The library is asyncio; its loop runs only inside our calls, so there is no thread. ``wait`` lets that loop watch other
descriptors too: serial bytes, events and the end of QEMU wake the same wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import signal
import socket
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from kgen.errors import MachineError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

T = TypeVar("T")

_PARSE_SECONDS = 0.05
#: Characters of the library's message that are told.
_TOLD = 200


class Qmp:
    """A control session on a connected socket. ``events`` holds QMP events as they came, oldest first."""

    def __init__(self, control: socket.socket, timeout: float, where: str = "") -> None:
        """Greet QEMU and negotiate. QEMU answers when it has set the machine up. ``where`` is how errors call a socket
        that somebody named.

        Raises MachineError when it does not answer within ``timeout`` seconds or hangs up; the socket is closed then.
        """
        from qemu.qmp import QMPClient, QMPError  # 66 ms, spent while QEMU starts

        # A QEMU that dies is for us to explain; the library would print to the terminal.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self.events: list[Mapping[str, Any]] = []
        self._failures = (QMPError, EOFError, OSError, asyncio.TimeoutError)
        self._control = control
        self._where = where
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report_failure)
        try:
            self._client = self._run(self._connect(QMPClient("kgen"), control, timeout))
        except BaseException as error:
            self._end_loop()
            control.close()
            if isinstance(error, self._failures):
                raise self.failed(f"QEMU's control socket failed: {_reason(error)}") from error
            raise

    def failed(self, what: str) -> MachineError:
        """The error that says so, with its place and what to do."""
        hint = "check --qmp, which QEMU serves to one at a time" if self._where else ""
        return MachineError(what, where=self._where, hint=hint)

    @property
    def alive(self) -> bool:
        """Whether QEMU holds its end of the connection, as of the last call that waited."""
        return self._client.runstate.name == "RUNNING"

    def execute(self, command: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """Run one command; its return value. Raises MachineError when QEMU refuses, is gone, or does not answer."""
        if not self.alive:
            raise self.failed(f"QEMU is gone, so it cannot be asked for {command}")
        try:
            return self._run(asyncio.wait_for(self._client.execute(command, dict(arguments)), timeout))
        except asyncio.TimeoutError as error:
            raise self.failed(f"QEMU did not answer {command} within {timeout:g} s") from error
        except self._failures as error:
            raise self.failed(f"QEMU refused {command}: {_reason(error)}") from error

    def wait(self, timeout: float, fds: Sequence[int] = ()) -> None:
        """Wait until a descriptor is readable, an event has come, or QEMU has hung up; at most ``timeout`` seconds."""
        # What has arrived must not be missed for want of time to parse it, not even by a call that does not wait.
        arrived, _, _ = select.select([self._control], [], [], 0) if self.alive else ([], [], [])
        self._run(self._wait(max(timeout, _PARSE_SECONDS if arrived else 0.0), fds))

    def forget(self) -> None:
        """Drop the events that have come and that nobody has waited for."""
        self._client.events.clear()

    def close(self) -> None:
        """Hang up. May be called twice."""
        if not self._loop.is_closed():
            self._end_loop(self._disconnect())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    @staticmethod
    async def _connect(client: QMPClient, control: socket.socket, timeout: float) -> QMPClient:
        control.setblocking(False)
        await asyncio.wait_for(client.connect(control), timeout)
        return client

    async def _wait(self, timeout: float, fds: Sequence[int]) -> None:
        if not self.alive:
            return
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        for fd in fds:
            loop.add_reader(fd, readable.set)
        event = asyncio.create_task(self._client.events.get())
        ended = asyncio.create_task(self._client.runstate_changed())
        tasks: set[asyncio.Task[Any]] = {event, ended, asyncio.create_task(readable.wait())}
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for fd in fds:
                loop.remove_reader(fd)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not event.cancelled():
            self.events.append(dict(event.result()))
        self.events.extend(dict(message) for message in self._client.events.clear())

    async def _disconnect(self) -> None:
        with contextlib.suppress(*self._failures):  # how the connection ended no longer matters
            await asyncio.wait_for(self._client.disconnect(), 1.0)

    def _end_loop(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run ``last``, cancel what an interrupt may have left behind, and close the loop.

        A signal waits until that is done, which is bounded: tasks of a loop that was left half closed would be told
        about at the end of the program.
        """
        with signals_wait():
            try:
                if last is not None:
                    self._run(last)
            finally:
                while left := asyncio.all_tasks(self._loop):
                    for task in left:
                        task.cancel()
                    self._run(_settle(left))
                self._loop.close()


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Hold back the signals that end us, where signals can be held back."""
    numbers = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _report_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As by default, but an interrupt that went through a task is not told again when the task is forgotten."""
    if not isinstance(context.get("exception"), (SystemExit, KeyboardInterrupt)):
        loop.default_exception_handler(context)


async def _settle(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _reason(error: BaseException) -> str:
    """The library's message, or what kind of failure it was."""
    cause = getattr(error, "exc", None)
    if isinstance(error, asyncio.TimeoutError) or isinstance(cause, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, EOFError) or isinstance(cause, EOFError):
        return "QEMU hung up"
    while (inner := getattr(cause, "exc", None)) is not None:
        cause = inner
    text = str(error).strip()
    if text.endswith(":") and cause is not None and not str(cause):  # the library's own checks say nothing
        text += " what came is no answer that QEMU gives"
    shown = "".join(each if each.isprintable() or each.isspace() else "?" for each in text)
    return " ".join(shown.split())[:_TOLD] or type(error).__name__
