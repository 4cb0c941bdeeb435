"""Systems: what a lab or a private root holds. One file a system, each exposing ``SYSTEM = System(...)``."""

from __future__ import annotations

from kgen import registry
from kgen.errors import unknown
from kgen.lab.system import System


def systems() -> dict[str, System]:
    """Return every system by name."""
    return registry.discover("kgen.systems", "SYSTEM", System)


def system_named(name: str) -> System:
    """Return the system of that name. Raises SpecError."""
    known = systems()
    if name not in known:
        raise unknown("system", name, known)
    return known[name]


def system_of(platform: str) -> System | None:
    """Return the system that a platform runs in, None where it runs in none."""
    return next((system for system in systems().values() if platform in system.platforms), None)
