"""Which phases a kernel runs, and that the case is the last of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from grouped import grouped

from kgen.experiments import experiments
from kgen.instructions import Source, instructions
from kgen.kernel.plan import (
    CASE_ENOUGH,
    CASE_ENOUGH_IN_SUITE,
    CONTROL_ROUNDS,
    POWER_ENOUGH,
    POWER_ENOUGH_IN_SUITE,
    PROOF_ENOUGH,
    goes_on_to_proof,
    layout_of,
    may_be_silent,
    phases,
    phases_of,
)
from kgen.kernel.results_block import (
    LAYOUT_VERSION,
    LAYOUT_WITHOUT_MEETINGS,
    WITNESSES_IN_SUITE,
    WITNESSES_PER_KIND,
    Role,
)
from kgen.spec.case import MAX_BATCH, MAX_CPUS, Case, proof_of, resolve_target
from kgen.spec.defaults import PROOF_SECONDS, proof_seconds
from kgen.spec.kernel_spec import OLD_RULES, KernelSpec
from kgen.targets import targets


def labels(**fields: object) -> list[str]:
    rest = {name: fields.pop(name) for name in ("rounds", "controls") if name in fields}
    return [phase.label for phase in phases(KernelSpec(Case("xchg", **fields), **rest))]  # type: ignore[arg-type]


def test_controls_come_first() -> None:
    assert labels() == [
        "sanity:xchg.32@ram",
        "sanity:xchg.32@ram/chain",
        "power:mov-mov.32@vga-text/chain",
        "power:cmpxchg.32.nolock@vga-text/chain",
        "proof:xchg.32@vga-text/chain",
        "case:xchg.32@vga-text",
    ]
    assert labels(controls=False) == ["case:xchg.32@vga-text"]
    assert labels(experiment="chain") == [
        "sanity:xchg.32@ram/chain",
        "power:mov-mov.32@vga-text/chain",
        "power:cmpxchg.32.nolock@vga-text/chain",
        "case:xchg.32@vga-text/chain",
    ]


def test_a_locked_case_on_ram_is_its_own_sanity_control() -> None:
    assert [label.split(":")[0] for label in labels(target="ram")] == ["power", "power", "proof", "case"]
    assert labels(target="ram", lock=False)[0] == "sanity:xchg.32@ram"


def test_without_lock_the_sanity_control_keeps_it() -> None:
    assert labels(lock=False)[:2] == ["sanity:xchg.32@ram", "sanity:xchg.32@ram/chain"]
    assert labels(lock=False)[-2:] == ["proof:mov-mov.32@vga-text/chain", "case:mov-mov.32@vga-text"]
    assert labels(lock=False)[-1] == "case:mov-mov.32@vga-text"


@pytest.mark.parametrize("rounds", [0, 1, 77])
@pytest.mark.parametrize("name", ["xchg", "add"])
def test_rounds(name: str, rounds: int) -> None:
    """Tokens and operations alike, in a proof as well: just so many."""
    made = phases(KernelSpec(Case(name), rounds=rounds))
    assert made[-1].rounds == rounds
    assert {phase.rounds for phase in made[:-1]} == {rounds or CONTROL_ROUNDS}


#: What a phase does in the boot of a token whose verdict rests on a chain as well: role, experiment, first of those it
#: takes turns with, rounds, events that end it.
UNTIL_PROVEN = [
    (Role.SANITY, "token", 0, 77, 0),
    (Role.SANITY, "chain", 1, 0, 0),
    (Role.POWER, "chain", 1, 0, POWER_ENOUGH),
    (Role.POWER, "chain", 1, 0, POWER_ENOUGH),
    (Role.PROOF, "chain", 1, 0, PROOF_ENOUGH),
    (Role.CASE, "token", 5, 77, 0),
]


def test_a_token_rests_on_a_chain_that_goes_on_until_its_proof() -> None:
    """The tokens keep their number; the chain's phases take turns and have none."""
    spec = KernelSpec(Case("xchg"), rounds=77, proof_seconds=60)
    made = phases(spec)
    assert [(each.role, each.experiment, each.group, each.rounds, each.enough) for each in made] == UNTIL_PROVEN
    assert [each.counts_meetings for each in made] == [False, True, True, True, True, False]
    assert {each.cells for each in made if each.experiment == "chain"} == {1}
    assert {each.cells for each in made if each.experiment == "token"} == {128}
    assert {each.form for each in made[-2:]} == {spec.case.form}
    assert phases_of(spec, 0) == made
    # with as many CPUs and as aligned as the case
    moved = phases(KernelSpec(Case("xchg", target="pc-testdev", offset=63, cpus=5), proof_seconds=60))
    assert {(each.offset, each.cpus) for each in moved} == {(63, 5)}
    assert {each.target.name for each in moved} == {"ram", "pc-testdev"}


