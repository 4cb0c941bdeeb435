"""The commands that README and docs show: every line of a shell block, and those in running text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click

from kgen.cli._options import CaseOptions
from kgen.spec import KernelSpec

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
DOCS = (
    README,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "tests" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GDB_PROMPT = "(gdb) "
_PROMPT = "$ "
#: Words in capitals that stand for what the reader puts there.
_PATTERN = re.compile(r"\.\.\.| \[|\b(?:CODE|DOMAIN|FILE|NAME|PORT|TEXT)\b")


def blocks(path: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page that are in one of these languages."""
    for language, body in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in languages:
            yield body


def in_blocks(path: Path) -> Iterator[str]:
    """Yield the commands that a page's blocks show, as they stand there: lines of sh, prompted lines of console."""
    for body in blocks(path, "sh"):
        yield from body.replace("\\\n", " ").splitlines()
    for body in blocks(path, "console"):
        for line in body.replace("\\\n", " ").splitlines():
            if line.startswith(_PROMPT):
                yield line.removeprefix(_PROMPT)
            elif line.startswith(GDB_PROMPT):
                yield line


def in_text(path: Path) -> Iterator[str]:
    """Yield the code spans of a page's running text."""
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", path.read_text(encoding="utf-8")))


def words(command: str) -> list[str]:
    """Split a command as a shell does, comment and all."""
    return shlex.split(command, comments=True)


def plain(command: str) -> str:
    """Return the command without its comment, with single blanks."""
    return " ".join(re.sub(r"(^|\s)#.*", "", command).split())


def shown() -> tuple[str, ...]:
    """Return every whole command, once. Of running text these are spans that begin with a program that some block
    shows, too, and have an argument, of kgen one after the command's name. What has a word in capitals for the
    reader's own is a pattern, and no command."""
    found = [plain(command) for path in DOCS for command in in_blocks(path)]
    programs = {command.split()[0] for command in found if command}
    spans = [plain(span).split() for path in DOCS for span in in_text(path)]
    found += [" ".join(span) for span in spans if span and span[0] in programs and len(span) > 1 + (span[0] == "kgen")]
    return tuple(dict.fromkeys(command for command in found if command and not _PATTERN.search(command)))


def spec_of(context: click.Context) -> KernelSpec:
    """Return the kernel that a parsed command line asks for."""
    with context:
        return CaseOptions(**{field.name: context.params[field.name] for field in fields(CaseOptions)}).spec()
