"""Logs, dumps, results, suites and stub conversations with random damage: each ends in a verdict or in one line.

No traceback, no hang, no verdict turned into its opposite, and nothing that a terminal would obey. KGEN_MUTATIONS says
how many there are in all (5000), KGEN_SEED which ones; a failure names its kind and number, which are enough to make it
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from damage import EVIL, damaged, places
from recordings import load
from serving import serving
from test_judge_memory import Machine, core, machine, xen_core
from test_reading import written

from kgen.cli import main
from kgen.verdict.model import VerdictKind

pytestmark = pytest.mark.soak

MUTATIONS = int(os.environ.get("KGEN_MUTATIONS", "5000"))
SEED = os.environ.get("KGEN_SEED", "1")
#: Begins the name of each file.
RAW = "\x1b[31m\u202e"
#: No command takes longer, in seconds of this process.
LONGEST = 20.0
ATOMIC, NOT_ATOMIC = VerdictKind.ATOMIC.value, VerdictKind.NOT_ATOMIC.value
CODES = {2, 129, *(kind.value for kind in VerdictKind)}

#: What is put in: what a terminal obeys, what kgen looks for, and what is long.
STRANGE = (
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"\x9b31m",
    b"\xc2\x9b31m",
    b"\xe2\x80\xae",
    b"\x00",
    b"\r",
    b"\n",
    b"\xff\xfe",
    b"kgen:0 boot ",
    b"kgen:7 end status=0",
    b"counts:\t1\t1\t1\t-1\n",
    b"-1",
    b"9" * 40,
    b"[" * 3000,
    b"%s{}",
    b'"',
)


def mutated(data: bytes, dice: random.Random, most: int = 6) -> bytes:
    """The data with up to so many places damaged."""
    made = bytearray(data)
    for _ in range(dice.randint(1, most)):
        at = dice.randrange(len(made) + 1)
        end = min(len(made), at + int(2 ** dice.uniform(0, 10)))
        match dice.randrange(7):
            case 0 if at < len(made):
                made[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(made):
                made[at] = dice.randrange(256)
            case 2:
                del made[at:end]
            case 3:
                made[at:at] = made[at:end]
            case 4:
                made[at:at] = dice.choice(STRANGE)
            case 5:
                # a number becomes another one
                found = list(re.finditer(rb"[0-9]+", bytes(made[at : at + 400])))
                if found:
                    span = found[0].span()
                    made[at + span[0] : at + span[1]] = dice.choice([b"0", b"1", b"-1", b"4294967296", b"9" * 25])
            case _:
                if dice.random() < 0.2:
                    del made[at:]
    return bytes(made)


@dataclass(frozen=True)
class Trial:
    """One command on something damaged. The exit codes, and what begins a line, would be a turned verdict."""

    words: tuple[str, ...]
    turned: frozenset[int] = frozenset()
    never: str = ""


def ran(trial: Trial, name: str) -> int:
    """Run it here, and return its exit code."""
    begun = time.process_time()
    done = CliRunner().invoke(main, list(trial.words), prog_name="kgen", terminal_width=120)
    took = time.process_time() - begun
    assert done.exception is None or isinstance(done.exception, SystemExit), (name, done.exception)
    assert took < LONGEST, (name, took)
    assert done.exit_code in CODES, (name, done.exit_code, done.output)
    assert done.exit_code not in trial.turned, (name, done.output)
    assert not trial.never or f"\n{trial.never}: " not in f"\n{done.output}", (name, done.output)
    raw = [char for char in done.output if not char.isprintable() and char not in "\n\t"]
    assert raw == [], (name, raw)
    assert "Traceback" not in done.output, (name, done.output)
    return done.exit_code


def soak(kind: str, count: int, trial: Callable[[random.Random, int], Trial]) -> None:
    """Make and run so many of a kind, and print how often each exit code came."""
    codes: Counter[int] = Counter()
    for number in range(count):
        name = f"{kind} {number} of seed {SEED}"
        codes[ran(trial(random.Random(name), number), name)] += 1
    told = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
    print(f"\n{count} mutated {kind}, by exit code: {told}")
    # the damage is no wall: some of them are still understood, and some are not
    assert len(codes) > 1 or count < 50


def share(part: float) -> int:
    return max(1, round(MUTATIONS * part))


# --- logs and dumps ------------------------------------------------------------------------------------------------

LOGS = ("kvm-lost", "tcg-atomic", "kvm-suite", "tcg-suite", "tcg-no-controls", "old-kvm-lost")


@pytest.mark.timeout(7200)
def test_mutated_logs(tmp_path: Path) -> None:
    """Nothing that is wrong with a log makes a proof of a defect's, or a defect of what has its checksums."""
    path = tmp_path / f"{RAW}serial.txt"

    def trial(dice: random.Random, _: int) -> Trial:
        name = dice.choice(LOGS)
        data = mutated(load(name).log, dice)
        path.write_bytes(data)
        turned = {ATOMIC} if "kvm" in name or "controls" in name else set()
        # a table alone has no checksums, and whoever changes a row of it makes another table
        if "tcg" in name and b" crc=" in data and b"-1" not in data:
            turned |= {NOT_ATOMIC}
        return Trial(("judge", str(path)), frozenset(turned))

    soak("logs", share(0.4), trial)


