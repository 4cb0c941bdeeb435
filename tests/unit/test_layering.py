"""One direction: spec -> source -> assembly -> ELF -> image -> run -> observation -> verdict -> report.

The imports of every module are parsed and held against the tables below. Adding a module means adding its
name to ``LAYERS``; a module that is in no layer is an error.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

#: From the bottom up. A module imports only from layers below its own and from its own package;
#: a name stands for a module, or for a package with all its modules.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("wording",),
    ("errors",),
    ("resources", "registry", "files"),
    ("instructions", "toolchain"),
    ("targets", "experiments"),
    ("spec",),
    ("kernel",),
    ("media",),
    ("build", "kits"),
    ("evidence",),
    ("verdict",),
    ("report",),
    ("offline",),
    ("host",),
    ("machine",),
    ("lab",),
    ("systems",),
    ("platforms",),
    ("inspection",),
    ("gdbside",),
    ("run",),
    ("watch", "interleave"),
    ("api",),
    ("pytest_plugin",),
    ("conformance",),
    ("cli",),
    ("__main__",),
)

#: Rooms that deal with processes and machines of this host. Nothing that must also work on Windows and macOS (build,
#: kit, judge, report) may import them; ``RUNS_MACHINES`` may. What they all share is portable.
HOST = frozenset({"host", "machine", "platforms", "lab", "systems", "inspection", "gdbside"})
RUNS_MACHINES = HOST | {"run", "watch", "interleave", "api", "pytest_plugin", "conformance", "cli", "__main__"}
SHARED = ("host.signals",)

#: Commands, and parts of them, that must work on Windows and macOS too: they need no machine.
PORTABLE_COMMANDS = tuple(
    f"cli.{name}" for name in ("build", "kit", "judge", "report", "compare", "list", "_errors", "_options")
)

#: Who may start or signal processes: a room, or one module of it.
PROCESSES = ("host.process", "host.signals", "host.keeper", "machine.qemu", "machine.gdb")

#: Who may import a module that only POSIX systems have.
POSIX = (*PROCESSES, "host", "platforms", "lab")
POSIX_ONLY = frozenset({"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"})

#: Third-party packages, and the only rooms, or modules of a room, that know them.
KNOWN_BY: Mapping[str, tuple[str, ...]] = {
    "keystone": ("toolchain.assembler",),
    "capstone": ("toolchain.decoder",),
    "pygdbmi": ("machine.gdb",),
    # gdb's own module, which exists inside gdb only
    "gdb": ("gdbside",),
    "qemu": ("machine.qmp",),
    "click": ("cli",),
    "rich": ("cli", "report", "watch.view", "interleave.report"),
    "pytest": ("pytest_plugin", "conformance"),
    "jinja2": ("kernel.render", "media", "report"),
    "elftools": ("toolchain", "lab"),
    # the standard library's reader of TOML, and what stands for it in Python 3.10
    "tomllib": ("spec.suites",),
    "tomli": ("spec.suites",),
}

#: Functions of ``os`` that start, signal or reap processes.
OS_PROCESS_FUNCTIONS = (
    "exec",
    "fork",
    "kill",
    "pidfd_",
    "popen",
    "posix_spawn",
    "spawn",
    "startfile",
    "system",
    "wait",
)

When = Literal["start", "later", "typing"]


@dataclass(frozen=True)
class Import:
    """One import: what, on which line, and whether it happens at start-up, in a function, or for types only."""

    name: str
    line: int
    when: When


class _Reader(ast.NodeVisitor):
    """Collects the imports of one module, and the names it uses of ``os`` and ``asyncio`` for processes."""

    def __init__(self, module: str, is_package: bool) -> None:
        self.package = module if is_package else module.rpartition(".")[0]
        self.imports: list[Import] = []
        self.process_calls: list[tuple[str, int]] = []
        self._when: When = "start"

    def _inside(self, when: When, nodes: Iterable[ast.AST]) -> None:
        before, self._when = self._when, when
        for node in nodes:
            self.visit(node)
        self._when = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside("later", ast.iter_child_nodes(node))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inside("later", ast.iter_child_nodes(node))

    def visit_If(self, node: ast.If) -> None:
        typing_only = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        self._inside("typing" if typing_only else self._when, node.body)
        self._inside(self._when, node.orelse)

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [Import(alias.name, node.lineno, self._when) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self.package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
        # ``from a import b`` may mean the module a.b: the longer name is cut back to a module that exists.
        self.imports += [Import(f"{base}.{alias.name}", node.lineno, self._when) for alias in node.names]
        if base == "os":
            self.process_calls += [(f"os.{alias.name}", node.lineno) for alias in node.names if _is_process(alias.name)]

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.imports.append(Import(str(node.args[0].value), node.lineno, self._when))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = ast.unparse(node)
        if (name.startswith("os.") and _is_process(node.attr)) or name.startswith("asyncio.create_subprocess"):
            self.process_calls.append((name, node.lineno))
        self.generic_visit(node)


def _is_process(function: str) -> bool:
    return function.startswith(OS_PROCESS_FUNCTIONS)


@dataclass(frozen=True)
class Module:
    """A module of the tree: its layer's name, imports and process calls."""

    name: str
    path: Path
    imports: tuple[Import, ...]
    process_calls: tuple[tuple[str, int], ...]

    @property
    def part(self) -> str:
        """The room: ``kgen.media.img`` is part of ``media``, ``kgen`` itself of nothing."""
        return [*self.name.split("."), ""][1]

    def is_of(self, places: Iterable[str]) -> bool:
        """Whether it is one of these rooms or modules, or part of one."""
        inside = self.name.partition(".")[2]
        return any(inside == place or inside.startswith(f"{place}.") for place in places)


