"""What cannot be asked of kgen.api is one clear SpecError, and nothing is built or started."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recordings import DIRECTORY

from kgen import api
from kgen.errors import SpecError
from kgen.machine.platform import CHOICES


def verify(**keywords: Any) -> Callable[[], object]:
    return lambda: api.verify("xchg", **keywords)


def suite(**keywords: Any) -> Callable[[], object]:
    return lambda: api.verify_suite("smoke", **keywords)


def run() -> api.Run:
    return api.judge(DIRECTORY / "kvm-lost.log")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (verify(rounds="10"), "rounds: '10' is of type str; give a whole number or None"),
        (verify(rounds=True), "rounds: True is of type bool; give a whole number or None"),
        (verify(rounds=1.5), "rounds: 1.5 is of type float; give a whole number or None"),
        (verify(rounds=-1), "-1 rounds asked for"),
        (verify(rounds=0), "0 rounds have no end; give seconds too"),
        (verify(rounds=0, seconds=math.nan), "seconds: nan is of type float; give a finite number or None"),
        (verify(rounds=0, seconds=math.inf), "seconds: inf is of type float; give a finite number or None"),
        (verify(seconds=-1), "seconds: -1 is not a time from 0.1 to 1000000 seconds"),
        (verify(seconds=0), "seconds: 0 is not a time from 0.1 to 1000000 seconds"),
        (verify(seconds=10**400), "is not a time from 0.1 to 1000000 seconds"),
        (verify(timeout=math.nan), "timeout: nan is of type float; give a finite number or None"),
        (verify(timeout=-1), "timeout: -1 is not a time from 1 to 1000000 seconds"),
        (verify(timeout=0), "timeout: 0 is not a time from 1 to 1000000 seconds"),
        (verify(lock="no"), "lock: 'no' is of type str; give True or False"),
        (verify(controls=0), "controls: 0 is of type int; give True or False"),
        (verify(width="32"), "width: '32' is of type str; give a whole number"),
        (verify(cpus=None), "cpus: None is of type NoneType; give a whole number"),
        (verify(target=0xB8000), "target: 753664 is of type int; give text without NUL"),
        (verify(platform=[]), "platform: [] is of type list; give text without NUL"),
        (verify(extra="-vga none"), "extra: '-vga none' is of type str; give a list, each entry text without NUL"),
        (verify(extra=[1]), "extra: [1] is of type list; give a list, each entry text without NUL"),
        (verify(extra=["a\0b"]), "give a list, each entry text without NUL"),
        (verify(extra=["\ud800"]), "give a list, each entry text without NUL"),
        (verify(qemu="a\0b"), "give text without NUL or None"),
        (verify(gdb=3), "gdb: 3 is of type int; give text without NUL"),
        (verify(machine=1), "machine: 1 is of type int; give text without NUL or None"),
        (verify(qmeu="x"), "unknown choice 'qmeu'; did you mean qemu?"),
        (verify(kernel="/none"), "--kernel: this is no part of qemu-tcg; choose --platform kvm-lab"),
        (
            verify(kernel="/x", modules="/y"),
            "--kernel and --modules: this is no part of qemu-tcg; choose --platform kvm-lab",
        ),
        (verify(platform="kvm-lab", kernel="/none"), "/none: No such file or directory"),
        (suite(only="xchg"), "only: 'xchg' is of type str; give a list, each entry text without NUL"),
        (suite(budget=0), "budget"),
        (suite(timeout=math.inf), "timeout: inf is of type float"),
        (lambda: api.verify(None), "instr: None is of type NoneType; give text without NUL"),  # type: ignore[arg-type]
        (lambda: api.suites(5), "suite: 5 is of type int; give text without NUL or a KernelSpec"),  # type: ignore[arg-type]
        (lambda: api.build("d", "xchg", formats="img"), "formats: 'img' is of type str; give a list, each entry"),
        (lambda: api.build("a\0b", "xchg"), "directory: 'a\\x00b' is of type str; give a file's name without NUL"),
        (lambda: api.build("d", "xchg", width="8"), "width: '8' is of type str; give a whole number"),
        (lambda: api.judge("a\0b"), "log: 'a\\x00b' is of type str; give bytes or a file's name without NUL or None"),
        (lambda: api.load(5), "paths: 5 is of type int; give a file's name without NUL"),  # type: ignore[arg-type]
        (lambda: api.load("\ud800"), "paths: '\\ud800' is of type str; give a file's name without NUL"),
        (lambda: api.save("x.json", 5), "runs: 5 is of type int; give a Run"),  # type: ignore[arg-type]
        (lambda: api.report(run(), form=[]), "form: [] is of type list"),  # type: ignore[arg-type]
        (lambda: api.compare(5), "baseline: 5 is of type int; give a Run"),  # type: ignore[arg-type]
        (
            lambda: api.inspect("kernel.elf", "gdb", after="go"),  # type: ignore[arg-type]
            "after: 'go' is of type str; give 'found' or 'resume' or 'stop'",
        ),
        (lambda: api.Case("xchg", lock="no"), "lock: 'no' is of type str; give True or False"),  # type: ignore[arg-type]
        (lambda: run().require(), "there is no verdict to require; name one, such as ATOMIC"),
        (lambda: run().require(5), "unknown verdict '5'"),  # type: ignore[arg-type]
        (lambda: run().result(5), "unknown case '5'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_asked_is_a_spec_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as raised:
        ask()
    assert words in raised.value.line
    assert "\n" not in raised.value.line
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_pythons_own_affair() -> None:
    with pytest.raises(TypeError, match="instr"):
        api.verify()  # type: ignore[call-arg]


def test_what_fits_is_let_through(tmp_path: Path) -> None:
    paths = api.build(tmp_path, "xchg", formats=("img",), rounds=10, lock=False, width=8)
    assert {path.suffix for path in paths} >= {".elf", ".img"}
    assert api.cases("smoke", only=["xchg.8"]) == ("xchg.8.pc-testdev.chain",)
    assert api.compare(run(), fatal=set()).failed == ()


@pytest.mark.parametrize("form", ["text", "html", "junit", "tap", "markdown"])
def test_a_report_of_nothing_is_refused(form: str) -> None:
    with pytest.raises(SpecError, match="there is no run to report"):
        api.report(form=form)


def test_every_choice_of_the_machine_is_a_keyword() -> None:
    with pytest.raises(SpecError) as caught:
        api.verify("xchg", no_such_choice=1)
    known = caught.value.line.partition("known: ")[2].split(", ")
    assert set(CHOICES) <= set(known)
