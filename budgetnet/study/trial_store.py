"""Trials of a study in memory, written through to its storage by the driver of a search, the only writer."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.engines.deaths import Deaths
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import SpecVerdict
from budgetnet.runs.recipe import Recipe
from budgetnet.study.damage import is_ours
from budgetnet.study.lock import StudyLock
from budgetnet.study.objectives import CostName, unlimited_needs, values_of
from budgetnet.study.outcomes import (
    DUPLICATE,
    IN_TRAINING_ELSEWHERE,
    INTERRUPTED,
    OVER_BUDGET,
    is_interrupted,
    is_trained,
)
from budgetnet.study.pruner import Pruner
from budgetnet.study.writer import TrialWriter

Key = str
"""Identity of a candidate within its study: the digests of its network and of its recipe."""

_OF_THE_RUN = (
    "run",
    "seed",
    "epochs",
    "cycles",
    "validation_accuracy",
    "validation_correct",
    "validation_images",
)
"""Attributes that a duplicate has in common with the trial that was trained."""
_NOT_STORED = -1
"""Number of a trial that is not stored."""


class Candidate(NamedTuple):
    """A proposed network with its recipe."""

    verdict: SpecVerdict
    recipe: Recipe
    params: dict[str, Any]
    """Sampled values; empty for an enqueued candidate."""
    distributions: dict[str, Any]
    began: datetime
    """Time of sampling, local and without a zone, as Optuna stores times."""
    system_attrs: Mapping[str, Any] = MappingProxyType({})
    """The sampler's attributes of the trial."""
    retry_of: int | None = None
    """Number of the interrupted trial that it resumes."""
    deaths: Deaths = Deaths()
    """Worker processes that died in training it."""
    enqueued: bool = False
    """Whether the user enqueued it."""
    proposal: int | None = None
    """Number of the proposal of the study's sampler; None if it was not sampled."""

    @property
    def key(self) -> Key:
        """Identity of the candidate."""
        return candidate_key(self.verdict.spec, self.recipe)


def candidate_key(spec: ModelSpec, recipe: Recipe) -> Key:
    """Return the identity of a network trained with a recipe."""
    return f"{spec.digest[:32]}{recipe.digest[:32]}"


