"""A result document read back is the values that it was made of."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from damage import damaged
from grouped import grouped
from hypothesis import given
from hypothesis import strategies as st
from recordings import NAMES, load

from kgen.cli import main
from kgen.errors import GuestCrash, KgenError, MachineError, PlatformUnavailable, SpecError
from kgen.offline.runs import from_capture, results
from kgen.report.formats import formats
from kgen.report.results import read
from kgen.report.results.document import document
from kgen.report.results.model import run_of_one_boot
from kgen.report.results.write import to_json
from kgen.run.verify import refused
from kgen.verdict.judge import judge
from kgen.verdict.model import OLD_PROOF, VerdictKind

WORDS = ("kgen", "verify", "--instr", "xchg")


@cache
def written(name: str) -> str:
    run = load(name)
    seen = run.observed()
    verdicts = [judge(run.spec, seen, number) for number in range(len(run.spec.cases))]
    return to_json([run_of_one_boot(run.spec, seen, verdicts, invocation=WORDS)])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_as_what_was_written(name: str) -> None:
    recording = load(name)
    (run,) = read.load(written(name).encode(), "x.json")
    assert run.spec == recording.spec
    assert run.platform == recording.platform
    assert [result.case for result in run.results] == [case.id for case in recording.spec.cases]
    for number, result in enumerate(run.results):
        assert (result.number, result.invocation, result.where) == (number, WORDS, "x.json")
        assert result.observation == recording.observed()
        assert result.verdict == judge(recording.spec, recording.observed(), number)


@pytest.mark.parametrize("invocation", ["kgen judge x", [1], None, {"a": 1}])
def test_a_command_line_is_a_list_of_words(invocation: object) -> None:
    document = json.loads(written("tcg-atomic")) | {"invocation": invocation}
    with pytest.raises(SpecError, match=r"^x\.json: is damaged: "):
        read.load(json.dumps(document).encode(), "x.json")


def test_of_a_hundred_thousand_keys_the_double_one_is_named() -> None:
    keys = ",".join(f'"k{number}": 0' for number in [*range(100_000), 99_999])
    with pytest.raises(SpecError, match="has the key 'k99999' more than once in one object"):
        read.load(f"{{{keys}}}".encode(), "x.json")


def test_several_runs_in_one_file() -> None:
    runs = [{"where": f"run {number}", **json.loads(written("kvm-lost"))} for number in (1, 2)]
    found = read.load(json.dumps({"schema": 3, "kgen": "0", "runs": runs}).encode(), "x.json")
    assert [run.where for run in found] == ["x.json (run 1)", "x.json (run 2)"]


def test_one_that_is_printed_is_short() -> None:
    """As in an interpreter, or where a test's assertion fails."""
    (alone,), (suite,) = (read.load(written(name).encode(), "x.json") for name in ("kvm-lost", "tcg-suite"))
    (result,) = alone.results
    assert repr(result) == f"<Result 'xchg.32.vga-text.token': NOT_ATOMIC: {result.verdict.reason!r}>"
    assert repr(alone) == f"<Run on 'qemu-kvm': NOT_ATOMIC: {result!r}>"
    assert repr(suite) == f"<Run on 'qemu-tcg': RAM_BACKED: {suite.results[0]!r}, 3 more>"


@cache
def _read(name: str) -> tuple[read.Run, ...]:
    return read.load(written(name).encode(), "x.json")


def test_what_nobody_knows_what_was_asked() -> None:
    seen = load("kvm-lost").observed()
    verdict = judge(load("kvm-lost").spec, seen)
    ((result,),) = [run.results for run in read.load(json.dumps(document(None, seen, verdict)).encode(), "x")]
    assert (result.spec, result.case, result.suite) == (None, "", "")


@grouped(product(sorted(formats()), NAMES))
def test_every_form_tells_every_recording(name: str, recording: str) -> None:
    runs = _read(recording)
    text = formats()[name].render(runs * 2)
    assert text.endswith("\n")
    assert text == formats()[name].render(runs * 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no result of kgen"),
        ('{"schema": 3}', "is no result of kgen"),
        ('{"schema": 99, "kgen": "9"}', "has schema 99"),
        ('{"schema": 3, "kgen": "9"}', "lacks 'spec'"),
        ('{"schema": 3, "kgen": "9", "spec": 3, "platform": ""}', "is damaged"),
    ],
)
def test_what_is_no_result_is_told(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as told:
        read.load(text.encode(), "x.json")
    assert told.value.line.startswith("x.json: ")


DOCUMENT = json.loads(written("kvm-lost"))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, entry in inner for found in _places(entry, (*path, key)))]


