"""How `pytest -n` shares the tests out: those that weigh a verdict last, on one worker, all others on all of them.

Whether a control shows enough is a matter of how CPUs contend, and a second machine or a busy host would change that.
All else, a boot or a debugger's session, only takes longer.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

#: Files of tests/boot whose tests need the host to themselves: on a busy one CPUs hardly meet, in ten runs neither.
_ALONE = frozenset(
    f"test_{name}.py"
    for name in (
        *("api_docs", "mutants", "pytest_machines", "scene"),
        *("suite", "targets", "verify"),
    )
)
_BOOT, _SOAK = PurePosixPath("tests/boot"), PurePosixPath("tests/soak")
#: Tests without a machine that a worker is given at once: few, so that all workers end together.
_CHUNK = 16


class VerdictsLast(LoadScheduling):
    """First the files of tests that boot something, whole, for they share machines; then what boots nothing, in small
    portions; then, on one worker and in their order, the tests that need the host to themselves."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._chosen: WorkerController | None = None

    def _send_tests(self, node: WorkerController, num: int) -> None:
        assert self.collection is not None
        if len(self.node2pending[node]) > 1:
            # it has enough to go on with
            return
        tests = self.collection
        boots = [index for index in self.pending if _boots(tests[index]) and not needs_the_host(tests[index])]
        others = [index for index in self.pending if not _boots(tests[index])]
        if boots:
            given = [index for index in boots if _file(tests[index]) == _file(tests[boots[0]])]
        elif others:
            given = others[:_CHUNK]
        elif node is self._last(node):
            given = list(self.pending)
        else:
            # it ends the one test that it still has
            node.shutdown()
            return
        taken = set(given)
        self.pending[:] = [index for index in self.pending if index not in taken]
        self.node2pending[node].extend(given)
        node.send_runtest_some(given)
        if len(self.node2pending[node]) == 1:
            # a worker begins a test when it knows the next one
            self._send_tests(node, num)

    def _last(self, node: WorkerController) -> WorkerController:
        """The worker that has the host to itself: the first to ask, and where that one has died the next."""
        if self._chosen is None or self._chosen not in self.nodes:
            self._chosen = node
        return self._chosen


@cache
def needs_the_host(test: str) -> bool:
    """Whether the test of that id is one that nothing may run beside."""
    path = _file(test)
    return _SOAK in path.parents or (path.parent == _BOOT and path.name in _ALONE)


@cache
def _boots(test: str) -> bool:
    return bool({_BOOT, _SOAK} & set(_file(test).parents))


@cache
def _file(test: str) -> PurePosixPath:
    return PurePosixPath(test.partition("::")[0])
