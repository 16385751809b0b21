"""Proposals: the sampler works in memory, on a mirror of what the storage holds of the study.

Optuna's storages take a write for every parameter drawn. Drawing in memory and writing the trial in one go makes a
candidate that is turned away cheap, and leaves nothing half drawn when the process is killed.
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
from budgetnet.study.bulk import Written
from budgetnet.study.ledger import Entry, Ledger
from budgetnet.study.outcomes import SKIPPED, is_over_budget
from budgetnet.study.samplers import IGNORES_PRUNED, make_sampler
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import fit

REMEMBERED = 300
"""Trials that a sampler which looks at all of them for each draw is left with when it has seen too many."""
_FORGETS_AT = 400
"""Trials at which it forgets."""
_BEST = 25
"""Trials never forgotten while nothing better comes: as many as Optuna's TPE takes for good ones at the most."""
_LOOKS_AT_ALL = ("tpe", "gp")


class Proposal(NamedTuple):
    """A candidate, and where it came from."""

    entry: Entry
    sampled: int | None = None
    """Its trial in the sampler's memory, if the sampler drew it."""


class Proposals:
    """Draws candidates for a study, and lets the sampler know what became of each."""

    def __init__(
        self,
        ledger: Ledger,
        settings: StudySettings,
        data: TrainingData,
        *,
        enqueued: tuple[ModelSpec, ...] = (),
        worker: int = 0,
    ) -> None:
        """Starts with what the ledger knows.

        Args:
            ledger: of the study.
            settings: its question.
            data: what its candidates are trained on.
            enqueued: networks to propose first, unchanged and with the study's recipe.
            worker: number of the worker; no two draw alike.
        """
        self._ledger, self._settings, self._data = ledger, settings, data
        self._enqueued = [data.adapt(spec) for spec in enqueued]
        self._space = settings.space.proposed(settings.config.sizing)
        self._worker = worker
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        """A sampler that knows of nothing yet."""
        # One seeded alike on every start would draw its first candidates again, and one that broke down for ever.
        trials = len(self._ledger.study.get_trials(deepcopy=False))
        seed = derive_seed(self._settings.config.seed, "sampler", self._worker, trials)
        self._memory = InMemoryStorage()
        self.mirror = optuna.create_study(
            storage=self._memory, sampler=make_sampler(self._settings.config.sampler, seed=seed), direction="maximize"
        )
        self._mirror_id = self._memory.get_study_id_from_name(self.mirror.study_name)
        self._remembered = 0
        self._drawn: dict[int, int] = {}
        """Number in the storage of what this sampler drew, and its trial in the sampler's memory."""

    def next(self) -> Proposal:
        """Takes up an interrupted candidate, or the next one made by hand, or draws one."""
        if self._ledger.interrupted:
            return self._again(self._ledger.interrupted.pop(0))
        while self._enqueued:
            spec = self._enqueued.pop(0)
            entry = self._entry(spec, {}, enqueued=True)
            # What is known of it, or under way, was proposed before.
            if entry.key not in self._ledger.results and entry.key not in self._ledger.running:
                return Proposal(entry)
        self._learn()
        drawn = self.mirror.ask(self._space)
        entry = self._entry(self._spec(drawn.params), drawn.params)
        for limit in entry.verdict.limits:
            drawn.set_constraint(limit.limit, limit.violation)
        notes = _of_sampler(self._memory.get_trial(drawn._trial_id).system_attrs)
        return Proposal(entry._replace(system_attrs=notes), drawn._trial_id)

    def _again(self, trial: FrozenTrial) -> Proposal:
        """An interrupted trial's candidate once more."""
        enqueued = trial.user_attrs.get("enqueued")
        spec = ModelSpec.from_mapping(enqueued) if enqueued else self._spec(trial.params)
        entry = self._entry(spec, trial.params, enqueued=bool(enqueued))
        return Proposal(entry._replace(system_attrs=_of_sampler(trial.system_attrs), retry_of=trial.number))

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

    def _entry(self, spec: ModelSpec, params: dict[str, Any], *, enqueued: bool = False) -> Entry:
        settings = self._settings
        return Entry(
            settings.budget.check(spec),
            settings.space.recipe_for(params, base=settings.recipe) if params else settings.recipe,
            params,
            self._space if params else {},
            datetime.now(),
            enqueued=enqueued,
        )

    def written(self, proposal: Proposal, written: Written) -> None:
        """Notes where a proposal stands in the storage, from which the sampler is told of its end."""
        if proposal.sampled is not None:
            self._drawn[written.number] = proposal.sampled

    def _learn(self) -> None:
        """Brings the sampler's mirror up to date with the ledger."""
        news, self._ledger.news = self._ledger.news, []
        if self._settings.config.sampler in _LOOKS_AT_ALL and self._remembered + len(news) > _FORGETS_AT:
            self._begin_afresh()
            news = self._worth_remembering()
        self._remembered += len(news)
        for trial in news:
            known = self._drawn.pop(trial.number, None)
            # What was made by hand stands nowhere in the space.
            if known is not None or (trial.params and trial.state != TrialState.FAIL):
                self._mirror_end(trial, known)
        for trial in self._ledger.running.values():
            # Known of, so that nothing too close to it is drawn meanwhile.
            if trial.params and trial.number not in self._drawn:
                self._drawn[trial.number] = self._copy(trial, TrialState.RUNNING, None)

    def _worth_remembering(self) -> list[FrozenTrial]:
        """Of all trials that have ended the best, as TPE ranks them, and the latest, in their order."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        ended = [
            trial
            for trial in self._ledger.study.get_trials(deepcopy=False, states=states)
            if trial.params and trial.user_attrs.get("ended") not in SKIPPED
        ]
        ranked = sorted(ended, key=_merit, reverse=True)
        best = {trial.number for trial in ranked[:_BEST]}
        others = [trial.number for trial in ended if trial.number not in best]
        kept = best.union(others[len(best) - REMEMBERED :])
        return [trial for trial in ended if trial.number in kept]

    def _mirror_end(self, trial: FrozenTrial, known: int | None) -> None:
        """Tells the sampler how a trial ended."""
        state, value = self._as_told(trial)
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

    def _as_told(self, trial: FrozenTrial) -> tuple[TrialState, float | None]:
        """State and value of a trial that has ended, as this sampler understands them."""
        if trial.state == TrialState.COMPLETE:
            return trial.state, trial.value
        if trial.state == TrialState.FAIL or trial.user_attrs.get("ended") in SKIPPED:
            return TrialState.FAIL, None
        if self._settings.config.sampler not in IGNORES_PRUNED:
            return trial.state, None
        # What was pruned got so far; what never came to a report is worth nothing.
        reached = trial.intermediate_values
        return TrialState.COMPLETE, reached[max(reached)] if reached else 0.0


def _merit(trial: FrozenTrial) -> tuple[bool, bool, int, float]:
    """What Optuna's TPE ranks by: within every limit, trained to the end, pruned late, with a high value."""
    complete, reports = trial.state == TrialState.COMPLETE, trial.intermediate_values
    last = 0 if complete or not reports else max(reports)
    value = trial.value if complete else reports.get(last)
    return not is_over_budget(trial), complete, last, value if value is not None else -1.0


def _of_sampler(system_attrs: dict[str, Any]) -> dict[str, Any]:
    """Return what the sampler stored of a trial: without constraints, and without the rungs that it came to."""
    others = ("constraints", "completed_rung_")
    return {key: value for key, value in system_attrs.items() if not key.startswith(others)}
