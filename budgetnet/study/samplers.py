"""Samplers of candidates, by name."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from budgetnet.study.config import SamplerName

IGNORES_PRUNED = ("gp", "nsga2")
"""Samplers that use complete trials only, so that pruned and rejected ones are passed to them as complete."""


def make_sampler(name: SamplerName, *, seed: int) -> BaseSampler:
    """Return the sampler of that name.

    Args:
        name: tpe (tree-structured Parzen estimator), gp (Gaussian process), nsga2 (genetic algorithm) or random.
        seed: seed of the sampler.
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
