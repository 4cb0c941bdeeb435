"""Programs of a release that run on this host: made once, in the user's cache, complete or absent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kgen.errors import PlatformUnavailable
from kgen.lab import cache
from kgen.lab.build import command
from kgen.lab.choice import Choice
from kgen.lab.recipe import HERE
from kgen.lab.root import put, starter
from kgen.lab.system import Gathering, Programs, Stage, System, Watcher, check, title

_ABOUT = "root.json"


@dataclass(frozen=True)
class Installed:
    """A root that was made: where its programs are, and what it consists of."""

    #: The directory with the programs to start.
    programs: Path
    #: The name that it was made under.
    name: str
    #: Where everything is from.
    sources: Mapping[str, str]
    made_by: str
    #: The system that they are of.
    system: str


def build_programs(system: System, choice: Choice, watcher: Watcher, *, rebuild: bool = False) -> Installed:
    """Make the programs of this choice, or return those that exist. Other processes see them only when they are
    complete.

    Raises PlatformUnavailable where pieces are unavailable, SpecError where a piece is of the wrong kind, OutputError
    where they cannot be stored.
    """
    check(system, choice)
    name = title(system, choice)
    there = load(name)
    if there and not rebuild and there.made_by == system.made_by(choice):
        return there
    with cache.making(cache.roots()) as directory:
        work = directory / "work"
        work.mkdir()
        made = system.gather(Gathering(system.complete(choice), work, watcher, newest=rebuild))
        assert isinstance(made, Programs)
        finished = directory / "made"
        watcher(Stage("writing the programs"))
        root = put(made.files, made.programs.values(), finished / "root")
        place = cache.roots() / name
        (finished / "bin").mkdir()
        starters = {name: starter(root, path, made.words, made.settings) for name, path in made.programs.items()}
        for program, text in {**starters, **made.scripts}.items():
            file = finished / "bin" / program
            text = text.replace(HERE, str(root.directory))
            file.write_text(text.replace(str(finished), str(place)), encoding="utf-8")
            file.chmod(0o755)
        about = {"sources": dict(made.sources), "made_by": system.made_by(choice), "system": system.name}
        (finished / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        cache.replace_directory(finished, place, lambda: load(name) is not None)
    found = load(name)
    assert found is not None
    return found


def ensure_programs(system: System, choice: Choice) -> Installed:
    """Return the programs of this choice. Raises PlatformUnavailable where they have not been made."""
    name = title(system, choice)
    found = load(name)
    if found is None:
        hint = f"run '{shlex.join(command(system, choice))}'; it says what it downloads"
        raise PlatformUnavailable(f"the programs of {name} have not been made", hint=hint)
    return found


def load(name: str) -> Installed | None:
    """Return the programs that were made under this name, None where there are none."""
    place = cache.roots() / name
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        return Installed(place / "bin", name, dict(about["sources"]), str(about["made_by"]), str(about["system"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def installed() -> tuple[Installed, ...]:
    """Return all programs that were made."""
    places = sorted(cache.roots().iterdir()) if cache.roots().is_dir() else []
    found = (load(path.name) for path in places if not path.name.startswith("."))
    return tuple(each for each in found if each is not None)
