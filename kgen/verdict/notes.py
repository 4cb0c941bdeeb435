"""What a verdict states besides its reason: power, cause, findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kgen.evidence.kvm_trace import remarks
from kgen.experiments import Experiment
from kgen.kernel.plan import experiment_of
from kgen.kernel.results_block import Decode, Role
from kgen.verdict import proof
from kgen.verdict.case_run import Run, path_evidence, violated_kinds
from kgen.verdict.model import OLD_KERNEL, POWER_MINIMUM, VerdictKind
from kgen.wording import plural

#: Linux logs this once, when KVM carries out a LOCKed exchange as a plain write (arch/x86/kvm/x86.c).
CONFESSION = "emulating exchange as write"


def _shown_by_each(run: Run, kind: str) -> bool:
    """Return whether each power control showed this kind often enough by itself."""
    return all(record and record.violations[kind] >= POWER_MINIMUM for _, record in run.of(Role.POWER))


def _little_power(weak: Sequence[str], experiment: Experiment) -> str:
    """Return the sentence that some kinds of defect might have been missed."""
    what = " or ".join(experiment.words[kind].defect for kind in weak)
    return (
        f"a defect that only {what} might have been missed: not every power control showed {POWER_MINIMUM} violations "
        f"of {'that kind' if len(weak) == 1 else 'each kind'}"
    )


def cause(run: Run, kind: VerdictKind) -> str:
    """Return the cause of a violation that the hypervisor itself logged or traced, "" where it did not."""
    if kind is not VerdictKind.NOT_ATOMIC or not run.locked:
        return ""
    line = next((line for line in run.observation.kernel_log or () if CONFESSION in line), "")
    if line:
        return f"KVM carried the LOCKed exchange out as a plain write; its kernel logged: {line}"
    if run.observation.kernel_log is None and any(remarks(run.observation.trace)):
        return (
            "the hypervisor carried the LOCKed exchange out as a read request and a separate write request; its own "
            "trace shows what came between"
        )
    return ""


def notes(run: Run, kind: VerdictKind) -> Iterator[str]:
    """Yield facts that did not decide the verdict, one sentence each."""
    if run.record.abridged:
        yield "it rests on a result code: the guest's own account of itself, without witnesses, copied by hand"
    if run.observation.kernel_log is not None and kind is VerdictKind.NOT_ATOMIC and not cause(run, kind):
        yield f"the hypervisor's kernel did not log '{CONFESSION}': nothing names the cause"
    if kind is VerdictKind.INCONCLUSIVE and not run.counts_live:
        yield OLD_KERNEL
    if run.observation.cut:
        yield run.observation.cut
    if run.observation.scene:
        yield (
            "the run was stopped at its first violation (--stop-on-violation): N counts up to it, and the log has no "
            "closing line"
        )
    reached = [record for _, record in run.of(Role.POWER) if record]
    shown = {kind for record in reached for kind, count in record.violations.items() if count}
    if shown:
        yield f"the power controls showed: {', '.join(sorted(shown))}"
    possible = [kind for kind in ("lost", "duplicate") if kind in run.experiment.kinds]
    weak = [kind for kind in possible if not _shown_by_each(run, kind)]
    clean = kind in (VerdictKind.ATOMIC, VerdictKind.INCONCLUSIVE)
    if clean and weak and any(record.rounds for record in reached):
        yield _little_power(weak, run.experiment)
    if run.group is not None:
        yield from proof.findings(run.group)
        also = run.group.case.record
        if run.stands_in and run.told is run.case and also.total:
            yield (
                f"in the same boot {run.weighed.experiment} had {violated_kinds(also.violations)} in "
                f"{plural(also.rounds, experiment_of(run.weighed).unit)}"
            )
    if run.case.target.vga and run.case_record:
        guest = run.case_record.decode
        kind_seen = path_evidence(run).kind
        if kind_seen in ("io", "ram") and guest is not Decode.UNKNOWN:
            agree = guest.name.lower() == kind_seen
            yield f"the guest's own probe {'agrees' if agree else 'disagrees'}: VGA decoding gives {guest.name.lower()}"
