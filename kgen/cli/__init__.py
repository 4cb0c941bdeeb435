"""The command line: one module a command. The modules in this directory are the commands.

A module ``kgen/cli/bug_report.py`` is the command ``kgen bug-report`` and exposes ``COMMAND: click.Command``.
A name that starts with an underscore is a helper, not a command. A command's callback returns its exit code
(``None`` is 0). The first line of the module's docstring, ``kgen bug-report: pack a bug report.``, is its line in
``kgen --help``, which imports no command.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import click

from kgen import __version__
from kgen.cli._errors import one_line_errors
from kgen.errors import KgenError
from kgen.host.signals import orderly_end

#: The key under which click's context holds the command line.
INVOCATION = "kgen.invocation"


class CommandDirectory(click.Group):
    """A click group whose commands are the modules of one directory, imported when they are needed."""

    def __init__(self, *args: Any, package: str = __name__, path: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._package = package
        self._path = path if path is not None else str(Path(__file__).parent)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted, without importing any."""
        modules = (module.name for module in pkgutil.iter_modules([self._path]))
        return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. Raises KgenError where its module does not keep the convention, or needs a module that
        this system lacks."""
        if cmd_name not in self.list_commands(ctx):
            return None
        try:
            module = importlib.import_module(f"{self._package}.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            # such as fcntl, which pygdbmi imports and Windows lacks
            raise KgenError(
                f"it needs the Python module {error.name}, which is missing",
                where=f"kgen {cmd_name}",
                hint="commands that start or join a machine need a POSIX system",
            ) from error
        command = getattr(module, "COMMAND", None)
        if not isinstance(command, click.Command):
            raise _no_command(module.__name__)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line for each command. Raises KgenError where a module does not keep the convention."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(name)) for name in self.list_commands(ctx)])

    def _summary(self, name: str) -> str:
        """Return a command's line of help, read from its module's source."""
        module = name.replace("-", "_")
        path = Path(self._path, f"{module}.py")
        tree = ast.parse(path.read_bytes(), str(path))
        if not any(_defines_command(statement) for statement in tree.body):
            raise _no_command(f"{self._package}.{module}")
        first = (ast.get_docstring(tree) or "").partition("\n")[0]
        text = first.removeprefix(f"kgen {name}: ")
        return text[:1].upper() + text[1:]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. An unknown name is a usage error that suggests the most similar ones."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known)
            ctx.fail(f"no such command {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        invocation = parent.meta[INVOCATION] if parent else ("kgen", *args)
        with one_line_errors(invocation):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[INVOCATION] = invocation
        return context

    def invoke(self, ctx: click.Context) -> None:
        """Run the command. A non-zero integer that it returns becomes the exit code."""
        with one_line_errors(ctx.meta[INVOCATION]), orderly_end():
            result = super().invoke(ctx)
        if isinstance(result, int) and result:
            ctx.exit(result)


def _defines_command(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef):
        return statement.name == "COMMAND"
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "COMMAND" for target in targets)


def _no_command(module: str) -> KgenError:
    return KgenError("a command module must define COMMAND, a click.Command", where=module)


@click.group(cls=CommandDirectory, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kgen", message="%(prog)s %(version)s")
def main() -> None:
    """Is a LOCKed read-modify-write on memory-mapped I/O atomic here?

    kgen generates a bare-metal SMP kernel that asks, boots it, inspects the frozen machine through
    the debugger and states a verdict.
    """
