"""The commands of bug reports, pasted into a shell, over more cases than there is time for elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pasting import paste, shell_blocks
from running import kgen

from kgen.platforms import platforms
from kgen.run.options import Options, request_of
from kgen.spec import Case, KernelSpec
from kgen.verdict.model import VerdictKind

#: The sections with commands: one that asks kgen, and one that does without its run control.
STEPS = ("Steps to reproduce", "The same by hand")
SUITE = """\
name = "own"
[[case]]
instr = ["xadd", "or"]
lock = false
[[case]]
instr = "add"
target = "pc-testdev"
width = 16
"""


def report(tmp_path: Path, *words: str) -> tuple[int, str]:
    """Run kgen verify with these words and --json; its exit code, and the report in Markdown."""
    result = tmp_path / "result.json"
    run = kgen(tmp_path / "tmp", "verify", "--json", str(result), *words)
    assert result.exists(), run.stderr
    told = kgen(tmp_path / "tmp", "report", str(result), "--format", "markdown")
    assert told.process.returncode == 0, told.stderr
    return run.process.returncode, told.stdout


@pytest.mark.parametrize(
    ("words", "by_hand"),
    [
        (["--instr", "xchg", "--rounds", "3000"], False),
        (["--instr", "xadd", "--no-lock", "--width", "16", "--cpus", "5", "--machine", "q35"], True),
        (["--instr", "xadd", "--no-lock", "--serial-port", "0x2f8"], True),
        (["--instr", "xadd", "--no-lock", "--boot", "nvme"], True),
        (["--instr", "xadd", "--no-lock", "--boot", "cdrom"], True),
        (["--instr", "xadd", "--no-lock", "--firmware", "ovmf"], True),
        (["--instr", "xchg", "--vga", "none", "--rounds", "500"], False),
        (["--instr", "xchg", "--target", "framebuffer", "--rounds", "500"], False),
        (["--instr", "xadd", "--no-lock", "--seconds", "2"], False),
        (["--instr", "xadd", "--no-lock", "--", "-device", "edu"], True),
        (["--suite", "own.toml", "--budget", "20s"], True),
        (["--suite", "full", "--only", "bt*.16.*", "--skip", "*.vga-text.*", "--budget", "40s"], False),
    ],
    ids=lambda words: "-".join(words[1:]).replace("/", "") if isinstance(words, list) else "",
)
def test_the_commands_reproduce_the_verdict(
    words: list[str], by_hand: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(SUITE, encoding="utf-8")
    code, text = report(tmp_path, *words)
    empty = tmp_path / "empty"
    empty.mkdir()
    for commands in [*shell_blocks(text, STEPS[0]), *(shell_blocks(text, STEPS[1]) if by_hand else ())]:
        again = paste(commands, empty, seconds=300)
        assert again.code == code, f"{commands}{again.stdout}{again.stderr}"


def test_the_defect_of_kvm_is_reproduced(tmp_path: Path) -> None:
    reason = platforms()["qemu-kvm"].unavailable(request_of(KernelSpec(Case("xchg")), Options()))
    if reason is not None:
        pytest.skip(f"no KVM here: {reason}")
    code, text = report(tmp_path, "--instr", "xchg", "--platform", "qemu-kvm", "--rounds", "1000")
    if code != VerdictKind.NOT_ATOMIC.value:
        pytest.skip("this KVM does not show the defect")
    assert text.startswith("# XCHG of 32 bits on vga-text is not atomic on qemu-kvm: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    for commands in [*shell_blocks(text, STEPS[0]), *shell_blocks(text, STEPS[1])]:
        again = paste(commands, empty)
        assert again.code == code, again.stderr