class TrialStore:
    """All trials of a study; the lock of the study must be held."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        *,
        study_name: str,
        lock: StudyLock,
        pruner: Pruner,
        costs: Sequence[CostName] = (),
    ) -> None:
        """Read all trials, and close those that the driver of an earlier search left running.

        Args:
            study: the study.
            storage: its storage.
            study_name: its name.
            lock: lock of the study, which is held.
            pruner: decides at the ends of cycles which candidates stop.
            costs: costs that the study minimises beside accuracy.
        """
        self.trials = list(study.get_trials(deepcopy=False))
        """All trials, in the order of their numbers."""
        self._by_number = {trial.number: trial for trial in self.trials}
        self._pruner, self._costs = pruner, costs
        self._writer = TrialWriter(storage, study_name, self.trials, lock=lock)
        self.results: dict[Key, FrozenTrial] = {}
        """The trained trial of every candidate trained so far."""
        self.running: dict[Key, FrozenTrial] = {}
        """Every candidate in training, and its trial."""
        self.interrupted: deque[FrozenTrial] = deque()
        """Trials whose candidates are to be resumed, the oldest first."""
        self.news: list[FrozenTrial] = []
        """Trials that have ended since the sampler last took them."""
        self.trained = 0
        """Number of candidates that were trained and came to an end."""
        self.train_flops = 0
        """Their training operations."""
        self._known: set[Key] = set()
        """Candidates that were rejected or have a duplicate."""
        retried = {trial.user_attrs["retry_of"] for trial in self.trials if "retry_of" in trial.user_attrs}
        self._pruner.restore(trial for trial in self.trials if is_ours(trial) and trial.state.is_finished())
        for trial in filter(is_ours, self.trials):
            # One driver at a time writes to a study, so no other process can be training these.
            if trial.state == TrialState.RUNNING:
                self._close(trial, TrialState.FAIL, None, {"ended": INTERRUPTED})
            if trial.state.is_finished():
                self._learn(trial, retried=trial.number in retried)

    def _learn(self, trial: FrozenTrial, *, retried: bool = False) -> None:
        """Take note of a trial that has ended."""
        self.news.append(trial)
        if is_interrupted(trial) and not retried:
            self.interrupted.append(trial)
        elif is_trained(trial):
            self.trained += 1
            self.train_flops += trial.user_attrs.get("train_flops", 0)
            self.results[trial.user_attrs["candidate"]] = trial
        elif trial.user_attrs.get("ended") in (OVER_BUDGET, DUPLICATE):
            self._known.add(trial.user_attrs["candidate"])

    def reject(self, candidate: Candidate) -> FrozenTrial:
        """Store a candidate over budget as a pruned trial with its constraint values, unless it was rejected before."""
        return self._add_once(candidate, TrialState.PRUNED, ended=OVER_BUDGET)

    def duplicate(self, candidate: Candidate) -> FrozenTrial:
        """Store a duplicate with the result of the earlier trial, unless the candidate has a duplicate already."""
        earlier = self.results[candidate.key]
        facts = {key: earlier.user_attrs[key] for key in _OF_THE_RUN if key in earlier.user_attrs}
        return self._add_once(
            candidate, earlier.state, earlier=earlier, ended=DUPLICATE, repeat_of=earlier.number, **facts
        )

    def begin(self, candidate: Candidate, *, run: str, seed: int) -> FrozenTrial:
        """Store a candidate as a running trial.

        Args:
            candidate: the candidate.
            run: name of its run folder.
            seed: seed of its run.
        """
        trial = self._trial(candidate, TrialState.RUNNING, run=run, seed=seed, host=socket.gethostname())
        self._store(trial)
        self.running[candidate.key] = trial
        return trial

    def report(self, trial: FrozenTrial, *, value: float, step: int) -> bool:
        """Store a running trial's validation accuracy after the epoch ``step``; return whether the trial stops."""
        trial.intermediate_values = {**trial.intermediate_values, step: value}
        before = trial.system_attrs
        stops = self._pruner.report(trial)
        new = {key: each for key, each in trial.system_attrs.items() if key not in before}
        self._writer.report(trial.number, step=step, value=value, system_attrs=new)
        return stops

    def reported_before(self, trial: FrozenTrial) -> tuple[int, ...]:
        """Return the epochs that the interrupted trials of this trial's candidate reported."""
        epochs: set[int] = set()
        while (number := trial.user_attrs.get("retry_of")) in self._by_number:
            trial = self._by_number[number]
            epochs |= set(trial.intermediate_values)
        return tuple(sorted(epochs))

    def finish(self, trial: FrozenTrial, *, value: float | None, facts: dict[str, Any]) -> None:
        """Close a trial: complete with its validation accuracy and costs, or pruned as Optuna does.

        A pruned trial has the value of its last report, and none where a study has several objectives.
        """
        if value is not None:
            self._end(trial, TrialState.COMPLETE, values_of(value, trial.user_attrs, self._costs), facts)
            return
        reports = trial.intermediate_values
        last = [reports[max(reports)]] if reports and not self._costs else None
        self._end(trial, TrialState.PRUNED, last, facts)

    def leave(self, trial: FrozenTrial) -> None:
        """Close the trial of a candidate that another study's search is training."""
        self._end(trial, TrialState.PRUNED, None, {"ended": IN_TRAINING_ELSEWHERE})

    def interrupt(self, trial: FrozenTrial, *, deaths: Deaths | None = None) -> None:
        """Close the trial of an interrupted candidate, which is resumed first.

        Args:
            trial: its trial.
            deaths: worker processes that died in training the candidate; default: those it began with.
        """
        self._end(trial, TrialState.FAIL, None, {"ended": INTERRUPTED, **(deaths.to_attributes() if deaths else {})})

    def fail(self, trial: FrozenTrial, *, reason: str) -> None:
        """Close the trial of a failed candidate, which is not tried again."""
        self._end(trial, TrialState.FAIL, None, {"ended": reason[:500]})

    def flush(self, *, wait: bool = False) -> None:
        """Write to the storage what is not written yet.

        Args:
            wait: whether to wait for a storage that is away.

        Raises:
            RecordError: the storage cannot be used, or the study was deleted.
        """
        self._writer.flush(wait=wait)

    def _end(self, trial: FrozenTrial, state: TrialState, values: list[float] | None, facts: dict[str, Any]) -> None:
        del self.running[trial.user_attrs["candidate"]]
        self._close(trial, state, values, facts)
        self._pruner.ended(trial)
        self._learn(trial)

    def _close(self, trial: FrozenTrial, state: TrialState, values: list[float] | None, facts: dict[str, Any]) -> None:
        trial.state, trial.values = state, values
        trial.user_attrs = {**trial.user_attrs, **facts}
        trial.datetime_complete = datetime.now()
        self._writer.close(trial.number, state=state, values=values, user_attrs=facts)

    def _add_once(
        self, candidate: Candidate, state: TrialState, *, earlier: FrozenTrial | None = None, **user_attrs: Any
    ) -> FrozenTrial:
        """Return a new trial that has ended; store it unless the candidate has such a trial already.

        A sampler that has nothing new to propose would otherwise fill the study with copies at every start.
        """
        trial = self._trial(candidate, state, earlier=earlier, **user_attrs)
        trial.datetime_complete = datetime.now()
        if candidate.key in self._known:
            trial.number = _NOT_STORED
            self.news.append(trial)
        else:
            self._store(trial)
            self._pruner.ended(trial)
            self._learn(trial)
        return trial

    def _store(self, trial: FrozenTrial) -> None:
        trial.number = 1 + self.trials[-1].number if self.trials else 0
        self.trials.append(trial)
        self._by_number[trial.number] = trial
        self._writer.insert(trial)

    def _trial(
        self, candidate: Candidate, state: TrialState, *, earlier: FrozenTrial | None = None, **user_attrs: Any
    ) -> FrozenTrial:
        verdict = candidate.verdict
        facts = {
            "architecture": verdict.spec.label,
            "candidate": candidate.key,
            "spec": verdict.spec.digest,
            **verdict.cost._asdict(),
            **verdict.needs,
            **unlimited_needs(self._costs, verdict.spec, verdict.budget),
            "blocks": sum(stage.blocks for stage in verdict.spec.stages),
            "budget_used": round(verdict.budget.share_used(verdict.cost, verdict.needs), 6),
        }
        if candidate.retry_of is not None:
            facts["retry_of"] = candidate.retry_of
        facts |= candidate.deaths.to_attributes()
        if candidate.proposal is not None:
            facts["proposal"] = candidate.proposal
        if candidate.enqueued:
            facts["enqueued"] = verdict.spec.to_mapping()
        trial = create_trial(
            state=state,
            values=earlier.values if earlier else None,
            params=candidate.params,
            distributions=candidate.distributions,
            constraints={limit.limit: limit.violation for limit in verdict.limits},
            intermediate_values=earlier.intermediate_values if earlier else None,
            user_attrs={**facts, **user_attrs},
            system_attrs=dict(candidate.system_attrs),
        )
        trial.datetime_start = candidate.began
        return trial
