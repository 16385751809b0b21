"""Sampler that proposes the most promising of several candidates by a model learned from the study's own trials.

Within a parameter budget, MACs predict accuracy where the number of parameters does not, so the model starts with that
expectation. What it learns from trained candidates outweighs it. A share of the proposals is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.seeding import derive_seed
from budgetnet.study.damage import damage_of
from budgetnet.study.outcomes import accuracy_of, is_stopped, is_trained
from budgetnet.study.sampling.domain import MACS, Domain, Sample
from budgetnet.study.sampling.encoding import Encoded, Encoder
from budgetnet.study.sampling.process import Inputs, Posterior, deviations

CHOICES = 64
"""Candidates that each proposal is the best of."""
RANDOM_SHARE = 0.1
"""Share of proposals that are random."""
DEAREST = 2.0
"""Multiple of the pool's median MACs that a candidate may have, unless more was spent before:"""
SPENT = 0.1
"""Share of the MACs of all trained candidates together that the next one may have. So a search that may end at any time
does not begin with a few very large candidates."""
OPTIMISM = 0.5
"""Standard deviations by which the model's uncertainty makes a candidate more promising."""
REMEMBERED = 150
"""Trials that the model uses at most: the best quarter of them, and the latest."""
_POOL, _PROPOSALS = 512, 64
"""Candidates of a pool, and proposals that choose from it: to fit many at once is faster."""
_FIRST = 5
"""Trained candidates before the model is used, if nothing is expected of any feature."""


_Identity = tuple[tuple[str, Any], ...]


