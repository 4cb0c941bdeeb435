"""What a request may say, and what each wrong one is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import SpecError
from kgen.experiments import Poll
from kgen.instructions import instructions
from kgen.spec.case import MAX_CPUS, MIN_CPUS, Case, alignment, resolve_target, room, stride
from kgen.spec.kernel_spec import MAX_BUDGET, MAX_ROUNDS, OLD_RULES, RULES, KernelSpec


def test_ids_leave_defaults_out() -> None:
    assert Case("xchg").id == "xchg.32.vga-text.token"
    assert Case("xchg", lock=False, target="ram", cpus=5).id == "xchg.32.ram.token.nolock.cpus5"
    assert Case("xchg", target="0xB8000").id == "xchg.32.0xb8000.token"


def test_one_case_has_one_digest_however_it_is_written() -> None:
    for one, other in (
        (Case("xchg", target="0XB8000"), Case("xchg", target="0xb8000")),
        (Case("xchg", target="0x0b8000"), Case("xchg", target="0xb8000")),
        (Case("XCHG", target="VGA-Text", experiment="Token"), Case("xchg")),
    ):
        assert KernelSpec(one) == KernelSpec(other)
        assert KernelSpec(one).digest() == KernelSpec(other).digest()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"instruction": "xchgg"}, "unknown instruction 'xchgg'; did you mean xchg?"),
        ({"instruction": "nop"}, "unknown instruction 'nop'; known:"),
        ({"target": "vga-txt"}, "unknown target 'vga-txt'; did you mean vga-text"),
        ({"experiment": "tokens"}, "did you mean token?"),
        ({"width": 24}, "xchg has no 24-bit form here"),
        ({"cpus": 2}, "2 CPUs asked for"),
        ({"cpus": 256}, "256 CPUs asked for"),
        ({"target": "0x100000"}, "the kernel's own memory"),
        ({"target": "0xffffc"}, None),
        ({"target": "0x0"}, "low memory"),
        ({"source": "imm"}, "xchg has no form with source 'imm'"),
        (
            {"experiment": "own-bits"},
            "own-bits with xchg.32: it takes what can lane; experiments that fit: chain, mutex, token",
        ),
        ({"instruction": "or", "width": 8, "cpus": 9}, "8 bits are too few for 9 CPUs; give fewer --cpus"),
        ({"instruction": "xor", "width": 8, "cpus": 9}, "too few for 9 CPUs; experiments that fit: parity"),
        ({"offset": -1}, "offset -1 leaves vga-text; give 0 to 32764 for 32 bits"),
        ({"offset": 32765}, "offset 32765 leaves vga-text"),
        ({"offset": 32764}, None),
        ({"target": "hpet", "offset": 5}, "offset 5 leaves hpet; give 0 to 4 for 32 bits"),
        ({"target": "ioapic", "offset": 1}, "offset 1 leaves ioapic; give 0 to 0 for 32 bits"),
        ({"instruction": "cmpxchg8b", "target": "ioapic"}, "ioapic has no cell of 64 bits; choose a smaller --width"),
        ({"target": "0xfebffff0", "offset": 13}, "the I/O APIC"),
        ({"target": "0xfee00300"}, "local APIC"),
        ({"target": "0xfec00010"}, "I/O APIC"),
        ({"target": "0xb8002"}, "not aligned"),
        ({"target": "0x100000000"}, "above 4 GiB"),
        ({"target": "0xfffffffd"}, "not aligned"),
        ({"target": "0xfffffffc"}, None),
        ({"target": "0xfffffffc", "offset": 1}, "address 0xfffffffd lies above 4 GiB"),
    ],
)
def test_cases(fields: dict[str, Any], complaint: str | None) -> None:
    wanted = {"instruction": "xchg"} | fields
    if complaint is None:
        Case(**wanted)
        return
    with pytest.raises(SpecError) as caught:
        Case(**wanted)
    assert complaint in caught.value.line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"rounds": -1},
        {"rounds": MAX_ROUNDS + 1},
        {"print_every": -1},
        {"batch": -1},
        {"batch": 257},
        {"serial_port": 0},
        {"serial_port": 0x3F9},
        {"serial_port": 0x10000},
        {"baud": 0},
        {"baud": -9600},
        {"baud": 7},
        {"baud": 230_400},
        {"baud": 1},
        {"budget": -1, "suite": "mine"},
        {"budget": MAX_BUDGET + 1, "suite": "mine"},
        {"proof_seconds": -1},
        {"proof_seconds": MAX_BUDGET + 1},
        {"rules": 0},
        {"rules": RULES + 1},
        {"rules": OLD_RULES, "proof_seconds": 60},
    ],
)
def test_kernel_specifications_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        KernelSpec(Case("xchg"), **fields)
    assert str(next(iter(fields.values()))) in caught.value.line or "serial port" in caught.value.line


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"budget": 5}, "a suite has a name and a budget"),
        ({"suite": "mine"}, "a suite has a name and a budget"),
        ({"more": (Case("add"),)}, "a suite has a name and a budget"),
        ({"suite": "mine", "budget": 5, "rounds": 0}, "a suite cannot run for ever"),
        ({"suite": "mine", "budget": 5, "more": (Case("add", cpus=4),)}, "different numbers of CPUs"),
        ({"suite": "mine", "budget": 5, "more": (Case("add"), Case("xchg"))}, "has xchg.32.vga-text.token twice"),
        ({"suite": "mine", "budget": 5, "batch": 2, "more": (Case("add", target="edu"),)}, "--batch 2"),
    ],
)
def test_suites_that_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError) as caught:
        KernelSpec(Case("xchg"), **fields)
    assert complaint in caught.value.line
    assert caught.value.exit_code == 2


def test_what_is_left_out_is_the_instructions_own() -> None:
    for name, entry in instructions().items():
        case = Case(name)
        assert case == Case(name, width=case.width, experiment=entry.experiment, source=entry.sources[0].value)
        assert case.width == (32 if 32 in entry.widths else 64)
        assert KernelSpec(case).digest() == KernelSpec(Case(name, width=0, experiment="", source="")).digest()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case("cmpxchg8b"), "cmpxchg8b.64.vga-text.token"),
        (Case("ADD", 8, source="IMM", offset=3, target="ram"), "add.8.ram.counter.imm.+3"),
        (Case("or", lock=False, cpus=9), "or.32.vga-text.own-bits.nolock.cpus9"),
        (Case("not", 16, source="none"), "not.16.vga-text.parity"),
        (Case("bts", experiment="mutex", offset=1), "bts.32.vga-text.mutex.+1"),
    ],
)
def test_ids_of_every_kind(case: Case, expected: str) -> None:
    assert case.id == expected


@pytest.mark.parametrize(
    ("width", "offset", "lies", "distance"),
    [
        (8, 0, "aligned", 4),
        (8, 63, "aligned", 4),
        (16, 1, "misaligned", 64),
        (16, 63, "line", 64),
        (16, 4095, "page", 4096),
        (32, 0, "aligned", 4),
        (32, 62, "line", 64),
        (32, 4093, "page", 4096),
        (64, 0, "aligned", 8),
        (64, 4, "misaligned", 64),
        (64, 60, "line", 64),
    ],
)
def test_how_cells_lie(width: int, offset: int, lies: str, distance: int) -> None:
    target = resolve_target("ram")
    assert (alignment(target, offset, width), stride(target, offset, width)) == (lies, distance)
    for number in range(room(target, offset, width)):
        at = offset + number * distance
        assert alignment(target, at, width) == lies
        assert at + width // 8 <= target.reach


def test_a_bare_address_is_one_cell() -> None:
    """It may be a register whose neighbours must not be touched."""
    assert KernelSpec(Case("xchg", target="0xb8000")).cells == 1
    assert resolve_target("0xfed00108").declared == "io"
    with pytest.raises(SpecError, match="takes 1 to 1 cells"):
        KernelSpec(Case("xchg", target="0xb8000"), batch=2)


SPECS = st.builds(
    KernelSpec,
    case=st.builds(
        Case,
        instruction=st.just("xchg"),
        lock=st.booleans(),
        target=st.sampled_from(["vga-text", "ram", "0xfed00108"]),
        cpus=st.integers(MIN_CPUS, MAX_CPUS),
    ),
    rounds=st.integers(0, MAX_ROUNDS),
    controls=st.booleans(),
    poll=st.sampled_from(Poll),
    batch=st.integers(0, 1),
    print_every=st.integers(0, MAX_ROUNDS),
    baud=st.sampled_from([115_200, 9600]),
    proof_seconds=st.integers(0, MAX_BUDGET),
)
SPECS |= SPECS.map(lambda spec: replace(spec, rules=OLD_RULES, proof_seconds=0))


@given(SPECS)
def test_the_text_forms_are_the_specification(spec: KernelSpec) -> None:
    assert KernelSpec.from_json(spec.to_json()) == spec
    assert "\n" not in spec.to_json()
    assert KernelSpec.from_text(spec.to_text()) == spec
    assert "\n" not in spec.to_text()


#: What commit b004b2b wrote into the kernel's log, what it wrote into a manifest, and the digest of that.
OLD_TEXTS = {
    "case": (
        '{"batch":0,"baud":115200,"budget":0,"cases":["xchg.32.vga-text.token"],"controls":true,"poll":2,'
        '"print_every":0,"rounds":10000,"serial_port":1016,"suite":""}',
        '{"batch":0,"baud":115200,"budget":0,"case":{"cpus":3,"experiment":"token","instruction":"xchg","lock":true,'
        '"offset":0,"source":"reg","target":"vga-text","width":32},"controls":true,"more":[],"poll":2,"print_every":0,'
        '"rounds":10000,"serial_port":1016,"suite":""}',
        "0840a5f41e620a4e172998f40b4554f4443136a5de63fbef0d24886ca2357456",
    ),
    "suite": (
        '{"batch":0,"baud":115200,"budget":60,"cases":["xchg.32.vga-text.token","or.32.vga-text.own-bits"],'
        '"controls":true,"poll":2,"print_every":0,"rounds":10000,"serial_port":1016,"suite":"mine"}',
        '{"batch":0,"baud":115200,"budget":60,"case":{"cpus":3,"experiment":"token","instruction":"xchg","lock":true,'
        '"offset":0,"source":"reg","target":"vga-text","width":32},"controls":true,"more":[{"cpus":3,"experiment":'
        '"own-bits","instruction":"or","lock":true,"offset":0,"source":"reg","target":"vga-text","width":32}],'
        '"poll":2,"print_every":0,"rounds":10000,"serial_port":1016,"suite":"mine"}',
        "aaba516ae6baad5021e544c5452dc577fcc2428f01672c52d1678d0a2eb3e6f8",
    ),
}


@pytest.mark.parametrize("name", OLD_TEXTS)
def test_what_older_versions_wrote_is_of_the_old_rules(name: str) -> None:
    """And stays as it was, to the byte."""
    text, document, digest = OLD_TEXTS[name]
    spec = KernelSpec.from_text(text)
    assert spec == KernelSpec.from_json(document)
    assert (spec.rules, spec.proof_seconds) == (OLD_RULES, 0)
    assert (spec.to_text(), spec.to_json(), spec.digest()) == (text, document, digest)
    newer = replace(spec, rules=RULES)
    assert newer != spec
    assert newer.digest() != digest


@pytest.mark.parametrize(
    "rest", ['"rules":1', '"rules":true', '"rules":2.0', '"rules":"2"', '"rules":3', '"rules":null']
)
def test_other_rules_are_refused(rest: str) -> None:
    """Rules 1 are never written down."""
    text = KernelSpec(Case("xchg")).to_text()
    assert KernelSpec.from_text(text).rules == RULES
    with pytest.raises(SpecError):
        KernelSpec.from_text(text.replace('"rules":2', rest))


@pytest.mark.parametrize("seconds", ["true", "60.0", '"60"', "-1", "null"])
def test_other_seconds_are_refused(seconds: str) -> None:
    text = KernelSpec(Case("xchg")).to_text()
    assert KernelSpec.from_text(text.replace('"proof_seconds":0', '"proof_seconds":60')).proof_seconds == 60
    with pytest.raises(SpecError):
        KernelSpec.from_text(text.replace('"proof_seconds":0', f'"proof_seconds":{seconds}'))


@given(SPECS, SPECS)
def test_the_digest_tells_specifications_apart(one: KernelSpec, other: KernelSpec) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", '{"case":{}}', '{"case":{"instruction":"xchg"},"x":1}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        KernelSpec.from_json(text)