def test_a_walk_with_a_stronger_one_beside_it_comes_in_the_number_asked_for() -> None:
    """A mutex would have no control to end it."""
    spec = KernelSpec(Case("bts", experiment="mutex"), rounds=77, proof_seconds=60)
    made = phases(spec)
    assert [(each.role, each.experiment, each.group, each.rounds, each.enough) for each in made] == [
        (Role.SANITY, "mutex", 0, 77, 0),
        (Role.SANITY, "own-bits", 1, 0, 0),
        (Role.POWER, "own-bits", 1, 0, POWER_ENOUGH),
        (Role.PROOF, "own-bits", 1, 0, PROOF_ENOUGH),
        (Role.CASE, "mutex", 4, 77, 0),
    ]
    assert all(each.counts_meetings for each in made)
    # its cells are those of its own experiment
    assert [each.cells for each in made] == [1, 8, 8, 8, 1]
    assert [goes_on_to_proof(spec, spec.case, each.experiment) for each in made] == [False, True, True, True, False]
    # without an end it has none, and the proof has its time
    endless = phases(replace(spec, rounds=0))
    assert [each.rounds for each in endless] == [CONTROL_ROUNDS, 0, 0, 0, 0]
    assert not goes_on_to_proof(spec, spec.case, endless[-1].experiment)


def test_what_is_proof_itself_ends_with_its_proof() -> None:
    made = phases(KernelSpec(Case("add"), rounds=77, proof_seconds=60))
    assert [(each.role, each.group, each.rounds, each.enough) for each in made] == [
        (Role.SANITY, 0, 0, 0),
        (Role.POWER, 0, 0, POWER_ENOUGH),
        (Role.CASE, 0, 0, CASE_ENOUGH),
    ]


def test_the_batch_is_the_cases_own() -> None:
    """A chain of 128 cells would hardly ever meet."""
    made = phases(KernelSpec(Case("xchg"), batch=64))
    assert {(each.experiment, each.cells) for each in made} == {("token", 64), ("chain", 1)}


@pytest.mark.parametrize(
    ("case", "proof"),
    [
        (Case("xchg"), "chain"),
        (Case("xchg", 8), "chain"),
        (Case("xchg", experiment="mutex"), "chain"),
        (Case("cmpxchg8b"), "chain"),
        (Case("cmpxchg", lock=False), "chain"),
        (Case("bts", experiment="token"), "own-bits"),
        (Case("bts", experiment="mutex", cpus=32), "own-bits"),
        # no values, or no bits, for so many CPUs
        (Case("xchg", 8, cpus=MAX_CPUS), ""),
        (Case("bts", experiment="token", cpus=33), ""),
        # proof themselves
        (Case("xchg", experiment="chain"), ""),
        (Case("add"), ""),
        (Case("or"), ""),
        (Case("not"), ""),
        (Case("mov"), ""),
    ],
    ids=lambda value: getattr(value, "id", value),
)
def test_what_a_case_rests_on(case: Case, proof: str) -> None:
    assert proof_of(case) == proof


def test_without_a_proof_the_controls_are_the_cases_own() -> None:
    made = phases(KernelSpec(Case("xchg", 8, cpus=MAX_CPUS), rounds=5, proof_seconds=60))
    assert [(each.role, each.experiment, each.group, each.rounds) for each in made] == [
        (Role.SANITY, "token", 0, 5),
        (Role.POWER, "token", 1, 5),
        (Role.POWER, "token", 2, 5),
        (Role.CASE, "token", 3, 5),
    ]


def test_only_a_control_of_one_instruction_beside_another_may_be_silent() -> None:
    spec = KernelSpec(Case("xchg"))
    assert [each.label for each in phases(spec) if may_be_silent(spec, each)] == [
        "power:cmpxchg.32.nolock@vga-text/chain"
    ]
    # where there is one control it has to fail
    spec = KernelSpec(Case("cmpxchg"))
    assert not any(may_be_silent(spec, each) for each in phases(spec))


