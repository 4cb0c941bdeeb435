"""Progress bars for long tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kgen.lab.system import Stage


@contextmanager
def stages(console: Console) -> Iterator[Callable[[Stage], None]]:
    """Yield a function that shows each stage: as a bar on a terminal, as a line elsewhere."""
    current = ""
    if not (console.is_terminal and console.file.isatty()):

        def tell(stage: Stage) -> None:
            nonlocal current
            if stage.name != current:
                current = stage.name
                console.file.write(f"{stage.name}\n")
                console.file.flush()

        yield tell
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        task: TaskID | None = None

        def draw(stage: Stage) -> None:
            nonlocal current, task
            if stage.name != current or task is None:
                for last in bars.task_ids[-1:]:
                    bars.update(last, total=1, completed=1)
                current = stage.name
                task = bars.add_task(stage.name, total=None)
            if stage.total:
                bars.update(task, total=stage.total, completed=stage.done)

        yield draw
        for last in bars.task_ids[-1:]:
            bars.update(last, total=1, completed=1)
