"""What must not change unnoticed: ids, digests, and that the same request gives the same bytes anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kgen.build import Kernel, build, write
from kgen.spec import Case
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.spec.suites import load

#: A digest stands in logs that people keep: a change makes their logs those of another kernel. Fields may come and go
#: with a version; then this changes, and the change log says so. The second digest is that of the same request to a
#: version that counted no live batches.
DIGESTS = {
    "xchg.32.vga-text.token": (
        KernelSpec(Case("xchg")),
        "0921f509bab99a8bcfcd5a1d7f279de2e18f8bd8885b688eefed33fbda937a7c",
        "0840a5f41e620a4e172998f40b4554f4443136a5de63fbef0d24886ca2357456",
    ),
    "xchg.32.vga-text.token.nolock": (
        KernelSpec(Case("xchg", lock=False)),
        "22d4476ed4d3dd130c1041873940e11e40ee962332caac0a6a698bdbeae2da13",
        "f313484d1fd88b5291fa33de919930707764cd3faaedb2f3978c4efdde466acd",
    ),
    "xchg.32.ram.token.cpus8": (
        KernelSpec(Case("xchg", target="ram", cpus=8), rounds=0),
        "0e3dfe992e69ddcae43230322ec941a6f4de375498153e177c1d9d71e02b8824",
        "5aa2f40e7670c40fdf2f7d9a43b72e8dcfcf7bddd0160a81ec09adaa9eb37c69",
    ),
    "xchg.32.0xfed00108.token": (
        KernelSpec(Case("xchg", target="0xFED00108")),
        "195b6ebb2def41a86cffd117047b1b3bc7a8273710187741f566d4b5b001bb36",
        "a0fdf31ec814b48b1a6497a9b747a6742538a68e2fe25044f2bb67aeb05beeab",
    ),
    "cmpxchg8b.64.vga-text.token": (
        KernelSpec(Case("cmpxchg8b")),
        "db85da5d14f058dbfab895c63cc7f8212ebfa2a2681102fe6eedbf3ee1f3b832",
        "54e6adcb56e375d100abf99bdf72b5fc5a2ff543343ec7a085438859e8ea17b6",
    ),
    "add.16.pc-testdev.counter.imm.nolock.+4095": (
        KernelSpec(Case("add", 16, lock=False, target="pc-testdev", source="imm", offset=4095)),
        "fd111d3485b99e164783e90cc0718480bba751648cb9f72805d687e45231f736",
        "05cd7e531f23a107631ba56cfef4a1cd3ef31f297b0317de72bd9a2e1f64b709",
    ),
    "suite:mine": (
        KernelSpec(Case("xchg"), more=(Case("or"), Case("not")), suite="mine", budget=60),
        "451eda97772557fd3e0a436ed71da63732180fe462d19ab54b09dabd6395aa84",
        "7ecf90b05f0c1c39e131d883c04dc67b5dd13d6aef2fae4a75deabe7de45d349",
    ),
}

#: Builds each specification into the directory that follows it.
BUILD = """
import sys
from pathlib import Path
from kgen.build import build, write
from kgen.spec import KernelSpec
for spec, directory in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    write(build(KernelSpec.from_json(spec)), Path(directory))
"""


def smoke() -> KernelSpec:
    """A suite that is built in."""
    title, cases = load("smoke")
    return KernelSpec(cases[0], more=cases[1:], suite=title, budget=30)


@pytest.mark.parametrize("case", sorted(DIGESTS))
def test_ids_and_digests(case: str) -> None:
    spec, digest, old = DIGESTS[case]
    assert spec.name == case
    assert spec.digest() == digest
    assert replace(spec, rules=OLD_RULES).digest() == old


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@cache
def built(spec: KernelSpec) -> Kernel:
    """A kernel that several tests look at."""
    return build(spec)


def elsewhere(directory: Path, specs: Sequence[KernelSpec], seed: str, repository: Path) -> list[dict[str, str]]:
    """The kernels built by another process, in another directory, locale, time zone and hash seed."""
    where = directory / f"a place {seed}"
    where.mkdir()
    changed = {
        "PYTHONHASHSEED": seed,
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONPATH": str(repository),
        "HOME": "/",
        "XDG_CACHE_HOME": str(where),
    }
    environment = {**os.environ, **changed}
    outputs = [where / f"out {number}" for number in range(len(specs))]
    asked = [word for spec, output in zip(specs, outputs, strict=True) for word in (spec.to_json(), str(output))]
    command = [sys.executable, "-c", BUILD, *asked]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [digests(output) for output in outputs]


def test_equal_bytes_everywhere(tmp_path: Path, repository: Path) -> None:
    """Of one case and of a suite, in either order: what was built before changes nothing."""
    specs = [KernelSpec(Case("xchg")), smoke()]
    here = []
    for spec in specs:
        write(built(spec), tmp_path / spec.name)
        here.append(digests(tmp_path / spec.name))
        assert set(here[-1]) == {"kernel.elf", "kernel.elf-gdb.py", "kernel.img", "kernel.s", "manifest.json"}
    assert elsewhere(tmp_path, specs, "1", repository) == here
    assert elsewhere(tmp_path, specs[::-1], "4711", repository) == here[::-1]


def test_no_trace_of_the_machine(tmp_path: Path, repository: Path) -> None:
    """No absolute path, no user, no host, no time of day in anything that is written."""
    write(built(KernelSpec(Case("xchg"))), tmp_path)
    traces = {str(repository), str(tmp_path), str(Path.home()), sys.prefix, os.uname().nodename}
    for name in ("kernel.elf", "kernel.elf-gdb.py", "kernel.img", "kernel.s", "manifest.json"):
        data = (tmp_path / name).read_bytes()
        for trace in traces - {"/"}:
            assert trace.encode() not in data, (name, trace)
        assert not re.search(rb"(?:/home/|/root/|/usr/|/tmp/|[A-Z]:\\)", data), name
        assert not re.search(rb"20[2-9][0-9]-[01][0-9]-[0-3][0-9]|[0-2][0-9]:[0-5][0-9]:[0-5][0-9]", data), name


def test_the_manifest_fits_the_files(tmp_path: Path) -> None:
    kernel = built(KernelSpec(Case("xchg")))
    write(kernel, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    found = digests(tmp_path)
    assert manifest["files"] == {name: found[name] for name in manifest["files"]}
    assert set(manifest["files"]) == set(found) - {"manifest.json"}
    assert manifest["digest"] == kernel.spec.digest()
    assert KernelSpec.from_json(json.dumps(manifest["spec"])) == kernel.spec


def test_the_build_id_is_that_of_the_bytes() -> None:
    """Another text, another id; the same text, the same."""
    ids = {built(spec).elf.build_id for spec, *_ in DIGESTS.values()}
    assert len(ids) == len(DIGESTS)
    assert build(KernelSpec(Case("xchg"))).elf.build_id in ids
