"""A bug report about a real run: its commands, pasted into a shell, come to the same verdict."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from _asked import asked
from pasting import paste, shell_blocks

from kgen.report.results.document import SCHEMA
from kgen.verdict.model import VerdictKind

#: Of which a machine without LOCK loses some in a hundred where its CPUs meet.
ROUNDS = "5000"
ATTEMPTS = 4
#: The sections with commands: one that asks kgen, and one that does without its run control.
STEPS = ("Steps to reproduce", "The same by hand")


def report(tmp_path: Path, *words: str) -> tuple[int, str]:
    """Run kgen verify with these words and --json; its exit code, and the report in Markdown."""
    result = tmp_path / "result.json"
    run = asked(tmp_path / "tmp", "verify", "--json", str(result), *words)
    assert result.exists(), run.stderr
    told = asked(tmp_path / "tmp", "report", str(result), "--format", "markdown", "--bundle", str(tmp_path / "bug.zip"))
    assert told.exit_code == 0, told.stderr
    return run.exit_code, told.stdout


def test_the_commands_reproduce_the_verdict(tmp_path: Path) -> None:
    """Without LOCK, which no machine makes atomic: with kgen, and by hand from the image that kgen builds."""
    code, text = report(
        tmp_path, "--instr", "xadd", "--no-lock", "--rounds", ROUNDS, "--no-controls", "--vga", "cirrus"
    )
    assert code == VerdictKind.NOT_ATOMIC.value
    blocks = [block for section in STEPS for block in shell_blocks(text, section)]
    assert len(blocks) == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    for commands in blocks:
        assert "-vga cirrus" in commands.replace("--vga", "-vga")
        again = paste(commands, empty)
        for _ in range(ATTEMPTS - 1):
            if again.code != VerdictKind.INCONCLUSIVE.value:
                break
            # nothing was seen: a busy machine keeps the CPUs apart
            again = paste(commands, empty)
        assert again.code == code, f"{commands}{again.stdout}{again.stderr}"
        assert "NOT_ATOMIC: " in again.stdout
    assert sorted(path.name for path in empty.iterdir()) == ["kgen-repro", "serial.txt"]
    # the kernel of the bundle is the one that the commands make, and the one that ran
    with zipfile.ZipFile(tmp_path / "bug.zip") as bundle:
        (name,) = [name for name in bundle.namelist() if name.endswith("/kernel.elf")]
        assert bundle.read(name) == (empty / "kgen-repro" / "kernel.elf").read_bytes()
    assert "and is the one that was run" in text
    _assert_names_the_place(json.loads((tmp_path / "result.json").read_text(encoding="utf-8")))


def _assert_names_the_place(found: dict[str, Any]) -> None:
    """What a report needs of a result."""
    environment = found["observation"]["environment"]
    assert (found["schema"], found["kgen"]) == (SCHEMA, environment["versions"]["kgen"])
    assert environment["host"]["cpu"]
    assert environment["host"]["kernel"]
    assert environment["accel"] == "tcg"
    assert environment["versions"]["emulator"].startswith("QEMU")
    assert environment["command"][0].rpartition("/")[2].startswith("qemu-system-")
    assert found["invocation"][:2] == ["kgen", "verify"]
