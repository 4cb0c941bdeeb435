"""How `pytest -n` shares the tests out: those that must see a proof last, on one worker, all others on all of them.

How soon there is a proof is a matter of how often CPUs meet, and a second machine or a busy host changes that. All else
holds on any host and only takes longer: a boot, a debugger's session, a defect that is found.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScheduling
from xdist.workermanage import WorkerController

#: Files of tests/boot whose tests must see ATOMIC, or wait for violations that are rare. On a busy host CPUs hardly
#: meet: two at a time need more time than one after the other.
_ALONE = frozenset(f"test_{name}.py" for name in ("api_docs", "proofs", "scene", "suite", "targets"))
#: Files of tests/boot that take longest on an idle host, the longest first. They begin first, so that no worker is left
#: with one of them at the end; a file that is not here has its turn after them, in the order of its name.
_LONG = tuple(
    f"test_{name}.py"
    for name in (
        *("cli_verify", "inspect", "screen", "lab", "mutants", "kills", "gdb_commands", "suite_faults"),
        *("kernel_cpus", "watch", "target_places", "kernel_faults", "kernel_boot", "lying_guests", "verify"),
    )
)
_BOOT, _SOAK = PurePosixPath("tests/boot"), PurePosixPath("tests/soak")
#: Tests without a machine that a worker is given at once: few, so that all workers end together.
_CHUNK = 16


class VerdictsLast(LoadScheduling):
    """First the files of tests that boot something, whole, for they share machines, the longest first; then what boots
    nothing, in small portions; then, on one worker and in their order, the tests that need the host to themselves."""

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
            longest = min(boots, key=lambda index: (_turn(tests[index]), index))
            given = [index for index in boots if _file(tests[index]) == _file(tests[longest])]
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
            # a worker begins a test when it knows the next one, or that there is none
            if self.pending:
                self._send_tests(node, num)
            else:
                node.shutdown()

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
def _turn(test: str) -> int:
    """When the file of a test that boots something is begun, among all such files."""
    name = _file(test).name
    return _LONG.index(name) if name in _LONG else len(_LONG)


@cache
def _boots(test: str) -> bool:
    return bool({_BOOT, _SOAK} & set(_file(test).parents))


@cache
def _file(test: str) -> PurePosixPath:
    return PurePosixPath(test.partition("::")[0])
