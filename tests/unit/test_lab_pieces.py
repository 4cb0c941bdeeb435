"""What a lab is made of: the archive, the packages' fields, the modules in their order, the trace's lines."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import SpecError
from kgen.evidence.kvm_trace import TraceEvent
from kgen.lab import packages, recipe, trace
from kgen.lab.initramfs import archive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lab needs a POSIX system")


def test_the_archive_is_one_that_cpio_unpacks(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("there is no cpio; install it with 'apt install cpio'")
    files = {"/init": b"#!/bin/sh\n", "/a/b/c.ko": bytes(range(256)), "/a/empty": b"", "/usr/lib/x.so": b"1234567"}
    data = b"".join(archive(files, frozenset({"/init", "/usr/lib/x.so"})))
    subprocess.run(["cpio", "-id", "--quiet"], input=data, cwd=tmp_path, check=True, timeout=30)
    found = {f"/{path.relative_to(tmp_path)}": path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files
    assert {name for name, path in found.items() if path.stat().st_mode & 0o111} == {"/init", "/usr/lib/x.so"}


_NAMES = st.text("abc.", min_size=1, max_size=5).filter(lambda text: text.strip(".") != "")


@given(st.dictionaries(st.lists(_NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts)), st.binary()))
def test_the_archive_holds_every_file_after_its_directories(files: dict[str, bytes]) -> None:
    """Read back by the format's description: a 110-byte head of hexadecimal fields, name and data padded to 4."""
    data, at, names = b"".join(archive(files, frozenset())), 0, []
    contents: dict[str, bytes] = {}
    while True:
        assert (at % 4, data[at : at + 6]) == (0, b"070701")
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        start = -(-(at + 110 + fields[11]) // 4) * 4
        at = -(-(start + fields[6]) // 4) * 4
        if name == "TRAILER!!!":
            break
        names.append(name)
        if fields[1] & 0o170000 == 0o100000:
            contents[f"/{name}"] = data[start : start + fields[6]]
    assert at == len(data)
    assert contents == files
    for number, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:number]


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ValueError, match="not an absolute path: init"):
        list(archive({"init": b""}, frozenset()))


_SHOWN = """Package: linux-image-cloud-amd64
Source: linux-signed-amd64 (6.1.1+1)
Version: 6.1.1-1
Size: 1234567
Depends: linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1), initramfs-tools:any | dracut
Description-en: a kernel
 Version: 9

Package: another
Version: 2
Size: 3
"""


def test_the_fields_of_a_package() -> None:
    depends = ("linux-image-6.1.0-1-cloud-amd64", "initramfs-tools", "dracut")
    found = packages.parse(_SHOWN)
    assert found == packages.Package("linux-image-cloud-amd64", "6.1.1-1", 1234567, depends)
    assert found.title == "linux-image-cloud-amd64 6.1.1-1 (1.2 MiB)"


@pytest.mark.parametrize(
    "text", ["", "N: Unable to locate package x", "Package: x\nVersion: 1\n", "Package: x\nSize: a"]
)
def test_what_is_no_package(text: str) -> None:
    assert packages.parse(text) is None


#: What Debian sid's kernel packages depended on in November 2026: kernel and modules have packages of their own.
_SPLIT = {
    "linux-image-cloud-amd64": "linux-base-cloud-amd64 (= 7.2.13-1), linux-image-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)",
    "linux-image-7.2.13+deb14-cloud-amd64": "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, "
    "linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), "
    "linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)",
    "linux-binary-7.2.13+deb14-cloud-amd64": "linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)",
    "linux-modules-7.2.13+deb14-cloud-amd64": "linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1)",
}


def test_the_packages_of_a_split_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(_: packages.Apt, name: str) -> packages.Package | None:
        text = f"Package: {name}\nVersion: 7.2.13-1\nDepends: {_SPLIT.get(name)}\nSize: 1\n"
        return packages.parse(text) if name in _SPLIT else None

    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    monkeypatch.setattr(packages.Apt, "_show", show)
    found = [package.name for package in packages.Apt(tmp_path).kernel()]
    assert found == [
        "linux-image-7.2.13+deb14-cloud-amd64",
        "linux-binary-7.2.13+deb14-cloud-amd64",
        "linux-modules-7.2.13+deb14-cloud-amd64",
    ]


@pytest.mark.parametrize("place", ["boot/vmlinuz-6.1.0-1", "usr/lib/modules/7.2.13+deb14/vmlinuz"])
def test_the_kernel_of_a_package(tmp_path: Path, place: str) -> None:
    kernel = tmp_path / place
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    assert recipe.find_kernel(tmp_path) == kernel