FORMS = [
    (name, width, source.value)
    for name, entry in sorted(instructions().items())
    for source, widths in entry.opcodes.items()
    for width in sorted(widths)
]


@grouped((*form, target, lock) for form in FORMS for target in sorted(targets()) for lock in (True, False))
def test_every_plan_is_sound(name: str, width: int, source: str, target: str, lock: bool) -> None:
    if width // 8 > resolve_target(target).reach:
        return
    entry = instructions()[name]
    spec = KernelSpec(Case(name, width=width, source=source, lock=lock, target=target))
    made = phases(spec)
    assert phases_of(spec, 0) == made
    assert [phase.index for phase in made] == list(range(len(made)))
    assert [phase.role for phase in made].count(Role.CASE) == 1
    assert made[-1].role is Role.CASE
    assert made[-1].form == spec.case.form
    assert made[-1].form.lock is (lock and entry.lockable)
    assert {(phase.case, phase.cpus, phase.offset) for phase in made} == {(0, 3, 0)}
    proof = proof_of(spec.case)
    assert {phase.experiment for phase in made} == {entry.experiment, proof or entry.experiment}
    assert [(phase.form, phase.target) for phase in made if phase.role is Role.PROOF] == [
        (made[-1].form, made[-1].target)
    ] * bool(proof)
    powers = [phase for phase in made if phase.role is Role.POWER]
    assert powers
    assert {phase.experiment for phase in powers} == {proof or entry.experiment}
    assert {phase.form for phase in powers} == set(entry.unlocked(width, Source(source)))
    assert all(phase.target == made[-1].target and not phase.form.lock for phase in powers)
    sanities = [phase for phase in made if phase.role is Role.SANITY]
    assert [phase.experiment for phase in sanities] == (
        [entry.experiment, *([proof] if proof else [])] if target != "ram" or not lock else []
    )
    assert all(phase.target.name == "ram" and phase.form == spec.case.locked for phase in sanities)
    # only a power control may end before its rounds are over, and only a suite's N grows
    assert all(bool(phase.enough) == (phase.role is Role.POWER) for phase in made)
    assert not any(phase.adaptive for phase in made)
    assert len({phase.label for phase in made}) == len(made)
    assert layout_of(spec).phases == len(made)
    for phase in made:
        assert 1 <= phase.cells <= MAX_BATCH
        assert phase.length <= phase.target.reach
        assert phase.aligned == (phase.target.page_offset % (width // 8) == 0)
        assert phase.counts_meetings == experiments()[phase.experiment].walk
        # those that take turns follow each other, and are of one experiment
        together = made[phase.group : phase.index + 1]
        assert {(each.group, each.experiment) for each in together} == {(phase.group, phase.experiment)}
        assert phase.counts_meetings or phase.group == phase.index


def suite(*cases: Case, **fields: object) -> KernelSpec:
    return KernelSpec(cases[0], more=cases[1:], suite="mine", budget=10, **fields)  # type: ignore[arg-type]


def test_the_cases_of_a_suite_share_sanity_controls() -> None:
    """One form in one experiment at one alignment is seen on RAM once."""
    cases = (
        Case("xchg"),
        Case("xchg", target="pc-testdev"),
        Case("xchg", offset=63),
        Case("xchg", lock=False),
        Case("xchg", experiment="mutex"),
        Case("xchg", width=16),
        Case("xchg", target="ram"),
    )
    spec = suite(*cases)
    assert [phase.label for phase in phases(spec) if phase.role is Role.SANITY] == [
        "sanity:xchg.32@ram",
        "sanity:xchg.32@ram/chain",
        "sanity:xchg.32@ram+63",
        "sanity:xchg.32@ram+63/chain",
        "sanity:xchg.32@ram/mutex",
        "sanity:xchg.16@ram",
        "sanity:xchg.16@ram/chain",
    ]
    own = [phases_of(spec, number) for number in range(len(cases))]
    assert [[made[0].index, made[1].index] for made in own[:2]] == [[0, 1], [0, 1]]
    assert own[3][:2] == own[0][:2]
    # a mutex has its own, and the chain's that was seen already
    assert [phase.label for phase in own[4][:2]] == ["sanity:xchg.32@ram/mutex", "sanity:xchg.32@ram/chain"]
    assert own[4][1] is own[0][1]
    assert own[6][0].role is Role.POWER
    assert [made[-1].label for made in own] == [
        "case:xchg.32@vga-text",
        "case:xchg.32@pc-testdev",
        "case:xchg.32@vga-text+63",
        "case:mov-mov.32@vga-text",
        "case:xchg.32@vga-text/mutex",
        "case:xchg.16@vga-text",
        "case:xchg.32@ram",
    ]
    assert {phase for made in own for phase in made} == set(phases(spec))
    assert [phase.index for phase in phases(spec)] == list(range(len(phases(spec))))
    for number, made in enumerate(own):
        assert made[-1].role is Role.CASE
        assert {phase.case for phase in made if phase.role is not Role.SANITY} == {number}
        assert all(phase.case <= number for phase in made)


def test_in_a_suite_the_proof_decides_how_long() -> None:
    """Walks have no number: they end with their proof, or with their share of the budget."""
    made = phases(suite(Case("xchg"), Case("add"), Case("bts", experiment="mutex"), rounds=500))
    found = [(each.label, each.group, each.rounds, each.adaptive, each.enough) for each in made]
    power, case = POWER_ENOUGH_IN_SUITE, CASE_ENOUGH_IN_SUITE
    assert found == [
        ("sanity:xchg.32@ram", 0, 500, False, 0),
        ("sanity:xchg.32@ram/chain", 1, 0, False, 0),
        ("power:mov-mov.32@vga-text/chain", 1, 0, False, power),
        ("power:cmpxchg.32.nolock@vga-text/chain", 1, 0, False, power),
        ("proof:xchg.32@vga-text/chain", 1, 0, False, case),
        ("case:xchg.32@vga-text", 5, 500, True, case),
        ("sanity:add.32@ram/counter", 6, 0, False, 0),
        ("power:add.32.nolock@vga-text/counter", 6, 0, False, power),
        ("case:add.32@vga-text/counter", 6, 0, False, case),
        ("sanity:bts.32@ram/mutex", 9, 500, False, 0),
        ("sanity:bts.32@ram/own-bits", 10, 0, False, 0),
        ("power:bts.32.nolock@vga-text/own-bits", 10, 0, False, power),
        ("proof:bts.32@vga-text/own-bits", 10, 0, False, case),
        ("case:bts.32@vga-text/mutex", 13, 500, False, case),
    ]
    assert layout_of(suite(Case("xchg"))).witnesses == WITNESSES_IN_SUITE
    assert layout_of(KernelSpec(Case("xchg"))).witnesses == WITNESSES_PER_KIND


def test_without_controls_there_is_a_phase_for_each_case_and_nothing_else() -> None:
    made = phases(suite(Case("xchg"), Case("add"), controls=False))
    assert [(phase.role, phase.case) for phase in made] == [(Role.CASE, 0), (Role.CASE, 1)]


# --- kernels of versions that counted no live batches: their records are read by what those versions planned

#: What commit b004b2b planned: label, rounds, cells, events that end it, whether N grows.
OLD_PLANS = {
    "token": (
        KernelSpec(Case("xchg"), rules=OLD_RULES),
        [
            ("sanity:xchg.32@ram", 10_000, 128, 0, False),
            ("power:mov-mov.32@vga-text", 10_000, 128, 64, False),
            ("power:cmpxchg.32.nolock@vga-text", 10_000, 128, 64, False),
            ("case:xchg.32@vga-text", 10_000, 128, 0, False),
        ],
        40_160,
    ),
    "endless": (
        KernelSpec(Case("xchg"), rounds=0, rules=OLD_RULES),
        [
            ("sanity:xchg.32@ram", 10_000, 128, 0, False),
            ("power:mov-mov.32@vga-text", 10_000, 128, 64, False),
            ("power:cmpxchg.32.nolock@vga-text", 10_000, 128, 64, False),
            ("case:xchg.32@vga-text", 0, 128, 0, False),
        ],
        40_160,
    ),
    "ram": (
        KernelSpec(Case("add", target="ram"), rounds=77, rules=OLD_RULES),
        [("power:add.32.nolock@ram/counter", 77, 16, 64, False), ("case:add.32@ram/counter", 77, 16, 0, False)],
        36_656,
    ),
    "without controls": (
        KernelSpec(Case("bts", experiment="mutex", offset=63), controls=False, rules=OLD_RULES),
        [("case:bts.32@vga-text+63/mutex", 10_000, 1, 0, False)],
        34_904,
    ),
    "without lock": (
        KernelSpec(Case("or", lock=False, width=8), rules=OLD_RULES),
        [
            ("sanity:or.8@ram/own-bits", 10_000, 32, 0, False),
            ("power:or.8.nolock@vga-text/own-bits", 10_000, 32, 64, False),
            ("case:or.8.nolock@vga-text/own-bits", 10_000, 32, 0, False),
        ],
        38_408,
    ),
    "batch": (
        KernelSpec(Case("not", target="pc-testdev"), batch=3, rules=OLD_RULES),
        [
            ("sanity:not.32@ram/parity", 10_000, 3, 0, False),
            ("power:not.32.nolock@pc-testdev/parity", 10_000, 3, 64, False),
            ("case:not.32@pc-testdev/parity", 10_000, 3, 0, False),
        ],
        38_408,
    ),
    "suite": (
        suite(
            Case("xchg"),
            Case("xchg", experiment="mutex"),
            Case("or"),
            Case("mov"),
            Case("cmpxchg8b", target="ram"),
            Case("xchg", target="pc-testdev"),
            rounds=500,
            rules=OLD_RULES,
        ),
        [
            ("sanity:xchg.32@ram", 500, 128, 0, False),
            ("power:mov-mov.32@vga-text", 500, 128, 10, True),
            ("power:cmpxchg.32.nolock@vga-text", 500, 128, 10, True),
            ("case:xchg.32@vga-text", 500, 128, 8, True),
            ("sanity:xchg.32@ram/mutex", 500, 1, 0, False),
            ("power:mov-mov.32@vga-text/mutex", 500, 1, 10, True),
            ("power:cmpxchg.32.nolock@vga-text/mutex", 500, 1, 10, True),
            ("case:xchg.32@vga-text/mutex", 500, 1, 8, True),
            ("sanity:or.32@ram/own-bits", 500, 32, 0, False),
            ("power:or.32.nolock@vga-text/own-bits", 500, 32, 10, True),
            ("case:or.32@vga-text/own-bits", 500, 32, 8, True),
            ("sanity:mov.32@ram/torn", 500, 1, 0, False),
            ("power:mov-parts.32@vga-text/torn", 500, 1, 10, True),
            ("case:mov.32@vga-text/torn", 500, 1, 8, True),
            ("power:cmpxchg8b.64.nolock@ram", 500, 128, 10, True),
            ("case:cmpxchg8b.64@ram", 500, 128, 8, True),
            ("power:mov-mov.32@pc-testdev", 500, 128, 10, True),
            ("power:cmpxchg.32.nolock@pc-testdev", 500, 128, 10, True),
            ("case:xchg.32@pc-testdev", 500, 128, 8, True),
        ],
        44_552,
    ),
}


@pytest.mark.parametrize("name", OLD_PLANS)
def test_kernels_of_the_old_rules_are_planned_as_ever(name: str) -> None:
    spec, wanted, size = OLD_PLANS[name]
    made = phases(spec)
    assert [(each.label, each.rounds, each.cells, each.enough, each.adaptive) for each in made] == wanted
    assert [each.group for each in made] == [each.index for each in made] == list(range(len(made)))
    assert not any(each.counts_meetings or each.role is Role.PROOF for each in made)
    layout = layout_of(spec)
    assert (layout.version, layout.size) == (LAYOUT_WITHOUT_MEETINGS, size)


def test_kernels_of_these_rules_have_their_own_layout() -> None:
    assert layout_of(KernelSpec(Case("xchg"))).version == LAYOUT_VERSION != LAYOUT_WITHOUT_MEETINGS


@pytest.mark.parametrize(
    ("case", "rounds", "seconds"),
    [
        (Case("xchg"), None, PROOF_SECONDS),
        (Case("add"), None, PROOF_SECONDS),
        # a number is a number
        (Case("xchg"), 10_000, 0),
        (Case("add"), 10_000, 0),
        # the case has no end, but what comes before it has
        (Case("xchg"), 0, PROOF_SECONDS),
        (Case("bts", experiment="mutex"), 0, PROOF_SECONDS),
        (Case("add"), 0, 0),
        (Case("xchg", experiment="chain"), 0, 0),
    ],
)
def test_how_long_a_proof_is_sought(case: Case, rounds: int | None, seconds: int) -> None:
    assert proof_seconds(case, rounds) == seconds
