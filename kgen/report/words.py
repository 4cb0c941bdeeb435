"""Words that every report needs."""

from __future__ import annotations


def plural(count: int, what: str) -> str:
    """A number of things: ``1 lab``, ``2 labs``, ``3 accesses``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"
