"""The directory is the registry: every module of a package contributes one named entry."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from kgen.errors import KgenError

T = TypeVar("T")


def discover(package: str, attribute: str, kind: type[T]) -> dict[str, T]:
    """Import every module of ``package`` and collect its ``attribute``, keyed by the entry's ``name``.

    The result is in the order of the module names. Modules that start with ``_`` are helpers and are left out.
    Raises KgenError naming the module when one fails to import, lacks the attribute, holds something other than
    a ``kind``, or repeats a name: a broken entry must never pass for a missing one.
    """
    found: dict[str, T] = {}
    owner: dict[str, str] = {}
    for module in _modules(package):
        entry = _entry(module, attribute, kind)
        name = getattr(entry, "name", None)
        if not isinstance(name, str) or not name:
            raise KgenError(f"{attribute} has no name", where=module)
        if name in found:
            raise KgenError(f"{attribute} repeats the name '{name}' of {owner[name]}", where=module)
        found[name] = entry
        owner[name] = module
    return found


def _modules(package: str) -> list[str]:
    """Return the full names of the package's public modules, sorted."""
    try:
        path = importlib.import_module(package).__path__
    except Exception as error:  # whatever a module raises while it loads is its own fault, not ours to select
        raise KgenError(f"cannot be imported: {error!r}", where=package) from error
    names = sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    return [f"{package}.{name}" for name in names]


def _entry(module: str, attribute: str, kind: type[T]) -> T:
    """Return the one entry a module contributes. Raises KgenError naming the module."""
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # as above
        raise KgenError(f"cannot be imported: {error!r}", where=module) from error
    if not hasattr(loaded, attribute):
        raise KgenError(f"has no {attribute}", where=module, hint="prefix helper modules with an underscore")
    entry = getattr(loaded, attribute)
    if not isinstance(entry, kind):
        raise KgenError(f"{attribute} is a {type(entry).__name__}, not a {kind.__name__}", where=module)
    return entry
