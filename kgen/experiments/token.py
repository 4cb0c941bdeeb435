"""The original's experiment: CPU 0 puts a token into a cell, the others try to take it by exchanging it with 0."""

from __future__ import annotations

from kgen.experiments import Experiment

EXPERIMENT = Experiment(
    name="token",
    summary="CPU 0 puts unique tokens into cells, the others take them by exchanging them with 0",
    argument=(
        "Each cell starts empty (0). In a batch the producer exchanges one unique token into it and consumers only "
        "ever exchange 0 into it. An atomic exchange moves values, it neither copies nor drops them: whatever the "
        "order, the token ends in exactly one place, one consumer's hands or the cell. So a token nobody took and "
        "that is not in its cell was lost; one taken twice was duplicated; one taken and still in the cell, or a "
        "cell found full when it must be empty, is stale; any other value is torn."
    ),
    unit="rounds",
    template="experiments/token.asm",
)
