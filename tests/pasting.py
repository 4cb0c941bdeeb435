"""What a person does with a report's commands: paste them into a shell, in an empty directory."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from running import environment


def shell_blocks(report: str, section: str) -> list[str]:
    """The shell commands that stand in a section of a report in Markdown, a text for each block."""
    found: list[str] = []
    current = ""
    tokens = MarkdownIt("commonmark").parse(report)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            current = tokens[at + 1].content
        elif token.type == "fence" and token.info == "sh" and current == section:
            found.append(token.content)
    return found


@dataclass(frozen=True)
class Pasted:
    """What came of it. ``code`` is the exit code of the last command."""

    code: int
    stdout: str
    stderr: str


def paste(commands: str, directory: Path, seconds: float = 120.0) -> Pasted:
    """Give the commands to an interactive person's sh, whose kgen is ours, in that directory, as its standard input: a
    command that reads there would eat those that follow, as it would when they are pasted."""
    programs = directory.with_name(f"{directory.name}-programs")
    programs.mkdir(exist_ok=True)
    ours = programs / "kgen"
    ours.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kgen "$@"\n', encoding="utf-8")
    ours.chmod(0o755)
    done = subprocess.run(
        ["sh"],
        input=commands,
        cwd=directory,
        env=environment(PATH=f"{programs}{os.pathsep}{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Pasted(done.returncode, done.stdout, done.stderr)
