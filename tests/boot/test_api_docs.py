"""Every example in docs/api.md, run as it stands there: in one directory, one after the other, in one process.

Two of them demand a proof, and so have the host to themselves.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
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


#: Runs programs one after the other, each as if it were alone, and notes what became of each: "" or its traceback.
_ONE_PROCESS = """
import json, runpy, sys, traceback
ended = {}
for name in sys.argv[1:]:
    try:
        runpy.run_path(name + ".py", run_name="__main__")
        ended[name] = ""
    except BaseException:
        ended[name] = traceback.format_exc()
    with open("ended.json", "w") as file:
        json.dump(ended, file)
"""
#: For all of them, in seconds. One alone asks for a proof of up to 300.
_ALL = 600.0
pytestmark = pytest.mark.timeout(_ALL + 100)


def _run(words: list[str], directory: Path, seconds: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=directory, env=environment(), capture_output=True, text=True, timeout=seconds, check=False
    )


def _file_of(example: Example) -> str:
    """The name of a file that an example is to have, as its first line says, or its own: without the ending."""
    first = example.text.partition("\n")[0]
    return first.removeprefix("# ").removesuffix(".py") if first.startswith("# test_") else example.name


def _not_here(example: Example) -> str:
    """Why an example cannot run on this host; "" where it can."""
    if not example.text.startswith("# needs /dev/kvm"):
        return ""
    return platform_named("qemu-kvm").unavailable(LaunchRequest(kernel=None))


PYTHON = tuple(example for example in EXAMPLES if example.language == "python")
#: The others are run by the commands below them.
PROGRAMS = tuple(example for example in PYTHON if _file_of(example) == example.name)


@pytest.fixture(scope="module")
def ended(directory: Path) -> Mapping[str, str]:
    """What became of each example, by its name: "" or its traceback."""
    for example in PYTHON:
        (directory / f"{_file_of(example)}.py").write_text(example.text, encoding="utf-8")
    names = [example.name for example in PROGRAMS if not _not_here(example)]
    done = _run([sys.executable, "-c", _ONE_PROCESS, *names], directory, _ALL)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, str] = json.loads((directory / "ended.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("example", PROGRAMS, ids=lambda each: each.name)
def test_a_python_example_runs(example: Example, ended: Mapping[str, str]) -> None:
    reason = _not_here(example)
    if reason:
        pytest.skip(f"qemu-kvm: {reason}")
    assert ended[example.name] == "", f"{example.name}:\n{ended[example.name]}"


COMMANDS = [
    line for example in EXAMPLES if example.language == "sh" for line in example.text.splitlines() if line.strip()
]


@pytest.mark.usefixtures("ended")
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
