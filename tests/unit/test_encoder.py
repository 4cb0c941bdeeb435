"""Instructions encoded many at a time are those of one at a time, and text is believed only where the check agrees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kgen.errors import AsmError
from kgen.kernel.render import render
from kgen.spec import Case, KernelSpec
from kgen.spec.suites import DEFAULT_BUDGET, load
from kgen.toolchain import assembler
from kgen.toolchain.assembler import _Encoder, assemble
from kgen.toolchain.assembly import Source
from kgen.toolchain.decoder import Checker, says_the_same
from kgen.toolchain.encodings import BRANCHES, can_grow, encode_branch
from kgen.toolchain.statements import Instruction, parse_source, values_of

XCHG = KernelSpec(Case("xchg"))
#: Constants, symbols of both magnitudes, forms that are not left to keystone, and three modes.
PROGRAM = """
start: mov eax, 5
add ebx, 300
lock inc dword ptr [counter]
mov edx, offset
mov ecx, dword ptr [ebx + ecx*4 + 0x10]
xchg dword ptr [edi], eax
lgdt [table]
push 7
rep stosd
.code16
out 0x80, al
mov eax, dword ptr [bx + 2]
mov ax, 0x1234
.code64
mov rax, qword ptr [rbx + 8]
counter: .long 0
table: .skip 10
.equ offset, table - start
"""


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembler, "_ENCODED", {})
    monkeypatch.setattr(assembler, "_CHECKED", set())


def instruction_of(text: str) -> tuple[Instruction, list[int]]:
    (statement,) = parse_source(Source("kernel.s", text))
    assert isinstance(statement.body, Instruction)
    return statement.body, [value for value in values_of(statement.body) if isinstance(value, int)]


def kernel_instructions(spec: KernelSpec = XCHG) -> dict[tuple[int, str], bytes]:
    """Return what a build has encoded, by mode and text."""
    assemble(render(spec))
    return dict(assembler._ENCODED)


def test_many_at_once_are_the_bytes_of_one_at_a_time() -> None:
    _, cases = load("smoke")
    found = kernel_instructions(KernelSpec(cases[0], more=cases[1:], suite="smoke", budget=DEFAULT_BUDGET["smoke"]))
    assert len(found) > 2000
    encoder = _Encoder()
    for (mode, text), data in found.items():
        instruction, values = instruction_of(text)
        alone = encoder._wrapped(instruction, values, mode) or encoder._keystone(text, mode)
        assert data == alone, text


def test_a_build_asks_keystone_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    keystone = _Encoder._keystone

    def counted(self: _Encoder, text: str, mode: int) -> bytes:
        asked.append(text)
        return keystone(self, text, mode)

    monkeypatch.setattr(_Encoder, "_keystone", counted)
    assert len(kernel_instructions()) > 1500
    assert len(asked) < 30


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda parts: [*parts, b"\x90"], id="one more"),
        pytest.param(lambda parts: parts[:-1], id="one less"),
        pytest.param(lambda parts: [parts[0], parts[0], *parts[2:]], id="another one"),
        pytest.param(lambda parts: parts[::-1], id="another order"),
        pytest.param(lambda parts: [b"\x66" + parts[0], *parts[1:]], id="a prefix"),
        pytest.param(lambda parts: [b"\x3e" + part for part in parts], id="prefixes without effect"),
        pytest.param(lambda parts: [b"\x0f\xff" * 3], id="no instructions"),
        pytest.param(lambda parts: None, id="refused"),
    ],
)
def test_what_is_wrong_among_many_is_encoded_alone(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[list[bytes]], list[bytes] | None]
) -> None:
    right = assemble(Source("kernel.s", PROGRAM))
    assembler._ENCODED.clear()
    assembler._CHECKED.clear()
    keystone = _Encoder._keystone
    spoiled = []

    def wrong(self: _Encoder, text: str, mode: int) -> bytes:
        lines = text.split("\n")
        parts = [keystone(self, line, mode) for line in lines]
        if len(lines) == 1:
            return parts[0]
        spoiled.append(text)
        changed = spoil(parts)
        if changed is None:
            raise AsmError("refused")
        return b"".join(changed)

    monkeypatch.setattr(_Encoder, "_keystone", wrong)
    assert assemble(Source("kernel.s", PROGRAM)) == right
    assert len(spoiled) >= 3


def test_an_error_among_many_has_its_own_place() -> None:
    lines = PROGRAM.split("\n")
    lines.insert(5, "frobnicate eax, 5")
    with pytest.raises(AsmError) as caught:
        assemble(Source("kernel.s", "\n".join(lines)))
    assert caught.value.where == "kernel.s:6"
    assert "frobnicate eax, 0x5" in caught.value.message


def test_text_is_believed_only_where_the_check_agrees() -> None:
    """Every bit of an instruction turned, and every prefix before it."""
    checker = Checker()
    believed = changed = 0
    found = kernel_instructions()
    for (mode, text), data in list(found.items())[::12]:
        instruction, values = instruction_of(text)
        others = [
            data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)
        ]
        prefixed = [bytes([prefix]) + data for prefix in b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3"]
        for other in (data, *others, *prefixed):
            parts = checker.split(mode, other)
            if len(parts) == 1 and says_the_same(instruction, text, mode, other, parts[0][1]):
                believed += other == data
                changed += other != data
                assert other not in prefixed
                checker.check(instruction, values, mode, other)
    assert believed > len(found) / 12 / 2
    assert changed


class _Thorough(Checker):
    """Looks at the details of every branch."""

    def _read_branch(self, _mode: int, _data: bytes) -> None:
        return None


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_branches_read_as_text_are_those_read_in_detail(mode: int) -> None:
    address = 0x7C00
    quick, thorough = Checker(), _Thorough()
    read = 0
    for mnemonic in sorted(BRANCHES):
        for near in (False, True) if can_grow(mnemonic) else (False,):
            for distance in (-100, 5, 100):
                try:
                    data = encode_branch(mnemonic, mode, near, address, address + distance)
                except AsmError:
                    continue  # JCXZ has no such form in this mode
                others = [bytes([byte]) + data for byte in b"\x26\x3e\x66\x67\xf2"]
                others += [data[:-1] + bytes([data[-1] ^ 1 << bit]) for bit in range(8)]
                others += [bytes([data[0] ^ 1 << bit]) + data[1:] for bit in range(8)]
                for other in (data, *others):
                    assert refuses(quick, mnemonic, mode, other, address, address + distance) is refuses(
                        thorough, mnemonic, mode, other, address, address + distance
                    ), (mnemonic, other.hex())
                read += quick._read_branch(mode, data) is not None
    assert bool(read) is (mode != 64)


def refuses(checker: Checker, mnemonic: str, mode: int, data: bytes, address: int, target: int) -> bool:
    try:
        checker.check_branch(mnemonic, mode, data, address, target)
    except (AsmError, IndexError):  # what has no operand at all is no branch either
        return True
    return False
