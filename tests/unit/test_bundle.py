"""The bundle that goes with a bug report."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from damage import EVIL
from hypothesis import given
from hypothesis import strategies as st
from recordings import load
from test_bug_reports import named
from test_reading import written

from kgen.cli import main
from kgen.report.bug.bundle import REPORT, Packed, collect, pack, safe
from kgen.report.results import read
from kgen.spec import KernelSpec


def result(name: str) -> str:
    """A result with its log."""
    return json.dumps(json.loads(written(name)) | {"serial_log": load(name).log.decode("latin-1")})


def runs(*names: str) -> tuple[read.Run, ...]:
    return tuple(run for name in names for run in read.load(result(name).encode(), f"{name}.json"))


def test_it_holds_everything_about_a_run() -> None:
    found = {each.name: each for each in collect(runs("kvm-lost"), [("/a/b/x.json", b"{}")])}
    kernel = "kernels/xchg.32.vga-text.token/"
    assert sorted(found) == [
        *(f"{kernel}kernel.{suffix}" for suffix in ("elf", "elf-gdb.py", "img", "s")),
        f"{kernel}manifest.json",
        "logs/xchg.32.vga-text.token.txt",
        "results/x.json",
    ]
    assert all(each.what for each in found.values())
    assert found["results/x.json"].data == b"{}"
    assert found["logs/xchg.32.vga-text.token.txt"].data == load("kvm-lost").log
    manifest = json.loads(found[f"{kernel}manifest.json"].data)
    for name, digest in manifest["files"].items():
        assert hashlib.sha256(found[kernel + name].data).hexdigest() == digest == found[kernel + name].enclosed.sha256
    older = {each.name: each for each in collect([named(run, "00" * 20) for run in runs("kvm-lost")], [])}
    assert "is not the one that was run" in older[f"{kernel}kernel.elf"].what


def test_one_kernel_is_packed_once_and_no_name_twice() -> None:
    found = collect(runs("kvm-lost", "kvm-lost"), [("x.json", b"1"), ("y/X.json", b"2"), ("x.json", b"3")])
    names = [each.name for each in found]
    assert len({name.lower() for name in names}) == len(names)
    assert sum(name.endswith(".elf") for name in names) == 1
    assert {each.data for each in found if each.name.startswith("results/")} == {b"1", b"2", b"3"}
    assert names == sorted(names)


@given(name=st.text() | st.sampled_from(["../../etc/passwd", "C:\\x", "/", "..", "-rf", "standard input", "." * 300]))
def test_a_name_is_safe_everywhere(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,79}", safe(name))
    assert not safe(name).startswith((".", "-"))


def test_the_same_files_make_the_same_bytes() -> None:
    files = [Packed("b/x", b"1" * 999, ""), Packed("a", b"2", "")]
    data = pack(files)
    assert data == pack(list(reversed(files)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a", "b/x"]
        assert archive.read("b/x") == b"1" * 999
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def report(*words: str, input: bytes | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["report", *words], input=input)
    return done.exit_code, done.stdout, done.stderr


def test_the_report_lists_what_is_in_the_file(tmp_path: Path) -> None:
    source, bundle = tmp_path / "kvm.json", tmp_path / "bug.zip"
    source.write_text(result("kvm-lost"), encoding="utf-8")
    code, text, _ = report(str(source), "--format", "markdown", "--bundle", str(bundle))
    assert code == 0
    listed = dict(re.findall(r"^- `([^`]+)`: .*, SHA-256 `([0-9a-f]{64})`$", text, re.MULTILINE))
    with zipfile.ZipFile(bundle) as archive:
        data = {name: archive.read(name) for name in archive.namelist()}
    assert data.pop(REPORT).decode() == text
    assert listed == {name: hashlib.sha256(each).hexdigest() for name, each in data.items()}
    assert data["results/kvm.json"] == source.read_bytes()
    # the same once more, whatever the form that is asked for
    again = tmp_path / "again.zip"
    assert report(str(source), "--format", "tap", "--bundle", str(again))[1].startswith("TAP version")
    assert again.read_bytes() == bundle.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zip", "bug.zip", "kvm.json"]


def test_a_hostile_result_is_packed(tmp_path: Path) -> None:
    value = json.loads(written("kvm-lost"))
    value["platform"] = value["serial_log"] = value["verdict"]["reason"] = EVIL
    source = tmp_path / "a b;`c`.json"
    source.write_text(json.dumps(value))
    code, _, said = report(str(source), "--bundle", str(tmp_path / "b.zip"))
    assert code == 0, said
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert all(re.fullmatch(r"[A-Za-z0-9._+/-]+", name) for name in archive.namelist())
        assert all(".." not in name for name in archive.namelist())


def test_a_run_of_a_kernel_unknown_has_no_kernel() -> None:
    (run,) = runs("kvm-lost")
    found = collect([read.Run("x", None, run.platform, run.results)], [])
    assert [each.name for each in found] == ["logs/unknown.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bundle", "-"], "--bundle is no text for standard output"),
        (["--bundle", "x.zip", "-o", "x.zip"], "--bundle and -o name the same file"),
        (["--bundle", "r.json"], "r.json: is what is to be read"),
        (["--bundle", "no/such/x.zip"], "no/such/x.zip: cannot be written"),
        (["--bundle", "."], "is a directory"),
        (["--bundle", "r.json/x.zip", "-o", "r.json/x"], "Not a directory"),
        (["--bundle", ""], "it names nothing"),
    ],
)
def test_a_bundle_that_cannot_be_is_told_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.json").write_text(written("kvm-lost"))
    code, out, err = report("r.json", *words)
    assert (code, out) == (2 if "names" in said or "no text" in said else code, "")
    assert code != 0
    assert said in err
    assert len(err.splitlines()) == 1
    assert os.listdir() == ["r.json"]


def test_standard_input_has_a_name() -> None:
    (run,) = runs("kvm-lost")
    assert isinstance(run.spec, KernelSpec)
    assert [each.name for each in collect([], [("standard input", b"{}")])] == ["results/standard-input.json"]