def test_packages_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"hold no boot/vmlinuz-\* or .*modules.*; give --kernel"):
        recipe.find_kernel(tmp_path)


def module(depends: str) -> bytes:
    """A relocatable ELF64 file whose only section beside the names is .modinfo (System V ABI, chapter 4)."""
    info = f"license=GPL\0depends={depends}\0name=x\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + len(info) + len(names)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, 64, len(info), 0, 0, 1, 0)
    return (
        head + info + names + sections + struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    )


def test_modules_are_loaded_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "kvm_amd.ko.xz").write_bytes(lzma.compress(module("kvm,ccp")))
    (tmp_path / "kvm.ko.gz").write_bytes(gzip.compress(module("irqbypass")))
    (tmp_path / "ccp.ko").write_bytes(module(""))
    (tmp_path / "irqbypass.ko").write_bytes(module(""))
    (tmp_path / "nouveau.ko").write_bytes(module("kvm"))
    found = recipe.modules_in(tmp_path, ("kvm-amd",))
    assert list(found) == ["irqbypass", "kvm", "ccp", "kvm-amd"]
    assert found["kvm"] == module("irqbypass"), "unpacked"


def test_modules_that_are_missing_or_are_none(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has no kvm-amd\.ko; is it built in"):
        recipe.modules_in(tmp_path, ("kvm-amd",))
    (tmp_path / "kvm-amd.ko").write_bytes(module("kvm"))
    with pytest.raises(SpecError, match=r"has no kvm\.ko, which kvm-amd\.ko depends on"):
        recipe.modules_in(tmp_path, ("kvm-amd",))
    for name, data, words in (
        ("kvm.ko", b"no ELF", "is not a kernel module"),
        ("kvm.ko.xz", b"no xz", "cannot be unpacked"),
        ("kvm.ko.gz", b"no gzip", "cannot be unpacked"),
        ("kvm.ko.zst", b"zstd", "is packed with zstd"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SpecError, match=words):
            recipe.modules_in(tmp_path, ("kvm-amd",))
        (tmp_path / name).unlink()
    with pytest.raises(SpecError, match="is not a directory"):
        recipe.modules_in(tmp_path / "nowhere", ("kvm-amd",))


def test_the_key_is_made_of_the_contents_alone() -> None:
    one = recipe.Recipe(b"kernel", {"/init": b"x", "/a": b"y"}, (), {"linux": "here"})
    same = recipe.Recipe(b"kernel", {"/a": b"y", "/init": b"x"}, (), {"linux": "there"})
    others = (
        recipe.Recipe(b"kernel ", {"/init": b"x", "/a": b"y"}, (), {}),
        recipe.Recipe(b"kernel", {"/init": b"x", "/b": b"y"}, (), {}),
        recipe.Recipe(b"kernel", {"/init": b"xy", "/a": b""}, (), {}),
        recipe.Recipe(b"kernel", {"/init": b"x"}, (), {}),
        recipe.Recipe(b"kernel", {"/init": b"x", "/a": b"y"}, (), {}, machine=("-smp", "1")),
        recipe.Recipe(b"kernel", {"/init": b"x", "/a": b"y"}, (), {}, loaded={"xen": b"z"}),
    )
    assert one.key() == same.key()
    assert len({one.key(), *(other.key() for other in others)}) == 7


def test_a_line_of_the_trace() -> None:
    lines = (
        "# tracer: nop",
        " CPU 1/KVM-118     [000] ..... 12.345678: kvm_mmio: mmio unsatisfied-read len 4 gpa 0xb8000 val 0x0",
        " CPU 2/KVM-119     (-------) [000] d..1.   12.345680: kvm_mmio: mmio write len 1 gpa 0xb8003 val 0x1f",
        " CPU 1/KVM-118     [000] ..... 12.345700: kvm_mmio: mmio read len 4 gpa 0xb8000 val 0x10001",
        " CPU 1/KVM-118     [000] ..... 12.345700: kvm_exit: reason npf",
        " qemu-100     [000] ..... 12.345700: kvm_mmio: mmio read len 4 gpa 0xb8000 val 0x10001",
    )
    assert trace.parse(lines) == (
        TraceEvent(12.345678, 1, "ask", 0xB8000, 32, 0),
        TraceEvent(12.345680, 2, "write", 0xB8003, 8, 0x1F),
        TraceEvent(12.345700, 1, "read", 0xB8000, 32, 0x10001),
    )
