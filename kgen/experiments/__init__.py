"""Experiments: what the CPUs do to the cells, and what must hold at the end. One file an experiment, each
exposing ``EXPERIMENT = Experiment(...)``; its assembly is ``kernel_templates/experiments/NAME.asm``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Poll(IntEnum):
    """How a waiting consumer looks at a cell.

    EXCHANGE: it exchanges at once, as the original program does; a write half in flight mostly wipes out a token.
    READ: it reads until it sees a token, then exchanges; consumers then mostly take one token twice.
    BOTH: consumers alternate between the two, so that both kinds of violation can show.
    """

    EXCHANGE = 0
    READ = 1
    BOTH = 2


@dataclass(frozen=True)
class Experiment:
    """``argument`` says why its violations cannot happen under atomic operations; ``unit`` what N counts."""

    name: str
    summary: str
    argument: str
    unit: str
    template: str
