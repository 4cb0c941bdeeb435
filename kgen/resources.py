"""Where the files that are not Python live: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from kgen.errors import KgenError


def data_dir(name: str) -> Path:
    """Return the directory of that name ("kernel_templates", "gdb_scripts"). Raises KgenError when it is nowhere."""
    package = Path(__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise KgenError(f"the {name} directory is missing from this installation", hint="install kgen again")
