"""The lines that a report gives for a result ask for the very same kernel, on the same machine."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NAMES, load
from shown import spec_of

from kgen.cli.build import COMMAND as BUILD
from kgen.cli.verify import COMMAND as VERIFY
from kgen.evidence.observation import Observation
from kgen.experiments import Poll
from kgen.report.reproduce.by_hand import machine_of
from kgen.report.reproduce.invocation import Chosen, chosen
from kgen.report.reproduce.steps import DIRECTORY, SUITE_FILE, kernel_words, ran_by_kgen, steps, suite_text
from kgen.report.results.model import Result, Run
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import BUILT_IN
from kgen.spec.suites import load as load_suite
from kgen.verdict.judge import judge
from kgen.verdict.model import VerdictKind

FULL = tuple(BUILT_IN["full"](3))


def parsed(words: tuple[str, ...]) -> tuple[KernelSpec, dict[str, Any]]:
    """What kgen's own command line makes of these words: the kernel, and all else that was asked."""
    name, command = words[1], {"verify": VERIFY, "build": BUILD}[words[1]]
    context = command.make_context(name, list(words[2:]))
    return spec_of(context), context.params


def run_of(spec: KernelSpec, invocation: tuple[str, ...] = (), platform: str = "qemu-tcg", **environment: Any) -> Run:
    recording = load("kvm-lost")
    seen: Observation = replace(recording.observed(), platform=platform, environment=environment)
    verdict = judge(recording.spec, recording.observed())
    results = tuple(
        Result("x.json", case.id, spec, number, seen, verdict, "0.1.0", invocation)
        for number, case in enumerate(spec.cases)
    )
    return Run("x.json", spec, platform, results)


def specs() -> st.SearchStrategy[KernelSpec]:
    return st.builds(
        KernelSpec,
        case=st.sampled_from(FULL),
        rounds=st.sampled_from([1, 10_000, 50_000, 0xFFFFFFFF]),
        controls=st.booleans(),
        poll=st.sampled_from(Poll),
        batch=st.sampled_from([0, 1]),
        print_every=st.sampled_from([0, 7]),
        serial_port=st.sampled_from([0x3F8, 0x2F8]),
        baud=st.sampled_from([115_200, 9600]),
    )


@given(spec=specs())
def test_the_lines_name_the_same_kernel(spec: KernelSpec) -> None:
    found = steps(run_of(spec))
    for words in (found.verify, found.build):
        # through a shell's eyes, as somebody will paste them
        again, _ = parsed(tuple(shlex.split(shlex.join(words))))
        assert again.digest() == spec.digest()


@pytest.mark.parametrize("cpus", [3, 4, 31])
@pytest.mark.parametrize("lock", [True, False])
def test_every_case_is_named(cpus: int, lock: bool) -> None:
    for case in BUILT_IN["full"](cpus):
        spec = KernelSpec(replace(case, lock=lock), rounds=5)
        assert parsed(("kgen", "build", *kernel_words(spec)[0]))[0] == spec


def suite(cases: tuple[Case, ...], name: str) -> KernelSpec:
    return KernelSpec(case=cases[0], more=cases[1:], suite=name, budget=30)