@given(place=st.sampled_from(_places(DOCUMENT)[1:]), value=st.sampled_from([None, -1, "x", [], {}, True, 1.5]))
def test_a_damaged_result_is_read_or_refused_in_one_line(place: tuple[Any, ...], value: Any) -> None:
    damaged = json.loads(json.dumps(DOCUMENT))
    inner = damaged
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with contextlib.suppress(SpecError):
        read.load(json.dumps(damaged).encode(), "x.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"schema": "\xff"}', "it is not UTF-8 at byte 12"),
        (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_what_is_no_json_is_named(data: bytes, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read.load(data, "x.json")
    assert caught.value.line.startswith(f"x.json: is no JSON: {words}; name a file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"schema": 3, "kgen": "0", "verdict": {}, "verdict": {}}',
            "has the key 'verdict' more than once in one object",
        ),
        ('{"schema": 3, "kgen": "0", "bound": Infinity}', "holds Infinity, which is no number in JSON"),
        ('{"schema": 3, "kgen": "0", "bound": NaN}', "holds NaN, which is no number in JSON"),
        ('{"schema": 3, "kgen": "0", "bound": 1e999}', "holds a number that is too large: 1e999"),
        (f'{{"schema": 3, "kgen": "0", "khz": {10**400}}}', f"holds a number of more than 64 bits: 1{'0' * 39}..."),
        (f'{{"schema": {"1" * 5_000}}}', f"holds a number of more than 64 bits: {'1' * 40}..."),
        (f'{{"schema": 3, "kgen": "0", "khz": {1 << 64}}}', f"holds a number of more than 64 bits: {1 << 64}"),
        ('{"schema": true, "kgen": "0"}', "has schema True, and this kgen reads 3 to 4"),
        ('{"schema": 3.0, "kgen": "0"}', "has schema 3.0, and this kgen reads 3 to 4"),
        (
            json.dumps({"schema": [1] * 5_000, "kgen": "0"}),
            f"has schema {str([1] * 99)[:40]}..., and this kgen reads 3 to 4",
        ),
        ('{"schema": 3, "kgen": "0", "runs": []}', "holds no run"),
        (
            '{"schema": 1, "kgen": "0", "evidence_about_lock": false}',
            "is of 'kgen interleave', which states no verdict that could be told",
        ),
    ],
)
def test_what_no_result_holds_is_named(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read.load(text.encode(), "x.json")
    assert caught.value.line.startswith(f"x.json: {said}; ")


# --- a verdict is held against its evidence ------------------------------------------------------------------------


def _refused(document: Any) -> str:
    with pytest.raises(SpecError) as caught:
        read.load(json.dumps(document).encode(), "x.json")
    return caught.value.line


def test_a_verdict_that_was_changed_is_refused() -> None:
    value = json.loads(written("kvm-lost"))
    value["verdict"] |= {"kind": "ATOMIC", "exit_code": 0}
    line = _refused(value)
    assert line.startswith("x.json: states ATOMIC, and its own evidence comes to NOT_ATOMIC (")
    assert "give its log to 'kgen judge', or write it again with this kgen" in line


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"exit_code": 3}, "states ATOMIC with exit code 3, and that of ATOMIC is 0"),
        ({"rounds": 7}, "states ATOMIC with rounds 7, and its own evidence comes to "),
        ({"judged": 7}, "states ATOMIC with judged 7, and its own evidence comes to "),
        ({"bound": None}, "states ATOMIC with bound none, and its own evidence comes to 0."),
        ({"violations": {"lost": 5}}, "states ATOMIC with violations lost 5, and its own evidence comes to none; "),
        ({"controls": []}, "states ATOMIC with controls that are not those of its own evidence"),
        ({"rounds": -1}, "is damaged: rounds is -1"),
    ],
)
def test_a_number_that_was_changed_is_refused(changed: dict[str, Any], said: str) -> None:
    value = json.loads(written("tcg-atomic"))
    value["verdict"] |= changed
    assert _refused(value).startswith(f"x.json: {said}")


