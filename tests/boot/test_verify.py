"""The whole job: right verdicts on kernels that are what they say, and none of ATOMIC on those that are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _kernel import Edit, built, decided, memory_of, needs, replaced, run, run_until, spec_of

from kgen.kernel.results_block import Role, ViolationKind
from kgen.spec import KernelSpec
from kgen.verdict.model import VerdictKind

XCHG = "xchg dword ptr [edi], eax"
#: The routine that all CPUs call for the exchange, and those of the consumers that call it.
LEAF = "exchange_xchg_32"
CONSUMERS = ("consume_exchange", "consume_read")
TAKE = "call dword ptr [results + Results.handshake + Handshake.task + Task.take]"


def plain_moves(routine: str) -> Edit:
    """XCHG, or the call of it, becomes a read and a write in two translation blocks."""
    moves = (
        f"mov edx, dword ptr [edi]\n    jmp .secret\n.secret:\n    mov dword ptr [edi], eax\n    mov eax, edx\n"
        f"; once {routine}'s exchange"
    )
    return replaced(XCHG if routine == LEAF else TAKE, moves, routine=routine)


def test_a_fixed_number_of_operations_is_no_proof(spec: KernelSpec) -> None:
    """Without the time for it the chain runs just the operations that were asked for, too few to say anything."""
    seen, verdict = run(built(replace(spec, rounds=100)))
    *_, proof, case = memory_of(seen).phases
    assert (proof.role, case.rounds) == (Role.PROOF, 100)
    # its last batch is run to its end
    assert 100 <= proof.rounds < 100 + 3 * 32
    assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.reason
    assert "leave --rounds out" in verdict.reason


def test_kvm_is_not(spec: KernelSpec) -> None:
    seen, verdict = run_until(decided, built(spec), platform=needs("qemu-kvm"))
    record = memory_of(seen)
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
    lost = [witness for witness in verdict.witnesses if witness.kind is ViolationKind.LOST]
    assert lost
    assert verdict.violations["lost"] >= len(lost)
    assert record.phases[0].role is Role.SANITY
    assert record.phases[0].total == 0
    for witness in lost:
        assert 1 <= witness.round <= 1000
        assert f"token={witness.token:08x}" in seen.log


def test_without_lock_tcg_is_not() -> None:
    _, verdict = run_until(decided, built(spec_of(target="vga-text", lock=False, rounds=1000, controls=True)))
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason


@pytest.mark.parametrize("routines", [(LEAF,), CONSUMERS], ids=["all", "consumers"])
def test_plain_moves_in_secret(spec: KernelSpec, routines: tuple[str, ...]) -> None:
    """Everything but the code itself still says XCHG. Whether it is caught on RAM, where the sanity control fails, or
    on the target: it is caught. (In the producer alone it would be none: a cell it stores to is empty, and a plain
    store is as good as an exchange there.)"""
    kernel = built(spec, *map(plain_moves, routines))
    for routine in routines:
        assert kernel.assembly.source.text.count(f"; once {routine}'s exchange") == 1
    _, verdict = run_until(decided, kernel)
    assert verdict.kind in (VerdictKind.NOT_ATOMIC, VerdictKind.ERROR), verdict.reason


def test_a_plain_consumer_on_the_target_only(spec: KernelSpec) -> None:
    """As an engine would behave that ignores LOCK on MMIO only: the sanity control passes, the case does not."""
    moves = (
        f"cmp edi, 0x100000\n    jae .true\n    mov edx, dword ptr [edi]\n    jmp .secret\n.secret:\n"
        f"    mov dword ptr [edi], eax\n    mov eax, edx\n    jmp .both\n.true:\n    {XCHG}\n.both:"
    )
    # so many that a busy host cannot keep the CPUs apart in the case alone
    kernel = built(replace(spec, rounds=4 * spec.rounds), replaced(XCHG, moves, routine=LEAF))
    seen, verdict = run_until(decided, kernel)
    assert memory_of(seen).phases[0].total == 0
    assert verdict.kind is VerdictKind.NOT_ATOMIC, verdict.reason
