"""Bad input on the command line: one clear line, the right exit code, no traceback, nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from running import DEADLINE, Run, assert_one_line, environment, kgen

from kgen.cli import main
from kgen.cli._options import parse_cpus
from kgen.cli.verify import live_line
from kgen.errors import OutputError, SpecError
from kgen.files import check_writable, write_text
from kgen.platforms import qemu_kvm
from kgen.report.compare.forms import forms as comparison_forms
from kgen.report.formats import formats as report_formats
from kgen.run.follow import Progress
from kgen.spec import KernelSpec
from kgen.verdict.model import VerdictKind

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kgen runs machines on POSIX systems")

VERIFY = ("verify", "--instr", "xchg")
BUILD = ("build", "--instr", "xchg")


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments), prog_name="kgen")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


REFUSED = {
    "instruction": (["--instr", "xchgg"], "unknown instruction 'xchgg'; did you mean xchg?"),
    "instruction, nothing near": (["--instr", "??"], "unknown instruction '??'; known: "),
    "target": (["--target", "vga-tex"], "unknown target 'vga-tex'; did you mean vga-text?"),
    "target, nothing near": (["--target", "foo"], ", or an address such as 0xfed00108"),
    "experiment": (["--experiment", "tokn"], "unknown experiment 'tokn'; did you mean token?"),
    "width": (["--width", "24"], "xchg has no 24-bit form here; widths: "),
    "width, no number": (["--width", "wide"], "--width"),
    "two CPUs": (["--cpus", "2"], "2 CPUs asked for; the token experiment takes 3 to 255"),
    "too many CPUs": (["--cpus", "256"], "256 CPUs asked for; the token experiment takes 3 to 255"),
    "negative rounds": (["--rounds", "-1"], "-1 rounds asked for; give 1 to 4294967295, or 0"),
    "too many rounds": (["--rounds", "4294967296"], "4294967296 rounds asked for"),
    "negative time for the proof": (["--proof-seconds", "-1"], "a proof of -1 s; give 1 to 86400 seconds"),
    "more cells than values": (
        ["--width", "8", "--experiment", "chain", "--batch", "64"],
        "--batch 64; vga-text takes 1 to 63 cells",
    ),
    "no values for so many CPUs": (
        ["--width", "8", "--experiment", "chain", "--cpus", "254"],
        "a cell of 8 bits has too few values for 254 CPUs",
    ),
    "negative batch": (["--batch", "-4"], "--batch -4; vga-text takes 1 to "),
    "batch larger than the target": (["--batch", "100000"], "--batch 100000; vga-text takes 1 to "),
    "batch on one cell": (["--target", "0xfed00108", "--batch", "2"], "--batch 2; 0xfed00108 takes 1 to 1 "),
    "negative print-every": (["--print-every", "-1"], "--print-every -1; give 1 to"),
    "in the kernel": (["--target", "0x100000"], "address 0x100000 lies in the kernel's own memory; choose one outside"),
    "in low memory": (["--target", "0x8000"], "address 0x8000 lies in low memory"),
    "in the local APIC": (["--target", "0xfee00300"], "lies in the local APIC's page"),
    "in the I/O APIC": (["--target", "0xfec00000"], "lies in the I/O APIC"),
    "misaligned": (
        ["--target", "0xb8002"],
        "0xb8002 is not aligned; choose a multiple of 4; --offset moves the cell from it",
    ),
    "above 4 GiB": (["--target", "0x100000000"], "lies above 4 GiB"),
    "at the end of 4 GiB": (["--target", "0xfffffffc", "--offset", "1"], "address 0xfffffffd lies above 4 GiB"),
    "misaligned at the end of 4 GiB": (["--target", "0xfffffffe"], "0xfffffffe is not aligned"),
    "serial port": (["--serial-port", "COM1"], "'COM1' is not a number; write 1016 or 0x3f8"),
    "serial port, range": (["--serial-port", "0x10000"], "serial port 0x10000; give a multiple of 8"),
    "serial port of the interrupt controller": (
        ["--serial-port", "0x20"],
        "serial port 0x20 belongs to DMA, interrupt controllers, timer, keyboard and clock; give 0x3f8, 0x2f8, ",
    ),
    "serial port of the VGA": (["--serial-port", "0x3d0"], "serial port 0x3d0 belongs to the VGA"),
    "serial port of the VGA's extensions": (["--serial-port", "0x1c8"], "belongs to the VGA's extensions"),
    "serial port of PCI": (["--serial-port", "0xcf8"], "serial port 0xcf8 belongs to the PCI configuration"),
    "baud": (["--baud", "0"], "0 baud; give a divisor of 115200"),
    "poll": (["--poll", "never"], "--poll"),
    "option": (["--cpu", "3"], "did you mean"),
}


@pytest.mark.parametrize("command", ["build", "verify"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_makes_no_sense_is_refused(command: str, name: str, tmp_path: Path) -> None:
    arguments, words = REFUSED[name]
    given = arguments if "--instr" in arguments else ["--instr", "xchg", *arguments]
    code, stdout, stderr = invoke(command, *given, *(["-o", str(tmp_path / "out")] if command == "build" else []))
    assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert stderr.startswith("kgen: error: ")
    assert words in stderr.lower() if words == "did you mean" else words in stderr
    assert not list(tmp_path.iterdir())


VERIFY_REFUSED = {
    "platform": (["--platform", "qemu-tgc"], "unknown platform 'qemu-tgc'; did you mean qemu-tcg"),
    "expectation": (["--expect", "atomc"], "unknown verdict 'atomc'; did you mean ATOMIC"),
    "expectation, nothing near": (["--expect", "foo"], "unknown verdict 'foo'; known: ATOMIC, CRASH, "),
    "expectation and bisect": (["--expect", "known", "--exit-codes", "bisect"], "choose one"),
    "endless": (["--rounds", "0"], "--rounds 0 has no end"),
    "no time": (["--seconds", "0"], "'0' is not a time from 0.1 to"),
    "no time at all": (["--timeout", "nan"], "'nan' is not a time from 1 to"),
    "endless timeout": (["--timeout", "inf"], "'inf' is not a time"),
    "pin": (["--pin", "one"], "--pin 'one' names no CPUs; give host CPUs such as 0,2-3"),
    "nothing to pin to": (["--pin", ""], "--pin '' names no CPUs"),
    "daemon": (["--", "-daemonize"], "-daemonize: kgen must be able to watch and end QEMU"),
    "another stub": (["--", "-name", "gdb", "--gdb", "none"], "--gdb: the gdb stub is how kgen reads the machine"),
    "another stub, short": (["--", "-s"], "-s: the gdb stub is how kgen reads the machine"),
    "a QEMU that is not there": (["--qemu", "/no/such/qemu"], "--qemu /no/such/qemu: no such file"),
    "a QEMU that is nowhere": (["--qemu", "no-such-qemu"], "--qemu: there is no program 'no-such-qemu' in the PATH"),
    "no QEMU": (["--qemu", ""], "--qemu: there is no program ''"),
    "a QEMU that cannot be run": (["--qemu", __file__], f"--qemu {__file__}: is no program that may be run"),
    "a gdb that is not there": (["--gdb", "/no/such/gdb"], "--gdb /no/such/gdb: no such file"),
    "an inner QEMU that is not there": (
        ["--platform", "kvm-lab", "--inner-qemu", "/no/such/qemu"],
        "--inner-qemu /no/such/qemu: no such file",
    ),
    "modules that are none": (["--platform", "kvm-lab", "--modules", "/nope"], "/nope: is not a directory; give the"),
    "a Linux that is none": (["--platform", "kvm-lab", "--kernel", __file__], f"{__file__}: is not a bzImage"),
    "no machine": (["--machine", ""], "--machine: it names nothing; leave it out"),
    "graphics adapter": (["--vga", "virtoi"], "unknown graphics adapter 'virtoi'; did you mean virtio?"),
    "firmware": (["--firmware", "seabois"], "unknown firmware 'seabois'; did you mean seabios?"),
    "boot medium": (["--boot", "floppy"], "unknown boot medium 'floppy'; known: ahci, "),
    "a CPU model that is a number of CPUs": (
        ["--cpu", "16"],
        "--cpu 16: that is no CPU model; did you mean --cpus 16?",
    ),
    "no ELF for OVMF": (
        ["--firmware", "ovmf", "--boot", "kernel"],
        "--boot kernel: OVMF starts no ELF; give ide, ahci, nvme, usb, virtio or cdrom",
    ),
    "no disk for qboot": (["--firmware", "qboot", "--boot", "ide"], "--boot ide: qboot boots no disk; give --firmware"),
    "no PCI": (["--machine", "microvm", "--boot", "usb"], "--boot usb: microvm has no PCI; give kernel, or --machine"),
    "no choice": (
        ["--platform", "kvm-lab", "--vga", "std"],
        "--vga: kvm-lab offers no choice of it; there you may choose --machine, --cpu",
    ),
    "json nowhere": (["--json", ""], "it names nothing"),
    "json below a file": (["--json", f"{__file__}/x.json"], f"{__file__}/x.json: cannot be written: Not a directory"),
    "json in no directory": (["--json", "/no/such/place.json"], "/no/such/place.json: cannot be written: No such file"),
    "json is a directory": (["--json", "/"], "/: is a directory; name a file"),
}


@pytest.mark.parametrize("name", VERIFY_REFUSED)
def test_verify_refuses_before_anything_is_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, words = VERIFY_REFUSED[name]
    monkeypatch.setenv("PATH", "")  # whatever it started would fail otherwise
    code, stdout, stderr = invoke(*VERIFY, *arguments)
    assert (code, stdout, stderr.count("\n")) == (125 if "bisect" in arguments else 2, "", 1), stderr
    assert stderr.startswith("kgen: error: ")
    assert words in stderr


@pytest.mark.parametrize(
    ("words", "rounds", "seconds"),
    [
        ([], 10_000, 60),
        (["--rounds", "500"], 500, 0),
        (["--rounds", "500", "--proof-seconds", "7"], 500, 7),
        (["--proof-seconds", "7"], 10_000, 7),
        (["--proof-seconds", "0"], 10_000, 0),
        (["--rounds", "0"], 0, 60),
        (["--experiment", "chain", "--rounds", "0"], 0, 0),
    ],
)
def test_how_many_rounds_and_how_long_for_the_proof(
    tmp_path: Path, words: list[str], rounds: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[KernelSpec] = []

    def stop(spec: KernelSpec) -> None:
        asked.append(spec)
        raise SpecError("that is all that was to be known")

    monkeypatch.setattr("kgen.cli.build.build", stop)
    assert "that is all" in invoke(*BUILD, "-o", str(tmp_path), *words)[2]
    (spec,) = asked
    assert (spec.rounds, spec.proof_seconds, spec.rules) == (rounds, seconds, 2)


def test_what_was_asked_for_stands_in_the_manifest(tmp_path: Path) -> None:
    code, _, errors = invoke(*BUILD, "-o", str(tmp_path), "--rounds", "500", "--proof-seconds", "7")
    assert code == 0, errors
    spec = json.loads((tmp_path / "manifest.json").read_text())["spec"]
    assert (spec["rounds"], spec["proof_seconds"], spec["rules"]) == (500, 7, 2)


def test_a_suite_has_a_budget_for_its_proofs(tmp_path: Path) -> None:
    code, _, errors = invoke("build", "--suite", "smoke", "--proof-seconds", "7", "-o", str(tmp_path))
    assert code == 2
    assert "--proof-seconds is for one case" in errors
    code, _, errors = invoke("build", "--suite", "smoke", "-o", str(tmp_path))
    assert code == 0, errors
    assert json.loads((tmp_path / "manifest.json").read_text())["spec"]["proof_seconds"] == 0


def test_the_chain_is_listed_with_its_argument() -> None:
    code, text, _ = invoke("list", "experiments", "--json")
    assert code == 0
    (chain,) = [entry for entry in json.loads(text) if entry["name"] == "chain"]
    assert "one path" in " ".join(chain["argument"].split())
    assert "chain" in invoke("list", "experiments")[1]


def test_usage_errors_name_the_way_to_help() -> None:
    for command in ("verify", "build"):
        asked = "give --instr NAME or --suite NAME; 'kgen list instructions' shows what there is"
        assert invoke(command)[::2] == (2, f"kgen: error: {asked}; see 'kgen {command} --help'\n")
    assert invoke("inspect", "x")[2].endswith("; see 'kgen inspect --help'\n")
    assert invoke("build", "--instr", "xchg", "spare")[2].count("\n") == 1


def test_no_arguments_show_the_help() -> None:
    code, stdout, stderr = invoke()
    assert code in (0, 2)
    assert "Commands:" in stdout + stderr


@pytest.mark.parametrize("command", ["build", "doctor", "inspect", "verify"])
def test_help_is_grouped_and_has_examples(command: str) -> None:
    code, text, _ = invoke(command, "--help")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    if command == "verify":
        order = ["The case:", "The kernel:", "The run:", "Output:", "Options:", "Examples:", "Exit codes:"]
        assert [text.index(name) for name in order] == sorted(text.index(name) for name in order)
        assert "\n    kgen verify --instr xchg\n" in text
        assert text.count("--help") == 1


@pytest.mark.parametrize("command", ["report", "compare"])
def test_every_form_is_in_the_help(command: str) -> None:
    known = comparison_forms() if command == "compare" else report_formats()
    assert f"{', '.join(known)}." in " ".join(invoke(command, "--help")[1].split())


def test_every_verdict_is_in_the_help() -> None:
    text = invoke("verify", "--help")[1]
    for kind in VerdictKind:
        assert f"{kind.value} {kind.name}" in text


# --- outputs that cannot be written


def test_build_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        code, stdout, stderr = invoke(*BUILD, "-o", str(place))
        assert (code, stdout, stderr.count("\n")) == (2, "", 1)
        assert stderr.startswith(f"kgen: error: {place}: ")
        assert "choose another with -o" in stderr
    assert (file.read_text(), list(tmp_path.iterdir())) == ("mine", [file])


def test_build_writes_the_formats_that_were_asked_for(tmp_path: Path) -> None:
    """Lists and repeated options add up, a name said twice counts once, and nobody gets a raw image unasked."""
    code, stdout, stderr = invoke(*BUILD, "--format", "vmdk, qcow2", "--format", "vmdk", "-o", str(tmp_path))
    assert (code, stderr) == (0, "")
    names = ["kernel.elf", "kernel.elf-gdb.py", "kernel.qcow2", "kernel.s", "kernel.vmdk", "manifest.json"]
    assert [Path(line).name for line in stdout.splitlines()] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    digests = json.loads((tmp_path / "manifest.json").read_text())["files"]
    for name in names[:-1]:
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digests[name]


@pytest.mark.parametrize(
    ("formats", "words"),
    [
        ("vdx", "unknown image format 'vdx'; did you mean vhdx?"),
        ("img,VHD", "unknown image format 'VHD'; did you mean vhd?"),
        ("floppy", "unknown image format 'floppy'; known: efi, img, "),
        ("img,", "unknown image format ''; known: efi, img, "),
        ("", "unknown image format ''; known: efi, img, "),
    ],
)
def test_build_refuses_unknown_formats(formats: str, words: str, tmp_path: Path) -> None:
    code, stdout, stderr = invoke(*BUILD, "--format", "img", "--format", formats, "-o", str(tmp_path / "out"))
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert words in stderr
    assert not list(tmp_path.iterdir())


def test_build_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, stderr = invoke(*BUILD, "-o", "")
    assert (code, "it names nothing" in stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_build_where_nothing_can_be_made() -> None:
    assert invoke(*BUILD, "-o", "/proc/kernel")[0] == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_build_into_a_directory_of_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        code, _, stderr = invoke(*BUILD, "-o", str(tmp_path / "x"))
    finally:
        tmp_path.chmod(0o700)
    assert (code, stderr.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / ("n" * 250), tmp_path / "link"
    link.symlink_to(file)
    check_writable(link)
    assert list(tmp_path.iterdir()) == [link]
    write_text(link, "one")
    write_text(link, "two")
    assert (file.read_text(), link.is_symlink(), len(list(tmp_path.iterdir()))) == ("two", True, 2)
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "three\udc80")
    assert (file.read_text(), len(list(tmp_path.iterdir()))) == ("two", 2)


def test_a_device_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_writable(pipe)
        write_text(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    write_text(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()


def test_an_unwritable_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "file", Path(__file__) / "file", tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match="name a"):
            check_writable(path)


def test_who_may_read_a_file_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    write_text(file, "text")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("text", 0o600)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs names for open files")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_another_name_is_not_replaced(name: str, tmp_path: Path) -> None:
    code = "import sys, pathlib, kgen.files as f; p = pathlib.Path(sys.argv[1]); "
    code += "print('two', flush=True); f.check_writable(p); f.write_text(p, 'three'); print('four')"
    (tmp_path / "log").write_text("one\n")
    with (tmp_path / "log").open("ab") as log:
        subprocess.run([sys.executable, "-c", code, name], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "one\ntwo\nthreefour\n"
    with pytest.raises(OutputError, match="Bad file descriptor"):
        check_writable(Path("/dev/fd/99999"))


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    for write in (check_writable, lambda path: write_text(path, "text")):
        with pytest.raises(OutputError, match="cannot be written: Too many levels of symbolic links"):
            write(circle)
    assert (os.listdir(tmp_path), circle.is_symlink()) == (["circle"], True)


def test_pins() -> None:
    assert parse_cpus(None) == frozenset()
    assert parse_cpus("0,2-3, 5") == {0, 2, 3, 5}
    for text in ("", ",", "-", "1-", "-1", "3-1", "1-2-3", "a", "0x1", "1.5", "99999999999", "0-99999999", "²"):
        with pytest.raises(SpecError, match="names no CPUs"):
            parse_cpus(text)


# --- tools and platforms that are not there


def test_no_qemu_is_skip(tmp_path: Path) -> None:
    run = kgen(tmp_path / "tmp", *VERIFY, "--json", str(tmp_path / "r.json"), PATH=str(tmp_path))
    assert (run.process.returncode, run.stderr, run.stdout.count("\n")) == (8, "", 1)
    assert run.stdout.startswith("SKIP: qemu-tcg: qemu-system-i386 or qemu-system-x86_64 is not to be found; install ")
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["verdict"]["kind"], result["verdict"]["exit_code"]) == ("SKIP", 8)


def test_skip_can_be_expected_and_bisected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert invoke(*VERIFY, "--expect", "skip")[0] == 0
    assert invoke(*VERIFY, "--expect", "known")[::2] == (8, "kgen: expected ATOMIC, got SKIP\n")
    assert invoke(*VERIFY, "--exit-codes", "bisect")[0] == 125


def test_a_bad_request_does_not_make_a_revision_bad() -> None:
    """git bisect takes every exit code from 1 to 124 for a bad revision."""
    for wrong in (("--cpus", "2"), ("--qemu", "/not/built/qemu"), ("--cpu", "3"), ("--rounds", "many"), ("--rounds",)):
        for bisecting in (("--exit-codes", "bisect"), ("--exit-codes=bisect",)):
            code, _, stderr = invoke(*VERIFY, *bisecting, *wrong)
            assert (code, stderr.count("\n")) == (125, 1)
    assert invoke(*VERIFY, "--cpu", "3")[0] == 2
    for words in (("--no-such-option", *VERIFY), ("verfy", *VERIFY[1:])):
        assert invoke(*words, "--exit-codes", "bisect")[0] == 125
        assert invoke(*words)[0] == 2


def test_json_on_standard_output_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, stdout, stderr = invoke(*VERIFY, "--json", "-")
    assert code == 8
    assert json.loads(stdout)["verdict"]["kind"] == "SKIP"
    assert stderr.startswith("SKIP: ")


@pytest.mark.skipif(sys.platform != "linux", reason="KVM needs Linux")
@pytest.mark.boot
def test_kvm_that_is_absent_forbidden_or_no_kvm_is_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regular = tmp_path / "kvm"
    regular.touch()
    for device, words in ((tmp_path / "no", "there is no"), (regular, "makes no virtual machine: Inappropriate ioctl")):
        monkeypatch.setattr(qemu_kvm, "_DEVICE", str(device))
        code, stdout, stderr = invoke(*VERIFY, "--platform", "qemu-kvm")
        assert (code, stdout.count("\n"), stderr) == (8, 1, "")
        assert stdout.startswith("SKIP: qemu-kvm: ")
        assert words in stdout.replace("/dev/kvm", str(device)) or words in stdout


@pytest.mark.parametrize("command", [("doctor",), ("lab", "build"), ("inspect", __file__, "localhost:1")])
def test_a_tool_that_was_named_and_is_not_there_is_a_usage_error(command: tuple[str, ...]) -> None:
    for name in ("--gdb", "--qemu")[: 1 if command[0] == "inspect" else 2]:
        code, stdout, stderr = invoke(*command, name, "/no/such/tool")
        assert (code, stdout) == (2, "")
        assert stderr.startswith(f"kgen: error: {name} /no/such/tool: no such file")


def test_pieces_of_a_lab_are_checked_before_anything_is_downloaded() -> None:
    for arguments, words in (
        (("--modules", "/nope"), "/nope: is not a directory"),
        (("--kernel", __file__), "is not a bzImage"),
        (("--inner-qemu", "/nope"), "--inner-qemu /nope: no such file"),
    ):
        code, stdout, stderr = invoke("lab", "build", *arguments)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1)
        assert words in stderr


def test_the_live_line_fits_and_has_no_rate_at_once() -> None:
    progress = Progress("case:xchg.32@vga-text", None, 100, 1000, 2, (100, 50, 50, 0))
    assert live_line("xchg on qemu-tcg", progress, 0.001, 200) == (
        "xchg on qemu-tcg: case:xchg.32@vga-text  100 of 1000 rounds  violations 2"
    )
    assert "100 of 1000 rounds, 50/s  violations 2" in live_line("x", progress, 2.0, 200)
    for width in (1, 2, 10, 40, 80):
        assert len(live_line("xchg on qemu-tcg", progress, 2.0, width)) <= max(1, width - 3)


# --- files that are not ours


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("built")
    assert invoke(*BUILD, "-o", str(directory))[0] == 0
    return (directory / "kernel.elf").read_bytes()


def inspect(path: Path | str, *arguments: str) -> tuple[int, str]:
    code, stdout, stderr = invoke("inspect", str(path), "localhost:1", *arguments)
    assert (stdout, stderr.count("\n")) == ("", 1), stderr
    assert stderr.startswith("kgen: error: ")
    return code, stderr


def test_a_file_that_is_no_kernel_of_ours(tmp_path: Path, ours: bytes) -> None:
    files = {"empty": b"", "text": b"hello\n", "header only": ours[:52], "half": ours[: len(ours) // 2]}
    files["no program"] = b"\x7fELF" + bytes(200)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        code, line = inspect(tmp_path / name)
        assert (code, str(tmp_path / name) in line) == (2, True), line
        assert invoke("watch", "localhost:1", str(tmp_path / name)) == (2, "", line)
    code, line = inspect(sys.executable)
    assert (code, "not a kernel built by kgen" in line) == (2, True)


def test_a_kernel_cut_anywhere_is_refused(tmp_path: Path, ours: bytes) -> None:
    for length in range(0, len(ours), 997):
        (tmp_path / "cut").write_bytes(ours[:length])
        assert inspect(tmp_path / "cut")[0] == 2


def test_a_kernel_altered_anywhere_is_refused_or_as_it_was(tmp_path: Path, ours: bytes) -> None:
    """The build id covers what is loaded; what it does not cover must at least not make us stumble."""
    for position in range(7, len(ours), 499):
        (tmp_path / "altered").write_bytes(ours[:position] + bytes([ours[position] ^ 0x10]) + ours[position + 1 :])
        code, line = inspect(tmp_path / "altered")
        assert code in (2, 9), line


def test_files_that_cannot_be_read(tmp_path: Path, ours: bytes) -> None:
    assert inspect(tmp_path)[0] == 2
    code, line = inspect(tmp_path / "no.elf")
    assert (code, line) == (
        2,
        f"kgen: error: {tmp_path / 'no.elf'}: No such file or directory; name a file that can be read\n",
    )
    (tmp_path / "kernel.elf").write_bytes(ours)
    assert inspect(tmp_path / "kernel.elf", "--serial", str(tmp_path / "no.log"))[0] == 2
    assert inspect("/dev/zero")[0] == 2


def test_addresses_that_are_none(tmp_path: Path, ours: bytes) -> None:
    elf = tmp_path / "kernel.elf"
    elf.write_bytes(ours)
    witness = tmp_path / "witness"
    for address in (
        f"|touch {witness}",
        "nonsense",
        str(elf),
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        ":1",
    ):
        code, stdout, stderr = invoke("inspect", str(elf), address)
        assert (code, stdout, stderr.count("\n")) == (2, "", 1), stderr
        assert f"'{address}' is neither HOST:PORT nor a socket" in stderr
    assert not witness.exists()


# --- signals and speed


def test_a_terminated_build_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM in the middle of writing: no half-written file, no temporary directory, 128 + 15."""
    program = """
import os, signal, kgen.build
kept = kgen.build.listing
def listing(assembly):
    os.kill(os.getpid(), signal.SIGTERM)
    return kept(assembly)
kgen.build.listing = listing
from kgen.cli import main
main(["build", "--instr", "xchg", "-o", "out"], prog_name="kgen")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "kgen: ended by SIGTERM\n")
    assert not list((tmp_path / "out").iterdir())


def test_nohup_is_respected(tmp_path: Path) -> None:
    program = (
        "import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "import click, kgen.cli\n"
        "@kgen.cli.main.command('probe')\n"
        "def probe(): os.kill(os.getpid(), signal.SIGHUP); click.echo('alive')\n"
        "kgen.cli.main.get_command = lambda ctx, name: probe\n"
        "kgen.cli.main.list_commands = lambda ctx: ['probe']\n"
        "kgen.cli.main(['probe'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_the_systems_failures_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr("kgen.cli.build.build", full)
    code, _, stderr = invoke(*BUILD, "-o", str(tmp_path))
    assert (code, stderr) == (9, f"kgen: error: {tmp_path / 'x'}: No space left on device\n")


#: Something that happens just when a module is looked for.
_WHILE_IMPORTING = """
import os, signal, sys
from importlib.abc import MetaPathFinder

