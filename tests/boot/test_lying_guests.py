"""Kernels that are not what they say, or do not say what they did: each is found out, whatever it shows."""

from __future__ import annotations

import dataclasses

import pytest
from _kernel import built, memory_of, replaced, run, run_until, spec_of

from kgen.build import Kernel
from kgen.evidence.observation import Observation
from kgen.spec import KernelSpec
from kgen.verdict.model import Verdict, VerdictKind


def test_patched_bytes(spec: KernelSpec) -> None:
    """The exchange is patched in the file after it was built: the code in memory is not what was built."""
    kernel = built(dataclasses.replace(spec, rounds=60))
    text = kernel.assembly.section(".text").data
    data = bytearray(kernel.elf.data)
    base = data.index(text)
    for line in kernel.assembly.lines:
        if line.data == bytes.fromhex("8707"):
            at = base + line.address - kernel.assembly.section(".text").address
            assert data[at : at + 2] == bytes.fromhex("8707")
            data[at : at + 2] = bytes.fromhex("8907")  # mov dword ptr [edi], eax
    patched = Kernel(kernel.spec, kernel.assembly, dataclasses.replace(kernel.elf, data=bytes(data)))
    assert patched.elf.data != kernel.elf.data
    _, verdict = run(patched)
    assert verdict.kind is VerdictKind.ERROR
    assert "not what was built" in verdict.reason


#: Statements of the guest's report, and the lie that takes their place. The checksums are right.
LIES = {
    "takes": replaced("lea eax, [edi + Counters.takes]", "lea eax, [edi + Counters.puts]", routine="report_phase"),
    "tries": replaced("lea eax, [edi + Counters.tries]", "lea eax, [edi + Counters.takes]", routine="report_phase"),
    "losses": replaced("lea eax, [ebx + Phase.lost]", "lea eax, [ebx + Phase.torn]", routine="report_phase"),
    "witnesses": replaced(
        "push dword ptr [edi + Witness.token]", "push dword ptr [edi + Witness.cell]", routine="violation"
    ),
    "state": replaced(
        "    push dword ptr [log_crc]\n", "    mov eax, KernelState.STOPPED\n    push dword ptr [log_crc]\n"
    ),
    "cpus": replaced(
        "    push dword ptr [results + Results.cpus_found]\n    push eax\n    push format_end",
        "    push 77\n    push eax\n    push format_end",
    ),
    "build": replaced("    bswap eax\n", "", routine="announce_boot"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_guest_that_lies_on_serial(lie: str) -> None:
    """In a run that does lose tokens, on TCG: the unlocked form as the case."""
    kernel = built(spec_of(target="vga-text", lock=False, rounds=300), LIES[lie])
    about_losses = lie in ("losses", "witnesses")
    seen, verdict = run_until(lambda seen, _: not about_losses or (seen.memory and seen.memory.phases[-1].lost), kernel)
    assert seen.serial is not None
    assert seen.serial.complete, seen.serial.gap
    assert seen.memory is not None
    if about_losses:
        assert seen.memory.phases[-1].lost, "nothing to lie about"
    assert verdict.kind is VerdictKind.ERROR
    assert "the two channels disagree" in verdict.reason


def test_a_guest_that_hides_its_losses_from_both(spec: KernelSpec) -> None:
    """Counters and witnesses say that nothing was lost; the takes that are missing say otherwise."""
    hide = replaced("    call violation\n", "    add esp, 20\n", routine="token_judge")
    kernel = built(spec_of(target="vga-text", lock=False, rounds=600), hide)

    def missing(seen: Observation, _: Verdict) -> bool:
        case = memory_of(seen).phases[-1]
        assert case.total == 0
        return sum(count.takes for count in case.counts) < case.rounds

    seen, verdict = run_until(missing, kernel)
    assert missing(seen, verdict), "nothing to hide"
    assert verdict.kind is VerdictKind.ERROR


def test_a_case_that_is_moved_after_its_probe() -> None:
    """The cells at VGA are probed and attested, then the CPUs are sent to RAM, where nothing is ever lost."""
    known = "    mov dword ptr [turn_left], TURN\n"
    move = (
        "    cmp dword ptr [ebp + Plan.role], Role.CASE\n    jne .honest\n"
        "    mov dword ptr [results + Results.handshake + Handshake.address], ram_cells\n.honest:\n"
    )
    kernel = built(spec_of(target="vga-text", controls=True, rounds=600), replaced(known, move + known))
    seen, verdict = run(kernel)
    memory = memory_of(seen)
    assert memory.phases[-1].address == 0xB8000
    assert seen.path.kind == "io"
    assert verdict.kind is VerdictKind.ERROR
    assert "the task of its CPUs was changed while it ran" in verdict.reason


def test_counters_agree_to_the_last(spec: KernelSpec) -> None:
    seen, _ = run(built(dataclasses.replace(spec, rounds=200)))
    memory = memory_of(seen)
    assert seen.serial is not None
    for theirs, ours in zip(seen.serial.phases, memory.phases, strict=True):
        assert theirs.counts == ours.counts
        assert theirs.violations == ours.violations
        assert sum(count.puts for count in ours.counts) == ours.rounds
    assert seen.rows[-1][0] == memory.phases[-1].counts[0].puts
