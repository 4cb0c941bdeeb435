"""Every example in docs/api.md, run as it stands there: in one directory, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import DEADLINE, environment

from kgen.machine.platform import LaunchRequest
from kgen.platforms import platform_named

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
_FENCE = re.compile(r"^## (.*?)$|^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of the document: its language, its text, and a name from the heading above it."""

    name: str
    language: str
    text: str


def _examples() -> Iterator[Example]:
    heading, number = "", 0
    for title, language, text in _FENCE.findall(TEXT):
        if title:
            heading, number = re.sub(r"\W+", "-", title).lower(), 0
            continue
        number += 1
        yield Example(f"{heading}-{number}", language, text)


EXAMPLES = tuple(_examples())


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are run."""
    return tmp_path_factory.mktemp("api")


def _run(words: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=directory, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
    )


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if each.language == "python"], ids=lambda each: each.name
)
def test_a_python_example_runs(example: Example, directory: Path) -> None:
    first = example.text.partition("\n")[0]
    if first.startswith("# needs /dev/kvm"):
        reason = platform_named("qemu-kvm").unavailable(LaunchRequest(kernel=None))
        if reason:
            pytest.skip(f"qemu-kvm: {reason}")
    if first.startswith("# test_"):
        # the commands below it run it
        (directory / first.removeprefix("# ")).write_text(example.text)
        return
    file = directory / "example.py"
    file.write_text(example.text)
    done = _run([sys.executable, file.name], directory)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


COMMANDS = [
    line for example in EXAMPLES if example.language == "sh" for line in example.text.splitlines() if line.strip()
]


@pytest.mark.parametrize("line", [line for line in COMMANDS if "qemu-kvm" not in line])
def test_a_pytest_command_runs(line: str, directory: Path) -> None:
    program, *words = shlex.split(line, comments=True)
    assert program == "pytest"
    done = _run(
        [sys.executable, "-m", "pytest", "-p", "kgen.pytest_plugin", "-p", "no:cacheprovider", *words], directory
    )
    # a log of few rounds may prove nothing, which fails with its reason
    inconclusive = "--kgen-log" in words and done.returncode == 1 and "INCONCLUSIVE: " in done.stdout
    assert done.returncode == 0 or inconclusive, f"{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout or inconclusive


def test_every_function_of_the_api_is_in_the_document() -> None:
    from kgen import api

    functions = [name for name in api.__all__ if name.islower()]
    assert functions
    assert [name for name in functions if not re.search(rf"(api\.|`){name}\b", TEXT)] == []
