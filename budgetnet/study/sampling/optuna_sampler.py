"""Optuna's samplers, on a copy of the study in memory.

Optuna's storages write every sampled parameter separately. Sampling in memory and writing the trial in one transaction
makes rejected candidates cheap and leaves no incomplete trial when the process is killed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.common.seeding import derive_seed
from budgetnet.study.objectives import CostName, directions, unbeaten, values_of
from budgetnet.study.outcomes import IN_TRAINING_ELSEWHERE, accuracy_of, is_over_budget
from budgetnet.study.sampling.domain import Sample

REMEMBERED = 300
"""Trials that a sampler keeps when it has too many; TPE and GP use all of them for each sample."""
_MAX_REMEMBERED = 400
"""Number of trials above which they are reduced to `REMEMBERED`."""
_BEST = 25
"""Best trials that are always kept: the most that Optuna's TPE counts as good."""
_IGNORE_PRUNED = ("gp", "nsga2")
"""Samplers that use complete trials only, so that pruned and rejected ones are passed to them as complete."""
_USE_ALL_TRIALS = ("tpe", "gp")


def make_sampler(name: str, *, seed: int) -> BaseSampler:
    """Return Optuna's sampler of that name.

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
    # Optuna's default for one objective; for several it samples each parameter by itself, which is slower.
    return TPESampler(seed=seed, multivariate=True)


class OptunaSampler:
    """Optuna's sampler of a name, with the trials that it has seen."""

    def __init__(
        self,
        name: str,
        distributions: Mapping[str, BaseDistribution],
        *,
        seed: int,
        every_trial: Callable[[], list[FrozenTrial]],
        costs: Sequence[CostName] = (),
    ) -> None:
        """Create a sampler that knows no trials.

        Args:
            name: name of the sampler.
            distributions: distribution of each parameter.
            seed: seed of the sampler.
            every_trial: returns all trials of the study, of which some are kept when there are too many.
            costs: costs that the study minimises beside accuracy.
        """
        self._name, self._distributions, self._seed = name, dict(distributions), seed
        self._every_trial, self._costs = every_trial, costs
        self._reset()

    def _reset(self) -> None:
        """Forget all trials."""
        self._memory = InMemoryStorage()
        self.study = optuna.create_study(storage=self._memory, directions=directions(self._costs))
        self._study_id = self._memory.get_study_id_from_name(self.study.study_name)
        self._remembered = 0
        self._tokens: dict[int, int] = {}
        """Ids of trials in memory, by the identity of the search's trials."""

    def ask(self, number: int) -> Sample:
        """Sample a candidate; see `Sampler.ask`."""
        # Seeded for each proposal, so that a search that was interrupted goes on as if it had not been.
        self.study.sampler = make_sampler(self._name, seed=derive_seed(self._seed, "proposal", number))
        asked = self.study.ask(self._distributions)
        attrs = sampler_attrs(self._memory.get_trial(asked._trial_id).system_attrs)
        return Sample(asked.params, self._distributions, attrs, asked._trial_id)

    def constrain(self, sample: Sample, violations: Mapping[str, float]) -> None:
        """Set the constraints of a sample; see `Sampler.constrain`."""
        if sample.token is not None:
            trial = optuna.trial.Trial(self.study, sample.token)
            for name, violation in violations.items():
                trial.set_constraint(name, violation)

    def stored(self, sample: Sample, trial: FrozenTrial) -> None:
        """Remember the trial of a sample, so that its outcome can be passed to the sampler."""
        if sample.token is not None:
            self._tokens[id(trial)] = sample.token

    def dropped(self, sample: Sample) -> None:
        """Close the trial in memory of a sample that has none in the search."""
        if sample.token is not None:
            self._memory.set_trial_state_values(sample.token, state=TrialState.FAIL)

    def update(self, ended: list[FrozenTrial], running: list[FrozenTrial]) -> None:
        """Pass outcomes to the sampler; see `Sampler.update`."""
        if self._name == "random":
            # It samples the same whatever it knows, and a search may have very many trials.
            self._tokens.clear()
            return
        if self._name in _USE_ALL_TRIALS and self._remembered + len(ended) > _MAX_REMEMBERED:
            ended = self._reduced(ended)
            self._reset()
        self._remembered += len(ended)
        for trial in ended:
            known = self._tokens.pop(id(trial), None)
            # Enqueued networks are not in the space.
            if known is not None or (trial.params and trial.state != TrialState.FAIL):
                self._end(trial, known)
        for trial in running:
            # Passed to the sampler so that it samples nothing too close meanwhile.
            if trial.params and id(trial) not in self._tokens:
                self._tokens[id(trial)] = self._copy(trial, TrialState.RUNNING, None)

    def _reduced(self, ended: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials to remember, reduced wherever there were too many.

        A resumed search, which gets all trials at once, so remembers those of one that was not interrupted.
        """
        every = self._every_trial()
        places = {trial.number: place for place, trial in enumerate(every)}
        count, remembered, since = self._remembered, list[FrozenTrial](), 0
        for place, trial in enumerate(ended):
            count += 1
            if count > _MAX_REMEMBERED:
                remembered = _kept(every[: places.get(trial.number, len(every) - 1) + 1], self._costs)
                count, since = len(remembered), place + 1
        return [*remembered, *ended[since:]]

    def _end(self, trial: FrozenTrial, known: int | None) -> None:
        """Pass the outcome of a trial to the sampler."""
        state, values = self._outcome(trial)
        if known is None:
            self._copy(trial, state, values)
            return
        for step, report in self._reports(trial).items():
            self._memory.set_trial_intermediate_value(known, step, report)
        self._memory.set_trial_state_values(known, state=state, values=values)

    def _copy(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> int:
        copy = create_trial(
            state=state,
            values=values,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=self._reports(trial) if state != TrialState.RUNNING else None,
            system_attrs=trial.system_attrs,
        )
        return self._memory.create_new_trial(self._study_id, template_trial=copy)

    def _reports(self, trial: FrozenTrial) -> dict[int, float]:
        """Return the reports of a trial to pass to this sampler: Optuna's TPE takes none with several objectives."""
        return {} if self._costs else trial.intermediate_values

    def _outcome(self, trial: FrozenTrial) -> tuple[TrialState, list[float] | None]:
        """Return the state and the values of a finished trial to pass to this sampler."""
        if trial.state == TrialState.COMPLETE:
            return trial.state, trial.values
        if trial.state == TrialState.FAIL or trial.user_attrs.get("ended") == IN_TRAINING_ELSEWHERE:
            return TrialState.FAIL, None
        if self._name not in _IGNORE_PRUNED:
            return trial.state, None
        if self._costs:
            # One over budget has its own costs: its constraints say that it is worse.
            own = values_of(0.0, trial.user_attrs, self._costs)
            return TrialState.COMPLETE, own if is_over_budget(trial) else self._worst(own)
        # A pruned trial has the value of its last report; a trial without reports has 0.
        reached = trial.intermediate_values
        return TrialState.COMPLETE, [reached[max(reached)] if reached else 0.0]

    def _worst(self, own: list[float]) -> list[float]:
        """Return values for a trial without a result that those of every trial with one beat, however low its costs."""
        known = [each.values for each in self.study.get_trials(deepcopy=False) if each.state == TrialState.COMPLETE]
        return [0.0, *(max(column) for column in list(zip(own, *known, strict=True))[1:])]


def sampler_attrs(system_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampler's attributes of a trial, without constraints and rungs."""
    others = ("constraints", "completed_rung_")
    return {key: value for key, value in system_attrs.items() if not key.startswith(others)}


def _kept(trials: list[FrozenTrial], costs: Sequence[CostName] = ()) -> list[FrozenTrial]:
    """Return the best finished trials, as TPE ranks them, and the latest, in order."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    ended = [
        trial
        for trial in trials
        if trial.state in states and trial.params and trial.user_attrs.get("ended") != IN_TRAINING_ELSEWHERE
    ]
    ranked = _by_fronts(ended) if costs else sorted(ended, key=_rank_key, reverse=True)
    best = {trial.number for trial in ranked[:_BEST]}
    others = [trial.number for trial in ended if trial.number not in best]
    kept = best.union(others[len(best) - REMEMBERED :])
    return [trial for trial in ended if trial.number in kept]


def _by_fronts(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the best complete trials of several objectives: the Pareto front, then that of the others, and so on."""
    left, ranked = [trial for trial in trials if trial.state == TrialState.COMPLETE], list[FrozenTrial]()
    while left and len(ranked) < _BEST:
        front = set(unbeaten([[-trial.values[0], *trial.values[1:]] for trial in left]))
        ranked += [trial for place, trial in enumerate(left) if place in front]
        left = [trial for place, trial in enumerate(left) if place not in front]
    return ranked


def _rank_key(trial: FrozenTrial) -> tuple[bool, bool, int, float]:
    """Return the key that Optuna's TPE ranks by: within all limits, complete, pruned late, high value."""
    complete, reports = trial.state == TrialState.COMPLETE, trial.intermediate_values
    last = 0 if complete or not reports else max(reports)
    value = accuracy_of(trial) if complete else reports.get(last)
    return not is_over_budget(trial), complete, last, value if value is not None else -1.0
