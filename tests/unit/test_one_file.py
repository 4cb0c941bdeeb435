"""The promise that adding to kgen touches one file, tried on a copy: one file is added, nothing else is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TARGET = '''
"""A page of an imagined adapter."""

from kgen.targets import MemoryTarget

TARGET = MemoryTarget(
    name="adapter", summary="an imagined adapter", address=0xD0000000, size=4096, declared="io",
    setup=("mov edi, 0xD0000000", "clc"),
)
'''
EXPERIMENT = '''
"""Every CPU exchanges; the cell must hold what somebody put there."""

from kgen.experiments import UPDATES, Experiment, KindWords, Routine, Work, operations
from kgen.instructions import Use


def _work(instruction, form, cpus, cells):
    put = Routine(form, Use.EXCHANGE)
    return Work(put=put, take=put, repeat=8)


EXPERIMENT = Experiment(
    name="swap",
    summary="every CPU exchanges",
    argument="An exchange puts what it was given, so the cell holds one of the CPUs' numbers; " * 2,
    unit="swap",
    words={**UPDATES, "torn": KindWords("a number that no CPU has", "mixes numbers", "**torn**: numbers were mixed.")},
    token_name="number",
    takes="won the cell",
    cell_states=("no CPU's", "a CPU's"),
    uses=((Use.EXCHANGE,),),
    work=_work,
    accounts=operations,
    kinds=("torn",),
    telling=("torn",),
    assembly="""
swap_prepare:
    ret
swap_visit:
    mov eax, dword ptr [results + Results.handshake + Handshake.repeat]
    call count_operations
    mov esi, eax
.again:
    call cpu_index
    call dword ptr [results + Results.handshake + Handshake.task + Task.put]
    dec esi
    jnz .again
    ret
swap_judge:
    call take_notes
    clc
    ret
""",
)
'''

#: Prints what reports say of the added experiment.
WORDS = """
import io
from rich.console import Console
from kgen.evidence.records import Count, PhaseRecord, Witness
from kgen.evidence.observation import Observation
from kgen.evidence.mtree import NOT_ASKED
from kgen.experiments import experiments
from kgen.kernel.results_block import Decode, PhaseStatus, ViolationKind
from kgen.report.html.cases import _counters
from kgen.report.text.case import Printer, _counts, describe
from kgen.verdict.notes import _little_power

swap = experiments()["swap"]
print(describe(Witness(0, 0, ViolationKind.TORN, 3, 0, 7, 5, 1, None, 9), "swap"))
counts = (Count(0, 4, 2, 0), Count(1, 4, 3, 0))
numbers = dict.fromkeys("rounds lost duplicate torn stale left foreign events judged ticks latency".split(), 0)
record = PhaseRecord(0, None, "", 0, 1, None, PhaseStatus.DONE, decode=Decode.UNKNOWN, counts=counts, **numbers)
print(_counters(record, "swap").columns)
shown = io.StringIO()
_counts(Printer(Console(file=shown)), record, Observation("here", None, None, NOT_ASKED), swap)
print(shown.getvalue())
print(_little_power(["torn"], swap))
"""


class Copy:
    """kgen as it would be installed, for somebody to extend."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        for name in ("kgen", "kernel_templates", "gdb_scripts"):
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, name: str, text: str) -> None:
        path = self.root / "kgen" / name
        assert not path.exists()
        path.write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "kgen", *arguments)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    def names(self, what: str) -> list[str]:
        listed = self.run("list", what, "--json")
        assert listed.returncode == 0, listed.stderr
        return [entry["name"] for entry in json.loads(listed.stdout)]

    def builds(self, *arguments: str) -> dict[str, object]:
        made = self.run("build", "-o", "out", *arguments)
        assert made.returncode == 0, made.stderr
        manifest: dict[str, object] = json.loads((self.root / "out" / "manifest.json").read_text(encoding="utf-8"))
        return manifest


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_an_instruction(copy: Copy) -> None:
    """NEG is taken away, and then is the one that is added."""
    path = copy.root / "kgen" / "instructions" / "neg.py"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    assert "neg" not in copy.names("instructions")
    assert copy.run("build", "--instr", "neg").returncode == 2
    copy.add("instructions/neg.py", text)
    assert "neg" in copy.names("instructions")
    assert copy.builds("--instr", "neg")["case"] == "neg.32.vga-text.parity"
    assert {name for name in copy.names("cases") if name.startswith("neg.")} >= {
        f"neg.{width}.{target}.parity" for width in (8, 16, 32) for target in ("vga-text", "pc-testdev")
    }


def test_a_target(copy: Copy) -> None:
    copy.add("targets/adapter.py", TARGET)
    assert "adapter" in copy.names("targets")
    assert copy.builds("--instr", "xchg", "--target", "adapter")["case"] == "xchg.32.adapter.token"
    assert "xadd.32.adapter.counter" in copy.names("cases")


def test_an_experiment(copy: Copy) -> None:
    copy.add("experiments/swap.py", EXPERIMENT)
    assert "swap" in copy.names("experiments")
    manifest = copy.builds("--instr", "xchg", "--experiment", "swap")
    assert manifest["case"] == "xchg.32.vga-text.swap"
    assert "swap_visit" in manifest["symbols"]  # type: ignore[operator]
    assert "xchg.32.vga-text.swap" in copy.names("cases")
    said = copy.python("-c", WORDS)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "torn      about swap 3, cell 0, number 00000007, found 00000005 (CPU 1): a number that no CPU has",
        "('', 'swaps', 'won the cell')",
        "",
        "  CPU 0  did 4 swaps, won the cell 2 times",
        "  CPU 1  did 4 swaps, won the cell 3 times",
        "",
        "a defect that only mixes numbers might have been missed: not every power control showed 5 violations of that "
        "kind",
    ]


SYSTEM = '''
"""An imagined emulator of another release."""

from kgen.lab.system import Programs, System


def gather(gathering):
    apt = gathering.apt()
    root = gathering.unpack(apt, apt.closure(["emulator"]))
    return Programs(files=root.program("/usr/bin/emulator"), programs={"emulator": "/usr/bin/emulator"})


SYSTEM = System(
    name="emulator", summary="an imagined emulator", platforms=("adapter",), gather=gather,
    made_by=lambda choice: "1", in_lab=False,
)
'''


@pytest.mark.skipif(sys.platform == "win32", reason="the lab needs a POSIX system")
def test_a_system(copy: Copy) -> None:
    copy.add("systems/emulator.py", SYSTEM)
    listed = copy.run("lab", "list")
    assert listed.returncode == 0, listed.stderr
    assert "emulator     an imagined emulator\n             platforms: adapter" in listed.stdout
    refused = copy.run("lab", "build", "emulator", "--kernel", __file__)
    assert refused.returncode == 2
    assert "--kernel: emulator offers no choice of it; there you may choose --release" in refused.stderr
    refused = copy.run("lab", "build", "emulator")
    assert refused.returncode == 2
    assert "--release: emulator needs a release; for example --release bookworm" in refused.stderr
