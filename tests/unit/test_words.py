"""Plain technical English: words that readers whose first language is another one must guess at stand nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What to say instead: who acts (no CPU, the user, the caller), reports, available, waits for a breakpoint.
WORDS = (
    "nobody",
    "somebody",
    "whoever",
    "to be had",
    "is told",
    "are told",
    "told once more",
    "lies in wait",
    "lie in wait",
)
#: An identifier's underscores separate words as blanks do; a letter or a digit on either side makes another word.
PATTERN = re.compile(
    "|".join(rf"(?<![a-z0-9]){word.replace(' ', '[ _]')}(?![a-z0-9])" for word in WORDS), re.IGNORECASE
)
TREES = {
    "kgen": "**/*",
    "kernel_templates": "**/*",
    "gdb_scripts": "**/*",
    "docs": "**/*.md",
    ".": "README.md",
}


def lines_of(tree: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a tree's texts, each with the place where it stands."""
    for path in sorted((ROOT / tree).glob(TREES[tree])):
        if path.is_file() and "__pycache__" not in path.parts:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield f"{path.relative_to(ROOT)}:{number}", line


@pytest.mark.parametrize("tree", TREES)
def test_no_word_is_a_riddle(tree: str) -> None:
    lines = list(lines_of(tree))
    assert lines
    assert [f"{place}: {line.strip()}" for place, line in lines if PATTERN.search(line)] == []


@pytest.mark.parametrize(
    "line",
    ["# Nobody listens", "a value that nobody wrote", "def lies_in_wait(self)", "is not to be had here", "_is_told"],
)
def test_a_riddle_is_found(line: str) -> None:
    assert PATTERN.search(line)


@pytest.mark.parametrize("line", ["everybody", "nobodys", "this told", "is toldest", "to be handed over"])
def test_other_words_are_not(line: str) -> None:
    assert not PATTERN.search(line)
