"""What every test shares: where the repository is, which tests boot machines, and that none of them leaks a process."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from draws import DRAWS
from hypothesis import settings

# How long an example takes says how busy the host is, nothing about kgen. The examples of properties are the same in
# every run, so that a change is not blamed for what was there before it; `make soak` draws others (`random`), and more,
# also where the environment says CI, for which hypothesis has a profile that always draws the same.
settings.register_profile("random", deadline=None, derandomize=False)
settings.register_profile("kgen", deadline=None, derandomize=True, max_examples=DRAWS)
settings.load_profile("kgen")

REPOSITORY = Path(__file__).resolve().parent.parent
_BOOT_TOOLS = ("qemu-system-x86_64", "gdb")
#: Directories of tests whose members carry a marker without having to say so.
_MARKED = {REPOSITORY / "tests" / "boot": "boot", REPOSITORY / "tests" / "soak": "soak"}
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout under test."""
    return REPOSITORY


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """`make test` has a worker a processor; see tests/workers.py."""
    from workers import VerdictsLast

    return VerdictsLast(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their directory, before ``-m`` selects."""
    for path, some in groupby(items, key=lambda item: item.path):
        markers = [marker for directory, marker in _MARKED.items() if directory in path.parents]
        for item in some:
            for marker in markers:
                item.add_marker(marker)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that boots is skipped, visibly, where the tools are missing; `make test` installs them."""
    if item.get_closest_marker("boot") is not None:
        missing = [tool for tool in _BOOT_TOOLS if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed; `make test` installs what is missing")


@pytest.fixture(scope="session", autouse=True)
def _nothing_outlives_the_tests() -> Iterator[None]:
    """Nothing kgen started outlives it.

    On Linux the test process adopts orphans (PR_SET_CHILD_SUBREAPER), so that a QEMU whose kgen was killed
    is seen here too. A zombie is dead and does not count.
    """
    if sys.platform != "linux":
        yield
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _children()
    yield
    left = {pid: name for pid, name in _children().items() if pid not in before}
    assert not left, f"processes outlived the tests: {left}"


def _children() -> dict[int, str]:
    """Living children of this process: their names by process id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended while we were looking
            continue
        # proc(5): pid (name) state ppid ...; the name may hold spaces and brackets.
        name = text[text.index("(") + 1 : text.rindex(")")]
        state, parent = text[text.rindex(")") + 1 :].split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            found[int(stat.parent.name)] = name
    return found