def test_a_verdict_without_evidence_is_refused() -> None:
    value = json.loads(written("tcg-atomic"))
    value["observation"] |= {"serial": None, "memory": None, "crash": "boom"}
    assert "states ATOMIC, and its own evidence comes to CRASH (boom); " in _refused(value)
    value["observation"]["problems"] = ["no QEMU"]
    assert "states ATOMIC, and its own evidence comes to ERROR (no QEMU); " in _refused(value)
    unasked = json.loads(written("tcg-atomic")) | {"spec": None, "case": ""}
    assert "states ATOMIC, and holds no request (spec) that it could be of; " in _refused(unasked)
    unasked["verdict"] |= {"kind": "INCONCLUSIVE", "exit_code": 4}
    assert "states INCONCLUSIVE with bound 0.0" in _refused(unasked)
    unasked["verdict"] |= {"kind": "NOT_ATOMIC", "exit_code": 3, "bound": None}
    assert "states NOT_ATOMIC beside violations none; " in _refused(unasked)


def test_the_words_of_a_verdict_may_be_another_versions() -> None:
    value = json.loads(written("kvm-lost"))
    value["verdict"] |= {"reason": "in other words", "notes": []}
    ((result,),) = [run.results for run in read.load(json.dumps(value).encode(), "x.json")]
    assert result.verdict.reason == "in other words"


def repeated(name: str) -> Any:
    """The document of a case that an earlier kgen ran twice and judged by the sum of both runs."""
    value = json.loads(written(name))
    value["verdict"] |= {"kind": "ATOMIC", "exit_code": 0, "rounds": 2000, "judged": 2000, "bound": 3 / 2000}
    violations = {"lost": 6, "duplicate": 0, "torn": 0, "stale": 0}
    pooled = {"1": {"rounds": 1000, "events": 6, "judged": 1000, "violations": violations}}
    value["observation"] |= {"attempts": 2, "pooled": pooled}
    return value


@pytest.mark.parametrize("name", ["old-tcg-atomic", "old-tcg-no-controls"])
def test_of_repeated_runs_the_last_is_judged(name: str) -> None:
    recording = load(name)
    last = judge(recording.spec, recording.observed())
    one = repeated(name)
    whole = {key: one[key] for key in ("schema", "kgen", "invocation", "platform", "verdict")}
    several = whole | {"runs": [{"where": "1", **one}, {"where": "2", **json.loads(written("tcg-atomic"))}]}
    for value in (one, several):
        runs = read.load(json.dumps(value).encode(), "x.json")
        (result,) = runs[0].results
        note = "of 2 runs only the last is in this document"
        assert result.verdict == replace(last, notes=(*last.notes, note))
        assert result.observation == recording.observed()
        assert note in result.explain()
        again = read.load(to_json(runs).encode(), "y.json")
        assert [run.results[0].verdict for run in again] == [run.results[0].verdict for run in runs]


def of_schema_3(name: str, kind: str = "ATOMIC") -> dict[str, Any]:
    """A document as the version wrote it that counted no live batches and called this ATOMIC."""
    value: dict[str, Any] = json.loads(written(name))
    stated = [value, *value.get("cases", [])]
    for holder in (value, *value.get("boots", [])):
        del holder["spec"]["rules"], holder["spec"]["proof_seconds"]
        for channel in ("serial", "memory") if "observation" in holder else ():
            for phase in holder["observation"][channel]["phases"]:
                del phase["live"]
    for each in stated:
        verdict = each["verdict"]
        if verdict["kind"] == "INCONCLUSIVE":
            verdict |= {"kind": kind, "exit_code": VerdictKind[kind].value}
            verdict |= {"reason": "no violation", "bound": 3 / verdict["judged"]} if "judged" in verdict else {}
        verdict.pop("chance", None)
        for control in verdict.get("controls", []):
            del control["power"], control["unit"]
    return value | {"schema": 3}


