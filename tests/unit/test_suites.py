"""Suites: the built-in ones hold what they must, written out here once more; files and patterns, good and bad."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kgen.errors import SpecError
from kgen.experiments import experiments
from kgen.instructions import Source, instructions
from kgen.spec import KernelSpec
from kgen.spec.case import MAX_CPUS, Case, resolve_target
from kgen.spec.suites import BUILT_IN, DEFAULT_BUDGET, load
from kgen.targets import targets

#: What may carry a LOCK prefix (SDM volume 2A, LOCK) in 32-bit code: operand widths by the other operand's source.
USUAL = (8, 16, 32)
LOCKABLE: dict[str, dict[str, tuple[int, ...]]] = {
    **{name: {"reg": USUAL, "imm": USUAL} for name in ("adc", "add", "and", "or", "sbb", "sub", "xor")},
    **{name: {"reg": (16, 32), "imm": (16, 32)} for name in ("btc", "btr", "bts")},
    **{name: {"none": USUAL} for name in ("dec", "inc", "neg", "not")},
    **{name: {"reg": USUAL} for name in ("cmpxchg", "xadd", "xchg")},
    "cmpxchg8b": {"none": (64,)},
}
#: The strongest experiment of each instruction. It is its own, but for those that exchange.
BEST = {
    "chain": ("xchg", "cmpxchg", "cmpxchg8b"),
    "counter": ("add", "sub", "inc", "dec", "xadd"),
    "own-bits": ("adc", "and", "btc", "btr", "bts", "or", "sbb", "xor"),
    "parity": ("neg", "not"),
}
OWN = {"chain": "token"}
#: What takes an experiment that is not its strongest one.
BESIDE = {
    "token": ("btr", "bts", "cmpxchg", "cmpxchg8b", "xchg"),
    "counter": ("adc", "cmpxchg", "cmpxchg8b", "sbb"),
    "mutex": ("btr", "bts", "cmpxchg", "cmpxchg8b", "xchg"),
    "own-bits": ("add", "sub", "xadd"),
    "parity": ("btc", "xor"),
    "torn": ("mov",),
}
EVERYWHERE = ("xchg", "xadd", "cmpxchg")
BOTH = ("vga-text", "pc-testdev")


def best(name: str) -> str:
    return next(experiment for experiment, names in BEST.items() if name in names)


def ident(name: str, width: int, target: str, experiment: str, source: str = "", offset: int = 0) -> str:
    parts = [name, str(width), target, experiment]
    parts += ["imm"] if source == "imm" else []
    parts += [f"+{offset}"] if offset else []
    return ".".join(parts)


def full() -> set[str]:
    """The full suite's ids."""
    found = {
        ident(name, width, target, best(name), source)
        for target in BOTH
        for name, sources in LOCKABLE.items()
        for source, widths in sources.items()
        for width in widths
    }
    # within a line, across a line, across a page
    alignments = {16: (1, 63, 4095), 32: (1, 62, 4094)}
    found |= {
        ident(name, width, target, best(name), offset=offset)
        for target, name in itertools.product(BOTH, EVERYWHERE)
        for width, offsets in alignments.items()
        for offset in offsets
    }
    others = {name: (32,) if name in ("edu", "hpet", "ioapic") else USUAL for name in targets() if name not in BOTH}
    found |= {
        ident(name, width, target, best(name))
        for name in EVERYWHERE
        for target, widths in others.items()
        for width in widths
    }
    found |= {
        ident(name, 64 if name == "cmpxchg8b" else 32, "vga-text", experiment)
        for experiment, names in BESIDE.items()
        for name in names
    }
    return found


def ids(name: str = "full", **options: object) -> list[str]:
    return [case.id for case in load(name, **options)[1]]  # type: ignore[arg-type]


