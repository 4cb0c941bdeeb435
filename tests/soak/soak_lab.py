"""The lab, often: KVM's failure every time, and none of the same machine without KVM."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
from running import kgen, marked

from kgen.errors import PlatformUnavailable
from kgen.lab.build import Tools, build_lab
from kgen.lab.choice import Choice
from kgen.run.canary import canary
from kgen.systems import system_named
from kgen.verdict.notes import CONFESSION

sys.path.append(str(Path(__file__).parent.parent / "boot"))
from _gdb import PROMPT, Terminal

TIMES = 20


@pytest.fixture(scope="module", autouse=True)
def _lab() -> None:
    """Made in the user's cache if it is not there; skipped with the reason where it cannot be."""
    try:
        build_lab(system_named("kvm"), Choice(), Tools(), lambda stage: print(stage.name), canary)
    except PlatformUnavailable as error:
        pytest.skip(f"kvm-lab: {error.line}")


def test_twenty_of_twenty(tmp_path: Path) -> None:
    """Not atomic, with witnesses, the kernel's own word for it, and both channels equal (else it were ERROR)."""
    for number in range(TIMES):
        file = tmp_path / "r.json"
        start = time.monotonic()
        run = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--platform", "kvm-lab", "--json", str(file))
        seconds = time.monotonic() - start
        assert run.process.returncode == 3, run.stdout + run.stderr
        found = json.loads(file.read_text())
        print(f"{number + 1}: {found['verdict']['reason']}; {seconds:.1f} s")
        assert found["verdict"]["witnesses"]
        assert CONFESSION in found["verdict"]["cause"]
        assert any(CONFESSION in line for line in found["observation"]["kernel_log"])
        assert found["verdict"]["controls"][0]["violations"] == {"lost": 0, "duplicate": 0, "torn": 0, "stale": 0}
        run.assert_nothing_left()


def test_without_kvm_the_lab_is_atomic(tmp_path: Path) -> None:
    """The lab's own control, with as many rounds as its power controls need."""
    file = tmp_path / "r.json"
    arguments = ("verify", "--instr", "xchg", "--platform", "tcg-lab", "--json", str(file), "--timeout", "1500")
    run = kgen(tmp_path / "tmp", *arguments, seconds=1800)
    assert run.process.returncode == 0, run.stdout + run.stderr
    assert not any(CONFESSION in line for line in json.loads(file.read_text())["observation"]["kernel_log"])


def test_gdb_takes_the_inner_machine_over(tmp_path: Path) -> None:
    """At its end, since no breakpoint hits there: gdb must be told what the QEMU inside is, and every command works."""
    words = [sys.executable, "-m", "kgen", "gdb", "--instr", "xchg", "--platform", "kvm-lab", "--rounds", "300"]
    with Terminal([*words, "--log", "my.log"], tmp_path, {"KGEN_TEST_RUN": "kgen-gdb-lab"}) as gdb:
        said = gdb.read_until(PROMPT, 300)
        assert "kvm-lab is frozen at its end" in said
        assert "packet reply is too long" not in said
        assert re.search(r"^  done: 300 of 300 rounds judged$", said, re.MULTILINE)
        assert re.search(r"^  VIOLATED: \d+ (?:lost|duplicate)", said, re.MULTILINE)
        assert len(re.findall(r"gdb's thread [123]\)", gdb.ask("kgen cpus"))) == 3
        assert "according to QEMU: io (" in gdb.ask("kgen cell")
        assert gdb.ask("kgen judge").startswith("NOT_ATOMIC: ")
        proof = gdb.ask("kgen freeze-proof")
        assert "the run is over" in proof
        assert "To look yourself" not in proof
        assert "XCHG is LOCKed here, so this must not happen: it is NOT ATOMIC on vga-text." in proof
        over = "kgen: the run is over: nothing more will happen; start it again\n"
        for asked in ("until-violation 3", "step", "step 1 1", "cell watch"):
            assert gdb.ask(f"kgen {asked}") == over, asked
        assert gdb.leave() == 0
    assert not marked("kgen-gdb-lab")
    assert re.search(r"^kgen:\d+ end ", (tmp_path / "my.log").read_text(), re.MULTILINE)
