"""Logs judged as somebody captured them: whatever stands in the way, and never better than they are."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable
from functools import lru_cache

import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, Recording, load, signed
from rich.console import Console

from kgen import __version__
from kgen.cli.judge import _tell
from kgen.kernel.plan import phases
from kgen.kernel.results_block import Role
from kgen.offline.runs import Named, Run, from_capture, of_code, results, verdicts
from kgen.offline.serial_log import clean, split
from kgen.report.results.write import to_json
from kgen.spec import KernelSpec
from kgen.verdict.model import VerdictKind

GOOD, BAD, SUITE = load("tcg-atomic"), load("kvm-lost"), load("tcg-suite")
SINGLE = st.sampled_from([name for name in NAMES if not load(name).spec.suite]).map(load)
RUNS = st.sampled_from(NAMES).map(load)
ATOMIC, NOT_ATOMIC, INCONCLUSIVE = VerdictKind.ATOMIC, VerdictKind.NOT_ATOMIC, VerdictKind.INCONCLUSIVE
ERROR = VerdictKind.ERROR


@lru_cache(maxsize=4)
def _runs(log: bytes) -> tuple[Run, ...]:
    """The runs of a log, which most tests ask for twice."""
    return from_capture(log)


def judged(log: bytes, named: Named | None = None) -> list[VerdictKind]:
    """The verdict on each run of a log, and all of it written down for people and machines."""
    runs = from_capture(log, named) if named else _runs(log)
    told = [results(run) for run in runs]
    console = Console(file=io.StringIO(), width=100)
    for run, found in zip(runs, told, strict=True):
        _tell(console, found, run.notes)
    json.loads(to_json(told))
    return [run.kind for run in told]


def only(log: bytes) -> Run:
    (run,) = _runs(log)
    return run


def reason(log: bytes) -> str:
    return verdicts(only(log))[0].reason


SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


def essence(log: bytes) -> bytes:
    """What no way of capturing may lose or add to: all but blanks, control characters and the eighth bit."""
    return re.sub(rb"[\x00-\x20\x7f]", b"", log.translate(SEVEN_BITS))


def lines_of(run: Recording) -> list[bytes]:
    return run.log.splitlines()


def stamped(front: Callable[[int], str]) -> Callable[[bytes], bytes]:
    """As a tool captures it that puts something in front of every line."""
    return lambda log: b"".join(front(at).encode() + line + b"\r\n" for at, line in enumerate(log.splitlines()))


def ended(end: bytes) -> Callable[[bytes], bytes]:
    return lambda log: log.replace(b"\r\n", end)


def wrapped(log: bytes, width: int, *, strip: bool) -> bytes:
    """As a terminal of that width shows it, and as it is copied from there."""
    pieces = [line[at : at + width] for line in log.splitlines() for at in range(0, len(line), width)]
    return b"".join((piece.rstrip() if strip else piece) + b"\n" for piece in pieces)


#: What terminals, shells and capture tools make of a log.
CAPTURES: dict[str, Callable[[bytes], bytes]] = {
    "as it was": lambda log: log,
    "LF": ended(b"\n"),
    "CR CR LF": ended(b"\r\r\n"),
    "LF CR": ended(b"\n\r"),
    "CR": ended(b"\r"),
    "blank lines": ended(b"\r\n\r\n"),
    "UTF-8 with its mark": lambda log: b"\xef\xbb\xbf" + log,
    "UTF-16 of PowerShell": lambda log: log.decode().encode("utf-16"),
    "UTF-16, big end first": lambda log: b"\xfe\xff" + log.decode().encode("utf-16-be"),
    "UTF-16 without its mark": lambda log: log.decode().encode("utf-16-le"),
    "zeros": lambda log: b"\0\0\0" + ended(b"\r\0\n\0")(log),
    "firmware before it": lambda log: b"\x1b[2J\x1b[01;01HSeaBIOS (version 1.16)\r\n\r\nBooting...\r\n" + log,
    "a line that firmware began": lambda log: b"Booting `kgen'...\x1b[0m" + log,
    "a sequence cut by the first line": lambda log: b"\x1b[0;3" + log,
    "a shell behind it": lambda log: log + b"\x1b]0;title\x07user@host:~$ exit\r\nScript done\r\n",
    "escape sequences inside": ended(b"\x1b[0m\r\n\x1b[K"),
    "blanks to the edge": lambda log: b"".join(line.ljust(400) + b"\r\n" for line in log.splitlines()),
    "blanks for tabs": lambda log: b"".join(line.expandtabs() + b"\n" for line in log.splitlines()),
    "80 columns": lambda log: wrapped(log, 80, strip=False),
    "132 columns, copied": lambda log: wrapped(log, 132, strip=True),
    "times": stamped(lambda at: f"[12:{at // 60:02}:{at % 60:02}.123] "),
    "dates and names": stamped(lambda at: f"May  3 12:00:{at % 60:02} host qemu[{at * 997}]: "),
    "line numbers": stamped(lambda at: f"{at}\t"),
    "a mail's quotation": stamped(lambda at: "> "),
    "a name": stamped(lambda at: "COM1"),
    "times with lines of their own": lambda log: stamped(lambda at: f"12:{at}: ")(ended(b"\r\n\r\n")(log)),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_however_it_was_captured_it_is_judged(name: str) -> None:
    assert judged(CAPTURES[name](GOOD.log)) == [ATOMIC]
    assert judged(CAPTURES[name](BAD.log)) == [NOT_ATOMIC]


@pytest.mark.parametrize("name", CAPTURES)
def test_however_it_was_captured_what_is_not_as_it_was_is_missed(name: str) -> None:
    """Another digit in a row, and a row less."""
    row = re.search(rb"counts:\t17\t([0-9]+)\t[0-9]+\t0\r\n", GOOD.log)
    assert row
    other = row[0].replace(b"\t17\t" + row[1], b"\t17\t%d" % (int(row[1]) + 1))
    for new in (other, b""):
        log = GOOD.log.replace(row[0], new)
        assert log != GOOD.log
        assert judged(CAPTURES[name](log)) == [INCONCLUSIVE]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("times", "something stands in front of every line, such as '[12:00:00.123] '"),
        ("80 columns", " lines were broken by a terminal"),
        ("UTF-16 of PowerShell", "the log is stored as UTF-16"),
    ],
)
def test_what_was_undone_is_said(name: str, words: str) -> None:
    (verdict,) = verdicts(only(CAPTURES[name](GOOD.log)))
    assert any(words in note for note in verdict.notes), verdict.notes


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_log_is_cleaned_to_itself(name: str) -> None:
    log = load(name).log
    cleaned = clean(log)
    assert cleaned.text == log.decode().replace("\r", "")
    assert cleaned.notes == ()
    assert split(cleaned.text) == (cleaned.text,)
    assert clean(cleaned.text.encode()) == cleaned


@pytest.mark.parametrize("name", NAMES)
def test_a_log_says_by_itself_what_was_asked(name: str) -> None:
    run = only(load(name).log)
    assert run.spec == load(name).spec
    assert run.observation.platform == "serial-log"
    assert run.observation.log == load(name).log.decode("latin-1")


BETWEEN = [b"qemu-system-i386: warning: something", b"[screen is detached]", b"kgen:7 broken", b"   "]


@pytest.mark.parametrize("line", BETWEEN)
def test_whole_lines_of_others_may_stand_between(line: bytes) -> None:
    lines = lines_of(GOOD)
    for at in range(1, len(lines), 4):
        log = b"\r\n".join([*lines[:at], line, *lines[at:], b""])
        assert judged(log) == [ATOMIC]
        (verdict,) = verdicts(only(log))
        told = "lines that are not the kernel's stand between its own (1, such as "
        assert any(told in note for note in verdict.notes) == bool(line.strip())
        assert judged(b"\r\n".join([*lines[:at], line, *lines[at + 1 :], b""])) == [INCONCLUSIVE]


@pytest.mark.parametrize(
    "line", [b"kgen:7 broken", b"counts:\t7\t7\t0\t0", b"ok 1 - xchg.32.vga-text.token", b"x" * 99]
)
def test_what_stands_in_the_way_is_named(line: bytes) -> None:
    lines = lines_of(BAD)
    log = b"\r\n".join([*lines[:20], line, *lines[21:], b""])
    verdict = verdicts(only(log))[0]
    assert verdict.kind is NOT_ATOMIC
    (run,) = from_capture(log)
    assert run.observation.serial is not None
    assert run.observation.serial.gap


def test_a_rebuilt_run_is_judged_as_one_that_was_logged() -> None:
    for run, kind in ((GOOD, ATOMIC), (BAD, NOT_ATOMIC)):
        rebuilt = of_code(run.spec, run.alone())
        assert rebuilt.observation.platform == "result-code"
        assert [verdict.kind for verdict in verdicts(rebuilt)] == [kind]


# --- several runs in one file --------------------------------------------------------------------------------------


def test_every_run_of_a_log_is_judged() -> None:
    assert judged(GOOD.log + GOOD.log) == [ATOMIC, ATOMIC]
    assert judged(BAD.log + GOOD.log) == [NOT_ATOMIC, ATOMIC]
    assert judged(GOOD.log + b"reset\r\n" + BAD.log) == [ATOMIC, NOT_ATOMIC]
    assert judged(GOOD.log + load("tcg-two-cpus").log + SUITE.log) == [ATOMIC, ERROR, INCONCLUSIVE]
    assert [run.where for run in from_capture(GOOD.log + BAD.log)] == ["run 1 of 2", "run 2 of 2"]


@pytest.mark.parametrize("end", [60, 700, 3000, -100, -3])
def test_a_run_that_was_cut_off_by_the_next_counts(end: int) -> None:
    """A machine that started again may have died of what it was asked."""
    assert judged(GOOD.log[:end] + b"\r\n" + GOOD.log) == [INCONCLUSIVE, ATOMIC]
    assert judged(GOOD.log + GOOD.log[:end]) == [ATOMIC, INCONCLUSIVE]


def test_a_run_behind_another_that_lost_its_first_line_is_seen() -> None:
    headless = b"\r\n".join(lines_of(BAD)[1:]) + b"\r\n"
    assert judged(GOOD.log + headless) == [ATOMIC, NOT_ATOMIC]
    assert judged(headless + GOOD.log) == [NOT_ATOMIC, ATOMIC]


def test_lines_of_two_kernels_are_no_record() -> None:
    """One that was broken off, then another one whose first line was lost: its witnesses are not the first one's."""
    first = b"".join(GOOD.log.splitlines(keepends=True)[:10])
    other = load("tcg-no-lock").log.splitlines(keepends=True)
    for start in (1, 2, 5):
        for end in range(start + 1, len(other), 5):
            log = first + b"".join(other[start:end])
            assert NOT_ATOMIC not in judged(log)
    assert judged(first + b"".join(other[2:])) == [ERROR]


