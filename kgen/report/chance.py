"""How probable it is that two runs differ by chance: the exact test of two counts."""

from __future__ import annotations