@cache
def left(name: str) -> Machine:
    return machine(name)


@pytest.mark.timeout(7200)
def test_mutated_dumps(tmp_path: Path) -> None:
    """Memory has no checksums; alone it is never proof of ATOMIC, and with the log of a defect neither."""
    memory, log = tmp_path / f"{RAW}memory.bin", tmp_path / f"{RAW}serial.txt"

    def trial(dice: random.Random, _: int) -> Trial:
        name = dice.choice(["kvm-lost", "tcg-atomic"])
        each = left(name)
        image = bytearray(each.image)
        if dice.random() < 0.7:
            at = each.block - each.start
            # of the same length, so that what is after it stays in its place
            part = mutated(bytes(image[at : at + 4096]), dice)[:4096].ljust(4096, b"\0")
            image[at : at + 4096] = part[: len(image) - at]
        made = {0: core((each.start, bytes(image))), 1: xen_core(each.start, bytes(image))}.get(
            dice.randrange(3), bytes(each.start) + bytes(image)
        )
        memory.write_bytes(mutated(made, dice) if dice.random() < 0.5 else made)
        words = ["judge", "--memory", str(memory)]
        alone = dice.random() < 0.5
        if not alone:
            log.write_bytes(each.log)
            words.insert(1, str(log))
        return Trial(tuple(words), frozenset({ATOMIC} if alone or name == "kvm-lost" else ()))

    soak("dumps", share(0.2), trial)


# --- results and suites --------------------------------------------------------------------------------------------


#: What a place of a result may hold instead.
VALUES = (None, -1, 0, 1, 2**40, 1.5, "", "x", EVIL, "ATOMIC", "NOT_ATOMIC", True, [], {}, ["x"], {"x": 1})


@pytest.mark.timeout(7200)
def test_mutated_results(tmp_path: Path) -> None:
    """What is read is what its own evidence says."""
    path, other = tmp_path / f"{RAW}result.json", tmp_path / "other.json"
    other.write_text(written("tcg-atomic"), encoding="utf-8")

    def trial(dice: random.Random, _: int) -> Trial:
        name = dice.choice(["kvm-lost", "tcg-atomic", "kvm-suite"])
        if dice.random() < 0.3:
            path.write_bytes(mutated(written(name).encode(), dice))
        else:
            # a document still, with other values
            document = json.loads(written(name))
            for place in dice.sample(places(document)[1:], dice.randint(1, 2)):
                with contextlib.suppress(LookupError, TypeError):  # what the first has taken away
                    document = damaged(document, place, dice.choice(VALUES))
            path.write_text(json.dumps(document), encoding="utf-8")
        if dice.random() < 0.4:
            never = {"kvm-lost": "ATOMIC", "tcg-atomic": "NOT_ATOMIC"}.get(name, "")
            return Trial(("report", str(path)), never=never)
        if dice.random() < 0.5:
            return Trial(("report", str(path), "--format", dice.choice(["markdown", "junit", "tap", "html"])))
        return Trial(("compare", str(path), str(other), "--format", dice.choice(["text", "github", "gitlab", "json"])))

    soak("results", share(0.2), trial)


