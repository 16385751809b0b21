"""Benchmark of a sampler's proposals under a budget: how many fit, for each sizing, without training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
import optuna

from budgetnet.bench.measure import Goal
from budgetnet.common.seeding import derive_seed
from budgetnet.model.budget import Budget
from budgetnet.statistics.intervals import Interval, wilson_interval
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.fitting import fit


class SizingResult(NamedTuple):
    """Proposals of one sizing."""

    sizing: Sizing
    proposals: int
    """Number of proposals."""
    budget_used: list[float]
    """Share of the tightest limit that each proposal within the budget uses."""
    seconds: list[float]
    """Time to sample, build and check the spec of each proposal."""

    @property
    def share_within(self) -> float:
        """Share of the proposals that are within the budget."""
        return len(self.budget_used) / self.proposals

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of `share_within`."""
        return wilson_interval(len(self.budget_used), self.proposals)

    @property
    def median_use(self) -> float | None:
        """Median of `budget_used`; None if no proposal is within the budget."""
        return float(np.median(self.budget_used)) if self.budget_used else None

    @property
    def low_use(self) -> float | None:
        """5th percentile of `budget_used`; None if no proposal is within the budget."""
        return float(np.quantile(self.budget_used, 0.05)) if self.budget_used else None

    @property
    def seconds_per_proposal(self) -> float:
        """Mean time of a proposal."""
        return sum(self.seconds) / self.proposals

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data; times in seconds."""
        return {
            "sizing": self.sizing,
            "proposals": self.proposals,
            "within": len(self.budget_used),
            "share_within": self.share_within,
            "interval": list(self.interval),
            "median_use": self.median_use,
            "low_use": self.low_use,
            "seconds_per_proposal": self.seconds_per_proposal,
            "median_seconds": float(np.median(self.seconds)),
            "slowest_seconds": max(self.seconds),
        }


class ProposalsBenchmark(NamedTuple):
    """Proposals of every sizing."""

    environment: dict[str, Any]
    space: SearchSpace
    budget: Budget
    input_shape: tuple[int, int, int]
    num_classes: int
    seed: int
    rows: list[SizingResult]

    @property
    def goals(self) -> list[Goal]:
        """Goals of the sizing ``fit``, and whether this machine meets them."""
        fit_row = next(row for row in self.rows if row.sizing == "fit")
        within, use = 100 * fit_row.share_within, 100 * (fit_row.median_use or 0.0)
        return [
            Goal.at_least("fitted proposals within the budget, %", "percent", within, 100.0),
            Goal.at_least("median budget use of fitted proposals, %", "percent", use, 97.0),
            Goal.at_most("time of a fitted proposal, at most", "seconds", fit_row.seconds_per_proposal, 2e-3),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        return {
            "benchmark": "proposals",
            "environment": self.environment,
            "space": self.space.to_mapping(),
            "budget": self.budget.to_mapping(),
            "input_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "seed": self.seed,
            "rows": [row.to_mapping() for row in self.rows],
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(
    space: SearchSpace,
    *,
    budget: Budget,
    input_shape: tuple[int, int, int],
    num_classes: int,
    proposals: int,
    seed: int,
    progress: Callable[[str], None],
) -> ProposalsBenchmark:
    """Sample random proposals for each sizing, as a search does before its sampler has seen results.

    Args:
        space: the search space.
        budget: limits, at least one of them set.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
        proposals: number of proposals per sizing.
        seed: seed of the sampler.
        progress: called with a description of each step.

    Raises:
        InputError: no limit is set.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def measure_sizing(sizing: Sizing) -> SizingResult:
        progress(f"proposals: {sizing}")
        sampler = optuna.samplers.RandomSampler(seed=derive_seed(seed, "sampler", 0) % 2**32)
        study = optuna.create_study(sampler=sampler)
        budget_used, seconds = [], []
        for _ in range(proposals):
            start = time.perf_counter()
            params = study.ask(space.proposed(sizing)).params
            spec = fit(space, params, budget=budget, sizing=sizing, input_shape=input_shape, num_classes=num_classes)
            verdict = budget.check(spec)
            seconds.append(time.perf_counter() - start)
            if verdict.fits:
                budget_used.append(budget.share_used(verdict.cost, verdict.needs))
        return SizingResult(sizing, proposals, budget_used, seconds)

    rows = [measure_sizing(sizing) for sizing in get_args(Sizing)]
    environment = describe_environment(torch.device("cpu"))
    return ProposalsBenchmark(environment, space, budget, input_shape, num_classes, seed, rows)
