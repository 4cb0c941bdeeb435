"""A screen that is redrawn on a terminal, or a line each time elsewhere, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, RenderableType
from rich.live import Live

from kgen.host.signals import noted_ctrl_c
from kgen.inspection.glance import Glance
from kgen.watch.view import BARS, PLAIN, REMARK, View, line, screen


class Shown:
    """Where views are shown. ``live`` is rich's display on a terminal, None elsewhere. Ctrl-C is noted, not raised."""

    def __init__(self, console: Console, live: Live | None, noted: list[int]) -> None:
        self._console = console
        self._live = live
        self._noted = noted
        self._told: Glance | None = None

    def stopped(self) -> bool:
        """Return whether Ctrl-C was pressed."""
        return bool(self._noted)

    def show(self, view: View) -> None:
        """Show the next view."""
        if self._live is not None:
            self._live.update(self._screen(view), refresh=True)
        else:
            self._say(line(view))
            self._told = view.last

    def end(self, view: View) -> None:
        """Show the last view, and how the machine was left."""
        if self._live is not None:
            self._live.update(self._screen(view), refresh=True)
            return
        if view.last is None or view.last is not self._told:  # another time alone makes no new view
            self._say(line(view))
        self._say(f"{view.ending}; {view.left}")
        self._say(REMARK)

    def _screen(self, view: View) -> RenderableType:
        utf = self._console.encoding.lower().startswith("utf")
        return screen(view, self._console.width, BARS if utf else PLAIN)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
        self._console.file.flush()


@contextmanager
def shown(console: Console) -> Iterator[Shown]:
    """Yield the display that suits the console. It is removed at the end."""
    with ExitStack() as stack:
        live = None
        # A log with FORCE_COLOR set is no terminal, and a dumb one cannot move its cursor.
        if console.is_terminal and console.file.isatty() and not console.is_dumb_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        # a machine that is stopped for a look must run again first
        yield Shown(console, live, stack.enter_context(noted_ctrl_c(second_interrupts=False)))
