"""Programs beside a test that each want a whole processor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from kgen.host.process import spawn


@contextmanager
def load(programs: int) -> Iterator[None]:
    """Run so many of them; they end with the block."""
    busy = [spawn([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for child in busy:
            child.kill()
