"""Every entry of the targets' and experiments' registries is valid, and fits the instructions."""

from __future__ import annotations

import pkgutil

import pytest

import kgen.experiments
import kgen.targets
from kgen.experiments import Experiment
from kgen.instructions import Instruction
from kgen.registry import discover
from kgen.resources import data_dir
from kgen.spec.case import RESERVED
from kgen.targets import MemoryTarget

INSTRUCTIONS = discover("kgen.instructions", "INSTRUCTION", Instruction)
TARGETS = discover("kgen.targets", "TARGET", MemoryTarget)
EXPERIMENTS = discover("kgen.experiments", "EXPERIMENT", Experiment)


@pytest.mark.parametrize(("package", "entries"), [(kgen.targets, TARGETS), (kgen.experiments, EXPERIMENTS)])
def test_every_module_of_a_registry_is_an_entry(package: object, entries: dict[str, object]) -> None:
    modules = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]  # type: ignore[attr-defined]
    assert len(modules) == len(entries)
    assert {name.replace("-", "_") for name in entries} == set(modules)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_every_target_can_hold_a_cell(target: MemoryTarget) -> None:
    assert target.summary
    assert target.size >= 4
    assert target.declared in ("io", "ram")
    if target.address is None:
        assert target.symbol or target.setup
        return
    assert target.address % 4 == 0
    assert not [low for low, high, _ in RESERVED if target.address < high and target.address + target.size > low]


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_every_experiment_says_why_it_is_sound(experiment: Experiment) -> None:
    assert len(experiment.argument) > 100
    if experiment.template:
        assert (data_dir("kernel_templates") / experiment.template).is_file()
    else:
        assert experiment.assembly


@pytest.mark.parametrize("entry", INSTRUCTIONS.values(), ids=lambda entry: entry.name)
def test_every_instruction_has_its_experiment(entry: Instruction) -> None:
    assert EXPERIMENTS[entry.experiment].offered(entry)


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_every_experiment_has_an_instruction(experiment: Experiment) -> None:
    assert any(experiment.offered(entry) for entry in INSTRUCTIONS.values())
