"""The tests' own files: `make soak` takes several directories at once, and pytest no two modules of one name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def test_no_two_modules_have_one_name(repository: Path) -> None:
    files = [path for form in ("test_*.py", "soak_*.py") for path in (repository / "tests").rglob(form)]
    names = Counter(path.name for path in files)
    assert {"test_bochs.py", "soak_bochs.py"} <= set(names)
    assert not [name for name, times in names.items() if times > 1]


def test_every_long_test_is_found(repository: Path) -> None:
    assert all(path.name.startswith("soak_") for path in (repository / "tests" / "soak").glob("*.py"))