def test_a_table_beside_a_record_is_one_of_its_own() -> None:
    table = b"counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\r\ncounts:\t1\t1\t1\t-1\r\n"
    assert judged(table + GOOD.log) == [NOT_ATOMIC, ATOMIC]
    assert judged(GOOD.log + table) == [ATOMIC, NOT_ATOMIC]


# --- what is missing -----------------------------------------------------------------------------------------------


def test_without_its_first_line_the_rest_tells() -> None:
    for run, kind in ((GOOD, INCONCLUSIVE), (BAD, NOT_ATOMIC)):
        assert judged(b"\r\n".join(lines_of(run)[1:]) + b"\r\n") == [kind]


@pytest.mark.parametrize("name", ["tcg-no-lock", "old-kvm-lost", "old-tcg-no-lock"])
def test_without_the_request_its_digest_proves_a_guess(name: str) -> None:
    lines = lines_of(load(name))
    assert judged(b"\r\n".join(lines[:1] + lines[2:])) == [NOT_ATOMIC]


def test_a_guess_that_the_digest_does_not_prove_is_none() -> None:
    """By default a proof takes no ten minutes."""
    lines = lines_of(BAD)
    assert BAD.spec.proof_seconds == 600
    assert judged(b"\r\n".join(lines[:1] + lines[2:])) == [INCONCLUSIVE]


