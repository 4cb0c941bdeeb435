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

from kgen.experiments import Experiment, Routine, Work, operations
from kgen.instructions import Use


def _work(instruction, form, cpus, cells):
    put = Routine(form, Use.EXCHANGE)
    return Work(put=put, take=put, repeat=8)


EXPERIMENT = Experiment(
    name="swap",
    summary="every CPU exchanges",
    argument="An exchange puts what it was given, so the cell holds one of the CPUs' numbers; " * 2,
    unit="operation",
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
        environment = os.environ | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "kgen", *arguments]
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
