"""The order in which `pytest -n` deals the tests out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers import _ALONE, _LONG, VerdictsLast

BOOT = Path(__file__).resolve().parents[1] / "boot"


class _Worker:
    """A worker that notes in a common list what it is given, and that it was given it."""

    def __init__(self, dealt: list[tuple[_Worker, list[int]]]) -> None:
        self.dealt = dealt
        self.ended = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.dealt.append((self, list(indices)))

    def shutdown(self) -> None:
        self.ended = True


def _deal(tests: list[str]) -> list[tuple[_Worker, list[str]]]:
    """What two workers are given, in order, where all that one of them is given takes the same time."""
    scheduler: Any = object.__new__(VerdictsLast)
    dealt: list[tuple[_Worker, list[int]]] = []
    workers = [_Worker(dealt) for _ in range(2)]
    scheduler._chosen = None
    scheduler.collection, scheduler.pending = tests, list(range(len(tests)))
    scheduler.node2pending = {worker: [] for worker in workers}
    while scheduler.pending:
        for worker in workers:
            scheduler.node2pending[worker].clear()
            if not worker.ended:
                scheduler._send_tests(worker, 1)
    return [(worker, [tests[index] for index in given]) for worker, given in dealt]


def test_the_tables_name_files_that_are_there() -> None:
    for name in (*_ALONE, *_LONG):
        assert (BOOT / name).is_file(), name
    assert not _ALONE & set(_LONG)
    assert len(set(_LONG)) == len(_LONG)


def test_the_longest_first_what_is_new_after_them_and_proofs_on_one_worker_at_the_end() -> None:
    long, longer = (f"tests/boot/{name}::test_it" for name in (_LONG[1], _LONG[0]))
    new = [f"tests/boot/test_{name}.py::test_{number}" for name in ("brand_new", "newer") for number in (1, 2)]
    alone = [f"tests/boot/{name}::test_it" for name in sorted(_ALONE)]
    units = [f"tests/unit/test_a.py::test_it[{number}]" for number in range(40)]
    tests = [*units, *new, *alone, long, longer]
    dealt = [given for _, given in _deal(tests)]
    assert sorted(test for given in dealt for test in given) == sorted(tests)
    assert dealt[:4] == [[longer], [long], new[:2], new[2:]]
    assert dealt[-1] == alone
    assert all(test in units for given in dealt[4:-1] for test in given)


def test_a_worker_with_one_last_test_knows_that_none_follows() -> None:
    """It would wait for the next one."""
    proof = f"tests/boot/{min(_ALONE)}::test_it"
    worker, given = _deal([*(f"tests/unit/test_a.py::test_it[{number}]" for number in range(40)), proof])[-1]
    assert given == [proof]
    assert worker.ended