def test_the_tables_above_are_the_registries() -> None:
    assert set(LOCKABLE) == {name for name, entry in instructions().items() if entry.lockable}
    for name, sources in LOCKABLE.items():
        entry = instructions()[name]
        assert {source.value: tuple(sorted(widths)) for source, widths in entry.opcodes.items()} == sources
        assert entry.experiment == OWN.get(best(name), best(name))
    takes = {
        experiment: {name for name, each in instructions().items() if experiments()[experiment].offered(each)}
        for experiment in experiments()
    }
    assert takes == {name: set(BEST.get(name, ())) | set(BESIDE.get(name, ())) for name in experiments()}


def test_the_full_suite_is_the_whole_product() -> None:
    title, cases = load("full")
    assert title == "full"
    assert len({case.id for case in cases}) == len(cases)
    assert {case.id for case in cases} == full()
    assert all(case.lock and case.cpus == 3 for case in cases)


def test_every_target_instruction_and_experiment_is_in_the_full_suite() -> None:
    _, cases = load("full")
    assert {case.target for case in cases} == set(targets())
    assert {case.instruction for case in cases} == set(instructions())
    assert {case.experiment for case in cases} == set(experiments())


def test_own_bits_are_left_out_where_there_are_more_cpus_than_bits() -> None:
    cases = load("full", cpus=9)[1]
    assert not [case.id for case in cases if case.experiment == "own-bits" and case.width < 9]
    plain = {(case.instruction, case.width, case.source, case.target) for case in load("full")[1] if not case.offset}
    left = {(case.instruction, case.width, case.source, case.target) for case in cases if not case.offset}
    gone = {(name, 8, source, target) for name in ("and", "or") for source in ("reg", "imm") for target in BOTH}
    assert plain - left == gone
    assert left <= plain
    # what has a second experiment is tried in that
    narrow = {case.instruction: case.experiment for case in cases if case.width == 8}
    assert [narrow[name] for name in ("adc", "sbb", "xor", "add")] == ["counter", "counter", "parity", "counter"]
    assert {case.cpus for case in cases} == {9}


def test_there_is_a_full_suite_for_any_number_of_cpus() -> None:
    for cpus in (3, 8, 9, 16, 17, 32, 33, MAX_CPUS):
        for name in BUILT_IN:
            title, cases = load(name, cpus=cpus)
            assert {case.cpus for case in cases} == {cpus}
            assert all(case.width >= cpus for case in cases if case.experiment == "own-bits")
            KernelSpec(cases[0], more=cases[1:], suite=title, budget=1)


def test_suites_use_the_strongest_experiment_that_takes_a_form() -> None:
    """With as many CPUs as 8 bits have no values for, that is the token again, and what rests on it."""
    for cpus, strongest in ((3, "chain"), (253, "chain"), (254, "token"), (MAX_CPUS, "token")):
        cases = load("full", cpus=cpus, only=["xchg.8.*", "cmpxchg.8.*"])[1]
        assert {case.experiment for case in cases} == {strongest}
    wide = load("full", cpus=MAX_CPUS, only=["xchg.16.*", "cmpxchg8b.*.pc-testdev.*"])[1]
    assert {case.experiment for case in wide} == {"chain"}


def test_the_smoke_suite_is_a_part_of_the_full_one() -> None:
    assert ids("smoke") == [
        "xchg.32.vga-text.chain",
        "xadd.32.vga-text.counter",
        "cmpxchg.32.vga-text.chain",
        "cmpxchg8b.64.vga-text.chain",
        "add.32.vga-text.counter",
        "or.32.vga-text.own-bits",
        "not.32.vga-text.parity",
        "xchg.8.pc-testdev.chain",
        "xchg.32.vga-text.chain.+62",
        "xchg.32.framebuffer.chain",
    ]
    assert set(ids("smoke")) <= set(ids("full"))


def test_every_built_in_suite_has_its_budget() -> None:
    assert set(DEFAULT_BUDGET) == set(BUILT_IN)


