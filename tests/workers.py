"""How `pytest -n` shares the tests out: what needs the processor alone first, on all workers; machines last, on one.

A second machine beside the one under test would change what it shows, and so would a busy host.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

#: Directories, from the root of the repository, whose tests start machines.
_MACHINES = (PurePosixPath("tests/boot"), PurePosixPath("tests/soak"))


class MachinesLast(LoadScheduling):
    """Tests that start machines wait for all others, and one worker runs them all, in their order."""

    def _send_tests(self, node: WorkerController, num: int) -> None:
        assert self.collection is not None
        others = [index for index in self.pending if not _starts_machines(self.collection[index])]
        if others:
            given = others[:num]
        elif node is self._last(node):
            given = list(self.pending)
        else:
            # it ends what it still has, a few short tests, while the machines' worker ends its own
            node.shutdown()
            return
        self.pending[:] = [index for index in self.pending if index not in set(given)]
        self.node2pending[node].extend(given)
        node.send_runtest_some(given)

    def _last(self, node: WorkerController) -> WorkerController:
        """The worker that gets the machines: the first to ask, and where that one has died the next."""
        chosen = getattr(self, "_chosen", None)
        if chosen not in self.nodes:
            self._chosen = chosen = node
        return chosen


def _starts_machines(test: str) -> bool:
    path = PurePosixPath(test.partition("::")[0])
    return any(directory in path.parents for directory in _MACHINES)