@pytest.mark.parametrize(
    ("cases", "name", "words"),
    [
        (load_suite("smoke")[1], "smoke", ("--suite", "smoke")),
        (load_suite("full")[1], "full", ("--suite", "full")),
        (load_suite("full", only=["xchg"], skip=["*.ram.*"])[1], "full", ("--suite", "full", "--only", "xchg")),
        (load_suite("full")[1][3:5], "full", ("--suite", "full", "--only")),
        (load_suite("full")[1][:1], "full", ("--suite", "full", "--only")),
        (tuple(reversed(load_suite("smoke")[1])), "smoke", ("--suite", f"./{SUITE_FILE}")),
        (FULL[:40], "my-own", ("--suite", f"./{SUITE_FILE}")),
        ((Case("xchg", lock=False, target="0xfed00108"), Case("cmpxchg8b", offset=63)), "x", ("--suite",)),
    ],
)
def test_a_suite_is_named_or_written_down(
    cases: tuple[Case, ...], name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = suite(cases, name)
    choice = Chosen(patterns=(("--only", "xchg"), ("--skip", "*.ram.*")))
    given_words, text = kernel_words(spec, choice)
    assert given_words[: len(words)] == words
    assert bool(text) is (f"./{SUITE_FILE}" in given_words)
    if text:
        monkeypatch.chdir(tmp_path)
        Path(SUITE_FILE).write_text(text)
    assert parsed(("kgen", "verify", *given_words))[0] == spec


@settings(max_examples=20)
@given(cases=st.lists(st.sampled_from(FULL), min_size=1, max_size=9, unique=True))
def test_any_suite_can_be_had_again(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    spec = suite(tuple(cases), "full")
    path = tmp_path_factory.mktemp("suite") / SUITE_FILE
    path.write_text(suite_text(spec))
    assert load_suite(str(path)) == ("full", spec.cases)


CHOICES = {
    "--machine": "q35,accel=x y",
    "--vga": "virtio",
    "--firmware": "/a b/OVMF.fd",
    "--cpu": "EPYC",
    "--boot": "usb",
    "--qemu": "./qemu it's",
    "--gdb": "gdb-multiarch",
    "--pin": "0,2-3",
    "--timeout": "30",
    "--kernel": "bzImage",
    "--release": "bullseye",
    "--linux": "6.12",
}


@pytest.mark.parametrize("equals", [True, False])
def test_what_was_chosen_of_the_machine_stays(equals: bool) -> None:
    pairs = [[f"{name}={value}"] if equals else [name, value] for name, value in CHOICES.items()]
    words = [
        "kgen",
        "verify",
        "--stop-on-violation",
        "--instr",
        "xchg",
        "--json",
        "-",
        *(word for pair in pairs for word in pair),
        "--keep",
    ]
    words += ["--exit-codes", "bisect", "--expect", "ATOMIC", "--", "-device", "edu"]
    found = steps(run_of(KernelSpec(Case("xchg")), tuple(words), "qemu-kvm"))
    _, values = parsed(tuple(shlex.split(shlex.join(found.verify))))
    assert values["platform"] == "qemu-kvm"
    assert values["qemu_args"] == ("-device", "edu")
    names = {name: name.lstrip("-").replace("-", "_") for name in CHOICES}
    given_back = {name: values.get(key) for name, key in names.items()}
    assert {name: str(value).removesuffix(".0") for name, value in given_back.items()} == CHOICES
    assert not values["stop_on_violation"]
    assert not values["keep"]
    assert (values["json_file"], values["exit_codes"], values["expect"]) == (None, "verdict", None)
    assert any("--firmware and --qemu" in note for note in found.notes)


@pytest.mark.parametrize(
    ("prepare", "lines"),
    [
        (["kgen", "lab", "build", "qemu", "--release", "bull seye"], ("kgen lab build qemu --release 'bull seye'",)),
        (["rm", "-rf", "/"], ()),
        (["kgen", "lab", "build", "a\nb"], ()),
        (["kgen", "lab", "build", 5], ()),
        ("kgen lab build", ()),
        (None, ()),
    ],
)
def test_the_lab_is_made_first(prepare: object, lines: tuple[str, ...]) -> None:
    """Whatever a damaged result names, nothing else becomes a command."""
    run = run_of(KernelSpec(Case("xchg")), ("kgen", "verify", "--release", "bull"))
    first = run.results[0]
    environment = {**first.observation.environment, "prepare": prepare}
    seen = replace(first.observation, environment=environment)
    found = steps(replace(run, results=(replace(first, observation=seen),)))
    assert found.with_kgen[:-1] == lines
    assert found.with_kgen[-1].startswith("kgen verify ")


def test_the_lab_that_was_used_last_is_named() -> None:
    run = run_of(KernelSpec(Case("xchg")), ("kgen", "verify", "--platform", "xen-lab"), platform="xen-lab")
    first = run.results[0]
    prepare = ["kgen", "lab", "build", "xen", "--release", "trixie", "--rebuild", "x"]
    seen = replace(first.observation, environment={**first.observation.environment, "prepare": prepare})
    found = steps(replace(run, results=(replace(first, observation=seen),)))
    assert found.verify[-2:] == ("--release", "trixie")
    assert found.lab == tuple(prepare)


def test_a_run_without_an_end_gets_one() -> None:
    spec = KernelSpec(Case("xchg"), rounds=0)
    _, values = parsed(steps(run_of(spec)).verify)
    assert values["seconds"] == 60
    _, values = parsed(steps(run_of(spec, ("kgen", "verify", "--seconds", "2.5"))).verify)
    assert values["seconds"] == 2.5


@pytest.mark.parametrize("platform", ["serial-log", "memory-dump", "result-code", "stub at localhost:1234", "a\nb", ""])
def test_what_kgen_did_not_run_is_run_by_hand(platform: str) -> None:
    assert not ran_by_kgen(platform)
    found = steps(run_of(KernelSpec(Case("xchg")), platform=platform))
    assert (found.verify, found.with_kgen, found.machine) == ((), (), None)
    assert found.by_hand[0].startswith("kgen build --instr xchg ")
    assert found.by_hand[-1].startswith("kgen judge ")


def test_where_nobody_knows_what_was_asked_nothing_is_made_up() -> None:
    run = replace(run_of(KernelSpec(Case("xchg"))), spec=None)
    found = steps(run)
    assert (found.with_kgen, found.by_hand) == ((), ())
    assert "does not hold its request" in found.notes[0]


COMMAND = [
    *("/opt/q/qemu-system-x86_64", "-accel", "kvm", "-no-reboot", "-no-shutdown", "-smp", "4", "-vga", "std"),
    *("-kernel", "/tmp/kgen-1/kernel.elf", "-append", "attend=0x1", "-S", "-device", "pc-testdev"),
    *("-chardev", "socket,id=kgen-serial,fd=6", "-device", "isa-serial,iobase=0x2f8,chardev=kgen-serial"),
    *("-chardev", "socket,id=kgen-qmp,fd=8", "-qmp", "chardev:kgen-qmp"),
    *("-chardev", "socket,id=kgen-gdb,fd=9,server=on,wait=off", "-gdb", "chardev:kgen-gdb"),
]


def machine(command: Any, **more: Any) -> list[str]:
    found = machine_of({"command": command}, directory=DIRECTORY, log="l", cpus=5, seconds=60, **more)
    return list(found.words) if found else []


def test_the_command_by_hand_has_no_channel_of_ours() -> None:
    assert shlex.join(machine(COMMAND)) == (
        "qemu-system-x86_64 -accel kvm -no-reboot -smp 4 -vga std -kernel kgen-repro/kernel.elf -device pc-testdev "
        "-chardev file,id=kgen-serial,path=l -device isa-serial,iobase=0x2f8,chardev=kgen-serial "
        "-append isa-debug-exit=0xf4 -device isa-debug-exit,iobase=0xf4,iosize=0x4"
    )


def test_a_disk_is_ours_too() -> None:
    words = ["qemu", "-drive", "if=none,id=kgen-boot,format=raw,file=/t,,mp/kernel.iso,readonly=on", "-smp", "3"]
    assert machine(words, image="kernel.iso", program="./mine") == [
        *("./mine", "-drive", "if=none,id=kgen-boot,format=raw,file=kgen-repro/kernel.iso,readonly=on", "-smp", "3")
    ]


@pytest.mark.parametrize("command", [None, 3, "qemu", [], {}, [None], ["bochs", "-q"], [["qemu"]], ["\x1bqemu"]])
def test_a_command_that_is_none_is_left_out(command: Any) -> None:
    assert machine(command) == []


@given(words=st.lists(st.one_of(st.text(max_size=9), st.none(), st.integers(), st.sampled_from(COMMAND)), max_size=9))
def test_any_command_makes_one_line(words: list[Any]) -> None:
    found = machine_of({"command": ["qemu", *words]}, directory=DIRECTORY, log="l", cpus=3, seconds=60)
    assert found is not None
    assert "\n" not in found.line
    assert shlex.split(found.line)[2:-2] == list(found.words)


@given(words=st.lists(st.text(max_size=12), max_size=9))
def test_any_command_line_is_read(words: list[str]) -> None:
    assert chosen(("kgen", "judge", *words)) == Chosen()
    found = chosen(("kgen", "verify", *words))
    assert all(word.isprintable() for word in (*found.extra, *found.options.values()))


@pytest.mark.parametrize("name", NAMES)
def test_the_exit_code_is_told(name: str) -> None:
    recording = load(name)
    seen = recording.observed()
    verdicts = [judge(recording.spec, seen, number) for number in range(len(recording.spec.cases))]
    results = tuple(
        Result("x", case.id, recording.spec, number, seen, verdict, "0")
        for number, (case, verdict) in enumerate(zip(recording.spec.cases, verdicts, strict=True))
    )
    found = steps(Run("x", recording.spec, recording.platform, results))
    code = int(found.with_kgen[-1].rpartition("exit code ")[2].partition(":")[0])
    assert VerdictKind(code) is found.kind
