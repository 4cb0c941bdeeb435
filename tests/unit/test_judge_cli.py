"""kgen judge on the command line: exit codes, JSON, what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from recordings import NAMES, load, signed
from running import assert_one_line, kgen

from kgen import __version__
from kgen.build import build, manifest, write
from kgen.cli import main
from kgen.errors import OutputError
from kgen.evidence.from_serial import from_log
from kgen.host.signals import Terminated
from kgen.kernel.protocol import parse_log
from kgen.kernel.results_block import MAGIC
from kgen.media import formats
from kgen.offline import loader_messages
from kgen.offline.inputs import MAX_LOG
from kgen.offline.result_code import encode
from kgen.report.results.document import SCHEMA
from kgen.verdict.model import VerdictKind

#: Recorded runs: the exit code of a single case, and of a suite.
CODES = {"tcg-atomic": 0, "kvm-lost": 3, "tcg-no-controls": 4, "tcg-vga-none": 5, "tcg-two-cpus": 9, "kvm-suite": 3}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for name in CODES:
        (tmp_path / f"{name}.log").write_bytes(load(name).log)
    return tmp_path


def invoke(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["judge", *map(str, arguments)], prog_name="kgen", input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", CODES)
def test_the_exit_code_is_the_verdict_s(logs: Path, name: str) -> None:
    log = logs / f"{name}.log"
    kind = VerdictKind(CODES[name])
    code, out, err = invoke(log)
    assert (code, err) == (kind.value, "")
    assert re.search(rf"^{kind.name}: ", out, re.MULTILINE)
    assert invoke("-", stdin=log.read_bytes())[:2] == (code, out)
    bisect = {VerdictKind.ATOMIC: 0, VerdictKind.NOT_ATOMIC: 1}.get(kind, 125)
    assert invoke(log, "--exit-codes", "bisect")[0] == bisect


@pytest.mark.skipif(os.name != "posix", reason="a shell, and a device that is full")
@pytest.mark.parametrize("words", ["--json -", ""])
def test_what_cannot_be_told_makes_no_revision_bad(logs: Path, words: str) -> None:
    """git bisect takes every exit code from 1 to 124 for a bad revision."""
    judge = f"{shlex.quote(sys.executable)} -m kgen judge tcg-atomic.log --exit-codes bisect {words}"
    full = subprocess.run(["sh", "-c", f"{judge} >/dev/full"], cwd=logs, capture_output=True, text=True, check=False)
    assert (full.returncode, "No space left on device" in full.stderr) == (125, True)
    gone, writer = os.pipe()
    os.close(gone)
    left = subprocess.run(["sh", "-c", judge], cwd=logs, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (left.returncode, b"Traceback" in left.stderr, b"Exception" in left.stderr) == (125, False, False)


def test_our_own_bug_makes_no_revision_bad(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kgen.cli.judge.results", fail)
    code, _, err = invoke(logs / "tcg-atomic.log", "--exit-codes", "bisect")
    assert (code, err.endswith("ZeroDivisionError\n")) == (125, True)


@pytest.mark.parametrize("words", [(), ("--exit-codes", "bisect")])
def test_a_signal_stops_the_bisection_whatever_else_failed(
    logs: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """git bisect goes on after every exit code below 128."""

    def fail(*_: object) -> None:
        try:
            raise Terminated(signal.SIGTERM)
        finally:
            raise OutputError("no more to be written", where="result.json")

    monkeypatch.setattr("kgen.cli.judge.results", fail)
    assert invoke(logs / "tcg-atomic.log", *words) == (128 + signal.SIGTERM, "", "kgen: ended by SIGTERM\n")


@pytest.mark.parametrize("name", CODES)
def test_the_result_for_machines(logs: Path, name: str) -> None:
    run = load(name)
    code, out, err = invoke(logs / f"{name}.log", "--json", "-")
    result = json.loads(out)
    assert result["schema"] == SCHEMA
    assert result["platform"] == "serial-log"
    assert result["verdict"]["exit_code"] == code
    assert VerdictKind(code).name in err
    if run.spec.suite:
        assert [case["case"] for case in result["cases"]] == [case.id for case in run.spec.cases]
        assert [boot["serial_log"] for boot in result["boots"]] == [run.log.decode()]
    else:
        assert result["case"] == run.spec.case.id
        assert result["digest"] == run.spec.digest()
        assert result["serial_log"] == run.log.decode()
        assert result["observation"]["serial"]["digest"] == run.spec.digest()
        assert result["observation"]["memory"] is None
        assert result["observation"]["environment"]["versions"]["kgen"] == result["kgen"]


def test_several_runs_are_told_each_and_the_worst_decides(logs: Path) -> None:
    both = logs / "both.log"
    both.write_bytes(load("kvm-lost").log + load("tcg-atomic").log)
    code, out, _ = invoke(both, "--json", logs / "x.json")
    assert code == 3
    assert [line for line in out.splitlines() if line.startswith("run ")] == ["run 1 of 2:", "run 2 of 2:"]
    said, _, pasted = out.partition("\nto share this result, paste:\n")
    assert said.rstrip().endswith("NOT_ATOMIC: the worst of run 1 of 2 NOT_ATOMIC, run 2 of 2 ATOMIC")
    assert [line.split()[1] for line in pasted.splitlines() if " verdict " in line] == ["NOT_ATOMIC:", "ATOMIC:"]
    result = json.loads((logs / "x.json").read_text())
    assert result["verdict"] == {"kind": "NOT_ATOMIC", "exit_code": 3}
    assert [run["verdict"]["kind"] for run in result["runs"]] == ["NOT_ATOMIC", "ATOMIC"]
    assert [run["where"] for run in result["runs"]] == ["run 1 of 2", "run 2 of 2"]


def test_the_original_program_s_log(tmp_path: Path) -> None:
    log = tmp_path / "original.txt"
    log.write_bytes(b"counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\r\ncounts:\t5\t3\t3\t-1\r\n")
    code, out, err = invoke(log, "--json", tmp_path / "x.json")
    assert (code, err) == (3, "")
    assert "counts:\t5\t3\t3\t-1\n" in out
    assert "NOT_ATOMIC: 1 duplicate in 5 rounds" in out
    result = json.loads((tmp_path / "x.json").read_text())
    assert (result["case"], result["spec"], result["verdict"]["violations"]["duplicate"]) == ("", None, 1)
    assert result["observation"]["rows"] == [[5, 3, 3, -1]]


def test_the_kernel_may_be_named(logs: Path) -> None:
    """By the ELF or the manifest of the build that printed the log; another one is an error."""
    run = load("tcg-atomic")
    kernel = build(run.spec)
    old = re.search(r"build=([0-9a-f]{40})", run.log.decode())
    assert old
    log, other = logs / "mine.log", logs / "other.log"
    for file, build_id in ((log, kernel.elf.build_id.hex()), (other, "ab" * 20)):
        file.write_bytes(signed([line.replace(old[1], build_id) for line in run.lines]))
    (logs / "kernel.elf").write_bytes(kernel.elf.data)
    (logs / "manifest.json").write_text(manifest(kernel, {}))
    for option, name in (("--elf", "kernel.elf"), ("--manifest", "manifest.json")):
        assert invoke(log, option, logs / name)[0] == 0
        code, out, _ = invoke(other, option, logs / name)
        assert code == 9
        assert "ERROR: the log is of build " in out
    changed = json.loads((logs / "manifest.json").read_text())
    changed["spec"]["rounds"] += 1
    for text, words in (
        ("{}", "is no manifest of a kgen kernel"),
        ("[" * 100_000, "is no manifest"),
        (json.dumps(changed), "its digest does not fit what was asked"),
    ):
        (logs / "manifest.json").write_text(text)
        code, out, err = invoke(log, "--manifest", logs / "manifest.json")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


REFUSED = {
    "nothing": ([], "give a serial log (- is standard input), --memory FILE or --code TEXT"),
    "code and log": (["x.log", "--code", "X"], "--code says everything by itself; leave LOG out"),
    "code and memory": (["--memory", "x", "--code", "X"], "leave --memory out"),
    "elf and manifest": (["x.log", "--elf", "x", "--manifest", "y"], "--elf and --manifest both name the kernel"),
    "no such log": (["no.log"], "no.log: No such file or directory; name a file that can be read"),
    "no such dump": (["--memory", "no.core"], "no.core: No such file or directory"),
    "a directory": (["."], "name a file that can be read"),
    "a dump that is a directory": (["--memory", "."], "is no file; name a dump"),
    "a result that cannot be written": (["-", "--json", f"{__file__}/x"], "cannot be written"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = REFUSED[name]
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert invoke(*arguments, "--exit-codes", "bisect")[0] == 125


def test_an_elf_that_is_not_ours(logs: Path) -> None:
    code, out, err = invoke(logs / "tcg-atomic.log", "--elf", sys.executable)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not a kernel built by kgen" in err
    assert invoke(logs / "tcg-atomic.log", "--elf", sys.executable, "--exit-codes", "bisect")[0] == 125


def test_a_log_that_is_too_long(tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    with log.open("wb") as file:
        file.truncate(MAX_LOG + 1)
    code, out, err = invoke(log)
    assert (code, out) == (2, "")
    assert "is longer than 64 MiB" in err


def test_a_long_log_is_judged_in_time(tmp_path: Path) -> None:
    """An endless run that was watched for an afternoon: its rows, then what a run ends with."""
    good = load("tcg-atomic").log
    at = good.index(b"counts:\t1000")
    rows = b"".join(b"counts:\t%d\t%d\t0\t0\r\n" % (n, n) for n in range(21, 200_000))
    log = tmp_path / "long.log"
    log.write_bytes(good[:at] + rows + good[at:])
    code, out, _ = invoke(log)
    assert (code, "INCONCLUSIVE: the serial record is incomplete" in out) == (4, True)  # nobody signed these rows


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_dump_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert invoke("--memory", pipe)[0] == 2


def test_as_a_program_of_its_own(logs: Path) -> None:
    """From a shell: a pipe, and one clear line where there is nothing to judge."""
    empty = logs / "empty.log"
    empty.touch()
    run = kgen(logs / "tmp", "judge", str(empty))
    assert run.process.returncode == 9
    assert_one_line(run, 9, "the log is empty")
    shutil.rmtree(logs / "tmp")


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    """The kernel, its images and a dump of memory, however long: by what they are, as wrong usage."""
    kernel = build(load("tcg-atomic").spec)
    core = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x04\0" + bytes(46)
    boot = "not a log; boot it, and give what comes out of the serial port"
    files = {
        "kernel.elf": (kernel.elf.data, f"is an ELF, {boot}"),
        "guest.core": (core, "is an ELF core; give it with --memory"),
        "memory.raw": (bytes(4096) + MAGIC + bytes(64), "holds a kernel's memory, it is no log; give it with --memory"),
        "log.gz": (gzip.compress(load("tcg-atomic").log, mtime=0), "is compressed by gzip; unpack it"),
        "noise": (
            bytes(range(128, 256)) * 9,
            "is hardly any text; is it a serial log, taken at the speed of the port?",
        ),
    }
    for name, (data, words) in files.items():
        assert invoke("-", stdin=data) == (2, "", f"kgen: error: standard input: {words}\n"), name
        (tmp_path / name).write_bytes(data)
        assert invoke(tmp_path / name) == (2, "", f"kgen: error: {tmp_path / name}: {words}\n"), name
    known = formats()
    kinds = {"img": "an image of a disk or CD", "efi": "a UEFI application", "pvh64": "an ELF"}
    kinds["iso"] = kinds["img"]
    kinds |= {name: f"a {name.upper()} disk" for name in ("vdi", "vhdx", "vmdk")} | {"qcow2": "a qcow2 disk"}
    kinds["vhd"] = kinds["img"]  # one of a fixed size is the disk itself, with a footer
    assert set(kinds) == set(known)
    write(kernel, tmp_path, tuple(known))
    for name, what in kinds.items():
        path = tmp_path / f"kernel{known[name].suffix}"
        assert invoke(path) == (2, "", f"kgen: error: {path}: is {what}, {boot}\n"), name
    with (tmp_path / "guest.core").open("r+b") as file:
        file.truncate(MAX_LOG + 1)
    assert "is an ELF core" in invoke(tmp_path / "guest.core")[2]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"SeaBIOS\r\n\r\nkgen boot: needs 2 MiB of memory, code F3\r\n", "needs 2 MiB of memory, code F3'; give the"),
        (
            b"Booting\rkgen boot: disk error 80\r\n",
            "'kgen boot: disk error 80'; the image was cut or the medium is bad",
        ),
        (
            b"kgen: cannot start, too little memory: nothing is at 0x100000\r\n",
            "0x100000'; give the machine more memory",
        ),
        (
            b"BdsDxe: x\r\n\x1b[2Jkgen: leaving UEFI, output continues on the serial port\r\n",
            "and nothing of the kernel",
        ),
        (b"BdsDxe: failed to load Boot0001: Access Denied\r\n", "'Access Denied': Secure Boot must be off"),
    ],
)
def test_a_loader_s_last_words_are_told_with_their_remedy(tmp_path: Path, log: bytes, words: str) -> None:
    (tmp_path / "log").write_bytes(log)
    code, out, err = invoke(tmp_path / "log")
    assert (code, out, err.count("\n")) == (9, "", 1)
    assert words in err


def test_every_sentence_of_the_loaders_is_known() -> None:
    """The templates' own, and those that docs/images.md describes; no other stands in the table."""
    root = Path(loader_messages.__file__).parents[2]
    templates = {name: (root / "kernel_templates" / f"{name}.asm").read_text() for name in ("mbr", "loader", "uefi")}
    documented = (root / "docs" / "images.md").read_text(encoding="utf-8")
    bios = set(
        re.findall(r'^text_(?!prefix|end)\w+:\s*\.asciz "([^"]+)"', templates["mbr"] + templates["loader"], re.M)
    )
    uefi = set(re.findall(r'wide_text\("kgen: cannot start, ([^"]+)"', templates["uefi"]))
    for said, known in ((bios, loader_messages.BIOS_ERRORS), (uefi, loader_messages.UEFI_ERRORS)):
        assert len(said) == len(known)
        for start in known:
            assert [text for text in said if text.startswith(start)], start
            assert re.search(rf"^\| (?:{loader_messages.CANNOT_START})?{re.escape(start)}", documented, re.M), start


