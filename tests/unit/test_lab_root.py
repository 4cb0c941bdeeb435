"""A root of unpacked packages: links stay inside it, programs are found with all that they load, and run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the roots are for Linux", allow_module_level=True)

from kgen.errors import SpecError
from kgen.lab.recipe import host_program
from kgen.lab.root import Root, put, starter


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    write(tmp_path / "usr/share/seabios/bios.bin", "bios")
    (tmp_path / "usr/share/qemu").mkdir()
    (tmp_path / "usr/share/qemu/a").symlink_to("/usr/share/seabios/bios.bin")
    (tmp_path / "usr/share/qemu/b").symlink_to("../seabios/bios.bin")
    (tmp_path / "usr/share/qemu/c").symlink_to("../../../../../../../usr/share/seabios/bios.bin")
    (tmp_path / "usr/share/firmware").symlink_to("seabios")
    (tmp_path / "usr/share/qemu/loop").symlink_to("loop")
    (tmp_path / "usr/share/qemu/out").symlink_to("/etc/hostname")
    root = Root(tmp_path)
    for name in ("qemu/a", "qemu/b", "qemu/c", "firmware/bios.bin"):
        assert root.read(f"/usr/share/{name}") == b"bios", name
    assert root.find("/usr/share/qemu/loop") is None
    assert root.find("/usr/share/qemu/out") is None, "the host's file is no file of the root"
    with pytest.raises(SpecError, match="have no /usr/share/none"):
        root.read("/usr/share/none")


@pytest.mark.parametrize("place", ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"])
def test_a_library_is_found_on_either_side_of_the_merge(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / "libx.so", "x")
    root = Root(tmp_path)
    assert root.read("/lib/x86_64-linux-gnu/libx.so") == root.read("/usr/lib/x86_64-linux-gnu/libx.so") == b"x"
    assert root.search() == (tmp_path / place, (tmp_path / place).parent)


def test_a_program_of_this_host_runs_from_a_root_of_its_own(tmp_path: Path) -> None:
    """Its loader and libraries are copied, and nothing else of the host is needed: not even the directory's name is
    known to the program."""
    there = Path("/usr/bin/env")
    if not there.is_file():
        pytest.skip("there is no /usr/bin/env")
    files = host_program(there)
    if not any("ld-linux-x86-64" in name for name in files):
        pytest.skip("this host's programs are not dynamic ones for x86-64")
    (tmp_path / "whole").mkdir()
    whole = put(files, ["/usr/bin/env"], tmp_path / "whole")
    found = whole.program("/usr/bin/env")
    assert {Path(name).name for name in found} == {Path(name).name for name in files}
    small = put(found, ["/usr/bin/env"], tmp_path / "a 'place")
    script = tmp_path / "env"
    script.write_text(starter(small, "/usr/bin/env", ["A=1"], {"SETTING": "a value"}))
    script.chmod(0o755)
    done = subprocess.run([script, "B=2"], capture_output=True, text=True, check=True, env={"PATH": "/bin"})
    assert {"A=1", "B=2", "SETTING=a value"} <= set(done.stdout.splitlines())
    (tmp_path / "a 'place/lib64/ld-linux-x86-64.so.2").unlink()
    assert subprocess.run([script], capture_output=True, check=False).returncode != 0, "the host's loader served"


def test_a_program_whose_library_is_missing(tmp_path: Path) -> None:
    there = Path("/usr/bin/env")
    files = {name: data for name, data in host_program(there).items() if "libc.so" not in name}
    if len(files) < 2:
        pytest.skip("this host's programs are static")
    root = put(files, [str(there)], tmp_path)
    with pytest.raises(SpecError, match=r"have no libc\.so\.6, which /usr/bin/env needs"):
        root.program("/usr/bin/env")
    with pytest.raises(SpecError, match="have no /usr/bin/qemu"):
        starter(root, "/usr/bin/qemu")
    write(tmp_path / "usr/bin/broken", "\x7fELF and nothing")
    with pytest.raises(SpecError, match="is no program of this kind"):
        root.program("/usr/bin/broken")