def test_without_either_the_kernel_must_be_named() -> None:
    log = b"\r\n".join(lines_of(BAD)[2:]) + b"\r\n"
    assert judged(log) == [INCONCLUSIVE]
    assert "does not hold the request (line 0 is missing); name the kernel with --elf or --manifest" in reason(log)
    telling = [phase.index for phase in phases(BAD.spec) if phase.role in (Role.PROOF, Role.CASE)]
    witnesses = sum(len(re.findall(rb" witness index=[0-9]+ phase=%d " % index, BAD.log)) for index in telling)
    assert f"{witnesses} witnesses of violations that may be the case's" in reason(log)
    named = Named("kernel.elf", BAD.spec, "00" * 20, None)
    assert judged(log, named) == [INCONCLUSIVE]  # who says that it is of this kernel?


def test_another_kernel_than_the_named_one_is_an_error() -> None:
    build = re.search(rb"build=([0-9a-f]{40})", GOOD.log)
    assert build
    assert judged(GOOD.log, Named("kernel.elf", GOOD.spec, build[1].decode(), None)) == [ATOMIC]
    assert judged(GOOD.log, Named("kernel.elf", GOOD.spec, "ab" * 20, None)) == [ERROR]
    assert judged(GOOD.log, Named("kernel.elf", SUITE.spec, build[1].decode(), None)) == [ERROR]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"", "the log is empty; is it of the port the kernel was built for"),
        (b"SeaBIOS\r\nBooting from Hard Disk...\r\n", "no line of a kgen kernel is in the log"),
        (b"\x7fELF" + bytes(60), "the log is an ELF, not a log"),
        (bytes(range(256)) * 9, "no line of a kgen kernel is in the log"),
        (b"\0" * 4096, "no line of a kgen kernel is in the log"),
    ],
)
def test_a_log_with_nothing_of_a_kernel_is_an_error(log: bytes, words: str) -> None:
    assert judged(log) == [ERROR]
    assert words in reason(log)