def test_every_case_fits_its_target() -> None:
    for case in load("full")[1]:
        target = resolve_target(case.target)
        assert case.width in target.widths
        assert case.offset + case.width // 8 <= target.reach
        assert Source(case.source) in instructions()[case.instruction].sources


# --- patterns


@pytest.mark.parametrize(
    ("only", "skip", "expected"),
    [
        (["xchg.32.vga-text.chain"], [], {"xchg.32.vga-text.chain", "xchg.32.vga-text.chain.+62"}),
        (["cmpxchg8b"], [], {"cmpxchg8b.64.vga-text.chain"}),
        (["xchg"], ["*.+62"], {"xchg.32.vga-text.chain", "xchg.8.pc-testdev.chain", "xchg.32.framebuffer.chain"}),
        (["*.parity", "or"], [], {"not.32.vga-text.parity", "or.32.vga-text.own-bits"}),
        (["*.pc-testdev.*"], [], {"xchg.8.pc-testdev.chain"}),
        (["x[ac]*.8", "add.??"], [], {"xchg.8.pc-testdev.chain", "add.32.vga-text.counter"}),
    ],
)
def test_patterns(only: list[str], skip: list[str], expected: set[str]) -> None:
    assert set(ids("smoke", only=only, skip=skip)) == expected


def test_a_pattern_does_not_match_the_beginning_of_a_word() -> None:
    """``cmpxchg`` is not ``cmpxchg8b``, and ``xchg`` is neither."""
    assert {name.partition(".")[0] for name in ids(only=["cmpxchg"])} == {"cmpxchg"}
    assert {name.partition(".")[0] for name in ids(only=["xchg"])} == {"xchg"}


def test_order_is_the_suites() -> None:
    everything = ids()
    assert ids(only=["xadd", "xchg"]) == [name for name in everything if name.split(".")[0] in ("xadd", "xchg")]
    assert ids(skip=["xadd"]) == [name for name in everything if not name.startswith("xadd.")]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"only": ["xchgg"]}, "no case of suite smoke matches 'xchgg'"),
        ({"only": ["xchg", "nop"]}, "no case of suite smoke matches 'nop'"),
        ({"skip": ["sub"]}, "no case of suite smoke matches 'sub'"),
        ({"skip": ["*"]}, "nothing is left of suite smoke"),
        ({"only": ["xadd"], "skip": ["xadd.32"]}, "nothing is left of suite smoke"),
        ({"only": [""]}, "no case of suite smoke matches ''"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(options: dict[str, list[str]], complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        load("smoke", **options)  # type: ignore[arg-type]
    assert complaint in caught.value.line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "complaint"), [("smok", "did you mean smoke?"), ("everything", "known: ")])
def test_an_unknown_suite(name: str, complaint: str) -> None:
    with pytest.raises(SpecError, match="unknown suite") as caught:
        load(name)
    assert complaint in caught.value.line
    assert "FILE.toml" in caught.value.line or "smoke" in caught.value.line


# --- files


