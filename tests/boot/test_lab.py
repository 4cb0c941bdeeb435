"""KVM in the lab: the real Linux, the real KVM and a real QEMU on it, all under this host's translator."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from _kernel import built, memory_of, run, spec_of
from _schema import OF_THE_LAB, below, check, missing
from running import Run, assert_one_line, kgen

from kgen.evidence.channels import differences
from kgen.lab import cache
from kgen.lab.packages import Apt
from kgen.lab.recipe import find_kernel
from kgen.machine.platform import Platform
from kgen.verdict.model import VerdictKind
from kgen.verdict.notes import CONFESSION

ASK = ("verify", "--instr", "xchg", "--platform", "kvm-lab")
QUICK = (*ASK, "--target", "ram", "--no-controls", "--rounds", "100")
SLOW = 240
#: The recorder keeps only so much, and is stopped by hand: now and then what it kept shows no whole exchange.
ATTEMPTS = 3


@pytest.fixture(scope="module")
def pieces(lab: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a kernel and its modules, as a developer of KVM has one."""
    work = tmp_path_factory.mktemp("pieces")
    apt = Apt(work)
    apt.unpack(apt.fetch(apt.kernel(), lambda _: None), work / "tree")
    return work / "tree"


def result(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.timeout(SLOW)
def test_kvm_fails_in_the_lab_and_says_so(lab: Platform, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    for _ in range(ATTEMPTS):
        run = kgen(tmp_path / "tmp", *ASK, "--json", str(file), seconds=SLOW)
        assert run.process.returncode == 3, run.stdout + run.stderr
        assert "\nNOT_ATOMIC: " in run.stdout
        if "<- the other half of the exchange begun" in run.stdout:
            break
    else:
        pytest.fail(f"the record of the accesses shows no interleaving:\n{run.stdout}")
    assert "\n  the cause: KVM carried the LOCKed exchange out as a plain write" in run.stdout
    assert "  the kernel under it logged: kvm: emulating exchange as write\n" in run.stdout
    assert "what the hypervisor did to the cell" in run.stdout
    run.assert_nothing_left()
    found = result(file)
    seen = found["observation"]
    assert any(CONFESSION in line for line in seen["kernel_log"])
    assert CONFESSION in found["verdict"]["cause"]
    assert found["verdict"]["witnesses"]
    # KVM runs in the lab, the lab runs on TCG
    about = seen["environment"]
    assert about["accel"] == "kvm"
    assert "tcg" in about["command"]
    assert re.match(r"\d+\.\d+", about["lab"]["linux"])
    assert about["lab"]["qemu"].startswith("QEMU emulator version")
    # both channels, equal
    assert seen["memory"]["complete"]
    assert seen["serial"]["complete"]
    assert seen["memory"]["phases"][-1]["counts"] == seen["serial"]["phases"][-1]["counts"]
    assert seen["path"]["kind"] == "io"
    # the document is what docs/result-schema.md says
    check(found)
    assert not missing(below(*OF_THE_LAB), found)
    tokens = {witness["token"] for witness in seen["memory"]["witnesses"]}
    assert "\n  around " in run.stdout
    assert any(event["kind"] == "write" and event["value"] in tokens for event in seen["trace"])
    assert len({event["cpu"] for event in seen["trace"]}) > 1


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_memory_is_well_in_the_lab(lab: Platform) -> None:
    """The control that KVM and the nesting do right what they can do right; KVM has nothing to confess then."""
    seen, verdict = run(built(spec_of(rounds=1000)), lab, timeout=SLOW)
    record = memory_of(seen)
    assert seen.serial is not None
    assert differences(seen.serial, record) == ()
    assert (record.phases[-1].rounds, record.phases[-1].total) == (1000, 0)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert seen.kernel_log is not None
    assert not [line for line in seen.kernel_log if CONFESSION in line]
    assert seen.trace == ()


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_without_lock_the_lab_fails(lab: Platform) -> None:
    seen, verdict = run(built(spec_of(target="vga-text", lock=False, rounds=1000)), lab, timeout=SLOW)
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    assert verdict.cause == ""
    assert seen.environment["lab"]["command"][1:3] == ["-accel", "kvm"]


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_the_same_machine_translated_is_atomic(lab: Platform, tmp_path: Path) -> None:
    """So the nesting is not what breaks it. Here without controls; with them: tests/soak."""
    from kgen.platforms import platform_named

    seen, verdict = run(built(spec_of(target="vga-text", rounds=300)), platform_named("tcg-lab"), timeout=SLOW)
    assert memory_of(seen).phases[-1].total == 0
    assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
    assert verdict.reason == "no controls were run"
    assert seen.environment["accel"] == "tcg"


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_a_kernel_of_ones_own(pieces: Path, tmp_path: Path) -> None:
    """The module's message is changed, so that kernel has nothing to say; what it does is what it did."""
    tree = tmp_path / "modules"
    shutil.copytree(pieces / "lib", tree)
    (module,) = tree.rglob("kvm.ko*")
    if module.suffix != ".ko":
        pytest.skip(f"the distribution packs its modules: {module.name}")
    # The kernel takes a module without a signature, as a developer's are, but none with a wrong one: the signature, its
    # length (the last word of a descriptor) and a magic line stand at the end.
    data = module.read_bytes()
    magic = b"~Module signature appended~\n"
    if data.endswith(magic):
        end = len(data) - len(magic)
        data = data[: end - 12 - int.from_bytes(data[end - 4 : end], "big")]
    assert data.count(CONFESSION.encode()) == 1
    module.write_bytes(data.replace(CONFESSION.encode(), b"a patched" + b" " * (len(CONFESSION) - 9)))
    file = tmp_path / "r.json"
    own = ("--kernel", str(find_kernel(pieces)), "--modules", str(tree))
    # in a cache of its own, with the standard lab's busybox beside it
    changes = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    standard = cache.default()
    assert standard is not None
    shutil.copytree(cache.root(), tmp_path / "cache" / "kgen" / "labs")
    run = kgen(tmp_path / "tmp", *ASK, *own, "--json", str(file), **changes)
    assert run.process.returncode == 3, run.stdout + run.stderr
    assert "did not log 'emulating exchange as write': nothing names the cause" in run.stdout
    found = result(file)
    assert found["verdict"]["cause"] == ""
    assert found["observation"]["environment"]["lab"]["key"] != standard.key
    assert found["observation"]["environment"]["lab"]["sources"]["modules"] == str(tree)
    bisect = kgen(tmp_path / "tmp", *ASK, *own, "--exit-codes", "bisect", **changes)
    assert bisect.process.returncode == 1, "made once, found the second time"


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_a_kernel_without_kvm(pieces: Path, tmp_path: Path) -> None:
    """The stage that failed is named."""
    run = kgen(tmp_path / "tmp", *ASK, "--kernel", str(find_kernel(pieces)))
    assert run.process.returncode == 9
    assert "booting the lab's Linux: this kernel has no /dev/kvm" in run.stderr
    run.assert_nothing_left()


def test_what_is_no_kernel(lab: Platform, tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(b"MZ" + bytes(4096))
    for given, words in (
        (("--kernel", str(file)), "is not a bzImage"),
        (("--kernel", str(tmp_path / "none")), "No such file"),
        (("--kernel", str(tmp_path)), "Is a directory"),
    ):
        run = kgen(tmp_path / "tmp", *ASK, *given)
        assert run.process.returncode == 2, run.stderr
        assert words in run.stderr
        assert "Traceback" not in run.stderr
    run = kgen(tmp_path / "tmp", "verify", "--instr", "xchg", "--kernel", str(file))
    assert_one_line(run, 2, "--platform kvm-lab")


def test_no_lab(tmp_path: Path) -> None:
    """A line that says how to get one; nothing is downloaded by a question."""
    run = kgen(tmp_path / "tmp", *QUICK, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert run.process.returncode == 8
    assert "SKIP: kvm-lab: the lab has not been built; run 'kgen lab build'" in run.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_arguments_that_the_inner_qemu_refuses(lab: Platform, tmp_path: Path) -> None:
    run = kgen(tmp_path / "tmp", *QUICK, "--", "-nonsense")
    assert_one_line(run, 9, "starting QEMU in the lab", "-nonsense: invalid option")
    run.assert_nothing_left()


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_it_runs(lab: Platform, tmp_path: Path, number: signal.Signals) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    with Run(ASK, tmp_path / "tmp") as run:
        run.await_start("qemu-system")
        time.sleep(random.Random(seed).uniform(0, 6))
        run.process.send_signal(number)
        run.wait(30)
        run.assert_nothing_left(files=number is signal.SIGTERM)
    assert "Traceback" not in run.stderr


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_the_outer_machine_is_killed(lab: Platform, tmp_path: Path) -> None:
    endless = (*ASK, "--target", "ram", "--no-controls", "--rounds", "4000000000")
    with Run(endless, tmp_path / "tmp") as run:
        pid = run.await_start("qemu-system")
        time.sleep(6)
        os.kill(pid, signal.SIGKILL)
        code = run.wait(60)
        run.assert_nothing_left()
    assert code in (9, 10), run.stdout + run.stderr
    assert "was killed by SIGKILL" in run.stdout + run.stderr


@pytest.mark.soak
@pytest.mark.timeout(SLOW)
def test_a_build_is_killed(pieces: Path, tmp_path: Path) -> None:
    """Nothing half-made is ever taken for a lab, and the next maker removes it. Either signal, as chance has it."""
    home = tmp_path / "cache"
    labs = home / "kgen" / "labs"
    job = ("lab", "build", "--kernel", str(find_kernel(pieces)), "--modules", str(pieces / "lib"))
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    number = chance.choice([signal.SIGKILL, signal.SIGTERM])
    with Run(job, tmp_path / "tmp", changes={"XDG_CACHE_HOME": str(home)}) as run:
        time.sleep(chance.uniform(0.3, 10))
        run.process.send_signal(number)
        run.wait(30)
        run.assert_nothing_left(files=number is signal.SIGTERM)
    assert "Traceback" not in run.stderr
    if number is signal.SIGTERM and labs.exists():
        assert [path.name for path in labs.iterdir() if path.name.startswith(".")] == []
    for path in labs.glob("[!.]*"):
        assert cache.load(path) is not None, "half a lab"
    again = Run(job, tmp_path / "tmp", changes={"XDG_CACHE_HOME": str(home)})
    with again:
        assert again.wait(SLOW) == 0, again.stderr
    assert "the lab is ready: Linux " in again.stdout
    assert [path.name for path in labs.iterdir() if path.name.startswith(".")] == []
    assert kgen(tmp_path / "tmp", "lab", "status", XDG_CACHE_HOME=str(home)).process.returncode == 0
    assert kgen(tmp_path / "tmp", "lab", "clean", XDG_CACHE_HOME=str(home)).process.returncode == 0
    assert list(labs.iterdir()) == []