def test_a_first_line_that_is_unreadable_is_called_so() -> None:
    broken = GOOD.log.replace(b"kgen:0 boot ", b"kgen:0 bOot ", 1)
    record = from_capture(broken)[0].observation.serial
    assert record is not None
    assert record.gap.startswith("the first line is unreadable: 'kgen:0 bOot ")


def test_the_guest_s_own_reason_for_missing_cpus_is_told() -> None:
    assert reason(load("tcg-two-cpus").log) == "only 2 CPUs started and the case needs 3: give the machine 3 CPUs"


@pytest.mark.parametrize(
    ("name", "told"), [("old-tcg-atomic", True), ("old-kvm-lost", False), ("old-tcg-vga-none", False)]
)
def test_what_might_have_been_missed_is_said_of_clean_cases_only(name: str, told: bool) -> None:
    """In each of them a power control showed fewer than five duplicates."""
    (verdict,) = verdicts(only(load(name).log))
    assert any(0 <= control.violations["duplicate"] < 5 for control in verdict.controls if control.role == "power")
    note = (
        "a defect that only duplicates tokens might have been missed: not every power control showed 5 violations of "
        "that kind"
    )
    assert (note in verdict.notes) == told
    assert any("might have been missed" in each for each in verdict.notes) == told


def test_half_a_line_is_inconclusive() -> None:
    assert judged(GOOD.log[:40]) == [INCONCLUSIVE]
    assert reason(GOOD.log[:40]) == "nothing but broken lines of a kernel is left of the log"


def relined(log: bytes, old: str, new: str) -> bytes:
    """The log with something else in it, signed as a guest would."""
    text = log.decode().replace("\r", "")
    assert old in text
    return signed(text.replace(old, new).split("\n")[:-1])


def test_a_log_of_another_kgen_is_one_clear_line() -> None:
    older = relined(GOOD.log, f"version={__version__}", "version=0.0.1")
    assert judged(older) == [ATOMIC]  # what has not changed can be judged
    assert "the kernel is of kgen 0.0.1" in " ".join(verdicts(only(older))[0].notes)
    for log, words in (
        (relined(older, " x2apic=0", ""), "its line 'kgen:2 cpus' is in another form"),
        (relined(older, " phases=6", " phases=6 more=1"), "its line 'kgen:0 boot' is in another form"),
        (relined(older, '"poll":2,', ""), "not a kernel specification"),
        (relined(older, '"rounds":1000', '"rounds":1001'), "its digest is another"),
    ):
        assert judged(log) == [ERROR]
        assert words in reason(log)
        assert "the log is of a kernel that kgen 0.0.1 built" in reason(log)
        assert "\n" not in reason(log)


