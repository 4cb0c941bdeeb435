"""Names of files on standard output."""

from __future__ import annotations

import sys
from pathlib import Path

from kgen.wording import visible


def named(path: Path) -> str:
    """Return a file's name to be printed: as it is for a program, with control characters made visible for a
    terminal."""
    return visible(str(path)) if sys.stdout.isatty() else str(path)
