"""A root directory of unpacked packages: its files, its programs with all that they load, how they run on this host.

Nothing is installed and no root is needed: a program is started by its own root's loader, which finds the libraries
there. Sources: ld.so(8) for the order of the search, elf(5) for the fields.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kgen.errors import SpecError

_LIBRARIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
_LINKS = 40
ELF = b"\x7fELF"


@dataclass(frozen=True)
class Root:
    """The directory."""

    directory: Path

    def find(self, name: str) -> Path | None:
        """Return the host's path of a file or directory of the root, its links followed inside it; None where it is
        missing. /bin, /lib and /sbin are those of /usr, whichever of the two a package has it in."""
        other = name.removeprefix("/usr") if name.startswith("/usr/") else f"/usr{name}"
        return self._resolved(name) or self._resolved(other)

    def read(self, name: str) -> bytes:
        """Return a file. Raises SpecError where it is missing."""
        place = self.find(name)
        try:
            if place is not None:
                return place.read_bytes()
        except OSError as error:
            raise SpecError(error.strerror or str(error), where=str(place)) from error
        raise SpecError(f"the release's packages have no {name}", where=str(self.directory))

    def names(self, directory: str, pattern: str = "*") -> list[str]:
        """Return the root's names of what is in a directory, sorted."""
        place = self.find(directory)
        return sorted(f"{directory}/{path.relative_to(place)}" for path in place.glob(pattern)) if place else []

    def files(self, directory: str, pattern: str = "*") -> dict[str, bytes]:
        """Return the files that are directly in a directory, links followed, by their places. Raises OSError."""
        places = ((name, self.find(name)) for name in self.names(directory, pattern))
        return {name: place.read_bytes() for name, place in places if place is not None and place.is_file()}

    def program(self, name: str) -> dict[str, bytes]:
        """Return a program or library and all libraries that it needs, by their places. Raises SpecError."""
        files: dict[str, bytes] = {}
        wanted = [name]
        while wanted:
            here = wanted.pop()
            if here not in files:
                files[here] = self.read(here)
                wanted += self._needed(here, files[here])
        return files

    def loader(self) -> Path:
        """Return the host's path of the root's dynamic loader. Raises SpecError."""
        found = self.find("/lib64/ld-linux-x86-64.so.2")
        if found is None:
            raise SpecError("the release's packages have no loader", where=str(self.directory))
        return found

    def search(self) -> tuple[Path, ...]:
        """Return the host's directories that the loader has to search for libraries: all, because what a library says
        of the place of another one would be looked for on the host."""
        found = [place for name in _LIBRARIES if (place := self.find(name))]
        below = (path.parent for place in found[:2] for path in sorted(place.rglob("*.so*")))
        return tuple(dict.fromkeys((*found, *below)))

    def _needed(self, name: str, data: bytes) -> Iterator[str]:
        """Yield the places of the libraries and the loader that a file names itself."""
        from elftools.common.exceptions import ELFError
        from elftools.elf.dynamic import DynamicSection
        from elftools.elf.elffile import ELFFile

        if data[:4] != ELF:
            return
        places: list[str] = []
        wanted: list[str] = []
        try:
            elf = ELFFile(io.BytesIO(data))
            interpreter = elf.get_section_by_name(".interp")
            if interpreter is not None:
                yield interpreter.data().rstrip(b"\0").decode()
            section = elf.get_section_by_name(".dynamic")
            for tag in section.iter_tags() if isinstance(section, DynamicSection) else ():
                if tag.entry.d_tag == "DT_NEEDED":
                    wanted.append(str(getattr(tag, "needed", "")))
                elif tag.entry.d_tag in ("DT_RUNPATH", "DT_RPATH"):
                    text = str(getattr(tag, "runpath", "") or getattr(tag, "rpath", ""))
                    places += text.replace("$ORIGIN", str(PurePosixPath(name).parent)).split(":")
        except (ELFError, UnicodeDecodeError) as error:
            raise SpecError(f"is no program of this kind: {error}", where=name) from error
        for library in wanted:
            candidates = (f"{place}/{library}" for place in (*places, *_LIBRARIES))
            found = next((place for place in candidates if self.find(place)), None)
            if found is None:
                what = f"the release's packages have no {library}, which {name} needs"
                raise SpecError(what, where=str(self.directory))
            yield os.path.normpath(found)

    def _resolved(self, name: str) -> Path | None:
        parts = [part for part in reversed(name.split("/")) if part]
        here: list[str] = []
        for _ in range(_LINKS * 8):
            if not parts:
                return self.directory.joinpath(*here)
            part = parts.pop()
            if part == "..":
                here = here[:-1]
                continue
            path = self.directory.joinpath(*here, part)
            try:
                mode = path.lstat().st_mode
            except OSError:
                return None
            if not stat.S_ISLNK(mode):
                here.append(part)
                continue
            target = os.readlink(path)
            here = [] if target.startswith("/") else here
            parts += [step for step in reversed(target.split("/")) if step not in ("", ".")]
        return None


def put(files: Mapping[str, bytes], programs: Iterable[str], into: Path) -> Root:
    """Write files into a new root directory. Programs and libraries are executable, and the files ``programs``. Raises
    OSError."""
    executable = frozenset(programs)
    for name, data in files.items():
        place = into / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o755 if name in executable or data.startswith(ELF) or "/bin/" in name else 0o644)
    return Root(into)


def starter(root: Root, program: str, words: Iterable[str] = (), settings: Mapping[str, str] | None = None) -> str:
    """Return a shell script that runs a program of the root with these first arguments and environment. Raises
    SpecError."""
    binary = root.find(program)
    if binary is None:
        raise SpecError(f"the release's packages have no {program}", where=str(root.directory))
    loader = [str(root.loader()), "--library-path", ":".join(map(str, root.search())), str(binary), *words]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in (settings or {}).items()]
    return "\n".join(("#!/bin/sh", *lines, f'exec {shlex.join(loader)} "$@"', ""))
