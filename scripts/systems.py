#!/usr/bin/env python3
"""Run kgen's two commands, ``make verify`` and ``make test``, in a fresh clone on each of several distributions.

    scripts/systems.py [NAME...] [--fresh] [--mirror ubuntu=URI] [--pytest-args ARGS] [--only verify|test]

Each distribution is a root directory in the user's cache, made by mmdebstrap from the archive that this host's apt is
configured for, with the distribution's own Python, QEMU, gdb and Bochs. It is entered in namespaces of its own: what is
mounted and what is started there goes with the process that began it. As root, or in a user namespace (mmdebstrap needs
subordinate ids for that). Needs nothing but Python 3.10, git, mmdebstrap and util-linux.

Prints one table, then which tests failed and why others were skipped; 1 where something failed. Logs are kept beside
the roots.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CLONE = "/root/kgen"
#: Files that some tests read, where they are beside the repository.
SHARED = (REPOSITORY.parent / "shared").resolve()
#: What docs/install.md has a user install before the two commands; certificates as every installed system has them.
NEEDED = ("git", "make", "python3", "ca-certificates")
VERIFY_SECONDS = 3600
TEST_SECONDS = 4 * 3600
#: Settings of this host's apt that a root needs to reach the same archive.
_APT_SETTINGS = re.compile(r"Acquire::(?:https?|Check-|Retries|ForceIPv|AllowInsecure)")
_ENVIRONMENT = re.compile(
    r"PIP_\w+|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?:https?|no|all)_proxy", re.I
)
#: In a pip configuration, what is on this host's disk.
_PATH = re.compile(r"(?:^|(?<=[\s='\"])|(?<=file://))/[^\s'\",]+", re.MULTILINE)


@dataclass(frozen=True)
class System:
    """A distribution: its name in the table, where it comes from, its suite and components."""

    name: str
    origin: str
    suite: str
    components: str = "main"


SYSTEMS = {
    "bookworm": System("Debian 12", "Debian", "bookworm"),
    "trixie": System("Debian 13", "Debian", "trixie"),
    "sid": System("Debian sid", "Debian", "sid"),
    "noble": System("Ubuntu 24.04", "Ubuntu", "noble", "main universe"),
}


@dataclass(frozen=True)
class Tests:
    """What pytest printed at its end: numbers by outcome, the failures by name, why tests were skipped and how many."""

    counts: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    skips: tuple[tuple[int, str], ...] = ()

    @property
    def text(self) -> str:
        """The numbers, for a cell of the table."""
        return ", ".join(f"{number} {word}" for word, number in self.counts.items()) or "did not run"


@dataclass(frozen=True)
class Row:
    """One distribution's line. ``versions`` by column; ``verify`` and ``tests`` are texts; ``good``: nothing failed."""

    name: str
    date: str
    versions: Mapping[str, str] = field(default_factory=dict)
    verify: str = "-"
    tests: Tests | None = None
    good: bool = False


VERSIONS = {
    "Python": ("python3 --version", r"Python (\S+)"),
    "QEMU": ("qemu-system-x86_64 --version", r"version (\d[\d.]*)"),
    "gdb": ("gdb --version", r"^GNU gdb \(.*\) (\d[\d.]*)"),
    "Bochs": ("bochs --help cpu", r"Bochs x86 Emulator (\d[\d.]*)"),
}


# --- reading what programs print ---------------------------------------------------------------------------------


def tests_of(text: str) -> Tests:
    """Return what a run of pytest with -ra came to; without its last line nothing is known."""
    last = re.findall(r"^=* ?((?:\d+ \w+(?:, )?)+) in [\d.]+s.*$", text, re.MULTILINE)
    if not last:
        return Tests()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last[-1])}
    failures = tuple(re.findall(r"^(?:FAILED|ERROR) (\S+?::\S+?(?:\[.*?\])?)(?= - |$)", text, re.MULTILINE))
    skips = re.findall(r"^SKIPPED \[(\d+)\] (?:\S+:\d+: )?(.*)$", text, re.MULTILINE)
    by_reason: dict[str, int] = {}
    for number, reason in skips:
        by_reason[reason] = by_reason.get(reason, 0) + int(number)
    return Tests(counts, failures, tuple((number, reason) for reason, number in by_reason.items()))


def verify_of(text: str) -> str:
    """Return what ``make verify`` said at its end, in one line."""
    said = text.rpartition("=== make verify ===")[2] if "=== make verify ===" in text else ""
    lines = [re.sub(r" {2,}", " ", line.strip()) for line in said.splitlines() if line.startswith("  ")]
    return "; ".join(lines) or "did not run"


def version_of(column: str, text: str) -> str:
    """Return a program's version from what the programs of VERSIONS print, "-" for none."""
    found = re.search(VERSIONS[column][1], text, re.MULTILINE)
    return found[1] if found else "-"