def test_the_guest_s_own_opinion_is_not_believed() -> None:
    """A suite whose TAP lines say the opposite, each signed as by an honest guest."""
    lied = SUITE.log.decode().replace("\r", "").replace("\nok ", "\nnot ok ").split("\n")[:-1]
    log = signed(lied)
    assert log != SUITE.log
    assert [each.kind for each in verdicts(only(log))] == [each.kind for each in verdicts(only(SUITE.log))]
    told = load("kvm-suite").log.decode().replace("\r", "").replace("\nnot ok ", "\nok ").split("\n")[:-1]
    assert judged(signed(told)) == [NOT_ATOMIC]


# --- whatever happens to a log -------------------------------------------------------------------------------------


def assert_no_better(run: Recording, log: bytes) -> None:
    """No case of a log that lost something is ATOMIC, unless its account is there up to where the case was closed."""
    accounts = [run.log]
    if run.spec.suite:
        lines = run.log.splitlines(keepends=True)
        accounts = [b"".join(lines[: at + 1]) for at, line in enumerate(lines) if b" done case=" in line]
    wholes = [essence(account) for account in accounts]
    kept = essence(log)
    for piece in from_capture(log):
        found = verdicts(piece)
        if piece.spec is None:
            assert ATOMIC not in [verdict.kind for verdict in found]
            continue
        for verdict, whole in zip(found, wholes, strict=True):
            assert verdict.kind is not ATOMIC or holds(kept, whole)
    if run.spec.suite or from_kinds(run.log) != {NOT_ATOMIC}:
        return
    assert ATOMIC not in judged(log)


def holds(log: bytes, part: bytes) -> bool:
    """Whether every byte of ``part`` is in the log, in order, whatever stands between them."""
    rest = iter(log)
    return all(byte in rest for byte in part)


def from_kinds(log: bytes) -> set[VerdictKind]:
    return {verdict.kind for run in from_capture(log) for verdict in verdicts(run)}


@settings(max_examples=draws(100), deadline=None)
@given(run=RUNS, data=st.data())
def test_a_cut_log_is_never_better(run: Recording, data: st.DataObject) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(run.log))] * 2)))
    assert_no_better(run, run.log[:start] + run.log[end:] if data.draw(st.booleans()) else run.log[start:end])


@settings(max_examples=draws(100), deadline=None)
@given(run=RUNS, data=st.data())
def test_an_altered_log_is_never_better(run: Recording, data: st.DataObject) -> None:
    altered = bytearray(run.log)
    for at in data.draw(st.lists(st.integers(0, len(altered) - 1), min_size=1, max_size=8, unique=True)):
        altered[at] ^= 1 << data.draw(st.integers(0, 7))
    assert_no_better(run, bytes(altered))


@pytest.mark.parametrize(("before", "kind"), [(b"\nkgen:7 ", ATOMIC), (b"\ncounts:\t17\t", INCONCLUSIVE)])
def test_one_character_with_its_eighth_bit_set(before: bytes, kind: VerdictKind) -> None:
    """As the first of a line it tells that the log has parity, elsewhere it is a character that no guest prints."""
    at = GOOD.log.index(before) + 1
    log = GOOD.log[:at] + bytes([GOOD.log[at] | 0x80]) + GOOD.log[at + 1 :]
    assert judged(log) == [kind]
    (verdict,) = verdicts(only(log))
    assert any("eighth bit" in note for note in verdict.notes) == (kind is ATOMIC)


@settings(max_examples=draws(100), deadline=None)
@given(run=RUNS, data=st.data())
def test_a_log_of_other_lines_is_never_better(run: Recording, data: st.DataObject) -> None:
    """Lines left out, there twice, in another order."""
    lines = run.log.splitlines(keepends=True)
    numbers = list(range(len(lines)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(numbers) - 1))
        other = data.draw(st.integers(0, len(numbers) - 1))
        change = data.draw(st.sampled_from(["delete", "repeat", "swap"]))
        if change == "delete" and len(numbers) > 1:
            del numbers[at]
        elif change == "repeat":
            numbers.insert(at, numbers[other % len(numbers)])
        else:
            other %= len(numbers)
            numbers[at], numbers[other] = numbers[other], numbers[at]
    assert_no_better(run, b"".join(lines[number] for number in numbers))


@settings(max_examples=draws(100), deadline=None)
@given(run=RUNS, data=st.data(), garbage=st.binary(min_size=1, max_size=60))
def test_garbage_makes_no_log_better(run: Recording, data: st.DataObject, garbage: bytes) -> None:
    at = data.draw(st.integers(0, len(run.log)))
    assert_no_better(run, run.log[:at] + garbage + run.log[at:])


