"""A test a case, for ``pytest --pyargs kgen.conformance --kgen-platform NAME``; kgen.pytest_plugin does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kgen.report.results.model import Result


def test_lock_is_atomic(kgen_result: Result, kgen_check: Callable[[Result], None]) -> None:
    """Check that the verdict on the case may pass."""
    kgen_check(kgen_result)