def test_what_an_older_version_called_atomic_is_no_proof() -> None:
    value = of_schema_3("old-tcg-atomic")
    assert value["verdict"]["bound"] == 3e-3
    for document_ in (value, value | {"schema": 4}):
        (run,) = read.load(json.dumps(document_).encode(), "x.json")
        verdict = run.verdict
        assert verdict == judge(load("old-tcg-atomic").spec, load("old-tcg-atomic").observed())
        assert (verdict.kind, verdict.reason, verdict.bound) == (VerdictKind.INCONCLUSIVE, OLD_PROOF, None)
        assert verdict.reason.startswith("its own rules said ATOMIC; ")
        assert (verdict.judged, verdict.chance) == (1000, "rounds")
        assert OLD_PROOF in run.explain()
        # written by this version it states what this version says
        (again,) = read.load(to_json([run]).encode(), "y.json")
        assert again.verdict == verdict


def test_a_suite_of_an_older_version_is_read() -> None:
    value = of_schema_3("old-tcg-suite")
    assert "states ATOMIC, and its cases come to INCONCLUSIVE" in _refused(value)
    # its worst case is what it was by the rules of its time
    value["verdict"] |= {"kind": "RAM_BACKED", "exit_code": 5}
    (run,) = read.load(json.dumps(value).encode(), "x.json")
    assert [result.kind.name for result in run.results] == ["INCONCLUSIVE", "RAM_BACKED", *["INCONCLUSIVE"] * 2]
    assert run.kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize("name", ["old-kvm-lost", "old-tcg-no-lock", "old-tcg-vga-none"])
def test_what_an_older_version_says_otherwise_stays(name: str) -> None:
    (run,) = read.load(json.dumps(of_schema_3(name)).encode(), "x.json")
    assert run.verdict == judge(load(name).spec, load(name).observed())
    assert run.verdict.chance == "rounds"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("old-kvm-lost", {"kind": "ATOMIC", "exit_code": 0}),
        ("old-tcg-atomic", {"bound": 3 / 2000}),
        ("old-tcg-atomic", {"judged": 999, "bound": 3 / 999}),
        ("old-tcg-atomic", {"kind": "NOT_ATOMIC", "exit_code": 3}),
        ("old-tcg-vga-none", {"kind": "ATOMIC", "exit_code": 0}),
    ],
)
def test_an_older_verdict_that_its_own_rules_do_not_come_to_is_refused(name: str, changes: dict[str, Any]) -> None:
    value = of_schema_3(name)
    value["verdict"] |= changes
    assert " states " in _refused(value)


def test_a_new_kernels_record_without_live_batches_is_no_older_one() -> None:
    """What states ATOMIC, and lacks what it rests on, is refused."""
    value: dict[str, Any] = json.loads(written("tcg-atomic"))
    for channel in ("serial", "memory"):
        for phase in value["observation"][channel]["phases"]:
            phase["live"] = []
    assert "comes to ERROR (phase 1 counts live batches of 0 styles)" in _refused(value)
    old = json.loads(written("tcg-atomic"))
    del old["spec"]["rules"], old["spec"]["proof_seconds"]
    assert "comes to ERROR" in _refused(old)


@pytest.mark.parametrize("attempts", ["2", None, 1.5, -1, 0])
def test_a_verdict_on_no_number_of_runs_is_refused(attempts: object) -> None:
    value = repeated("old-tcg-atomic")
    value["observation"]["attempts"] = attempts
    assert _refused(value).startswith("x.json: ")


@pytest.mark.parametrize("name", ["kvm-lost", "tcg-suite"])
@pytest.mark.parametrize("error", [PlatformUnavailable("no KVM"), MachineError("no port"), GuestCrash("it died")])
def test_what_could_not_be_started_is_read(name: str, error: KgenError) -> None:
    spec = load(name).spec
    (run,) = read.load(to_json([refused(spec, "qemu-kvm", error)]).encode(), "x.json")
    assert {result.kind.value for result in run.results} == {error.exit_code}


def test_a_case_that_is_not_its_requests_is_refused() -> None:
    value = json.loads(written("kvm-lost")) | {"case": "\x1b[2Jxchg"}
    assert _refused(value).startswith(r"x.json: says that its case is '\x1b[2Jxchg', and its request is another's; ")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("cases",), [], "holds no case, and 4 were asked for"),
        (("cases", 0, "boot"), -1, "is of boot -1, and there are 1 from 0"),
        (("cases", 0, "boot"), 1, "is of boot 1, and there are 1 from 0"),
        (("cases", 0, "case"), "xchg.8.ram.token", "has the case 'xchg.8.ram.token', which was not asked for"),
        (("cases", 0, "verdict", "exit_code"), 3, "states ATOMIC with exit code 3"),
        (("cases", 0, "verdict", "rounds"), 3, ": states ATOMIC with rounds 3, and its own evidence comes to "),
        (("spec", "more"), [], "which was not asked for"),
        (("spec", "suite"), "", "a suite has a name and a budget, a single case has neither"),
        (("verdict", "kind"), "CRASH", "states CRASH, and its cases come to "),
        (("verdict", "exit_code"), 99, "with exit code 99, and that of "),
    ],
)
def test_a_suite_that_was_changed_is_refused(place: tuple[Any, ...], value: Any, said: str) -> None:
    assert said in _refused(damaged(json.loads(written("tcg-suite")), place, value))


