"""What must not change unnoticed: ids, digests, and that the same request gives the same bytes anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kgen.builder import build, write
from kgen.spec import Case, KernelSpec

#: A digest stands in logs that people keep: a change makes their logs those of another kernel. Fields may come and go
#: with a version; then this changes, and the change log says so.
DIGESTS = {
    "xchg.32.vga-text.token": (
        KernelSpec(Case("xchg")),
        "a1b923b9adf9b6a960e0466ecad143f11321bdce600ae3f1ff75b568ad9b6aa9",
    ),
    "xchg.32.vga-text.token.nolock": (
        KernelSpec(Case("xchg", lock=False)),
        "32f822a6fcda76cb7f80e56a41b8dbf4cc4023ec06054d295a00f813b662d764",
    ),
    "xchg.32.ram.token.cpus8": (
        KernelSpec(Case("xchg", target="ram", cpus=8), rounds=0),
        "0e22933f601006daa5066d769ea435fd39a26381f3f499f02bc025aca6a3e416",
    ),
    "xchg.32.0xfed00108.token": (
        KernelSpec(Case("xchg", target="0xFED00108")),
        "2ef4e5cf96863456c5d04128d9f0bc350288c73a66341604d9c2dbc9a971891a",
    ),
}

BUILD = """
import sys
from pathlib import Path
from kgen.builder import build, write
from kgen.spec import Case, KernelSpec
write(build(KernelSpec(Case("xchg"))), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("case", sorted(DIGESTS))
def test_ids_and_digests(case: str) -> None:
    spec, digest = DIGESTS[case]
    assert spec.case.id == case
    assert spec.digest() == digest


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def elsewhere(directory: Path, seed: str, repository: Path) -> dict[str, str]:
    """The default kernel built by another process, in another directory, locale, time zone and hash seed."""
    where = directory / f"a place {seed}"
    where.mkdir()
    changed = {"PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONPATH": str(repository), "HOME": "/"}
    environment = {**os.environ, **changed}
    command = [sys.executable, "-c", BUILD, str(where / "out")]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return digests(where / "out")


def test_equal_bytes_everywhere(tmp_path: Path, repository: Path) -> None:
    write(build(KernelSpec(Case("xchg"))), tmp_path / "here")
    here = digests(tmp_path / "here")
    assert set(here) == {"kernel.elf", "kernel.img", "kernel.s", "manifest.json"}
    assert elsewhere(tmp_path, "1", repository) == here
    assert elsewhere(tmp_path, "4711", repository) == here


def test_no_trace_of_the_machine(tmp_path: Path, repository: Path) -> None:
    """No absolute path, no user, no host, no time of day in anything that is written."""
    write(build(KernelSpec(Case("xchg"))), tmp_path)
    traces = {str(repository), str(tmp_path), str(Path.home()), sys.prefix, os.uname().nodename}
    for name in ("kernel.elf", "kernel.img", "kernel.s", "manifest.json"):
        data = (tmp_path / name).read_bytes()
        for trace in traces - {"/"}:
            assert trace.encode() not in data, (name, trace)
        assert not re.search(rb"(?:/home/|/root/|/usr/|/tmp/|[A-Z]:\\)", data), name
        assert not re.search(rb"20[2-9][0-9]-[01][0-9]-[0-3][0-9]|[0-2][0-9]:[0-5][0-9]:[0-5][0-9]", data), name


def test_the_manifest_fits_the_files(tmp_path: Path) -> None:
    kernel = build(KernelSpec(Case("xchg")))
    write(kernel, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    found = digests(tmp_path)
    assert manifest["files"] == {name: found[name] for name in manifest["files"]}
    assert set(manifest["files"]) == set(found) - {"manifest.json"}
    assert manifest["digest"] == kernel.spec.digest()
    assert KernelSpec.from_json(json.dumps(manifest["spec"])) == kernel.spec


def test_the_build_id_is_that_of_the_bytes() -> None:
    """Another text, another id; the same text, the same."""
    ids = {build(spec).elf.build_id for spec, _ in DIGESTS.values()}
    assert len(ids) == len(DIGESTS)
    assert build(KernelSpec(Case("xchg"))).elf.build_id in ids