class SurrogateSampler:
    """Sampler with a Gaussian process of closed-form features and parameters."""

    def __init__(self, domain: Domain, *, seed: int) -> None:
        """Create a sampler that knows no trials.

        Args:
            domain: parameters and candidates of the search.
            seed: seed of the sampler.
        """
        self._domain, self._seed = domain, seed
        self._encoder = Encoder(domain.distributions)
        self._trials: list[FrozenTrial] = []
        """Trained trials that the model uses, in order."""
        self._accuracies: NDArray[np.float64] = np.zeros(0)
        """Accuracy of each of them."""
        self._rows: dict[int, _Row] = {}
        """What the model knows of each trained trial and of those in training, by the trial's number."""
        self._spent = 0.0
        """MACs of all trained candidates together; 0 if they are not known."""
        self._running: list[FrozenTrial] = []
        self._proposed: set[_Identity] = set()
        self._block = -1
        self._posterior: Posterior | None = None

    def ask(self, number: int) -> Sample:
        """Return the most promising candidate of some, or a random one; see `Sampler.ask`."""
        if number // _PROPOSALS != self._block:
            self._draw_pool(number // _PROPOSALS)
        generator = np.random.default_rng(derive_seed(self._seed, "proposal", number))
        order = generator.permutation(len(self._identities))
        new = (row for row in order if self._identities[row] not in self._proposed)
        rows = np.array(list(islice(new, CHOICES)), dtype=int)
        if not len(rows):
            return self._sample(self._domain.random(generator))
        row = rows[0]
        is_first = not self._domain.prior.any() and len(self._trials) < _FIRST
        if generator.random() >= RANDOM_SHARE and not is_first:
            cheap = rows[self._macs[rows] <= max(DEAREST * float(np.median(self._macs)), SPENT * self._spent)]
            rows = cheap if len(cheap) else rows
            mean, deviation = self._learned().predict(_rows(self._inputs, rows))
            row = rows[np.argmax(mean + OPTIMISM * deviation)]
        return self._sample(self._pool.params_at(row))

    def constrain(self, sample: Sample, violations: Mapping[str, float]) -> None:
        """Do nothing: candidates of the pool are within the budget."""

    def stored(self, sample: Sample, trial: FrozenTrial) -> None:
        """Do nothing: trials are learned from when they end."""

    def dropped(self, sample: Sample) -> None:
        """Do nothing: a candidate that was proposed is not proposed again."""

    def update(self, ended: list[FrozenTrial], running: list[FrozenTrial]) -> None:
        """Learn from trained candidates; see `Sampler.update`."""
        self._proposed.update(_identity(trial.params) for trial in (*ended, *running))
        trained = [trial for trial in ended if is_trained(trial) and damage_of(trial) is None]
        self._spent += sum(float(self._macs_of(self._domain.features_of(trial))) for trial in trained)
        if trained or running != self._running:
            # One by one, so that a resumed search remembers the same trials as one that was not interrupted.
            for each in trained:
                self._trials, self._accuracies = _kept([*self._trials, each])
            self._running = list(running)
            self._posterior = None
            self._add_rows([trial for trial in (*trained, *running) if trial.number not in self._rows])

    def _draw_pool(self, block: int) -> None:
        generator = np.random.default_rng(derive_seed(self._seed, "pool", block))
        self._block, self._posterior = block, None
        self._pool = self._domain.pool(count=_POOL, generator=generator)
        features = self._pool.features
        count = len(features)
        self._macs = self._macs_of(features)
        self._identities = [_identity(self._pool.params_at(row)) for row in range(count)]
        # In units of the differences between the candidates to choose from.
        self._mean = features.mean(axis=0) if count else np.zeros(features.shape[1])
        deviation = deviations(features)
        self._deviation = np.where(deviation > 0, deviation, 1.0)
        encoded = self._encoder.columns(self._pool.columns, count=count)
        self._inputs = Inputs(self._standardised(features), encoded, np.ones(count, dtype=bool))

    def _macs_of(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the MACs of candidates by their features, `(..., features)`; 0 if they are not a feature."""
        names = self._domain.feature_names
        return np.exp(features[..., names.index(MACS)]) if MACS in names else np.zeros(features.shape[:-1])

    def _standardised(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((features - self._mean) / self._deviation)

    def _sample(self, params: dict[str, Any]) -> Sample:
        self._proposed.add(_identity(params))
        return Sample(params, self._domain.distributions)

    def _add_rows(self, trials: Sequence[FrozenTrial]) -> None:
        if not trials:
            return
        features = np.array([self._domain.features_of(trial) for trial in trials])
        inputs = inputs_of(trials, features, self._encoder)
        rows = map(_Row, inputs.features, *inputs.encoded, inputs.known.tolist())
        self._rows.update(zip((trial.number for trial in trials), rows, strict=True))

    def _learned(self) -> Posterior:
        """Return the model after all trials."""
        if self._posterior is None:
            inputs = _rows(self._inputs, np.zeros(0, dtype=int))
            if rows := [self._rows[trial.number] for trial in (*self._trials, *self._running)]:
                inputs = _stacked(rows)
                inputs = inputs._replace(features=self._standardised(inputs.features))
            self._posterior = Posterior(inputs, self._accuracies, prior=self._domain.prior)
        return self._posterior


class _Row(NamedTuple):
    """Inputs of one trial; features as they are."""

    features: NDArray[np.float64]
    single: NDArray[np.float64]
    joint: NDArray[np.float64]
    known: bool


def _stacked(rows: Sequence[_Row]) -> Inputs:
    features, single, joint, known = (np.array(part) for part in zip(*rows, strict=True))
    return Inputs(features, Encoded(single, joint), known)


def inputs_of(trials: Sequence[FrozenTrial], features: NDArray[np.float64], encoder: Encoder) -> Inputs:
    """Return the model's inputs for trials.

    Args:
        trials: trials of candidates; those of enqueued networks have no parameters.
        features: their standardised features, `(trials, features)`.
        encoder: encoder of their parameters.
    """
    known = np.array([encoder.knows(trial.params) for trial in trials], dtype=bool)
    sampled = encoder.rows([trial.params for trial in trials if encoder.knows(trial.params)])
    return Inputs(features, Encoded(*(_spread(rows, known) for rows in sampled)), known)


def _identity(params: Mapping[str, Any]) -> _Identity:
    return tuple(sorted(params.items()))


def _rows(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    encoded = Encoded(*(each[rows] for each in inputs.encoded))
    return Inputs(inputs.features[rows], encoded, inputs.known[rows])


def _spread(rows: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return rows of the known candidates among rows of zeros for the others."""
    spread = np.zeros((len(known), rows.shape[1]))
    spread[known] = rows
    return spread


def _kept(trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], NDArray[np.float64]]:
    """Return the best and the latest trials, in order, if there are too many; and their accuracies."""
    accuracies = accuracies_of(trials)
    if len(trials) <= REMEMBERED:
        return trials, accuracies
    best = set(np.argsort(-accuracies, kind="stable")[: REMEMBERED // 4].tolist())
    others = [place for place in range(len(trials)) if place not in best]
    kept = sorted(best.union(others[len(best) - REMEMBERED :]))
    return [trials[place] for place in kept], accuracies[kept]


def accuracies_of(trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
    """Return the accuracy of each trained trial; of a pruned one, what it would have reached; 0 if it diverged.

    A pruned one would have reached its last report plus the median gain of complete trials from that epoch to the end.
    """
    incomplete = [trial for trial in trials if trial.state != TrialState.COMPLETE and trial.intermediate_values]
    gains: dict[int, list[float]] = {max(trial.intermediate_values): [] for trial in incomplete}
    for trial in trials if gains else ():
        accuracy = accuracy_of(trial)
        if trial.state == TrialState.COMPLETE and accuracy is not None:
            for epoch in gains.keys() & trial.intermediate_values.keys():
                gains[epoch].append(accuracy - trial.intermediate_values[epoch])
    return np.array([_accuracy(trial, gains) for trial in trials], dtype=np.float64)


def _accuracy(trial: FrozenTrial, gains: Mapping[int, list[float]]) -> float:
    accuracy = accuracy_of(trial)
    if trial.state == TrialState.COMPLETE and accuracy is not None:
        return accuracy
    if not is_stopped(trial) or not trial.intermediate_values:
        return 0.0  # It diverged.
    last = max(trial.intermediate_values)
    return trial.intermediate_values[last] + float(np.median(gains[last] or [0.0]))
