"""Runs that a reproduction trains, and its result from their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from budgetnet.experiments.reproduction.config import (
    EnsembleConfig,
    LadderConfig,
    LeakageConfig,
    ReferenceConfig,
    ReproductionConfig,
)
from budgetnet.experiments.reproduction.ensemble import EnsembleReproduction, ensemble_reproduction
from budgetnet.experiments.reproduction.ladder import LadderResult, ladder_result, rungs
from budgetnet.experiments.reproduction.leakage import LeakageResult, leakage_result
from budgetnet.experiments.reproduction.reference import ReferenceResult, reference_result
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import find_spec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord

ReproductionResult = ReferenceResult | LeakageResult | LadderResult | EnsembleReproduction

KINDS: dict[str, type[ReproductionConfig]] = {
    kind.command.removeprefix("reproduce "): kind
    for kind in (ReferenceConfig, LeakageConfig, LadderConfig, EnsembleConfig)
}
"""Config of each reproduction, by its name."""


class RunGroup(NamedTuple):
    """Training runs that differ only in the seed."""

    spec: ModelSpec
    recipe: Recipe


def run_groups(config: ReproductionConfig) -> list[RunGroup]:
    """Return the networks and recipes that a reproduction trains, each with every seed.

    Raises:
        InputError: no such network, recipe or file, or a file that breaks a rule.
    """
    match config:
        case ReferenceConfig():
            return [RunGroup(find_spec("reference"), config.trained_by(config.recipe))]
        case LeakageConfig():
            return [RunGroup(find_spec(config.spec), config.trained_by(name)) for name in ("as-run", "paper")]
        case LadderConfig():
            return [RunGroup(find_spec(rung.known_spec), config.trained_by(config.recipe)) for rung in rungs()]
        case EnsembleConfig():
            return [RunGroup(find_spec(config.spec), config.trained_by(config.recipe))]
    raise TypeError(f"{type(config).__name__} is not the config of a reproduction")


def reproduction_result(config: ReproductionConfig, records: Sequence[Sequence[RunRecord]]) -> ReproductionResult:
    """Compute the result of a reproduction.

    Args:
        config: config of the reproduction.
        records: runs of each of `run_groups`, in the order of the seeds, with test results.

    Raises:
        BudgetnetError: the test results needed are missing.
    """
    match config:
        case ReferenceConfig():
            return reference_result(records[0], declared=config.declared)
        case LeakageConfig():
            return leakage_result(*records)
        case LadderConfig():
            return ladder_result(records, declared=config.declared)
        case EnsembleConfig():
            return ensemble_reproduction(records[0], budget=Budget(max_params=config.max_params))
    raise TypeError(f"{type(config).__name__} is not the config of a reproduction")
