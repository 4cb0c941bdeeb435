"""Platforms: what runs a kernel. One file a platform, each exposing ``PLATFORM = Platform(...)``."""

from __future__ import annotations

from kgen import registry
from kgen.errors import unknown
from kgen.machine.platform import Platform


def platforms() -> dict[str, Platform]:
    """Return every platform by name."""
    return registry.discover("kgen.platforms", "PLATFORM", Platform)


def platform_named(name: str) -> Platform:
    """Return the platform of that name. Raises SpecError."""
    known = platforms()
    if name not in known:
        raise unknown("platform", name, known)
    return known[name]