def test_a_result_code(logs: Path) -> None:
    """The verdict of the log that the code was printed with, in the code's own words."""
    run = load("kvm-lost")
    record = from_log(parse_log(run.log))
    assert record is not None
    text = encode(run.spec, record)
    code, out, err = invoke("--code", text)
    assert (code, err) == (3, "")
    assert re.search(r"^NOT_ATOMIC: ", out, re.MULTILINE)
    assert "it rests on a result code" in out
    result = json.loads(invoke("--code", text, "--json", "-")[1])
    assert (result["platform"], result["case"]) == ("result-code", run.spec.case.id)


def test_a_result_code_that_is_none_is_one_clear_line() -> None:
    code, out, err = invoke("--code", "!")
    assert (code, out, err.count("\n")) == (9, "", 1)


@pytest.mark.parametrize("option", ["", "--memory", "--elf", "--manifest"])
def test_the_result_never_replaces_what_it_rests_on(option: str, tmp_path: Path) -> None:
    log = tmp_path / "serial.txt"
    log.write_bytes(load("tcg-atomic").log)
    evidence = tmp_path / "evidence"
    evidence.write_bytes(b"evidence")
    link = tmp_path / "link.json"
    link.symlink_to(evidence if option else log)
    words = [str(log), *([option, str(evidence)] if option else []), "--json", str(link)]
    done = CliRunner().invoke(main, ["judge", *words], prog_name="kgen")
    assert done.exit_code == 2
    assert "is what is to be read; write the result to another file" in done.stderr
    assert (log.read_bytes(), evidence.read_bytes()) == (load("tcg-atomic").log, b"evidence")


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_to_paste_say_what_was_judged(logs: Path, name: str) -> None:
    """Their code alone gives the verdict again, where the kernel would have shown one."""
    file = logs / f"{name}.txt"
    file.write_bytes(load(name).log)
    code, out, _ = invoke(file, "--system", "Foo 1.2\x1b[31m,\non  Bar")
    _, _, pasted = out.partition("\nto share this result, paste:\n")
    lines = dict(line.strip().split(None, 1) for line in pasted.splitlines())
    assert lines["kgen"] == __version__
    assert lines["system"] == "Foo 1.2 [31m, on Bar"
    assert lines["verdict"].startswith(f"{VerdictKind(code).name}: ")
    if "code" in lines:
        again, told, _ = invoke("--code", lines["code"])
        assert VerdictKind(again) in (VerdictKind(code), VerdictKind.INCONCLUSIVE), told
        assert told.rstrip().endswith(f"code    {lines['code']}")
        assert "kgen judge --system TEXT" in told


def test_what_has_no_request_has_nothing_to_paste(logs: Path) -> None:
    file = logs / "table.txt"
    file.write_text("counts:\tcount0\tcount1\tcount2\tcount0-count1+count2\ncounts:\t5\t3\t2\t4\n")
    _, out, _ = invoke(file)
    assert "to share this result" not in out
