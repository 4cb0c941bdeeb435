"""QEMU's control socket, through QEMU's own library, and the one place where a machine is waited for.

The library uses asyncio. Its loop runs only inside our calls, so no thread is needed, except where the caller's thread
runs a loop already: asyncio refuses a second one in it. ``wait`` lets that loop watch other descriptors too: serial
bytes, events and the end of QEMU wake the same wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from kgen.errors import MachineError
from kgen.host.signals import signals_held
from kgen.wording import quoted

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

T = TypeVar("T")

_PARSE_SECONDS = 0.05
#: How many characters of the library's message are reported.
_TOLD = 200


class Qmp:
    """A control session on a connected socket. ``events`` holds QMP events in the order of their arrival."""

    def __init__(self, control: socket.socket, timeout: float, where: str = "") -> None:
        """Negotiate with QEMU, which answers when it has set the machine up. ``where`` names the socket in errors,
        where the user named it.

        Raises MachineError when it does not answer within ``timeout`` seconds or hangs up; the socket is closed then.
        """
        from qemu.qmp import QMPClient, QMPError  # 66 ms, spent while QEMU starts

        # kgen reports the death of QEMU; the library would print to the terminal.
        logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
        self.events: list[Mapping[str, Any]] = []
        # events that no caller has waited for so far
        self._fresh: list[Mapping[str, Any]] = []
        self._came = asyncio.Event()
        # asyncio raises a ValueError for a line that is longer than the library's buffer
        self._failures = (QMPError, EOFError, OSError, asyncio.TimeoutError, ValueError)
        self._control = control
        self._where = where
        self._loop = asyncio.new_event_loop()
        try:
            client = QMPClient("kgen")
            client.events.event_filter = self._take
            self._client = self._run(self._connect, client, control, timeout)
        except BaseException as error:
            self._end_loop()
            control.close()
            if isinstance(error, self._failures):
                raise self.failed(f"QEMU's control socket failed: {_reason(error)}") from error
            raise

    def failed(self, what: str) -> MachineError:
        """Return the error with its place and what to do."""
        hint = (
            "check --qmp, which QEMU serves to one at a time; a gdb stub goes first, without --qmp"
            if self._where
            else ""
        )
        return MachineError(what, where=self._where, hint=hint)

    @property
    def alive(self) -> bool:
        """Whether QEMU holds its end of the connection, as of the last call that waited."""
        return self._client.runstate.name == "RUNNING"

    def execute(self, command: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """Run one command and return its value.

        Raises MachineError when QEMU refuses, has ended, or does not answer.
        """
        if not self.alive:
            raise self.failed(f"QEMU has ended, so it cannot be asked for {command}")
        try:
            return self._run(self._execute, command, dict(arguments), timeout)
        except asyncio.TimeoutError as error:
            raise self.failed(f"QEMU did not answer {command} within {timeout:g} s") from error
        except self._failures as error:
            raise self.failed(f"QEMU refused {command}: {_reason(error)}") from error

    def wait(self, timeout: float, fds: Sequence[int] = ()) -> None:
        """Wait until a descriptor is readable, an event has come, or QEMU has hung up; at most ``timeout`` seconds."""
        # Time to parse what has arrived is never cut short, not even in a call that does not wait.
        arrived, _, _ = select.select([self._control], [], [], 0) if self.alive else ([], [], [])
        self._run(self._wait, max(timeout, _PARSE_SECONDS if arrived else 0.0), fds)

    def forget(self) -> None:
        """Drop the events that have arrived and that no caller has waited for."""
        self._fresh.clear()
        self._came.clear()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if not self._loop.is_closed():
            self._end_loop(hang_up=True)

    def _run(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Run this in the loop. A signal's handler that raises an exception meanwhile ends it."""

        running: list[asyncio.Task[T]] = []

        def leave_off() -> None:
            for task in running:
                task.cancel()

        with signals_held(lambda: self._loop.call_soon_threadsafe(leave_off)):
            running.append(self._loop.create_task(work(*arguments)))
            try:
                return self._until_done(running[0])
            finally:
                # here and not at the return: an exception that a handler raises while asyncio drops a task is lost
                running.clear()

    def _until_done(self, task: asyncio.Task[T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop.run_until_complete(task)
        # asyncio allows one loop in each thread
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._loop.run_until_complete, task).result()

    @staticmethod
    async def _connect(client: QMPClient, control: socket.socket, timeout: float) -> QMPClient:
        control.setblocking(False)
        await asyncio.wait_for(client.connect(control), timeout)
        return client

    def _take(self, event: Mapping[str, Any]) -> bool:
        """Return whether the library must keep an event. It would keep all of them for ever, so it keeps none: kgen
        does."""
        self._fresh.append(dict(event))
        self._came.set()
        return False

    async def _execute(self, command: str, arguments: dict[str, Any], timeout: float) -> Any:
        return await asyncio.wait_for(self._client.execute(command, arguments), timeout)

    async def _wait(self, timeout: float, fds: Sequence[int]) -> None:
        if not self.alive:
            return
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        for fd in fds:
            loop.add_reader(fd, readable.set)
        ended = asyncio.create_task(self._client.runstate_changed())
        tasks: set[asyncio.Task[Any]] = {ended, *map(asyncio.create_task, (self._came.wait(), readable.wait()))}
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for fd in fds:
                loop.remove_reader(fd)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self.events += self._fresh
        self.forget()

    async def _disconnect(self) -> None:
        with contextlib.suppress(*self._failures):  # how the connection ended no longer matters
            await asyncio.wait_for(self._client.disconnect(), 1.0)

    def _end_loop(self, *, hang_up: bool = False) -> None:
        """Close the connection if requested, end the library's tasks, and close the loop.

        Signals are held back until then, which takes a bounded time: asyncio would report the tasks of a loop that was
        not closed at the end of the program.
        """
        with signals_held():
            try:
                if hang_up:
                    self._run(self._disconnect)
            finally:
                while left := asyncio.all_tasks(self._loop):
                    for task in left:
                        task.cancel()
                    self._run(_settle, left)
                self._loop.close()


async def _settle(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _reason(error: BaseException) -> str:
    """Return the library's message, or what kind of failure it was."""
    cause = getattr(error, "exc", None)
    if isinstance(error, asyncio.TimeoutError) or isinstance(cause, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, EOFError) or isinstance(cause, EOFError):
        return "QEMU hung up"
    while (inner := getattr(cause, "exc", None)) is not None:
        cause = inner
    text = str(error).strip()
    if text.endswith(":") and cause is not None and not str(cause):  # the library's own checks have no message
        text += " what came is no answer that QEMU gives"
    shown = "".join(each if each.isprintable() or each.isspace() else "?" for each in text)
    return quoted(" ".join(shown.split()), _TOLD) or type(error).__name__