SUITE = b"""name = "mine"

[[case]]
instr = ["xchg", "xadd"]        # a list stands for one case each
width = [8, 16, 32]
target = "vga-text"

[[case]]
instr = "add"
source = "imm"
experiment = "own-bits"
target = "0xfed00108"

[[case]]
instr = "xchg"
lock = false
offset = 62
"""


@pytest.mark.timeout(7200)
def test_mutated_suites(tmp_path: Path) -> None:
    path = tmp_path / f"{RAW}mine.toml"

    def trial(dice: random.Random, _: int) -> Trial:
        path.write_bytes(mutated(SUITE, dice, most=2))
        return Trial(("list", "cases", "--suite", str(path)))

    soak("suites", share(0.1), trial)


# --- conversations with a stub -------------------------------------------------------------------------------------


def packet(body: bytes) -> bytes:
    return b"$" + body + b"#%02x" % (sum(body) & 0xFF)


def answered(asked: bytes, memory: bytes) -> bytes:
    """What a stub of a machine with that memory says."""
    if match := re.fullmatch(rb"m([0-9a-f]+),([0-9a-f]+)", asked):
        at, size = (int(number, 16) for number in match.groups())
        return memory[at : at + size].hex().encode() or b"E22"
    if asked.startswith(b"qSupported"):
        return b"PacketSize=1000;vContSupported+"
    usual = {b"?": b"T05thread:1;", b"qfThreadInfo": b"m1,2,3", b"qsThreadInfo": b"l", b"qC": b"QC1", b"g": b"00" * 312}
    usual |= {b"vCont?": b"vCont;c;C;s;S", b"\x03": b"T02thread:1;", b"qAttached": b"1"}
    return usual.get(asked, b"OK" if asked[:1] in b"HTD" else b"")


def talk(connection: socket.socket, memory: bytes, dice: random.Random) -> None:
    """Answer each packet, and now and then with something damaged; hang up at the end."""
    connection.settimeout(30)
    rate = dice.choice([0.02, 0.1, 0.5])
    for asked in questions(connection):
        said = answered(asked, memory)
        if asked != b"\x03":
            connection.sendall(b"+")
        if asked.startswith((b"c", b"vCont;c")):
            continue
        whole = packet(said)
        if dice.random() < rate:
            # damaged with a right checksum, or as a whole
            whole = packet(mutated(said, dice)[:60_000]) if dice.random() < 0.5 else mutated(whole, dice)
        connection.sendall(whole)


def questions(connection: socket.socket) -> Iterator[bytes]:
    data = b""
    while part := connection.recv(65536):
        data += part
        while match := re.search(rb"\x03|\$([^#]*)#..", data, re.DOTALL):
            data = data[match.end() :]
            yield match[0] if match[1] is None else match[1]


@pytest.mark.timeout(7200)
def test_mutated_conversations(tmp_path: Path) -> None:
    """Each with kgen watch, and every fiftieth with kgen inspect, which asks through gdb."""
    each = left("kvm-lost")
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(each.kernel.elf.data)
    memory = each.raw + bytes(1 << 20)
    codes: Counter[str] = Counter()
    for number in range(share(0.1)):
        name = f"conversations {number} of seed {SEED}"
        dice = random.Random(name)
        address = tmp_path / f"gdb{number}"
        watched = Trial(("watch", str(address), str(elf), "--once", "--timeout", "1"))
        inspected = Trial(("inspect", str(elf), str(address), "--timeout", "5"), frozenset({ATOMIC}))
        asks = inspected if number % 50 == 49 and shutil.which("gdb") else watched
        with serving(address, lambda connection, dice=dice: talk(connection, memory, dice)):  # type: ignore[misc]
            codes[f"{asks.words[0]} {ran(asks, name)}"] += 1
        address.unlink()
    print(f"\n{sum(codes.values())} mutated conversations, by command and exit code: {dict(sorted(codes.items()))}")
