"""Signals that end kgen are raised as exceptions, so that everything is released on the way out."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: The signals that end kgen, where the system has them.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(SystemExit):
    """A signal that ends us.

    A SystemExit, because an event loop swallows every other exception that a callback raises, and kgen would run on.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        # the exit code, in case the exception is raised when no handler is left
        super().__init__(128 + number)

    def __str__(self) -> str:
        return signal.Signals(self.number).name


@contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that no temporary file is left. Raises Terminated.

    Only once: a second signal must not interrupt the clean-up, in which every wait is bounded. Nothing changes outside
    the main thread, nor for a signal that is handled already or ignored, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        for other in taken:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def ended_by(error: BaseException | None) -> Terminated | None:
    """Return the signal that is this error, or during whose clean-up the error was raised."""
    while error is not None and not isinstance(error, Terminated):
        error = error.__context__
    return error


@contextmanager
def tidy_end() -> Iterator[None]:
    """As ``orderly_end``, for a library: when everything is released, the signal ends the process as it would without
    kgen."""
    try:
        with orderly_end():
            yield
    except BaseException as error:
        came = ended_by(error)
        if came is not None:
            signal.raise_signal(came.number)
        raise


@contextlib.contextmanager
def noted_ctrl_c(*, second_interrupts: bool) -> Iterator[list[int]]:
    """Count Ctrl-C instead of being interrupted in a wait by it; the second one does interrupt, where that is
    requested. Outside the main thread nothing is counted."""
    seen: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    # A signal that was ignored from the start, as in a shell's background, stays ignored.
    if not ours or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield seen
        return

    def note(number: int, _frame: object) -> None:
        if seen and second_interrupts:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signals_held(now: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold back the signals that end kgen: what their handlers raise meanwhile is raised at the end. ``now`` is called
    when a signal arrives, to reach that end soon.

    Raised within fork(2) Python forgets it; within asyncio it would be swallowed, or be raised at the next wait, or
    leave a task that never ends. Signals are not blocked, because a thread of a library could take them then.
    Handlers run in the main thread; in another thread there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised: list[BaseException] = []
    before: dict[int, Any] = {}
    inside = True

    def hold(number: int, frame: Any) -> None:
        try:
            if before[number] is signal.SIG_DFL:
                raise _Fatal(number)
            before[number](number, frame)
        except BaseException as error:
            if not inside:
                raise
            raised.append(error)
            now()

    try:
        for number in ENDING:
            handler = signal.getsignal(number)
            if callable(handler) or handler is signal.SIG_DFL:
                before[number] = handler
                signal.signal(number, hold)
        yield
    finally:
        try:
            for number, handler in before.items():
                # a handler may have set another one, to run only once
                if signal.getsignal(number) is hold:
                    signal.signal(number, handler)
        finally:
            inside = False
        if raised:
            if isinstance(raised[0], _Fatal):
                signal.raise_signal(raised[0].number)
            raise raised[0]


class _Fatal(BaseException):
    """A signal that nothing handles, which ends the process."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)
