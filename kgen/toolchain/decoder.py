"""The independent check: what capstone reads in the bytes must be what the statement says.

Keystone mis-assembles some statements silently, so nothing it (or our own encoder) emits is believed until
:class:`Checker` has found one whole instruction with the same prefixes, mnemonic, operands and operand size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kgen.errors import AsmError
from kgen.toolchain.encodings import CONDITIONS, DESCRIPTOR_TABLES, REPEATS
from kgen.toolchain.statements import (
    GENERAL_REGISTERS,
    REGISTERS,
    SEGMENT_REGISTERS,
    Immediate,
    Instruction,
    Memory,
    Operand,
    Register,
)

#: SDM volume 2, LOCK: the instructions that accept the prefix, with a memory destination.
LOCKABLE = frozenset(
    "add adc and btc btr bts cmpxchg cmpxchg8b cmpxchg16b dec inc neg not or sbb sub xor xadd xchg".split()
)

_CONDITION_NAMES = {code: suffix for suffix, code in reversed(CONDITIONS.items())}
#: Other spellings of one instruction; those that differ in operand size only are distinguished by the 66 prefix.
_ALIASES = {
    **{
        f"{stem}{suffix}": f"{stem}{_CONDITION_NAMES[code]}"
        for stem in ("j", "set", "cmov")
        for suffix, code in CONDITIONS.items()
    },
    "iretd": "iret",
    **dict.fromkeys(("pushfd", "pushfq"), "pushf"),
    **dict.fromkeys(("popfd", "popfq"), "popf"),
    **dict.fromkeys(("pushad", "pushal", "pushaw"), "pusha"),
    **dict.fromkeys(("popad", "popal", "popaw"), "popa"),
    "cdq": "cwd",  # capstone takes CWD and CBW in 16-bit code for these
    "cwde": "cbw",
    "sal": "shl",
    "movabs": "mov",
    "ljmp32": "ljmp",
    "retn": "ret",
    "loopz": "loope",
    "loopnz": "loopne",
    "wait": "fwait",
    "xlat": "xlatb",
    "repe": "rep",
    "repz": "rep",
    "repnz": "repne",
}
_STRINGS = ("stos", "lods", "movs", "scas", "cmps", "ins", "outs")
#: Operand-free mnemonics that name an operand size in bytes; all others have the mode's own.
_NAMED_SIZES = {
    **{f"{stem}w": 2 for stem in _STRINGS},
    **{f"{stem}d": 4 for stem in (*_STRINGS, "iret", "pushf", "popf")},
    **dict.fromkeys(("cbw", "cwd", "pushaw", "popaw"), 2),
    **dict.fromkeys(("cwde", "cdq", "pushad", "popad", "pushal", "popal", "ljmp32"), 4),
}
#: The operand size of these is fixed by the mnemonic or by the mode, so `SIZE ptr` may be left out ...
_FIXED_MEMORY = frozenset(
    [
        *DESCRIPTOR_TABLES,
        *"invlpg fxsave fxrstor ldmxcsr stmxcsr clflush cmpxchg8b cmpxchg16b lea".split(),
        *"prefetcht0 prefetcht1 prefetcht2 prefetchnta prefetchw fnstcw fldcw fnstsw".split(),
    ]
)
#: ... and where a register does not say the size of the memory operand beside it, it must be given.
_SIZE_NEEDED = frozenset("shl sal shr sar rol ror rcl rcr movzx movsx movsxd crc32 cvtsi2ss cvtsi2sd".split())
#: The decoder may give the two operands of these in the other order, which means the same.
_COMMUTATIVE = frozenset(("xchg", "test"))
_SHIFTS = frozenset("shl sal shr sar rol ror rcl rcr".split())
#: A number as the decoder writes it, and one that it writes without 0x.
_NUMBER = re.compile(r"(?:0x[0-9a-f]+|\d)\Z", re.ASCII)
_DIGIT = re.compile(r"\b0x(\d)\b", re.ASCII)
#: A width in bits that no operand of a far jump can be mistaken in.
_EXACT = 64
_LOCK, _REPNE, _REP = 0xF0, 0xF2, 0xF3
#: The legacy prefixes, by their group (SDM volume 2, 2.1.1): an instruction has at most one of each.
_PREFIX_GROUPS: dict[int, int] = {
    **dict.fromkeys((_LOCK, _REPNE, _REP), 1),
    **dict.fromkeys((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65), 2),
    0x66: 3,
    0x67: 4,
}
#: Opcode FF: the reg fields of ModRM that make it a far call and a far jump (SDM volume 2, opcode extensions, group 5).
#: Capstone calls them like the near ones in 32-bit and 64-bit code.
_GROUP_5, _FAR = 0xFF, (3, 5)


def check_form(instruction: Instruction) -> None:
    """Raise AsmError for LOCK where it raises #UD, for REP where it means nothing (SDM volume 2, LOCK and REP),
    and for operands of a string instruction, which keystone ignores but for their size."""
    operands = instruction.operands
    is_string = instruction.mnemonic[:-1] in _STRINGS and instruction.mnemonic[-1] in "bwdq"
    if (
        is_string
        and operands
        and not any(isinstance(operand, Register) and operand.name.startswith("xmm") for operand in operands)
    ):
        raise AsmError(f"{instruction.mnemonic} takes no operands")
    if len(instruction.prefixes) > 1:
        raise AsmError("more than one prefix")
    if not instruction.prefixes:
        return
    if instruction.prefixes != ("lock",):
        if not is_string:
            raise AsmError(f"{instruction.prefixes[0]} goes with string instructions only")
        return
    if instruction.mnemonic not in LOCKABLE:
        raise AsmError(f"{instruction.mnemonic} cannot be locked")
    destinations = operands if instruction.mnemonic == "xchg" else operands[:1]
    if not any(isinstance(operand, Memory) for operand in destinations):
        raise AsmError("lock needs a memory destination")


def operand_width(instruction: Instruction, mode: int) -> int:
    """Return the width in bits that immediates are understood in: of the first operand that has a size, else the
    mode's.
    """
    if instruction.mnemonic in ("ljmp", "ljmp32"):
        return _EXACT  # its encoder knows the two widths
    for operand in instruction.operands:
        if isinstance(operand, Register):
            return 8 * REGISTERS[operand.name]
        if isinstance(operand, Memory) and operand.size:
            return 8 * operand.size
    return mode


def _memory_size(instruction: Instruction) -> int:
    """Return the size in bytes that the memory operand must have, 0 where the mnemonic alone decides.

    Raises AsmError.
    """
    operands = instruction.operands
    registers = [REGISTERS[operand.name] for operand in operands if isinstance(operand, Register)]
    general = any(isinstance(operand, Register) and operand.name in GENERAL_REGISTERS for operand in operands)
    for operand in operands:
        if isinstance(operand, Memory) and operand.size:
            return operand.size
    if instruction.mnemonic in _FIXED_MEMORY:
        return 0
    if not registers or instruction.mnemonic in _SIZE_NEEDED:
        raise AsmError("the size of the memory operand is not known", hint="write byte ptr, word ptr, dword ptr ...")
    return registers[0] if general else 0


def says_the_same(instruction: Instruction, text: str, mode: int, data: bytes, decoded: str) -> bool:
    """Return whether the decoder's text of the bytes is the instruction's own, letter by letter, and nothing can be
    different that the text does not say. Otherwise only :meth:`Checker.check` knows.

    The text names the operation, and each operand with its registers, its number and the size of what is in memory.
    Prefixes may change more than it says, or nothing that it says; and without operands only they give a size. So no
    instruction with a prefix is believed here, of 64-bit code none at all, and memory has a size as written, which only
    LEA does without.
    """
    operands = instruction.operands
    return (
        _DIGIT.sub(r"\1", text) == decoded
        and mode != 64
        and data[0] not in _PREFIX_GROUPS
        and not _is_far(data)
        and instruction.mnemonic not in _NAMED_SIZES
        and bool(operands)
        and (instruction.mnemonic == "lea" or all(operand.size for operand in operands if isinstance(operand, Memory)))
    )


def _is_far(data: bytes) -> bool:
    """Return whether an instruction without prefixes is an indirect far branch, for which capstone has no own name."""
    return data[0] == _GROUP_5 and len(data) > 1 and (data[1] >> 3) & 7 in _FAR


def disassemble(data: bytes, address: int) -> tuple[int, str]:
    """Length in bytes and text of the first instruction in the bytes, read as 32-bit code at ``address``; (0, "") where
    they are none."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    for _, size, mnemonic, operands in decoder.disasm_lite(data, address, 1):
        return size, f"{mnemonic} {operands}".strip()
    return 0, ""


