"""Signals that end us wait while we hold them, and are raised, or end us, afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from running import environment

from kgen.host.signals import signals_held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process signals itself in another way there")

UNHANDLED = """
import os, signal
from kgen.host.signals import signals_held
with signals_held():
    os.kill(os.getpid(), signal.SIGTERM)
    print("inside", flush=True)
print("after", flush=True)
"""


def test_what_a_handler_raises_is_raised_at_the_end() -> None:
    came: list[str] = []

    def within() -> None:
        with signals_held(lambda: came.append("now")):
            os.kill(os.getpid(), signal.SIGINT)
            came.append("inside")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        within()
    assert came == ["now", "inside"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_nothing_handles_ends_the_process_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNHANDLED], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "inside\n")


def test_one_holding_within_another_waits_for_the_outer_one() -> None:
    reached = []

    def within() -> None:
        with signals_held():
            with signals_held():
                os.kill(os.getpid(), signal.SIGINT)
            reached.append("between")

    with pytest.raises(KeyboardInterrupt):
        within()
    assert reached == ["between"]