def written(directory: Path, text: str, name: str = "mine.toml") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        name = "my-own"

        [[case]]
        instr = "xchg"
        width = [8, 16]
        target = ["ram", "vga-text"]

        [[case]]
        instr = ["add", "or"]
        source = "imm"
        lock = false
        offset = 1

        [[case]]
        instr = "bts"
        experiment = "mutex"
        target = "0xfed00108"
        """,
    )
    title, cases = load(path, cpus=4)
    assert title == "my-own"
    assert cases == (
        Case("xchg", 8, target="ram", cpus=4),
        Case("xchg", 8, target="vga-text", cpus=4),
        Case("xchg", 16, target="ram", cpus=4),
        Case("xchg", 16, target="vga-text", cpus=4),
        Case("add", source="imm", lock=False, offset=1, cpus=4),
        Case("or", source="imm", lock=False, offset=1, cpus=4),
        Case("bts", experiment="mutex", target="0xfed00108", cpus=4),
    )
    assert ids(path, only=["xchg.8"]) == ["xchg.8.ram.token", "xchg.8.vga-text.token"]


def test_a_file_without_a_name_is_called_like_it(tmp_path: Path) -> None:
    assert load(written(tmp_path, '[[case]]\ninstr = "xchg"', "nightly.toml"))[0] == "nightly"
    assert load(written(tmp_path, 'name = ""\n[[case]]\ninstr = "xchg"', "nightly"))[0] == "nightly"


@pytest.mark.parametrize("name", ["my own", "a;b", 'a"b', "a\n", "ü", "a" * 65, "%s"])
def test_a_name_that_cannot_stand_in_a_log(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be a suite's name"):
        KernelSpec(Case("xchg"), suite=name, budget=1)
    assert KernelSpec(Case("xchg"), suite="A-b_c.9", budget=1).name == "suite:A-b_c.9"


def test_what_a_file_says_twice_is_run_once(tmp_path: Path) -> None:
    path = written(tmp_path, '[[case]]\ninstr = ["xchg", "XCHG"]\n[[case]]\ninstr = "xchg"\ntarget = "vga-text"')
    assert ids(path) == ["xchg.32.vga-text.token"]


BAD = {
    "no TOML": ("instr: xchg", "is not TOML: "),
    "empty": ("", "holds no [[case]]"),
    "no case": ('name = "x"', "holds no [[case]]"),
    "case is a table": ('[case]\ninstr = "xchg"', "holds no [[case]]"),
    "case is a number": ("case = 3", "holds no [[case]]"),
    "name is a number": ('name = 3\n[[case]]\ninstr = "xchg"', "a suite is a name and [[case]] tables"),
    "stray key": ('nam = "x"\n[[case]]\ninstr = "xchg"', "unknown key 'nam'"),
    "no instruction": ("[[case]]\nwidth = 8", ": case 1: has no instr; keys: instr, width, lock, target"),
    "stray key in a case": ('[[case]]\ninstr = "xchg"\ncpus = 4', ": case 1: unknown key 'cpus'"),
    "text for a number": ('[[case]]\ninstr = "xchg"\nwidth = "8"', ": case 1: width is not of type int"),
    "truth for a number": ('[[case]]\ninstr = "xchg"\noffset = true', "offset is not of type int"),
    "number for truth": ('[[case]]\ninstr = "xchg"\nlock = 1', "lock is not of type bool"),
    "number for a name": ("[[case]]\ninstr = 3", "instr is not of type str"),
    "mixed list": ('[[case]]\ninstr = "xchg"\nwidth = [8, "16"]', "width is not of type int"),
    "empty list": ("[[case]]\ninstr = []", "instr is not of type str"),
    "unknown instruction": (
        '[[case]]\ninstr = "xchg"\n[[case]]\ninstr = "xchgg"',
        ": case 2: unknown instruction 'xchgg'",
    ),
    "unknown target": ('[[case]]\ninstr = "xchg"\ntarget = "vga"', "unknown target 'vga'"),
    "width": ('[[case]]\ninstr = "bts"\nwidth = 8', "bts has no 8-bit form here; widths: 16, 32"),
    "experiment": ('[[case]]\ninstr = "or"\nexperiment = "token"', "token with or.32: it takes what can exchange"),
    "offset": (
        '[[case]]\ninstr = "xchg"\ntarget = "hpet"\noffset = 5',
        "offset 5 leaves hpet; give 0 to 4 for 32 bits",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_says_what_is_wrong_and_where(name: str, tmp_path: Path) -> None:
    text, complaint = BAD[name]
    path = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.line.startswith(path)
    assert complaint in caught.value.line
    assert "\n" not in caught.value.line
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path, complaint in (
        (tmp_path / "missing.toml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "binary.toml", "is not TOML"),
    ):
        with pytest.raises(SpecError, match=complaint) as caught:
            load(str(path))
        assert caught.value.line.startswith(str(path))
