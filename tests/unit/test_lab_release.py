"""Packages of another release, from an archive of our own on loopback: the real apt, with a signature or without."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kgen.errors import PlatformUnavailable, SpecError

if sys.platform != "linux":
    pytest.skip("apt is Linux's", allow_module_level=True)

from kgen.lab import system as system_module
from kgen.lab.choice import Choice
from kgen.lab.packages import Apt, NoSuchRelease, Package
from kgen.lab.release import Release, archive_in, release_named
from kgen.lab.system import Gathering, Stage, choice_of, title
from kgen.systems import system_named

NEEDED = ("apt-get", "apt-cache", "dpkg-deb", "gpg", "gpgv", "gpgconf")


@dataclass
class Archive:
    """A served archive. ``cut`` makes every package file end in its middle, ``counts`` are requests for packages."""

    place: Path
    keyring: Path
    address: str = ""
    cut: bool = False
    counts: int = 0

    @property
    def release(self) -> Release:
        return Release("stable", "Debian", self.address, self.keyring)


def _deb(place: Path, name: str, depends: str, files: dict[str, bytes], version: str = "1:1.0+x~1") -> str:
    """Make a package and return its stanza for Packages."""
    tree = place / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: none <none@example.org>\n"
    control += f"Depends: {depends}\n" if depends else ""
    (tree / "DEBIAN/control").write_text(f"{control}Description: a package\n")
    for path, data in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    file = place / "pool" / f"{name}.deb"
    file.parent.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, file], check=True, capture_output=True)
    data = file.read_bytes()
    return f"{control}Filename: pool/{name}.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"


def _sign(home: Path, place: Path, user: str) -> Path:
    """Sign dists/stable/Release with a new key, and return the keyring that knows it."""
    home.mkdir(mode=0o700, parents=True)
    gpg = [
        "gpg",
        "--homedir",
        str(home),
        "--batch",
        "--yes",
        "--quiet",
        "--passphrase",
        "",
        "--pinentry-mode",
        "loopback",
    ]
    try:
        subprocess.run([*gpg, "--quick-gen-key", user, "ed25519", "sign", "0"], check=True, capture_output=True)
        suite = place / "dists/stable"
        clear = [*gpg, "--clearsign", "--output", str(suite / "InRelease"), str(suite / "Release")]
        subprocess.run(clear, check=True, capture_output=True)
        subprocess.run([*gpg, "--output", str(home / "keys.gpg"), "--export", user], check=True, capture_output=True)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    return home / "keys.gpg"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {missing[0]}")
    place = tmp_path_factory.mktemp("archive")
    stanzas = _deb(place, "tool", "libtool1 (>= 1), libtool1 | nothing", {"usr/bin/tool": b"#!/bin/sh\n"})
    stanzas += _deb(place, "libtool1", "", {"usr/lib/libtool.so": bytes(100_000)})
    stanzas += _deb(place, "linux-image-6.1.9-cloud-amd64", "", {"boot/vmlinuz-6.1.9": b"9"}, "6.1.9-1")
    stanzas += _deb(place, "linux-image-6.1.10-cloud-amd64", "", {"boot/vmlinuz-6.1.10": b"10"}, "6.1.10-1")
    stanzas += _deb(place, "linux-image-6.12.1-cloud-amd64", "", {"boot/vmlinuz-6.12.1": b"12"}, "6.12.1-1")
    sums = []
    for component, text in (("main", stanzas), ("contrib", "")):
        directory = place / "dists/stable" / component / "binary-amd64"
        directory.mkdir(parents=True)
        for name, data in (("Packages", text.encode()), ("Packages.gz", gzip.compress(text.encode()))):
            (directory / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            sums.append(f" {digest} {len(data)} {component}/binary-amd64/{name}")
    head = "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: stable\nDate: Mon, 30 Nov 2026 00:00:00 UTC\n"
    head += "Architectures: amd64\nComponents: main contrib\nSHA256:\n"
    (place / "dists/stable/Release").write_text(head + "\n".join(sums) + "\n")
    return Archive(place, _sign(place / "keys", place, "Archive <archive@example.org>"))


@pytest.fixture
def archive(made: Archive, tmp_path: Path) -> Iterator[Archive]:
    """The archive, on a port of loopback."""
    served = Archive(tmp_path / "served", made.keyring)
    shutil.copytree(made.place, served.place)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(served.place))

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if not self.path.endswith(".deb"):
                super().do_GET()
                return
            served.counts += 1
            data = (served.place / self.path.lstrip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if served.cut else data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def apt_of(archive: Archive, work: Path) -> Apt:
    work.mkdir(exist_ok=True)
    return Apt(work, archive.release)


def test_a_package_comes_with_what_it_depends_on(archive: Archive, tmp_path: Path) -> None:
    apt = apt_of(archive, tmp_path / "work")
    assert not apt.updated
    apt.update()
    packages = apt.closure(["tool"])
    assert {package.name: package.version for package in packages} == dict.fromkeys(("tool", "libtool1"), "1:1.0+x~1")
    seen: list[int] = []
    files = apt.fetch(packages, seen.append)
    assert seen[-1] == sum(package.size for package in packages)
    apt.unpack(files, tmp_path / "tree")
    assert (tmp_path / "tree/usr/bin/tool").is_file()
    assert (tmp_path / "tree/usr/lib/libtool.so").stat().st_size == 100_000
    assert archive.counts == 2
    again = apt_of(archive, tmp_path / "work")
    assert again.updated
    assert again.missing(packages) == []
    assert set(again.fetch(packages, seen.append)) == set(files)
    assert archive.counts == 2, "what is there is not downloaded again"


def test_a_line_of_linux_is_its_newest_version(archive: Archive, tmp_path: Path) -> None:
    apt = apt_of(archive, tmp_path / "work")
    apt.update()
    assert [package.name for package in apt.linux("6.1")] == ["linux-image-6.1.10-cloud-amd64"]
    assert [package.version for package in apt.linux("6.12")] == ["6.12.1-1"]
    assert apt.linux("6") == apt.linux("6.12")
    assert apt.linux("7.3") == ()


def test_a_package_that_the_release_has_not(archive: Archive, tmp_path: Path) -> None:
    apt = apt_of(archive, tmp_path / "work")
    apt.update()
    with pytest.raises(PlatformUnavailable, match=r"^--release stable: absent: .*Unable to locate package absent"):
        apt.closure(["absent"])


def test_what_the_release_has_not_is_not_taken_from_this_host(archive: Archive, tmp_path: Path) -> None:
    apt = apt_of(archive, tmp_path)
    apt.update()
    with pytest.raises(PlatformUnavailable, match="has no package apt"):
        apt.find(["apt"])


def test_a_release_that_the_archive_has_not(archive: Archive, tmp_path: Path) -> None:
    apt = Apt(tmp_path, Release("wheezy", "Debian", archive.address, archive.keyring))
    with pytest.raises(NoSuchRelease, match=r"wheezy Release' does not have a Release file"):
        apt.update()
    assert not apt.updated
    assert not (tmp_path / "lists").exists()


def test_a_signature_by_another_key(archive: Archive, tmp_path: Path) -> None:
    _sign(tmp_path / "other", archive.place, "Another <another@example.org>")
    apt = apt_of(archive, tmp_path / "work")
    with pytest.raises(PlatformUnavailable, match=r"(?i)signature|not signed|NO_PUBKEY|verif"):
        apt.update()
    assert not apt.updated


def test_an_archive_without_a_signature(archive: Archive, tmp_path: Path) -> None:
    (archive.place / "dists/stable/InRelease").unlink()
    apt = apt_of(archive, tmp_path / "work")
    with pytest.raises(PlatformUnavailable, match=r"not signed"):
        apt.update()
    assert not apt.updated


def test_a_list_that_was_changed_after_it_was_signed(archive: Archive, tmp_path: Path) -> None:
    for name in ("Packages", "Packages.gz"):
        file = archive.place / "dists/stable/main/binary-amd64" / name
        file.write_bytes(file.read_bytes() + b"\n")
    apt = apt_of(archive, tmp_path / "work")
    with pytest.raises(PlatformUnavailable, match=r"(?i)hash sum|size"):
        apt.update()
    assert not apt.updated


@pytest.mark.parametrize("fault", ["changed", "cut", "gone"])
def test_a_package_that_does_not_arrive_whole(archive: Archive, tmp_path: Path, fault: str) -> None:
    apt = apt_of(archive, tmp_path / "work")
    apt.update()
    packages = apt.closure(["tool"])
    file = archive.place / "pool/tool.deb"
    if fault == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    archive.cut = fault == "cut"
    if fault == "gone":
        file.unlink()
    with pytest.raises(PlatformUnavailable, match=r"^--release stable: apt-get download failed: E: ") as caught:
        apt.fetch(packages, lambda _: None)
    assert "\n" not in caught.value.line
    assert "tool" in {package.name for package in apt.missing(packages)}, "nothing half is kept"


def test_no_network(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get")
    # port 9 of loopback: nothing listens there
    apt = Apt(tmp_path, Release("stable", "Debian", "http://127.0.0.1:9", None))
    with pytest.raises(PlatformUnavailable, match=r"http://127.0.0.1:9: E: .*; is there a network\?") as caught:
        apt.update()
    assert not isinstance(caught.value, NoSuchRelease)


def test_a_line_of_linux_of_suites_that_are_not_there_or_not_reachable(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(system_module, "suites_of_kernels", lambda: ("gone", "stable"))
    monkeypatch.setattr(system_module, "release_named", lambda name: replace(archive.release, name=name))
    gathering = Gathering(Choice(linux="6.12"), tmp_path, lambda _: None)
    assert [package.version for package in gathering.linux("6.12")[1]] == ["6.12.1-1"]
    with pytest.raises(PlatformUnavailable, match=r"^--linux 7.3: the archive has no Linux 7.3"):
        gathering.linux("7.3")
    away = replace(archive.release, archive="http://127.0.0.1:9", name="away")
    monkeypatch.setattr(system_module, "suites_of_kernels", lambda: ("stable", "away"))
    monkeypatch.setattr(
        system_module, "release_named", lambda name: away if name == "away" else replace(archive.release, name=name)
    )
    with pytest.raises(PlatformUnavailable, match=r"^--release away: .*is there a network\?"):
        gathering.linux("6.12")


def test_old_lists_serve_where_the_network_is_gone(archive: Archive, tmp_path: Path) -> None:
    apt_of(archive, tmp_path / "work").update()
    mark = tmp_path / "work/updated"
    os.utime(mark, (1000, 1000))
    (archive.place / "dists").rename(archive.place / "away")
    again = apt_of(archive, tmp_path / "work")
    again.update()
    assert again.updated
    assert again.closure(["tool"])
    with pytest.raises(NoSuchRelease):
        again.update(always=True)
    assert again.closure(["tool"]), "what was believed once is not thrown away"


@pytest.mark.parametrize("name", ["", "Bookworm", "../x", "a b", "-x", "x" * 60])
def test_what_is_no_name_of_a_release(name: str) -> None:
    with pytest.raises(SpecError, match="this is no name of a release; for example bookworm"):
        release_named(name)


def test_the_archive_among_those_that_apt_uses() -> None:
    targets = "http://a/security/\tDebian\tDebian-Security\nhttp://b/\tOther\tOther\nhttp://c/debian/\tDebian\tDebian\n"
    assert archive_in(targets) == ("Debian", "http://c/debian/")
    assert archive_in("http://u/\tUbuntu\tUbuntu\n") == ("Ubuntu", "http://u/")
    assert archive_in("http://b/\tOther\tOther\n") is None
    assert archive_in("") is None


def test_a_file_name_of_apts() -> None:
    package = Package("libx", "2:1.0+dfsg-1~a", 5)
    assert package.title == "libx 2:1.0+dfsg-1~a (0.0 MiB)"


def test_a_package_is_found_by_its_exact_version(tmp_path: Path) -> None:
    for name in ("libx_2%3a1.0-1_amd64.deb", "libx_2%3a1.0-10_amd64.deb", "libxy_2%3a1.0-1_all.deb"):
        (tmp_path / name).touch()
    found = Package("libx", "2:1.0-1", 0).in_directory(tmp_path)
    assert found is not None
    assert found.name == "libx_2%3a1.0-1_amd64.deb"
    assert Package("libx", "2:1.1-1", 0).in_directory(tmp_path) is None


def test_without_a_network_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As ``kgen verify`` makes a lab: what is missing has to be made by a command that says what it downloads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[Stage] = []
    refused = pytest.raises(PlatformUnavailable, match=r"run 'kgen lab build'|no apt-get|no archive")
    for choice in (Choice(release="bookworm"), Choice()):
        with refused:
            Gathering(choice, tmp_path, said.append, network=False).apt()
    with refused:
        Gathering(Choice(linux="6.12"), tmp_path, said.append, network=False).linux("6.12")
    assert said == []


@pytest.mark.parametrize("system", ["kvm", "xen"])
@pytest.mark.parametrize("release", [None, "bullseye", "bookworm-backports"])
@pytest.mark.parametrize("line", [None, "6.12"])
def test_the_choice_of_a_lab_is_known_by_its_name(system: str, release: str | None, line: str | None) -> None:
    choice = Choice(release=release, linux=line)
    assert choice_of(system_named(system), title(system_named(system), choice)) == choice


def test_the_name_of_a_lab() -> None:
    kvm = system_named("kvm")
    assert title(kvm, Choice()) == "kvm"
    assert title(kvm, Choice(release="bullseye")) == "kvm-bullseye"
    assert title(kvm, Choice(release="bullseye", linux="6.12")) == "kvm-bullseye-linux-6.12"
    assert title(kvm, Choice(linux="6.12")) == "kvm-linux-6.12"
    assert title(kvm, Choice(kernel=Path("x"), release="bullseye")) == ""