def read(root: Path) -> dict[str, Module]:
    """Every module of the package directory ``root``, by dotted name."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        reader = _Reader(name, is_package)
        reader.visit(ast.parse(path.read_text(encoding="utf-8"), str(path)))
        modules[name] = Module(name, path, tuple(reader.imports), tuple(reader.process_calls))
    return modules


def edges(modules: Mapping[str, Module]) -> Iterator[tuple[Module, Module, Import]]:
    """Imports of one module of the tree by another."""
    root = next(iter(modules)).partition(".")[0]
    for module in modules.values():
        for imported in module.imports:
            target = imported.name
            if target.partition(".")[0] != root:
                continue
            while target not in modules and "." in target:
                target = target.rpartition(".")[0]
            yield module, modules[target], imported


def unplaced(modules: Mapping[str, Module], layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Modules that no layer names, and names that stand in two layers."""
    known = [name for layer in layers for name in layer]
    problems = [
        f"{module.name} is in no layer of LAYERS" for module in modules.values() if module.part not in ["", *known]
    ]
    return problems + [f"{name} is in two layers" for name in sorted(set(known)) if known.count(name) > 1]


def backward(modules: Mapping[str, Module], layers: tuple[tuple[str, ...], ...]) -> list[str]:
    """Imports that do not point to a lower layer or into the importer's own package."""
    rank = {name: number for number, layer in enumerate(layers) for name in layer} | {"": -1}
    placed = [edge for edge in edges(modules) if edge[0].part in rank and edge[1].part in rank]  # see unplaced()
    return [
        f"{module.name}:{imported.line} imports {target.name}, which is not below it"
        for module, target, imported in placed
        if module.part != target.part and rank[target.part] >= rank[module.part]
    ]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that can reach each other (Tarjan's strongly connected components of more than one node)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            found.extend([sorted(group)] if len(group) > 1 else [])

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def graph_of(modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Which modules each imports. A package's own name is not counted: its ``__init__`` holds names, no stage."""
    found: dict[str, set[str]] = {name: set() for name in modules}
    for module, target, _ in edges(modules):
        found[module.name] |= {target.name} - {module.name}
    return found


@pytest.fixture(scope="module")
def kgen(repository: Path) -> dict[str, Module]:
    return read(repository / "kgen")


def test_every_module_has_its_layer(kgen: dict[str, Module]) -> None:
    assert unplaced(kgen, LAYERS) == []


def test_no_import_points_backward(kgen: dict[str, Module]) -> None:
    assert backward(kgen, LAYERS) == []


def test_there_is_no_circle(kgen: dict[str, Module]) -> None:
    assert circles(graph_of(kgen)) == []


def test_third_party_packages_stay_where_they_belong(kgen: dict[str, Module]) -> None:
    problems = [
        f"{module.name}:{imported.line} imports {imported.name}; only {sorted(owners)} may"
        for module in kgen.values()
        for imported in module.imports
        if (owners := KNOWN_BY.get(imported.name.partition(".")[0])) is not None and not module.is_of(owners)
    ]
    assert problems == []


def test_processes_are_touched_in_few_places(kgen: dict[str, Module]) -> None:
    problems = [
        f"{module.name}:{line} uses {what}"
        for module in kgen.values()
        if not module.is_of(PROCESSES)
        for what, line in (
            *module.process_calls,
            *(
                (i.name, i.line)
                for i in module.imports
                if i.name.partition(".")[0] in ("subprocess", "multiprocessing")
            ),
        )
    ]
    assert problems == []


def test_portable_modules_do_not_import_the_host(kgen: dict[str, Module]) -> None:
    problems = [
        f"{module.name}:{imported.line} imports {target.name}"
        for module, target, imported in edges(kgen)
        if target.part in HOST
        and not target.is_of(SHARED)
        and (module.part not in RUNS_MACHINES or (module.is_of(PORTABLE_COMMANDS) and imported.when == "start"))
    ]
    assert problems == []


def test_posix_only_modules_stay_on_the_host_side(kgen: dict[str, Module]) -> None:
    problems = [
        f"{module.name}:{imported.line} imports {imported.name}"
        for module in kgen.values()
        if not module.is_of(POSIX)
        for imported in module.imports
        if imported.name.partition(".")[0] in POSIX_ONLY
    ]
    assert problems == []


def test_portable_modules_import_where_posix_modules_are_missing(kgen: dict[str, Module], repository: Path) -> None:
    """Not only the text of our own imports: what they pull in must do without the modules Windows lacks, too."""
    portable = [
        name
        for name, module in kgen.items()
        if module.part not in RUNS_MACHINES or name == "kgen.cli" or module.is_of(PORTABLE_COMMANDS)
    ]
    program = f"""
import importlib, sys
for name in {sorted(POSIX_ONLY - {"posix"})}:  # the interpreter itself needs posix here
    sys.modules[name] = None
for name in {portable}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# --- the checker itself, on trees whose faults are known ---------------------------------------------------------

_SMALL: tuple[tuple[str, ...], ...] = (("low",), ("middle", "beside"), ("high",))


def _tree(root: Path, files: Mapping[str, str]) -> dict[str, Module]:
    for name, text in {"pkg/__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read(root / "pkg")


@pytest.mark.parametrize(
    "statement",
    [
        "import pkg.high",
        "from pkg import high",
        "from pkg.high import thing",
        "from . import high",
        "from .high import thing",
        "def f():\n    from pkg.high import thing",
        "if TYPE_CHECKING:\n    import pkg.high",
        "import importlib\nimportlib.import_module('pkg.high')",
        "from pkg import beside",
    ],
)
def test_a_backward_edge_is_found(tmp_path: Path, statement: str) -> None:
    modules = _tree(tmp_path, {"pkg/middle.py": statement, "pkg/high.py": "thing = 1", "pkg/beside.py": ""})
    (problem,) = backward(modules, _SMALL)
    assert problem.startswith("pkg.middle:")


def test_a_backward_edge_out_of_a_package_is_found(tmp_path: Path) -> None:
    files = {"pkg/middle/__init__.py": "", "pkg/middle/part.py": "from ..high import thing", "pkg/high.py": "thing = 1"}
    assert backward(_tree(tmp_path, files), _SMALL) == ["pkg.middle.part:1 imports pkg.high, which is not below it"]


def test_forward_edges_and_a_package_of_its_own_are_fine(tmp_path: Path) -> None:
    files = {
        "pkg/low.py": "import json",
        "pkg/middle/__init__.py": "from pkg.low import x",
        "pkg/middle/part.py": "from pkg.middle import x\nfrom . import other",
        "pkg/middle/other.py": "",
        "pkg/high.py": "from pkg import low, middle, __version__",
    }
    modules = _tree(tmp_path, files)
    assert backward(modules, _SMALL) == []
    assert unplaced(modules, _SMALL) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {"pkg/low.py": "", "pkg/high/__init__.py": "", "pkg/high/a.py": "from pkg.high.b import x\nimport pkg.low"}
    files["pkg/high/b.py"] = "def f():\n    from pkg.high import a"
    assert circles(graph_of(_tree(tmp_path, files))) == [["pkg.high.a", "pkg.high.b"]]


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    modules = _tree(tmp_path, {"pkg/stray.py": "", "pkg/low.py": ""})
    assert unplaced(modules, _SMALL) == ["pkg.stray is in no layer of LAYERS"]
    assert unplaced(_tree(tmp_path / "b", {}), (*_SMALL, ("low",))) == ["low is in two layers"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os\nos.kill(1, 9)", "os.kill"),
        ("import os\nos.posix_spawn('a', [], {})", "os.posix_spawn"),
        ("from os import killpg", "os.killpg"),
        ("import asyncio\nasyncio.create_subprocess_exec('a')", "asyncio.create_subprocess_exec"),
    ],
)
def test_a_process_call_is_found(tmp_path: Path, text: str, found: str) -> None:
    modules = _tree(tmp_path, {"pkg/low.py": text})
    assert [name for name, _ in modules["pkg.low"].process_calls] == [found]
