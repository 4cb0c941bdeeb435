"""What a request may say, and what each wrong one is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kgen.errors import SpecError
from kgen.experiments import Poll
from kgen.spec import MAX_CPUS, MAX_ROUNDS, MIN_CPUS, Case, KernelSpec, resolve_target


def test_ids_leave_defaults_out() -> None:
    assert Case("xchg").id == "xchg.32.vga-text.token"
    assert Case("xchg", lock=False, target="ram", cpus=5).id == "xchg.32.ram.token.nolock.cpus5"
    assert Case("xchg", target="0xB8000").id == "xchg.32.0xb8000.token"


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
        ({"target": "0xfee00300"}, "local APIC"),
        ({"target": "0xfec00010"}, "I/O APIC"),
        ({"target": "0xb8002"}, "not aligned"),
        ({"target": "0x100000000"}, "above 4 GiB"),
        ({"target": "0xfffffffd"}, "above 4 GiB"),
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
    ],
)
def test_kernel_specifications_that_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        KernelSpec(Case("xchg"), **fields)
    assert str(next(iter(fields.values()))) in caught.value.line or "serial port" in caught.value.line


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
)


@given(SPECS)
def test_the_text_form_is_the_specification(spec: KernelSpec) -> None:
    assert KernelSpec.from_json(spec.to_json()) == spec
    assert "\n" not in spec.to_json()


@given(SPECS, SPECS)
def test_the_digest_tells_specifications_apart(one: KernelSpec, other: KernelSpec) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "3", '{"case":{}}', '{"case":{"instruction":"xchg"},"x":1}'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        KernelSpec.from_json(text)
