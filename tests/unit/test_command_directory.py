"""The command group: it finds its commands in a directory and turns every failure into one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from kgen import __version__
from kgen.cli import CommandDirectory, main
from kgen.cli._errors import INTERRUPTED

_COMMANDS = {
    "_helper.py": "raise AssertionError('a helper is no command')",
    "good.py": "'kgen good: do good.'\nimport click\n@click.command()\ndef COMMAND():\n    click.echo('done')\n",
    "two_words.py": "'kgen two-words: two words.'\nimport click\n@click.command()\ndef COMMAND():\n    return 4\n",
    "fails.py": """'kgen fails: fail.'
import click
from kgen.errors import GuestCrash
@click.command()
def COMMAND():
    raise GuestCrash("triple\\nfault", where="cpu 1", hint="look")
""",
    "looping.py": """'kgen looping: loop.'
import asyncio, os, signal
import click
async def work(how):
    loop = asyncio.get_running_loop()
    if how == "callback":
        loop.call_soon(os.kill, os.getpid(), signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(5)
@click.command()
@click.argument("how")
def COMMAND(how):
    asyncio.run(work(how))
    click.echo("went on")
""",
    "gone.py": """'kgen gone: go.'
import errno, os, signal
import click
@click.command()
def COMMAND():
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
""",
    "stopped.py": "'kgen stopped: stop.'\nimport click\n@click.command()\ndef COMMAND(): raise KeyboardInterrupt\n",
}


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandDirectory:
    # A package name of its own for each test: modules stay in sys.modules.
    package = tmp_path / f"commands_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in _COMMANDS.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return CommandDirectory("kgen", package=package.name, path=str(package))


def run(group: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(group, list(arguments), prog_name="kgen")


def test_help_lists_every_command_and_no_helper(group: CommandDirectory) -> None:
    result = run(group, "--help")
    assert result.exit_code == 0
    listed = result.output.partition("Commands:")[2].split("\n")
    assert [line.split() for line in listed if line] == [
        ["fails", "Fail."],
        ["gone", "Go."],
        ["good", "Do", "good."],
        ["looping", "Loop."],
        ["stopped", "Stop."],
        ["two-words", "Two", "words."],
    ]


def test_a_command_runs_and_its_number_is_the_exit_code(group: CommandDirectory) -> None:
    assert (run(group, "good").exit_code, run(group, "good").stdout) == (0, "done\n")
    assert run(group, "two-words").exit_code == 4


def test_an_error_is_one_line_and_an_exit_code(group: CommandDirectory) -> None:
    result = run(group, "fails")
    assert (result.exit_code, result.stdout) == (10, "")
    assert result.stderr == "kgen: error: cpu 1: triple fault; look\n"


def test_the_traceback_can_be_asked_for(group: CommandDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KGEN_TRACEBACK", "1")
    result = run(group, "fails")
    assert result.exit_code == 10
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("\nkgen: error: cpu 1: triple fault; look\n")


def test_an_interrupt_is_one_line(group: CommandDirectory) -> None:
    result = run(group, "stopped")
    assert (result.exit_code, result.stderr) == (INTERRUPTED, "kgen: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM is a POSIX matter")
@pytest.mark.parametrize("how", ["callback", "task"])
def test_a_signal_inside_an_event_loop_ends_the_command(group: CommandDirectory, how: str) -> None:
    """An event loop catches what a callback raises, all but two exceptions: the signal's must be one of them."""
    result = run(group, "looping", how)
    assert (result.exit_code, result.stdout) == (128 + signal.SIGTERM, "")
    assert result.stderr == "kgen: ended by SIGTERM\n"


@pytest.mark.skipif(os.name != "posix", reason="SIGHUP is a POSIX matter")
def test_a_terminal_that_is_gone_does_not_hide_what_ended_the_command(group: CommandDirectory) -> None:
    result = run(group, "gone")
    assert (result.exit_code, result.stderr) == (128 + signal.SIGHUP, "kgen: ended by SIGHUP\n")


def test_an_unknown_command_offers_the_nearest(group: CommandDirectory) -> None:
    result = run(group, "goood")
    assert result.exit_code == 2
    assert "no such command 'goood'; did you mean good?" in result.stderr
    assert run(group, "--goood").stderr == "kgen: error: no such option '--goood'; see 'kgen --help'\n"


def test_a_module_without_a_command_is_an_error_for_help_too(group: CommandDirectory, tmp_path: Path) -> None:
    (tmp_path / group._package / "empty.py").write_text("")
    result = run(group, "--help")
    assert result.exit_code == 9
    assert result.stderr.endswith(".empty: a command module must define COMMAND, a click.Command\n")


def test_every_command_of_kgen_has_a_line_of_help() -> None:
    ctx = click.Context(main, info_name="kgen")
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        assert command is not None
        assert command.get_short_help_str(), name


def test_version_and_module_execution() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kgen", "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"kgen {__version__}\n")


def test_help_imports_no_command_and_nothing_heavy() -> None:
    """What makes ``kgen --help`` quick, without a clock: every command's line is there, none of their libraries is."""
    program = """
import sys
from kgen.cli import main
main(["--help"], standalone_mode=False)
heavy = {"keystone", "capstone", "jinja2", "elftools", "pygdbmi", "qemu", "rich", "asyncio", "kgen.cli.verify"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search("^  verify +Build, boot, ", done.stdout, re.MULTILINE)


@pytest.mark.skipif(os.name != "posix", reason="a broken pipe is a POSIX matter")
def test_a_closed_pipe_is_quiet() -> None:
    """``kgen --help | head -0``: no traceback, no complaint at interpreter exit."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kgen", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
