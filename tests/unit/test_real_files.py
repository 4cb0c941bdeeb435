"""Files of real machines that are kept beside the repository (../shared/cases, whose README.md has the right answers).

They are not part of it: where they are absent each test is skipped, and says so."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from recordings import DIRECTORY

from kgen.cli import main
from kgen.offline.runs import from_capture, verdicts
from kgen.report.results import read
from kgen.verdict.model import OLD_KERNEL, OLD_PROOF, VerdictKind

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def kept(name: str) -> Path:
    if not (CASES / name).is_file():
        pytest.skip(f"there is no ../shared/cases/{name}")
    return CASES / name


def judged(*words: str) -> Result:
    return CliRunner().invoke(main, ["judge", *words], terminal_width=200)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("xen-4.17.serial.txt", "66 lost, 5 duplicate in 10000 rounds of xchg.32 on vga-text"),
        ("virtualbox-iem.serial.txt", "1 duplicate in 3000 rounds of xchg.32 on vga-text"),
    ],
)
def test_a_defect_that_an_older_kernel_showed_stays_one(name: str, reason: str) -> None:
    result = judged(str(kept(name)))
    assert result.exit_code == VerdictKind.NOT_ATOMIC.value
    assert f"\nNOT_ATOMIC: {reason}\n" in result.output
    assert OLD_KERNEL not in result.output


def test_where_a_devices_lock_makes_every_instruction_atomic() -> None:
    """VirtualBox with AMD-V: without LOCK nothing fails either, and no number of rounds changes that."""
    result = judged(str(kept("virtualbox-amdv.serial.txt")))
    assert result.exit_code == VerdictKind.INCONCLUSIVE.value
    reason = "the power control power:cmpxchg.32.nolock@vga-text showed only 0 events in 10000 rounds; 5 are needed"
    assert f"\nINCONCLUSIVE: {reason}" in result.output
    assert f"  {OLD_KERNEL}\n" in result.output
    assert "--rounds" not in result.output
    assert "more rounds" not in result.output


#: What the logs there were made of.
GOOD, BAD = (DIRECTORY / f"{name}.log" for name in ("old-tcg-atomic", "old-kvm-lost"))


def told(log: bytes) -> list[tuple[VerdictKind, str]]:
    return [(verdict.kind, verdict.reason) for run in from_capture(log) for verdict in verdicts(run)]


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("bad-stamped-then-good-plain.good.txt", (BAD, GOOD)),
        ("gitlab-trace.good.txt", (GOOD,)),
        ("rsyslog.bad.txt", (BAD,)),
        ("labgrid.bad.txt", (BAD,)),
        ("mail-qp.bad.txt", (BAD,)),
        ("mail-words72.good.txt", (GOOD,)),
        ("docker-json.bad.txt", (BAD,)),
        ("html-escaped.good.txt", (GOOD,)),
        ("cat-v.bad.txt", (BAD,)),
        ("stamped-then-wrapped80.good.txt", (GOOD,)),
        ("monitor-prompt.good.txt", (GOOD,)),
    ],
)
def test_a_log_as_a_tool_left_it_is_judged_as_the_plain_one(name: str, runs: tuple[Path, ...]) -> None:
    log = kept(name).read_bytes()
    plain = [each for run in runs for each in told(run.read_bytes())]
    assert all(kind is not VerdictKind.ERROR for kind, _ in plain)
    assert told(log) == plain
    if BAD in runs:
        assert (VerdictKind.NOT_ATOMIC, "89 lost, 4 duplicate in 1000 rounds of xchg.32 on vga-text") in plain
    # by a pipe, too, and with the other run in front of it or behind it
    result = CliRunner().invoke(main, ["judge", "-"], input=log)
    assert result.exit_code == max(kind.value for kind, _ in plain) if BAD not in runs else 3, result.output
    for other in (GOOD, BAD):
        assert told(log + other.read_bytes()) == plain + told(other.read_bytes())
        assert told(other.read_bytes() + log) == told(other.read_bytes()) + plain


@pytest.mark.parametrize("name", ["memory-bad.raw.xz", "windows-full.bad.dmp.xz", "xen-dump-core.bad.core.xz"])
def test_memory_of_an_older_kernel_is_still_read(name: str, tmp_path: Path) -> None:
    memory = tmp_path / name.removesuffix(".xz")
    memory.write_bytes(lzma.decompress(kept(name).read_bytes()))
    result = judged("--memory", str(memory))
    assert result.exit_code == VerdictKind.NOT_ATOMIC.value, result.output
    assert "\nNOT_ATOMIC: 89 lost, 4 duplicate in 1000 rounds of xchg.32 on vga-text\n" in result.output


def test_a_defective_machine_that_was_called_atomic_is_not_any_more() -> None:
    """KVM on a busy host, 400 rounds: its document states ATOMIC, and is read by the rules of today."""
    path = kept("kvm-false-atomic.json")
    stated = json.loads(path.read_text(encoding="utf-8"))
    assert (stated["verdict"]["kind"], stated["verdict"]["bound"]) == ("ATOMIC", 3 / 400)
    (run,) = read.load(path.read_bytes(), "x.json")
    assert (run.kind, run.verdict.reason, run.verdict.bound) == (VerdictKind.INCONCLUSIVE, OLD_PROOF, None)
    result = CliRunner().invoke(main, ["report", str(path)])
    assert result.exit_code == 0, result.output
    assert "\nINCONCLUSIVE: its own rules said ATOMIC; " in result.output
    assert "\nATOMIC" not in result.output
