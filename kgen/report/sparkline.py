"""Numbers as a row of small bars."""

from __future__ import annotations
