"""Proposals of a search: interrupted candidates, enqueued networks, then candidates of a sampler."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from budgetnet.data.training_data import TrainingData
from budgetnet.engines.deaths import Deaths
from budgetnet.model.spec import ModelSpec
from budgetnet.study.sampling.domain import Sample, Sampler
from budgetnet.study.sampling.optuna_sampler import OptunaSampler, sampler_attrs
from budgetnet.study.sampling.study_domain import StudyDomain
from budgetnet.study.sampling.surrogate import SurrogateSampler
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.pool import Image
from budgetnet.study.trial_store import Candidate, TrialStore


class Proposal(NamedTuple):
    """A candidate, and the sample that it was made of."""

    candidate: Candidate
    sample: Sample | None = None
    """None if it was not sampled."""


class Proposals:
    """Source of a study's candidates, which is updated with the outcome of each."""

    def __init__(
        self,
        store: TrialStore,
        settings: StudySettings,
        data: TrainingData,
        *,
        enqueued: tuple[ModelSpec, ...] = (),
    ) -> None:
        """Create the study's sampler.

        Args:
            store: trials of the study.
            settings: settings of the study.
            data: training data of its candidates.
            enqueued: networks to propose first, unchanged and with the study's recipe.
        """
        self._store, self._settings, self._data = store, settings, data
        self._enqueued = [data.adapt(spec) for spec in enqueued]
        self._next = 1 + max((trial.user_attrs.get("proposal", -1) for trial in store.trials), default=-1)
        """Number of the next proposal of the sampler."""
        self.sampler = self._make_sampler()

    def _make_sampler(self) -> Sampler:
        config = self._settings.config
        if config.sampler == "surrogate":
            image = Image(self._data.input_shape, self._data.num_classes)
            return SurrogateSampler(StudyDomain(self._settings, image), seed=config.seed)
        space = self._settings.space.proposed(config.sizing)
        return OptunaSampler(
            config.sampler, space, seed=config.seed, every_trial=lambda: self._store.trials, costs=config.costs
        )

    def next(self) -> Proposal:
        """Return an interrupted candidate, else the next enqueued one, else a sampled one."""
        if self._store.interrupted:
            return self._resume(self._store.interrupted.popleft())
        while self._enqueued:
            spec = self._enqueued.pop(0)
            candidate = self._candidate(spec, {}, {}, enqueued=True)
            # A candidate with a result, or in training, was proposed before.
            if candidate.key not in self._store.results and candidate.key not in self._store.running:
                return Proposal(candidate)
        news, self._store.news = self._store.news, []
        self.sampler.update(news, list(self._store.running.values()))
        number = self._next
        self._next += 1
        sample = self.sampler.ask(number)
        candidate = self._candidate(self._spec(sample.params), sample.params, dict(sample.distributions))
        self.sampler.constrain(sample, {limit.limit: limit.violation for limit in candidate.verdict.limits})
        return Proposal(candidate._replace(system_attrs=sample.system_attrs, proposal=number), sample)

    def _resume(self, trial: FrozenTrial) -> Proposal:
        """Return the candidate of an interrupted trial."""
        enqueued = trial.user_attrs.get("enqueued")
        spec = ModelSpec.from_mapping(enqueued) if enqueued else self._spec(trial.params)
        candidate = self._candidate(spec, trial.params, trial.distributions, enqueued=bool(enqueued))
        return Proposal(
            candidate._replace(
                system_attrs=sampler_attrs(trial.system_attrs),
                retry_of=trial.number,
                deaths=Deaths.of_attributes(trial.user_attrs),
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

    def _candidate(
        self,
        spec: ModelSpec,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        *,
        enqueued: bool = False,
    ) -> Candidate:
        settings = self._settings
        return Candidate(
            settings.budget.check(spec),
            settings.space.recipe_for(params, base=settings.recipe) if params else settings.recipe,
            params,
            distributions,
            datetime.now(),
            enqueued=enqueued,
        )

    def stored(self, proposal: Proposal, trial: FrozenTrial) -> None:
        """Remember the trial of a proposal, so that its outcome can be passed to the sampler."""
        if proposal.sample is not None:
            self.sampler.stored(proposal.sample, trial)

    def dropped(self, proposal: Proposal) -> None:
        """Forget a proposal that has no trial in the study."""
        if proposal.sample is not None:
            self.sampler.dropped(proposal.sample)
