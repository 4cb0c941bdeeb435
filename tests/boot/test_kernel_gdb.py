"""A person's own gdb on a machine that runs or has run the kernel: values by name and type, source lines, steps."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from _kernel import DEADLINE, built, needs, spec_of

from kgen.build import Kernel, write
from kgen.evidence.observation import Observation
from kgen.kernel.plan import phases
from kgen.machine.platform import LaunchRequest
from kgen.machine.qemu import Machine, launch
from kgen.resources import data_dir
from kgen.run.observe import observe
from kgen.run.options import Options
from kgen.spec.kernel_spec import MAX_ROUNDS

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")


def gdb(address: str, elf: Path, *commands: str) -> str:
    """What gdb prints for these commands; the machine stays as they leave it."""
    words = ["gdb", "-nx", "-batch", str(elf), "-x", str(data_dir("gdb_scripts") / "attach.gdb")]
    for command in (f"target remote {address}", *commands, "disconnect"):
        words += ["-ex", command]
    done = subprocess.run(words, cwd=elf.parent, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert "Error" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def line_of(kernel: Kernel, statement: str, label: str) -> int:
    """The source line of the first such statement behind a label."""
    lines = kernel.assembly.source.text.split("\n")
    start = lines.index(f"{label}:")
    return next(number for number, line in enumerate(lines[start:], start + 1) if line.strip() == statement)


def test_a_frozen_machine() -> None:
    """As --keep holds it: the results by name, in C types, with enumerations by name."""
    kernel = built(spec_of(target="vga-text", rounds=40))
    said: list[str] = []

    def join(machine: Machine, elf: Path, _: Observation) -> None:
        rounds = f"p results.phase[{phases(kernel.spec)[-1].index}].rounds"
        commands = ("p results", "p results.cpu[1]", "ptype results.cpu[1]", rounds)
        said.append(
            gdb(machine.gdb_address, elf, *commands, "whatis results", "info threads", "info line main", "list main")
        )

    seen = observe(kernel, needs("qemu-tcg"), Options(timeout=DEADLINE), holder=join)
    (text,) = said
    assert seen.memory is not None
    cpu = seen.memory.cpus[1]
    assert 'magic = "KGENRSLT"' in text
    assert "state = FINISHED" in text
    shown = text[text.index("$2 = ") : text.index("type = ")]
    for name in ("takes", "tries", "apic_id"):
        assert f"{name} = {getattr(cpu, name)}" in shown, shown
    assert "state = HALTED" in shown
    assert re.search(r"type = struct Cpu \{\n.*puts;", text)
    assert "$3 = 40" in text
    assert re.search(r"^type = Results$", text, re.MULTILINE)
    assert text.count("Thread ") == 3
    assert f"Line {line_of(kernel, MAIN_FIRST, 'main')} of" in text
    assert MAIN_FIRST in text[text.index("Line ") :], "list shows no source"


MAIN_FIRST = "mov dword ptr [results + Results.version], LAYOUT_VERSION"


@pytest.mark.parametrize("name", ["qemu-tcg", "qemu-kvm"])
def test_a_running_machine(name: str, tmp_path: Path) -> None:
    """Break at a label, list, step: lines of the source, one after the other."""
    platform = needs(name)
    # its table has a header and no rows: nobody reads them here, and a port that nobody reads keeps the guest waiting
    kernel = built(spec_of(rounds=0, print_every=MAX_ROUNDS))
    write(kernel, tmp_path)
    kind = "hbreak" if platform.breakpoints == "hardware" else "break"
    with launch(platform, LaunchRequest(kernel=tmp_path / "kernel.elf")) as machine:
        heard = b""
        while b"counts:\t" not in heard:
            heard += machine.read_serial(30)
        text = gdb(
            machine.gdb_address,
            tmp_path / "kernel.elf",
            *(f"{kind} token_judge", "continue", "info breakpoints", "delete", "list", "backtrace 1"),
            *("echo STEPS\\n", "step", "step", "step", "p results.state", "p results.cpu[0].state", "p $eip"),
        )
        first = line_of(kernel, "push ebp", "token_judge")
        assert re.search(rf"hit Breakpoint 1, token_judge \(\) at kernel\.s:{first}\n{first}\t", text), text
        assert f"#0  token_judge () at kernel.s:{first}" in text
        before, steps = text.split("STEPS\n")
        assert len(re.findall(r"^\d+\t.*", before, re.MULTILINE)) >= 10, "list shows no source"
        lines = kernel.assembly.source.text.split("\n")
        shown = re.findall(r"^(\d+)\t(.*)$", steps, re.MULTILINE)
        assert [int(number) for number, _ in shown] == [first + 1, first + 2, first + 3], steps
        for number, statement in shown:
            assert lines[int(number) - 1].strip() in statement
        assert "= RUNNING" in steps
        assert "= WORKING" in steps
        assert re.search(r"<token_judge(\+\d+)?>", steps)
