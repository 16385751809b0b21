"""Ways to search a table: the search's own samplers behind an adapter, and simple rules to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.bench.quality.problem import Problem
from budgetnet.study.sampling.domain import Pool, Sample, Sampler
from budgetnet.study.sampling.optuna_sampler import OptunaSampler
from budgetnet.study.sampling.study_domain import MACS_EFFECT
from budgetnet.study.sampling.surrogate import SurrogateSampler
from budgetnet.study.space.pool import BELOW_SHARE, LEAST_SHARE

NEAR = 0.9
"""Least share of the limit of a candidate near it."""
MAX_PROPOSALS = 2_000
"""Proposals in a row without a new candidate within the limit after which a search ends."""

Search = Generator[int, float, None]
"""Yields candidates to train, by their index, and is sent the accuracy of each."""


class TableDomain:
    """Candidates of a table, as the search's surrogate sampler sees them; see `Domain`."""

    def __init__(self, problem: Problem) -> None:
        """Describe the candidates of a problem."""
        self.distributions = problem.distributions
        self._problem = problem
        known = {"log MACs": problem.macs, "log size": problem.size if np.isfinite(problem.limit) else None}
        known |= problem.features
        columns = {name: np.log(column) for name, column in known.items() if column is not None}
        self.feature_names = tuple(columns)
        self.prior = np.array([MACS_EFFECT if name == "log MACs" else 0.0 for name in columns])
        self._features = np.stack([*columns.values()], axis=1) if columns else np.zeros((len(problem.size), 0))
        share = problem.size[problem.within] / problem.limit if np.isfinite(problem.limit) else np.ones(1)
        self._below = problem.within[share >= LEAST_SHARE] if len(share) > 1 else problem.within
        self._near = problem.within[share >= NEAR] if len(share) > 1 else problem.within

    def pool(self, *, count: int, generator: np.random.Generator) -> Pool:
        """Return random candidates, most of them near the limit; see `Domain.pool`."""
        below = int(count * BELOW_SHARE)
        rows = np.concatenate([generator.choice(self._near, count - below), generator.choice(self._below, below)])
        names = self._problem.distributions
        columns = {name: self._problem.indexes[rows, place] for place, name in enumerate(names)}
        return Pool(columns, self._features[rows])

    def random(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return a random candidate within the limit; see `Domain.random`."""
        return params_of(self._problem, int(generator.choice(self._problem.within)))

    def features_of(self, trial: FrozenTrial) -> NDArray[np.float64]:
        """Return the features of a trial's candidate; see `Domain.features_of`."""
        return np.asarray(self._features[trial.user_attrs["cell"]])


def params_of(problem: Problem, candidate: int) -> dict[str, Any]:
    """Return the parameters of a candidate."""
    return dict(zip(problem.distributions, problem.indexes[candidate].tolist(), strict=True))


def within_limit(problem: Problem, seed: int) -> Search:
    """Train random candidates within the limit."""
    yield from _in_order(np.random.default_rng(seed).permutation(problem.within))


def near_limit(problem: Problem, seed: int) -> Search:
    """Train random candidates that use at least `NEAR` of the limit."""
    yield from _in_order(np.random.default_rng(seed).permutation(_near(problem)))


def most_macs(problem: Problem, seed: int) -> Search:
    """Train the candidate with the most MACs of five random ones near the limit, again and again."""
    generator, near = np.random.default_rng(seed), _near(problem)
    trained: set[int] = set()
    for _ in range(MAX_PROPOSALS):
        five = generator.choice(near, 5)
        best = int(five[np.argmax(problem.macs[five] if problem.macs is not None else problem.size[five])])
        if best not in trained:
            trained.add(best)
            yield best


def _in_order(candidates: NDArray[np.int64]) -> Search:
    # Not `yield from`: a list cannot be sent accuracies.
    for place in range(len(candidates)):
        yield int(candidates[place])


def _near(problem: Problem) -> NDArray[np.int64]:
    near = problem.within[problem.size[problem.within] >= NEAR * problem.limit]
    return near if len(near) else problem.within


def by_sampler(name: str, *, constrained: bool = True) -> Callable[[Problem, int], Search]:
    """Return a strategy that asks a sampler of the search.

    Args:
        name: name of the sampler.
        constrained: whether the sampler is told of candidates beyond the limit, which are not trained; else another
            one is asked for.
    """

    def search(problem: Problem, seed: int) -> Search:
        trials: list[FrozenTrial] = []
        sampler: Sampler
        if name == "surrogate":
            sampler = SurrogateSampler(TableDomain(problem), seed=seed)
        else:
            sampler = OptunaSampler(name, problem.distributions, seed=seed, every_trial=lambda: trials)
        yield from _ask(sampler, problem, trials, constrained=constrained)

    return search


def _ask(sampler: Sampler, problem: Problem, trials: list[FrozenTrial], *, constrained: bool) -> Search:
    """Ask a sampler as a search does: reject candidates beyond the limit, and train none twice."""
    # Trials without a limit have no constraint, as in a search.
    constrained = constrained and math.isfinite(problem.limit)
    accuracies: dict[int, float] = {}
    ended: list[FrozenTrial] = []
    number = last = 0
    while number - last < MAX_PROPOSALS:
        sampler.update(ended, [])
        sample = sampler.ask(number)
        number += 1
        candidate = problem.nearest(sample.params, trained=accuracies)
        sample = _of_table(sampler, sample, params_of(problem, candidate))
        excess = {"size": float(problem.size[candidate] / problem.limit - 1)}
        is_trained = False
        if excess["size"] <= 0 and candidate not in accuracies:
            accuracies[candidate] = yield candidate
            last, is_trained = number, True
        if constrained:
            sampler.constrain(sample, excess)
        elif excess["size"] > 0:
            sampler.dropped(sample)
            ended = []
            continue
        accuracy = accuracies.get(candidate)
        trial = create_trial(
            state=TrialState.PRUNED if accuracy is None else TrialState.COMPLETE,
            value=None if accuracy is None else accuracy / 100,
            params=sample.params,
            distributions=dict(sample.distributions),
            constraints=excess if constrained else None,
            user_attrs={"cell": candidate, "trained": is_trained},
            system_attrs=dict(sample.system_attrs),
        )
        trial.number = len(trials)
        trials.append(trial)
        sampler.stored(sample, trial)
        ended = [trial]


def _of_table(sampler: Sampler, sample: Sample, params: dict[str, Any]) -> Sample:
    """Return a sample with the parameters of the candidate that is trained for it, which the sampler learns from."""
    if sample.params == params:
        return sample
    sampler.dropped(sample)
    return Sample(params, sample.distributions, sample.system_attrs)


STRATEGIES: dict[str, tuple[str, Callable[[Problem, int], Search]]] = {
    "random": ("random within the limit", within_limit),
    "near": ("random near the limit", near_limit),
    "most-macs": ("most MACs of five near the limit", most_macs),
    "tpe": ("Optuna's TPE, constrained", by_sampler("tpe")),
    "tpe-rejecting": ("Optuna's TPE, rejecting", by_sampler("tpe", constrained=False)),
    "nsga2": ("Optuna's NSGA-II, constrained", by_sampler("nsga2")),
    "gp": ("Optuna's Gaussian process, constrained", by_sampler("gp")),
    "surrogate": ("surrogate", by_sampler("surrogate")),
}
"""Strategies by name, with a description."""
