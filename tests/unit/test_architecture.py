"""docs/architecture.md, CONTRIBUTING.md and tests/README.md describe the tree as it is: every room, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHITECTURE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = ("docs/architecture.md", "CONTRIBUTING.md", "tests/README.md")
TREE, FIGURE = re.findall(r"^```text\n(.*?)^```$", ARCHITECTURE, re.MULTILINE | re.DOTALL)
#: What the tree does not show: a package's own file, the marker of typed packages, and what Python writes.
UNSHOWN = {"__init__.py", "py.typed", "__pycache__"}


def rooms() -> list[str]:
    """Return the entries of kgen/: rooms with a slash, and door modules."""
    entries = [path for path in (REPOSITORY / "kgen").iterdir() if path.name not in UNSHOWN]
    return sorted(f"{path.name}/" if path.is_dir() else path.name for path in entries)


def test_the_tree_is_the_directory() -> None:
    first, *lines = TREE.splitlines()
    assert first == "kgen/"
    rows = [re.fullmatch(r"  (\S+) +(\S.*)", line) for line in lines]
    assert all(rows), "each line is a name and what it is for"
    assert sorted(row[1] for row in rows if row) == rooms()


def test_the_tree_reads_from_the_top_to_the_bottom(repository: Path) -> None:
    """Its order is that of the layering test: what imports stands above what it imports."""
    text = (repository / "tests" / "unit" / "test_layering.py").read_text(encoding="utf-8")
    (table,) = re.findall(r"^LAYERS: .*? = \(\n(.*?)^\)$", text, re.MULTILINE | re.DOTALL)
    layers = [re.findall(r'"(\w+)"', line) for line in table.splitlines()]
    rank = {name: number for number, names in enumerate(layers) for name in names}
    shown = [rank[re.split(r"[/.]", line.split()[0])[0]] for line in TREE.splitlines()[1:]]
    assert shown == sorted(shown, reverse=True)


def _paths(text: str) -> Iterator[str]:
    """Yield the paths of this repository that stand in code spans; one with NAME in it is a pattern."""
    for span in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"(?:kgen|tests|kernel_templates|gdb_scripts|examples|docs|scripts)/[\w./-]*", span):
            yield span.replace("NAME.py", "")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    paths = list(_paths((REPOSITORY / page).read_text(encoding="utf-8")))
    assert paths
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_module_of_the_figure_exists() -> None:
    """In the figure and in the text below it a module stands without kgen/ and without .py."""
    named = {name for line in FIGURE.splitlines() for name in re.findall(r"\b([a-z]+/\w*)", line)}
    text = re.sub(r"^```text\n.*?^```$", "", ARCHITECTURE, flags=re.MULTILINE | re.DOTALL)
    named |= set(re.findall(r"`((?:kernel|evidence|verdict|report|run)/\w*)`", text))
    assert {"spec/", "toolchain/", "run/observe", "verdict/judge", "kernel/live"} <= named
    kgen = REPOSITORY / "kgen"
    assert [name for name in named if not (kgen / name).is_dir() and not (kgen / f"{name}.py").is_file()] == []


def test_every_make_target_is_described() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `make (\w+)` \|", contributing, re.MULTILINE)) == set(phony.split()) - {"help"}


def test_every_directory_of_tests_is_described() -> None:
    text = (REPOSITORY / "tests" / "README.md").read_text(encoding="utf-8")
    directories = {path.name for path in (REPOSITORY / "tests").iterdir() if path.is_dir()} - UNSHOWN
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == directories