@dataclass(frozen=True)
class _Decoded:
    """The parts of an instruction decoded by capstone that are used. Capstone's own object is ten times as large."""

    mnemonic: str
    op_str: str
    prefix: tuple[int, ...]
    addr_size: int
    operands: tuple[Any, ...]
    reg_name: Callable[[int], str]

    @classmethod
    def of(cls, found: Any, reg_name: Callable[[int], str]) -> _Decoded:
        """Return that of capstone's object."""
        return cls(found.mnemonic, found.op_str, tuple(found.prefix), found.addr_size, tuple(found.operands), reg_name)


class Checker:
    """Checks instructions of all three modes; one object decodes the same bytes once."""

    def __init__(self) -> None:
        # Imported here because it takes 90 ms, which a run that assembles nothing should not pay.
        import capstone.x86

        self._capstone: Any = capstone
        self._decoders: dict[tuple[int, bool], Any] = {}
        self._decoded: dict[tuple[int, bytes], Any] = {}
        self._branches: dict[tuple[int, bytes], tuple[str, int] | None] = {}

    def check(self, instruction: Instruction, values: Sequence[int], mode: int, data: bytes) -> None:
        """Raise AsmError unless the bytes are this instruction with these operand values (see ``values_of``)."""
        found = self._decode(mode, data)
        self._check_name(instruction, found, data)
        self._check_prefixes(instruction, mode, found, data)
        _, segment_prefix, operand_prefix, address_prefix = found.prefix
        operands = instruction.operands
        if (segment_prefix or address_prefix) and not any(isinstance(operand, Memory) for operand in operands):
            raise _mismatch("prefix", data, found)
        sized = any(
            (isinstance(operand, Register) and operand.name not in SEGMENT_REGISTERS)
            or (isinstance(operand, Memory) and instruction.mnemonic not in _FIXED_MEMORY)
            for operand in operands
        )
        if not sized:
            size = _NAMED_SIZES.get(instruction.mnemonic, 0)
            if bool(operand_prefix) != ((size == 2 and mode != 16) or (size == 4 and mode == 16)):
                raise _mismatch("operand size", data, found)
        if operands:
            self._check_operands(instruction, values, mode, data, found)
        elif instruction.mnemonic not in ("aam", "aad") and any(
            other.type == self._capstone.x86.X86_OP_IMM for other in found.operands
        ):
            raise _mismatch("number of operands", data, found)

    def check_branch(self, mnemonic: str, mode: int, data: bytes, address: int, target: int) -> None:
        """Raise AsmError unless the bytes, run at ``address``, are that branch to ``target``."""
        read = self._read_branch(mode, data)
        name = _ALIASES.get(mnemonic, mnemonic)
        if read is not None and read[0] == name and not (read[1] + address - target) % (1 << mode):
            return
        found = self._decode(mode, data)
        self._check_name(Instruction((), mnemonic, ()), found, data)
        self._check_prefixes(Instruction((), mnemonic, ()), mode, found, data)
        if found.prefix[2]:
            raise _mismatch("operand size", data, found)
        reached = found.operands[0].imm + address
        if (reached - target) % (1 << mode):
            raise _mismatch("branch target", data, found)

    def _read_branch(self, mode: int, data: bytes) -> tuple[str, int] | None:
        """Return a branch's common name and where it goes from address 0, by the decoder's text alone. None where that
        is not the whole of it: for what has a prefix, for 64-bit code, and for what is no branch."""
        if mode == 64 or data[0] in _PREFIX_GROUPS:
            return None
        if (mode, data) not in self._branches:
            found = self.split(mode, data)
            name, _, operand = found[0][1].partition(" ") if len(found) == 1 else ("", "", "")
            whole = _NUMBER.match(operand) is not None
            self._branches[mode, data] = (_ALIASES.get(name, name), int(operand, 0)) if whole else None
        return self._branches[mode, data]

    def split(self, mode: int, data: bytes) -> list[tuple[bytes, str]]:
        """Return the bytes of each instruction with the decoder's text, as if at address 0; [] where not all the bytes
        are instructions."""
        parts = []
        end = 0
        for at, size, mnemonic, operands in self._decoder(mode, detail=False).disasm_lite(data, 0):
            end = at + size
            parts.append((data[at:end], f"{mnemonic} {operands}" if operands else mnemonic))
        return parts if end == len(data) else []

    def _decode(self, mode: int, data: bytes) -> Any:
        """Return the one instruction in the bytes, decoded as if at address 0. Raises AsmError."""
        found = self._decoded.get((mode, data))
        if found is None:
            decoder = self._decoder(mode, detail=True)
            decoded = list(decoder.disasm(data, 0))
            if len(decoded) != 1 or decoded[0].size != len(data):
                raise AsmError(f"emitted bytes {data.hex(' ')} are not one instruction")
            found = self._decoded[mode, data] = _Decoded.of(decoded[0], decoder.reg_name)
        return found

    def _decoder(self, mode: int, *, detail: bool) -> Any:
        """Return capstone for that mode; without details it takes a fifth of the time."""
        if (mode, detail) not in self._decoders:
            decoder = self._capstone.Cs(self._capstone.CS_ARCH_X86, getattr(self._capstone, f"CS_MODE_{mode}"))
            decoder.detail = detail
            self._decoders[mode, detail] = decoder
        return self._decoders[mode, detail]

    def _check_name(self, instruction: Instruction, found: Any, data: bytes) -> None:
        words = [_ALIASES.get(word, word) for word in found.mnemonic.split()]
        expected = [_ALIASES.get(word, word) for word in (*instruction.prefixes, instruction.mnemonic)]
        if words != expected:
            raise _mismatch("mnemonic", data, found)

    def _check_prefixes(self, instruction: Instruction, mode: int, found: Any, data: bytes) -> None:
        """Raise AsmError for prefixes that are not written, and for a far branch: capstone leaves out what a CPU
        refuses (LOCK before REP) or ignores (REP before MOV), and calls a far branch like a near one.
        """
        length = next((at for at, byte in enumerate(data) if byte not in _PREFIX_GROUPS), len(data))
        prefixes, rest = data[:length], data[length:]
        groups = [_PREFIX_GROUPS[byte] for byte in prefixes]
        if len(set(groups)) < len(groups):
            raise _mismatch("prefix", data, found)
        expected = {_LOCK if prefix == "lock" else REPEATS[prefix][0] for prefix in instruction.prefixes}
        unwritten = {byte for byte in prefixes if _PREFIX_GROUPS[byte] == 1} - expected
        if not expected <= set(prefixes) or _LOCK in unwritten:
            raise _mismatch("prefix", data, found)
        # F2 and F3 are part of some opcodes: without them those are another instruction, or none
        if unwritten and self._mnemonic(mode, bytes(set(prefixes) - unwritten) + rest) == found.mnemonic:
            raise _mismatch("prefix", data, found)
        if _is_far(rest[1:] if mode == 64 and rest[0] & 0xF0 == 0x40 else rest):
            raise _mismatch("kind of branch", data, found)

    def _mnemonic(self, mode: int, data: bytes) -> str:
        """Return what capstone calls the first instruction in the bytes, "" where they are none."""
        return next(
            (str(mnemonic) for _, _, mnemonic, _ in self._decoder(mode, detail=False).disasm_lite(data, 0, 1)), ""
        )

    def _check_operands(
        self, instruction: Instruction, values: Sequence[int], mode: int, data: bytes, found: Any
    ) -> None:
        operands, decoded = instruction.operands, list(found.operands)
        mnemonic = instruction.mnemonic
        if len(decoded) == 3 and len(operands) == 2 and mnemonic == "imul":
            del decoded[1]  # imul eax, 5 is imul eax, eax, 5
        if len(decoded) == 2 and len(operands) == 1 and mnemonic in _SHIFTS:
            del decoded[1]  # shl eax is shl eax, 1
        if len(decoded) != len(operands):
            raise _mismatch("number of operands", data, found)
        orders = [decoded, decoded[::-1]] if mnemonic in _COMMUTATIVE else [decoded]
        trouble = ""
        for order in orders:
            trouble = ""
            for operand, value, other in zip(operands, values, order, strict=True):
                trouble = trouble or self._difference(instruction, operand, value, mode, other, found)
            if not trouble:
                return
        raise _mismatch(trouble, data, found)

    def _difference(
        self, instruction: Instruction, operand: Operand, value: int, mode: int, other: Any, found: Any
    ) -> str:
        """Return what differs between one operand as written and as decoded, or ""."""
        if isinstance(operand, Register):
            name = found.reg_name(other.reg) if other.type == self._capstone.x86.X86_OP_REG else ""
            return "" if name == ("st(0)" if operand.name == "st" else operand.name) else "register"
        if isinstance(operand, Immediate):
            if other.type != self._capstone.x86.X86_OP_IMM:
                return "kind of operand"
            return "" if _same(other.imm, value, operand_width(instruction, mode)) else "immediate value"
        if other.type != self._capstone.x86.X86_OP_MEM:
            return "kind of operand"
        size = _memory_size(instruction)
        if size and other.size != size and instruction.mnemonic != "lea":
            return "operand size"
        return self._address_difference(operand, value, other.mem, found)

    def _address_difference(self, operand: Memory, value: int, memory: Any, found: Any) -> str:
        """Compare effective addresses as sums: [eax*2] may well be encoded as [eax + eax]."""
        base = found.reg_name(memory.base) if memory.base else ""
        index = found.reg_name(memory.index) if memory.index else ""
        segment = found.reg_name(memory.segment) if memory.segment else ""
        if segment != operand.segment:
            return "segment"
        if base == "rip" and not operand.base:
            return "address (64-bit code reaches an absolute address only through a register)"
        if _terms(base, index, memory.scale) != _terms(operand.base, operand.index, operand.scale):
            return "address registers"
        if operand.base and base != operand.base:
            return "base register"
        bits = 8 * found.addr_size
        return "" if _same(memory.disp, value, bits) else f"address (of {bits} bits, not {value:#x})"


def _same(decoded: int, value: int, bits: int) -> bool:
    """Return whether the value fits in so many bits, signed or unsigned, and the decoder found it."""
    return -(1 << (bits - 1)) <= value < 1 << bits and (decoded - value) % (1 << bits) == 0


def _terms(base: str, index: str, scale: int) -> dict[str, int]:
    terms = {base: 1} if base else {}
    if index:
        terms[index] = terms.get(index, 0) + scale
    return terms


def _mismatch(what: str, data: bytes, found: Any) -> AsmError:
    text = f"{found.mnemonic} {found.op_str}".strip()
    hint = "no way to encode this as written is known here; write it another way"
    return AsmError(f"wrong {what}: the bytes {data.hex(' ')} decode as `{text}`", hint=hint)