def archive(index_targets: str, origin: str) -> str | None:
    """Return the archive of a distribution from ``apt-get indextargets`` with TARGETS as its format, None for none."""
    rows = (line.split("\t") for line in index_targets.splitlines())
    return next((row[0] for row in rows if len(row) == 3 and row[1:] == [origin, origin]), None)


TARGETS = "$(REPO_URI)\t$(ORIGIN)\t$(LABEL)"


def apt_settings(dump: str) -> list[str]:
    """Return what of ``apt-config dump`` a root needs, a line each; apt's own empty values are left out."""
    lines = (line.strip().removesuffix(";") for line in dump.splitlines())
    return [line for line in lines if _APT_SETTINGS.match(line) and not line.endswith(' ""')]


def paths_in(texts: Iterable[str]) -> list[Path]:
    """Return what a pip configuration names on this host's disk. An index has its files beside its pages."""
    found = [Path(name) for text in texts for name in _PATH.findall(text)]
    return list(dict.fromkeys(path.parent if path.name == "simple" else path for path in found))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as one Markdown table, then the failures and skips of each."""
    lines = [
        f"| system | {' | '.join(VERSIONS)} | make verify | make test | date |",
        "|---" * (len(VERSIONS) + 4) + "|",
    ]
    for row in rows:
        cells = [row.versions.get(column, "-") or "-" for column in VERSIONS]
        lines.append(
            f"| {' | '.join((row.name, *cells, row.verify, row.tests.text if row.tests else '-', row.date))} |"
        )
    for row in rows:
        if row.tests and row.tests.failures:
            lines += ["", f"Failed on {row.name}:", "", *(f"- {name}" for name in row.tests.failures)]
        if row.tests and row.tests.skips:
            lines += ["", f"Skipped on {row.name}:", "", *(f"- {number}: {why}" for number, why in row.tests.skips)]
    return "\n".join(lines) + "\n"


# --- roots ------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """Something could not be done; the text goes into the table."""


def say(text: str) -> None:
    """Report progress."""
    print(f"systems: {text}", file=sys.stderr, flush=True)


def cache() -> Path:
    """Return the directory of roots and logs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "kgen" / "systems"


def output(*command: str) -> str:
    """Return what a program prints, "" where it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    except OSError:
        return ""


def namespace() -> list[str]:
    """Return the words before a command that must own a root's files."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def run(command: Sequence[str], log: Path, seconds: float) -> int:
    """Run a program with its output in a file; its status. It ends with us, and after its time it is ended."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            file.write(f"\nsystems: ended after {seconds:g} s\n".encode())
            return 124
        finally:
            if process.poll() is None:
                # a namespace of processes ends with its first one, which unshare's end kills
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def make_root(system: System, root: Path, mirror: str | None, log: Path) -> None:
    """Make a root, or leave the one that is there. Raises Failed."""
    if (root / "etc/os-release").exists():
        return
    targets = output("apt-get", "indextargets", "--format", TARGETS, "Created-By: Packages")
    uri = mirror or archive(targets, system.origin)
    if uri is None:
        raise Failed(f"apt is configured for no archive of {system.origin}")
    say(f"making {system.name}")
    partial = root.with_name(f".{root.name}.partial")
    remove(partial)
    command = ["mmdebstrap", "--mode=root" if os.geteuid() == 0 else "--mode=unshare", "--variant=minbase"]
    command += [f"--aptopt={line}" for line in apt_settings(output("apt-config", "dump"))]
    command += [f"--include={','.join(NEEDED)}", system.suite, str(partial)]
    command += [f"deb {uri} {system.suite} {system.components}"]
    if run(command, log, VERIFY_SECONDS) != 0:
        remove(partial)
        raise Failed("its root could not be made")
    partial.rename(root)


def remove(directory: Path) -> None:
    """Remove a root, whose files may be of other ids than ours."""
    if directory.exists():
        subprocess.run([*namespace(), "rm", "-rf", "--one-file-system", str(directory)], check=False)


#: $1 is the root, $2 a directory with this host's files for it, then directories to show there, "--", the command.
ENTER = """
root=$1 files=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
cp -rL "$files/." "$root/"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --rbind -o ro "$1" "$root$1"
    shift
