"""What a sampler's proposals come to under a budget, for each way to size them, before anything is trained."""

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


class Sized(NamedTuple):
    """Proposals of one sizing."""

    sizing: Sizing
    proposals: int
    """How many were drawn."""
    uses: list[float]
    """Use of the tightest limit by each that is within the budget, as a share."""
    seconds: list[float]
    """For each proposal, the time to draw it, make its specification and check it."""

    @property
    def share_within(self) -> float:
        """Share of the proposals that are within the budget."""
        return len(self.uses) / self.proposals

    @property
    def interval(self) -> Interval:
        """95 % interval of that share, as more proposals would have it."""
        return wilson_interval(len(self.uses), self.proposals)

    @property
    def median_use(self) -> float | None:
        """Median use; none if nothing was within the budget."""
        return float(np.median(self.uses)) if self.uses else None

    @property
    def low_use(self) -> float | None:
        """The use that only a twentieth stays below; none if nothing was within the budget."""
        return float(np.quantile(self.uses, 0.05)) if self.uses else None

    @property
    def seconds_per_proposal(self) -> float:
        """Mean time."""
        return sum(self.seconds) / self.proposals

    def to_mapping(self) -> dict[str, Any]:
        """The figures as plain data; times in seconds."""
        return {
            "sizing": self.sizing,
            "proposals": self.proposals,
            "within": len(self.uses),
            "share_within": self.share_within,
            "interval": list(self.interval),
            "median_use": self.median_use,
            "low_use": self.low_use,
            "seconds_per_proposal": self.seconds_per_proposal,
            "median_seconds": float(np.median(self.seconds)),
            "slowest_seconds": max(self.seconds),
        }


class ProposalsBenchmark(NamedTuple):
    """What was proposed."""

    environment: dict[str, Any]
    space: SearchSpace
    budget: Budget
    input_shape: tuple[int, int, int]
    num_classes: int
    seed: int
    rows: list[Sized]

    @property
    def goals(self) -> list[Goal]:
        """The goals of solving for widths, and whether they were met on this machine."""
        fitted = next(row for row in self.rows if row.sizing == "fit")
        within, use = 100 * fitted.share_within, 100 * (fitted.median_use or 0.0)
        taken = fitted.seconds_per_proposal
        return [
            Goal("fitted within the budget, in per cent", "percent", within, 100.0, within == 100),
            Goal("median use by the fitted, in per cent", "percent", use, 97.0, use >= 97),
            Goal("a fitted proposal, at most", "seconds", taken, 2e-3, taken <= 2e-3),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds."""
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
    """Draws proposals at random for each sizing, as a search would before its sampler has learned anything.

    Args:
        space: where they are from.
        budget: the limits, of which one at least is set.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
        proposals: how many for each sizing.
        seed: of the draws.
        progress: told what is being done.

    Raises:
        InputError: no limit is set.
    """
    import torch

    from budgetnet.training.devices import describe_environment

    # Optuna would tell of every study that it makes.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for sizing in get_args(Sizing):
        progress(f"proposals: {sizing}")
        rows.append(_proposed(space, sizing, budget, input_shape, num_classes, proposals, seed))
    environment = describe_environment(torch.device("cpu"))
    return ProposalsBenchmark(environment, space, budget, input_shape, num_classes, seed, rows)


def _proposed(
    space: SearchSpace,
    sizing: Sizing,
    budget: Budget,
    input_shape: tuple[int, int, int],
    num_classes: int,
    proposals: int,
    seed: int,
) -> Sized:
    sampler = optuna.samplers.RandomSampler(seed=derive_seed(seed, "sampler", 0) % 2**32)
    study = optuna.create_study(sampler=sampler)
    uses, seconds = [], []
    for _ in range(proposals):
        start = time.perf_counter()
        params = study.ask(space.proposed(sizing)).params
        spec = fit(space, params, budget=budget, sizing=sizing, input_shape=input_shape, num_classes=num_classes)
        verdict = budget.check(spec)
        seconds.append(time.perf_counter() - start)
        if verdict.fits:
            uses.append(budget.share_used(verdict.cost))
    return Sized(sizing, proposals, uses, seconds)