def test_a_case_that_is_left_out_is_named() -> None:
    value = json.loads(written("tcg-suite"))
    gone = value["cases"].pop()["case"]
    assert f"lacks the case {gone}; " in _refused(value)


@pytest.mark.parametrize("words", [["report"], ["compare"]])
def test_standard_output_that_takes_nothing_is_named(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(written("kvm-lost"))
    (tmp_path / "b.json").write_text(written("kvm-lost"))
    command = [sys.executable, "-m", "kgen", *words, "a.json", "b.json"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    line = "kgen: error: standard output: cannot be written: No space left on device; name another file\n"
    assert (done.returncode, done.stderr) == (2, line)


#: One process tells all forms, each to the standard output that it began with.
_TELL_EACH = """
import json, sys
from kgen.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words, prog_name="kgen")
    except SystemExit as end:
        assert not end.code, (words, end.code)
    sys.stdout.flush()
    sys.stdout.buffer.write(b"\\0")
    sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_standard_output_gets_what_a_file_would_in_any_locale(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "größe.json").write_text(written("kvm-lost"))
    forms = [*(["report", "--format", form] for form in formats()), ["compare", "größe.json"]]
    every = [[*words, "größe.json"] for words in forms]
    command = [sys.executable, "-c", _TELL_EACH, json.dumps(every)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    told = done.stdout.split(b"\0")
    assert (len(told), told.pop()) == (len(every) + 1, b"")
    for words, text in zip(every, told, strict=True):
        # what the file holds does not depend on the process
        assert CliRunner().invoke(main, [*words, "-o", "file"], prog_name="kgen").exit_code == 0
        assert text == (tmp_path / "file").read_bytes(), words


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes what a program begins with")
@pytest.mark.parametrize(
    ("words", "stream"),
    [
        ("report a.json >&-", "standard output"),
        ("report a.json --format html >&-", "standard output"),
        ("compare a.json b.json >&-", "standard output"),
        ("compare a.json --baseline b.json >&-", "standard output"),
        ("judge a.log --json - >&-", "standard output"),
        ("verify --instr xchg --json - >&-", "standard output"),
        ("interleave --json - >&-", "standard output"),
        ("report - <&-", "standard input"),
        ("compare - --baseline a.json <&-", "standard input"),
        ("judge - <&-", "standard input"),
    ],
)
def test_a_stream_that_is_closed_is_named(words: str, stream: str, tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "a.log"):
        (tmp_path / name).write_text(written("kvm-lost"))
    command = ["sh", "-c", f"{shlex.quote(sys.executable)} -m kgen {words}"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (2, f"kgen: error: {stream}: is closed; name a file\n")


@pytest.mark.parametrize("command", ["report", "compare"])
def test_standard_input_is_read_but_once(command: str) -> None:
    done = CliRunner().invoke(main, [command, "-", "-"], prog_name="kgen", input=written("kvm-lost").encode())
    line = "kgen: error: standard input: is named more than once; it can be read but once\n"
    assert (done.exit_code, done.output) == (2, line)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_broken_log_comes_to_is_read(name: str) -> None:
    """A verdict that kgen has stated itself is never taken for one that was changed."""
    lines = load(name).log.split(b"\r\n")
    cuts = range(0, len(lines), max(1, len(lines) // 10))
    broken = [half for cut in cuts for half in (lines[:cut], lines[cut:], [*lines[:cut], *lines[cut + 1 :]])]
    for each in [*broken, lines * 2]:
        runs = [results(run) for run in from_capture(b"\r\n".join(each))]
        assert len(read.load(to_json(runs).encode(), "x.json")) == len(runs)