done
shift
chroot "$root" "$@"
"""


def enter(root: Path, files: Path, shown: Sequence[Path], command: str) -> list[str]:
    """Return the command line that runs a line of a shell in a root, in namespaces of mounts and processes of its own.

    The shell that mounts stays the first process there, as an init would.
    """
    environment = {name: value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)}
    environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
    words = [*namespace(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER, "enter"]
    words += [str(root), str(files), *map(str, shown), "--", "env", "-i"]
    return words + [f"{name}={value}" for name, value in environment.items()] + ["sh", "-c", command]


def pip_configuration() -> list[Path]:
    """Return pip's configuration files on this host."""
    places = ["/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf"]
    places += [f"{place}/pip/pip.conf" for place in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    return [path for place in places if (path := Path(place).expanduser()).is_file()]


@contextlib.contextmanager
def host_files() -> Iterator[tuple[Path, list[Path]]]:
    """Yield a directory with the files of this host that a root needs at the same places, and directories to show."""
    settings = pip_configuration()
    words = [value for name, value in os.environ.items() if _ENVIRONMENT.fullmatch(name)]
    named = paths_in([*words, *(path.read_text(encoding="utf-8", errors="replace") for path in settings)])
    home = Path.home()
    with tempfile.TemporaryDirectory() as directory:
        for path in [*settings, *named, Path("/etc/resolv.conf"), Path("/etc/hosts")]:
            if path.is_file():
                place = Path("/root") / path.relative_to(home) if path.is_relative_to(home) else path
                target = Path(directory) / place.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        git = ["git", "-C", str(REPOSITORY), "bundle", "create", "-q", f"{directory}/kgen.bundle", "HEAD"]
        subprocess.run(git, check=True)
        yield Path(directory), [path for path in named if path.is_dir() and path != Path("/etc/ssl/certs")]


def measure(system: System, arguments: argparse.Namespace) -> Row:
    """Run the two commands in one distribution."""
    date = datetime.date.today().isoformat()
    place = cache()
    root = place / system.suite
    logs = {name: place / f"{system.suite}-{name}.log" for name in ("root", "verify", "test", "versions")}
    for log in logs.values():
        log.unlink(missing_ok=True)
    if arguments.fresh:
        remove(root)
    mirror = dict(entry.split("=", 1) for entry in arguments.mirror).get(system.origin.lower())
    try:
        make_root(system, root, mirror, logs["root"])
    except Failed as error:
        return Row(system.name, date, verify=str(error))
    with host_files() as (files, shown):

        def there(name: str, command: str, seconds: float) -> tuple[int, str]:
            status = run(enter(root, files, shown, command), logs[name], seconds)
            return status, logs[name].read_text(encoding="utf-8", errors="replace")

        fresh = "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y dist-upgrade"
        clone = f"rm -rf {CLONE} && git clone -q /kgen.bundle {CLONE}"
        if SHARED.is_dir():
            shown = [*shown, SHARED]
            clone += f" && ln -sfn {shlex.quote(str(SHARED))} {Path(CLONE).parent / SHARED.name}"
        status, _ = there("root", f"{fresh} && {clone}", VERIFY_SECONDS)
        if status != 0:
            return Row(system.name, date, verify=f"its root could not be brought up to date: see {logs['root'].name}")
        verify, tests, good = "-", None, True
        if arguments.only in (None, "verify"):
            say(f"{system.name}: make verify")
            status, text = there("verify", f"cd {CLONE} && make verify", VERIFY_SECONDS)
            verify, good = verify_of(text), status == 0
        if arguments.only in (None, "test"):
            say(f"{system.name}: make test")
            words = f" PYTEST_ARGS={shlex.quote(arguments.pytest_args)}" if arguments.pytest_args else ""
            status, text = there("test", f"cd {CLONE} && make test{words}", TEST_SECONDS)
            tests, good = tests_of(text), good and status == 0
        commands = "; ".join(f"{command} </dev/null 2>&1" for command, _ in VERSIONS.values())
        _, text = there("versions", commands, 60)
        versions = {column: version_of(column, text) for column in VERSIONS}
    return Row(system.name, date, versions, verify, tests, good)


def main(words: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="Run make verify and make test on several distributions.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--fresh", action="store_true", help="make the roots again")
    parser.add_argument("--mirror", action="append", default=[], metavar="ORIGIN=URI", help="e.g. ubuntu=URI")
    parser.add_argument("--pytest-args", default="", metavar="ARGS", help="a selection of tests")
    parser.add_argument("--only", choices=("verify", "test"), help="one of the two commands")
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.names if name not in SYSTEMS]
    if unknown:
        parser.error(f"no such system: {', '.join(unknown)}")
    missing = [name for name in ("mmdebstrap", "unshare", "setpriv", "git") if shutil.which(name) is None]
    if missing:
        print(f"systems: missing: {', '.join(missing)}; apt install mmdebstrap util-linux git", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("systems: another run uses the roots", file=sys.stderr)
            return 2
        rows = []
        for name in arguments.names or SYSTEMS:
            rows.append(measure(SYSTEMS[name], arguments))
            say(f"{rows[-1].name}: {'good' if rows[-1].good else 'not good'}")
    print(table(rows), end="")
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
