"""A progress bar for what is done soon as a rule, and takes long now and then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kgen.offline.progress import Tell, untold

#: What takes less than these seconds has no bar.
LATE_SECONDS = 2.0


@contextmanager
def late(console: Console) -> Iterator[Tell]:
    """Yield a function that takes how far something has come. It is shown on a terminal only, once LATE_SECONDS have
    passed since its first call, and nothing of it stays.
    """
    if not (console.is_terminal and console.file.isatty()):
        yield untold
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    # nothing is printed meanwhile: the streams stay as they are
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bars.add_task("", total=None)
    # not the first call after that time: a step may be longer than that
    timer = threading.Timer(LATE_SECONDS, bars.start)
    timer.daemon = True

    def tell(what: str, done: int, total: int) -> None:
        bars.update(task, description=what, completed=done, total=total or None)
        if timer.ident is None:
            timer.start()

    try:
        yield tell
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        if bars.live.is_started:
            bars.stop()