@settings(max_examples=40, deadline=None)
@given(first=RUNS, second=RUNS, data=st.data())
def test_a_violation_in_a_file_is_never_outvoted(first: Recording, second: Recording, data: st.DataObject) -> None:
    """Two logs in one file, the first cut anywhere: what either shows by itself shows in both."""
    # ended in both: a last line that lacks nothing but its end counts where it has one
    cut = first.log[: data.draw(st.integers(0, len(first.log)))] + b"\r\n"
    alone = [*judged(cut), *judged(second.log)] if essence(cut) else judged(second.log)
    together = judged(cut + second.log)
    assert (NOT_ATOMIC in alone) == (NOT_ATOMIC in together)
    assert ATOMIC not in alone or together[-1] is judged(second.log)[-1]


_WORDS = st.sampled_from(
    (b"kgen:0 boot ", b"kgen:1 end ", b"counts:\t1\t0\t1\t0\n", b"counts:", b"\n", b"\r\n", b"\x1b[", b"\xff\xfe")
)


@settings(max_examples=draws(200), deadline=None)
@given(parts=st.lists(st.binary(max_size=40) | _WORDS, max_size=20))
def test_anything_can_be_judged(parts: list[bytes]) -> None:
    assert ATOMIC not in judged(b"".join(parts))


@settings(max_examples=draws(100), deadline=None)
@given(text=st.text(max_size=200) | st.recursive(st.none() | st.integers(), st.lists, max_leaves=9).map(json.dumps))
def test_a_request_of_any_kind_can_be_read(text: str) -> None:
    """Where a log's lines are right, and what they say is not."""
    word = re.sub(r"\s", "", text).encode("latin-1", "replace").decode("latin-1") or "x"
    body = f"kgen:0 boot version=1 case=x digest={'0' * 64} build={'0' * 40} path=1 phases=1"
    lines = [body, f"kgen:1 spec text={word}"]
    log = "".join(f"{line} crc={zlib.crc32(line.encode('latin-1')):08x}\n" for line in lines)
    assert ATOMIC not in judged(log.encode("latin-1"))


def test_a_nested_request_is_no_specification() -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, "9" * 10_000):
        with pytest.raises(Exception, match="not a kernel specification"):
            KernelSpec.from_text(text)


def sixteen(log: bytes, name: str) -> bytes:
    return log.decode("latin-1").encode(name)


MIXED: dict[str, bytes] = {
    "UTF-16, then ASCII": b"\xff\xfe" + sixteen(GOOD.log, "utf-16-le") + BAD.log,
    "UTF-16 that lost a byte between": b"\xff\xfe"
    + sixteen(GOOD.log + BAD.log, "utf-16-le")[: 2 * len(GOOD.log)]
    + sixteen(BAD.log, "utf-16-le")[1:],
    "big end first, then ASCII": b"\xfe\xff" + sixteen(GOOD.log, "utf-16-be") + BAD.log,
    "ASCII, then UTF-16 with its mark": GOOD.log + b"\xff\xfe" + sixteen(BAD.log, "utf-16-le"),
    "ASCII behind a mark of UTF-16": b"\xff\xfe" + BAD.log + GOOD.log,
    "with parity behind": GOOD.log + bytes(byte | (byte.bit_count() & 1) << 7 for byte in BAD.log),
    "with parity before": bytes(byte | (byte.bit_count() & 1) << 7 for byte in BAD.log) + GOOD.log,
}


@pytest.mark.parametrize("name", MIXED)
def test_no_run_hides_behind_another_ones_encoding(name: str) -> None:
    assert sorted(judged(MIXED[name]), key=str) == [ATOMIC, NOT_ATOMIC]


def test_a_run_that_cannot_be_read_is_not_passed_over() -> None:
    assert judged(GOOD.log + BAD.log.upper()) == [ATOMIC, INCONCLUSIVE]
    (verdict,) = verdicts(only(GOOD.log + b"\n" + 300 * b"not mine\n"))
    assert any(note.endswith("that are not the guest's as far as one can tell") for note in verdict.notes)


def test_a_line_without_end_is_looked_at_once() -> None:
    assert judged(b"kgen:1 x " * 60_000) == [INCONCLUSIVE]
