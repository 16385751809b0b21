"""Proposals: candidates from a sampler that works on a copy of the study in memory.

Optuna's storages write every sampled parameter separately. Sampling in memory and writing the trial in one transaction
makes rejected candidates cheap and leaves no incomplete trial when the process is killed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.common.seeding import derive_seed
from budgetnet.data.training_data import TrainingData
from budgetnet.model.spec import ModelSpec
from budgetnet.study.outcomes import IN_TRAINING_ELSEWHERE, is_over_budget
from budgetnet.study.samplers import IGNORES_PRUNED, make_sampler
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import fit
from budgetnet.study.trial_store import Candidate, TrialStore

REMEMBERED = 300
"""Trials that a sampler keeps when it has too many; TPE and GP use all of them for each sample."""
_MAX_REMEMBERED = 400
"""Number of trials above which they are reduced to `REMEMBERED`."""
_BEST = 25
"""Best trials that are always kept: the most that Optuna's TPE counts as good."""
_USES_ALL_TRIALS = ("tpe", "gp")


class Proposal(NamedTuple):
    """A candidate, and its trial in the sampler's memory."""

    candidate: Candidate
    sampled: int | None = None
    """Id of its trial in the sampler's memory; None if it was not sampled."""


class Proposals:
    """Sampler of candidates for a study, which is updated with the outcome of each."""

    def __init__(
        self,
        store: TrialStore,
        settings: StudySettings,
        data: TrainingData,
        *,
        enqueued: tuple[ModelSpec, ...] = (),
    ) -> None:
        """Create a sampler.

        Args:
            store: trials of the study.
            settings: settings of the study.
            data: training data of its candidates.
            enqueued: networks to propose first, unchanged and with the study's recipe.
        """
        self._store, self._settings, self._data = store, settings, data
        self._enqueued = [data.adapt(spec) for spec in enqueued]
        self._space = settings.space.proposed(settings.config.sizing)
        self._next = 1 + max((trial.user_attrs.get("proposal", -1) for trial in store.trials), default=-1)
        """Number of the next proposal of the sampler."""
        self._reset()

    def _reset(self) -> None:
        """Empty the sampler's memory."""
        self._memory = InMemoryStorage()
        self.mirror = optuna.create_study(storage=self._memory, direction="maximize")
        self._mirror_id = self._memory.get_study_id_from_name(self.mirror.study_name)
        self._remembered = 0
        self._sampled: dict[int, int] = {}
        """Ids of trials in the sampler's memory, by the identity of the study's trials."""

    def next(self) -> Proposal:
        """Return an interrupted candidate, else the next enqueued one, else a sampled one."""
        if self._store.interrupted:
            return self._resume(self._store.interrupted.popleft())
        while self._enqueued:
            spec = self._enqueued.pop(0)
            candidate = self._candidate(spec, {}, enqueued=True)
            # A candidate with a result, or in training, was proposed before.
            if candidate.key not in self._store.results and candidate.key not in self._store.running:
                return Proposal(candidate)
        self._update()
        number = self._next
        self._next += 1
        # Seeded for each proposal, so that a search that was interrupted goes on as if it had not been.
        seed = derive_seed(self._settings.config.seed, "proposal", number)
        self.mirror.sampler = make_sampler(self._settings.config.sampler, seed=seed)
        sampled = self.mirror.ask(self._space)
        candidate = self._candidate(self._spec(sampled.params), sampled.params)
        for limit in candidate.verdict.limits:
            sampled.set_constraint(limit.limit, limit.violation)
        notes = _sampler_attrs(self._memory.get_trial(sampled._trial_id).system_attrs)
        return Proposal(candidate._replace(system_attrs=notes, proposal=number), sampled._trial_id)

    def _resume(self, trial: FrozenTrial) -> Proposal:
        """Return the candidate of an interrupted trial."""
        enqueued = trial.user_attrs.get("enqueued")
        spec = ModelSpec.from_mapping(enqueued) if enqueued else self._spec(trial.params)
        candidate = self._candidate(spec, trial.params, enqueued=bool(enqueued))
        return Proposal(
            candidate._replace(
                system_attrs=_sampler_attrs(trial.system_attrs),
                retry_of=trial.number,
                deaths=trial.user_attrs.get("deaths", 0),
            )
        )

    def _spec(self, params: dict[str, Any]) -> ModelSpec:
        settings, data = self._settings, self._data
        return fit(
            settings.space,
            params,
            budget=settings.budget,
            sizing=settings.config.sizing,
            input_shape=data.input_shape,
            num_classes=data.num_classes,
        )

    def _candidate(self, spec: ModelSpec, params: dict[str, Any], *, enqueued: bool = False) -> Candidate:
        settings = self._settings
        return Candidate(
            settings.budget.check(spec),
            settings.space.recipe_for(params, base=settings.recipe) if params else settings.recipe,
            params,
            self._space if params else {},
            datetime.now(),
            enqueued=enqueued,
        )

    def stored(self, proposal: Proposal, trial: FrozenTrial) -> None:
        """Remember the trial of a proposal, so that its outcome can be passed to the sampler."""
        if proposal.sampled is not None:
            self._sampled[id(trial)] = proposal.sampled

    def dropped(self, proposal: Proposal) -> None:
        """Forget a proposal that has no trial in the study."""
        if proposal.sampled is not None:
            self._memory.set_trial_state_values(proposal.sampled, state=TrialState.FAIL)

    def _update(self) -> None:
        """Update the sampler's trials from the store."""
        news, self._store.news = self._store.news, []
        if self._settings.config.sampler == "random":
            # It samples the same whatever it knows, and a study may have very many trials.
            self._sampled.clear()
            return
        if self._settings.config.sampler in _USES_ALL_TRIALS and self._remembered + len(news) > _MAX_REMEMBERED:
            self._reset()
            news = self._trials_to_keep()
        self._remembered += len(news)
        for trial in news:
            known = self._sampled.pop(id(trial), None)
            # Enqueued networks are not in the space.
            if known is not None or (trial.params and trial.state != TrialState.FAIL):
                self._mirror_end(trial, known)
        for trial in self._store.running.values():
            # Passed to the sampler so that it samples nothing too close meanwhile.
            if trial.params and id(trial) not in self._sampled:
                self._sampled[id(trial)] = self._copy(trial, TrialState.RUNNING, None)

    def _trials_to_keep(self) -> list[FrozenTrial]:
        """Return the best finished trials, as TPE ranks them, and the latest, in order."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        ended = [
            trial
            for trial in self._store.trials
            if trial.state in states and trial.params and trial.user_attrs.get("ended") != IN_TRAINING_ELSEWHERE
        ]
        ranked = sorted(ended, key=_rank_key, reverse=True)
        best = {trial.number for trial in ranked[:_BEST]}
        others = [trial.number for trial in ended if trial.number not in best]
        kept = best.union(others[len(best) - REMEMBERED :])
        return [trial for trial in ended if trial.number in kept]

    def _mirror_end(self, trial: FrozenTrial, known: int | None) -> None:
        """Pass the outcome of a trial to the sampler."""
        state, value = self._state_for_sampler(trial)
        if known is None:
            self._copy(trial, state, value)
            return
        for step, report in trial.intermediate_values.items():
            self._memory.set_trial_intermediate_value(known, step, report)
        self._memory.set_trial_state_values(known, state=state, values=None if value is None else [value])

    def _copy(self, trial: FrozenTrial, state: TrialState, value: float | None) -> int:
        copy = create_trial(
            state=state,
            value=value,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values if state != TrialState.RUNNING else None,
            system_attrs=trial.system_attrs,
        )
        return self._memory.create_new_trial(self._mirror_id, template_trial=copy)

    def _state_for_sampler(self, trial: FrozenTrial) -> tuple[TrialState, float | None]:
        """Return the state and the value of a finished trial to pass to this sampler."""
        if trial.state == TrialState.COMPLETE:
            return trial.state, trial.value
        if trial.state == TrialState.FAIL or trial.user_attrs.get("ended") == IN_TRAINING_ELSEWHERE:
            return TrialState.FAIL, None
        if self._settings.config.sampler not in IGNORES_PRUNED:
            return trial.state, None
        # A pruned trial has the value of its last report; a trial without reports has 0.
        reached = trial.intermediate_values
        return TrialState.COMPLETE, reached[max(reached)] if reached else 0.0


def _rank_key(trial: FrozenTrial) -> tuple[bool, bool, int, float]:
    """Return the key that Optuna's TPE ranks by: within all limits, complete, pruned late, high value."""
    complete, reports = trial.state == TrialState.COMPLETE, trial.intermediate_values
    last = 0 if complete or not reports else max(reports)
    value = trial.value if complete else reports.get(last)
    return not is_over_budget(trial), complete, last, value if value is not None else -1.0


def _sampler_attrs(system_attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the sampler's attributes of a trial, without constraints and rungs."""
    others = ("constraints", "completed_rung_")
    return {key: value for key, value in system_attrs.items() if not key.startswith(others)}
