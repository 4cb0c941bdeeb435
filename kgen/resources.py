"""Where the files that are not Python live: beside the package in a checkout, inside it in an installed wheel; and the
user's directory for what can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kgen.errors import KgenError


def data_dir(name: str) -> Path:
    """Return the directory of that name ("kernel_templates", "gdb_scripts"). Raises KgenError when it is nowhere."""
    package = Path(__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise KgenError(f"the {name} directory is missing from this installation", hint="install kgen again")


def cache_home() -> Path | None:
    """Return kgen's directory in the user's cache, None where the user has no such place.

    ``XDG_CACHE_HOME`` moves it (XDG Base Directory Specification); on Windows it is in ``LOCALAPPDATA``.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "kgen"
    local = os.environ.get("LOCALAPPDATA", "")
    if sys.platform == "win32" and local:
        return Path(local) / "kgen"
    try:
        return Path.home() / ".cache" / "kgen"
    except RuntimeError:
        return None