def interrupted():
    os.kill(os.getpid(), signal.SIGINT)

def too_little():
    raise MemoryError

class Trouble(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            {trouble}()

sys.meta_path.insert(0, Trouble())
from kgen.__main__ import run
run()
"""


def while_importing(module: str, trouble: str) -> tuple[int, str, str]:
    """What kgen comes to where that happens while the module is imported."""
    script = _WHILE_IMPORTING.format(module=module, trouble=trouble)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("module", ["click", "difflib"])
def test_ctrl_c_while_it_is_imported(module: str) -> None:
    """Of what the command line needs, and of what all of kgen needs."""
    assert while_importing(module, "interrupted") == (130, "", "kgen: interrupted\n")


def test_too_little_memory_for_the_imports() -> None:
    code, stdout, stderr = while_importing("click", "too_little")
    assert (code, stdout) == (9, "")
    assert stderr == "kgen: error: there is not enough memory to start; raise the limit (ulimit -v)\n"


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("kgen.cli.build.build", exhausted)
    code, stdout, stderr = invoke(*BUILD, "-o", str(tmp_path))
    assert (code, stdout) == (9, "")
    assert stderr.startswith("kgen: error: there is not enough memory for this; raise the limit (ulimit -v)")
    assert stderr.count("\n") == 1


def test_ctrl_c_while_it_builds(tmp_path: Path) -> None:
    with Run((*BUILD, "-o", str(tmp_path / "out"), "--cpus", "255"), tmp_path / "tmp") as run:
        time.sleep(0.25)
        run.process.send_signal(signal.SIGINT)
        code = run.wait()
    if code not in (130, -signal.SIGINT):  # it was faster
        assert code == 0
    assert not [path for path in tmp_path.glob("out/*") if path.name.startswith(".")]
    assert run.stderr.count("\n") <= 1 or code == -signal.SIGINT


def test_a_line_that_assert_one_line_accepts(tmp_path: Path) -> None:
    assert_one_line(kgen(tmp_path / "tmp", *VERIFY, "--cpus", "2"), 2, "2 CPUs", "3 to 255")


@pytest.mark.parametrize("command", ["verify", "gdb"])
@pytest.mark.parametrize("words", [("ram",), ("ram", "--", "-vga", "none"), ("--rounds", "5", "-", "--rounds", "6")])
def test_an_argument_that_no_dashes_precede_is_a_slip(command: str, words: tuple[str, ...]) -> None:
    code, stdout, stderr = invoke(command, "--instr", "xchg", *words)
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    assert stderr.startswith("kgen: error: ")
    assert f"unexpected argument '{words[0] if words[0] == 'ram' else '-'}'" in stderr
    assert "go after --" in stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("what", ["cases", "platforms"])
def test_standard_output_that_takes_nothing_is_one_line(what: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kgen", "list", what],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONUNBUFFERED=""),
            timeout=DEADLINE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (9, "kgen: error: standard output: No space left on device\n")
