"""A module of Linux, built on this host by a release's own compiler: neither root nor a namespace is needed.

In the tree of unpacked packages each program of the compiler, and of Linux's own build, is replaced by a script that
starts it by the release's loader (``root.starter``), so that they find each other and their libraries. The shell and
the small tools around them (sed, awk, cmp ...) are this host's.
"""

from __future__ import annotations

import os
from pathlib import Path

from kgen.errors import MachineError, SpecError
from kgen.host.process import finish
from kgen.lab.root import ELF, Root, starter

#: How long a build may take, in seconds.
BUILD_SECONDS = 900.0
#: The compiler's names begin with its target's.
_TARGET = "x86_64-linux-gnu"
_BINARIES = "/usr/bin"
#: Where the compiler has the programs that it starts itself.
_PARTS = f"/usr/libexec/gcc/{_TARGET}"
#: Programs that the compiler looks for under these names, in the directory that -B names.
_COMPILER = ("as", "cc1", "collect2", "ld")
_SOURCES = "/usr/src"
_TOOLS = "/usr/lib"
#: Debian's build tools for every architecture: a program chooses the real one by its name. These are this one's.
_REAL = (".real-x86", ".real-lsb-64")
_MOVED = ".elf"
#: Nothing of a signature, and nothing that only a debugger reads: both would differ from build to build.
_SETTINGS = (
    *("CONFIG_MODULE_SIG=", "CONFIG_MODULE_SIG_ALL=", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF="),
    *("CONFIG_DEBUG_INFO_BTF_MODULES=", "KBUILD_BUILD_TIMESTAMP=@0"),
)
_SHOWN = 160


def module(root: Root, headers: str, source: str, name: str, settings: tuple[str, ...] = ()) -> bytes:
    """Return a module of Linux that is built from a directory of the root. ``headers`` is the root's name of the
    directory in which Linux's build is prepared, ``settings`` are further ones of make. Changes files of the root.
    Raises SpecError where something is missing, MachineError with the compiler's words."""
    directory = root.directory.resolve()
    if any(letter in str(directory) for letter in " \t:#$%'\"\\"):
        raise SpecError(
            "make works in no directory with such a name", where=str(directory), hint="set XDG_CACHE_HOME to another"
        )
    root = Root(directory)
    place = directory / "kgen-compiler"
    place.mkdir()
    _wrap_compiler(root, place)
    _wrap_tools(root)
    linux, own = root.find(headers), root.find(source)
    if linux is None or own is None:
        raise SpecError(f"the release's packages have no {source if linux else headers}", where=str(directory))
    # it names the place in which it would be installed
    makefile = linux / "Makefile"
    makefile.write_text(makefile.read_text(encoding="utf-8").replace(f"{_SOURCES}/", f"{directory}{_SOURCES}/"))
    command = (
        *("env", "-i", f"PATH={place}:{os.environ.get('PATH', os.defpath)}", "LC_ALL=C", "HOME=/", "USER=kgen"),
        # its own name for itself is that of the program behind the script
        *("make", f"MAKE={place}/make", f"-j{os.cpu_count() or 1}", "-C", str(linux), f"M={own}"),
        *(f"KCFLAGS=-ffile-prefix-map={directory}=", *_SETTINGS, *settings, "modules"),
    )
    done = finish(command, BUILD_SECONDS, guarded=True)
    made = own / f"{name}.ko"
    if done.status is None:
        raise MachineError(f"building {name}.ko took longer than {BUILD_SECONDS:g} s", where="make")
    if done.status != 0 or not made.is_file():
        raise MachineError(f"{name}.ko cannot be built: {complaint(done.text)}", where="make")
    return made.read_bytes()


def complaint(text: str) -> str:
    """Return the first error that make, or what it has started, printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or "not found" in line]
    return next(iter(told), lines[-1] if lines else "no reason given")[:_SHOWN]


def _wrap_compiler(root: Root, place: Path) -> None:
    """Make a directory with scripts that start the release's compiler, linker and make."""
    wanted = [f"{_BINARIES}/make", *root.names(_BINARIES, f"{_TARGET}-*")]
    wanted += [name for version in root.names(_PARTS) for name in root.names(version) if Path(name).name in _COMPILER]
    names = {Path(name).name: name for name in wanted}
    for name in ("as", "ld"):
        names[name] = f"{_BINARIES}/{_TARGET}-{name}"
    missing = [name for name in ("make", *_COMPILER) if name not in names]
    if missing:
        raise SpecError(f"the release's packages have no {' and no '.join(missing)}", where=str(root.directory))
    for name, program in names.items():
        if _is_program(root.find(program)):
            # it looks for the other parts there first
            own = ("-B", f"{place}/") if name.startswith(f"{_TARGET}-gcc") else ()
            _write(place / name, starter(root, program, own))


def _wrap_tools(root: Root) -> None:
    """Replace the programs of Linux's build by scripts."""
    for directory in root.names(_TOOLS, "linux-kbuild-*"):
        place = root.find(directory)
        assert place is not None
        programs = [path for path in sorted(place.rglob("*")) if _is_program(path) and ".real-" not in path.name]
        for path in programs:
            real = next((there for end in _REAL if (there := path.with_name(path.name + end)).exists()), None)
            if real is None:
                real = path.with_name(path.name + _MOVED)
                path.rename(real)
            else:
                path.unlink()
            _write(path, starter(root, f"{directory}/{real.relative_to(place)}"))


def _is_program(path: Path | None) -> bool:
    if path is None or not path.is_file() or path.is_symlink() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(len(ELF)) == ELF


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
