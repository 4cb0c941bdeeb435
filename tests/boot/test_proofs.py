"""What must come out ATOMIC: a single case, and a suite in one boot, every case judged by itself, the path asked before
each, TAP beside the record.

These tests have the host to themselves: on a busy one a proof takes many times as long.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from _kernel import built, decided, memory_of, run_until
from _places import check_place

from kgen.evidence.channels import differences
from kgen.evidence.from_serial import from_log
from kgen.evidence.mtree import NOT_ASKED
from kgen.evidence.observation import SERIAL_ONLY, Observation
from kgen.kernel.live import LEAST
from kgen.kernel.plan import phases_of
from kgen.kernel.protocol import parse_log
from kgen.kernel.results_block import Role
from kgen.platforms import platforms
from kgen.run.options import Options
from kgen.run.suite import observe_suite
from kgen.spec import Case, KernelSpec
from kgen.verdict.judge import judge
from kgen.verdict.model import Verdict, VerdictKind

#: A proof is an end, and so are these, in seconds; on an idle host they are far away.
pytestmark = pytest.mark.timeout(700)
CASES = (
    Case("xchg", experiment="chain"),
    Case("xchg", 8, target="pc-testdev", experiment="chain"),
    # a device of one cell, one of 64 bits, and one of many cells
    Case("xchg", 32, target="edu", experiment="chain"),
    Case("cmpxchg8b", target="hpet", experiment="chain"),
    Case("xchg", 16, target="pc-testdev", experiment="chain"),
    Case("xadd", target="0xd8000000"),
    Case("cmpxchg", 16, target="vga-text", experiment="chain", offset=63),
    Case("xchg", target="framebuffer", experiment="chain"),
)
SPEC = KernelSpec(CASES[0], more=CASES[1:], suite="mine", budget=240, rounds=200)
#: Nothing answers at that address.
KNOWN = {"framebuffer": VerdictKind.RAM_BACKED, "0xd8000000": VerdictKind.NO_STORAGE}


@pytest.fixture(scope="module")
def seen() -> Observation:
    """One run in which every case was decided; on a busy machine it takes more than one to get there."""
    for _ in range(2):
        (boot,) = observe_suite(SPEC, platforms()["qemu-tcg"], Options(timeout=300))
        verdicts = [judge(SPEC, boot.observation, number) for number in range(len(CASES))]
        if not any(verdict.kind is VerdictKind.INCONCLUSIVE for verdict in verdicts):
            break
    return boot.observation


def test_every_case_has_its_verdict(seen: Observation) -> None:
    assert seen.serial is not None
    assert seen.memory is not None
    assert differences(seen.serial, seen.memory) == ()
    assert seen.serial.closed == seen.memory.closed == len(CASES)
    for number, case in enumerate(CASES):
        verdict = judge(SPEC, seen, number)
        assert verdict.kind is KNOWN.get(case.target, VerdictKind.ATOMIC), f"{case.id}: {verdict.reason}"


def test_the_path_was_asked_before_each_case(seen: Observation) -> None:
    kinds = {case.target: seen.paths[phases_of(SPEC, number)[-1].index].kind for number, case in enumerate(CASES)}
    known = {"framebuffer": "ram", "0xd8000000": "hole"}
    assert kinds == {case.target: known.get(case.target, "io") for case in CASES}
    for number, case in enumerate(CASES):
        if case.target != "0xd8000000":
            check_place(SPEC, seen, number)


def test_tap_tells_every_case(seen: Observation) -> None:
    tap = [line for line in seen.log.splitlines() if re.match(r"TAP|1\.\.|ok|not ok", line)]
    assert tap[:2] == ["TAP version 14", f"1..{len(CASES)}"]
    told = [re.fullmatch(r"(not )?ok (\d+) - ([^ ]+)( # SKIP)?", line) for line in tap[2:]]
    assert [(int(match[2]), match[3]) for match in told if match] == [
        (number, case.id) for number, case in enumerate(CASES, 1)
    ]
    assert [match[3] for match in told if match and match[4]] == ["xadd.32.0xd8000000.counter"]
    assert not any(match[1] for match in told if match)


def by_log(log: str) -> list[Verdict]:
    """The verdicts that the log alone supports."""
    parsed = parse_log(log.encode("latin-1"))
    seen = Observation(platform=SERIAL_ONLY, serial=from_log(parsed), memory=None, path=NOT_ASKED, log=log)
    return [judge(SPEC, seen, number) for number in range(len(CASES))]


def test_a_log_that_was_cut_or_altered_keeps_only_what_was_closed_before(seen: Observation) -> None:
    ends = [match.end() for match in re.finditer(r"^kgen:\d+ done [^\n]*\n", seen.log, re.MULTILINE)]
    assert len(ends) == len(CASES)
    whole = [number for number, verdict in enumerate(by_log(seen.log)) if verdict.kind is VerdictKind.ATOMIC]
    # without QEMU's word only VGA can be told from RAM
    assert whole == [number for number, case in enumerate(CASES) if case.target == "vga-text"]
    rng = random.Random(1)
    for _ in range(60):
        at = rng.randrange(len(seen.log))
        altered = chr(ord(seen.log[at]) ^ 1 << rng.randrange(7))
        for log in (seen.log[:at], seen.log[:at] + altered + seen.log[at + 1 :]):
            if log.replace("\r", "") == seen.log.replace("\r", ""):
                continue
            for number, verdict in enumerate(by_log(log)):
                assert verdict.kind is not VerdictKind.ATOMIC or ends[number] <= at + 1, f"{CASES[number].id}: {at}"


def test_tcg_is_atomic(spec: KernelSpec) -> None:
    """The tokens come in the number that was asked for, the chain of the same boot goes on until it is proof."""
    seen, verdict = run_until(decided, built(replace(spec, proof_seconds=60)))
    record = memory_of(seen)
    assert seen.serial is not None
    assert differences(seen.serial, record) == ()
    *_, proof, case = record.phases
    assert (case.role, case.rounds, case.total) == (Role.CASE, 1000, 0)
    assert (proof.role, proof.total) == (Role.PROOF, 0)
    assert all(live.live >= LEAST and live.is_clean for live in proof.live)
    assert [control.role for control in verdict.controls] == ["sanity", "sanity", "power", "power"]
    assert verdict.kind is VerdictKind.ATOMIC, verdict.reason
    assert verdict.chance == "live batches"
    assert verdict.judged == sum(live.live for live in proof.live)
    assert verdict.bound == pytest.approx(3 / verdict.judged)
    assert verdict.bound <= 0.015
    assert all(control.enough for control in verdict.controls)
