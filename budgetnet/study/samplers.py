"""Samplers: what draws the next candidate from those that are known."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from budgetnet.study.config import SamplerName

IGNORES_PRUNED = ("gp", "nsga2")
"""Samplers that learn from complete trials only, so that candidates pruned or turned away must look complete."""


def make_sampler(name: SamplerName, *, seed: int) -> BaseSampler:
    """The sampler of that name.

    Args:
        name: tree-structured Parzen estimators, a Gaussian process, a genetic algorithm, or plain chance.
        seed: of what it draws.
    """
    seed %= 2**32
    if name == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "gp":
            return GPSampler(seed=seed)
        if name == "nsga2":
            return NSGAIISampler(seed=seed, population_size=20)
    return TPESampler(seed=seed)
