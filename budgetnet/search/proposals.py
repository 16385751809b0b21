"""Proposals: the sampler works in memory, and the storage is told of each candidate once, when its fate is known.

Optuna's storages take a write for every parameter drawn. Drawing in memory and writing the trial in one go makes a
candidate that is turned away cheap, and leaves nothing half drawn when the process is killed.
"""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Any, NamedTuple

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from budgetnet.budget import Verdict
from budgetnet.search.settings import StudySettings
from budgetnet.search.study import REPEATED, is_trained, storage_errors
from budgetnet.seeds import derive_seed
from budgetnet.spec import ModelSpec

INTERRUPTED = "interrupted"
"""Why a trial ended whose candidate is to be taken up again."""


class Proposal(NamedTuple):
    """A candidate that the sampler drew."""

    drawn: Trial
    """The trial in the sampler's memory."""
    began: datetime
    """When it had been drawn, in local time without a zone, as Optuna keeps times."""
    verdict: Verdict
    """How it stands to the budget."""
    retry_of: int | None = None
    """Number of the interrupted trial that it takes up again."""

    @property
    def spec(self) -> ModelSpec:
        """The network."""
        return self.verdict.spec


class Proposals:
    """Draws candidates for a study and writes down what became of each."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        settings: StudySettings,
        *,
        input_shape: tuple[int, int, int],
        num_classes: int,
    ) -> None:
        self._study, self._storage, self._settings = study, storage, settings
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._input_shape, self._num_classes = input_shape, num_classes
        trials = study.get_trials(deepcopy=False)
        past = [trial for trial in trials if _teaches(trial)]
        # A sampler seeded alike on every start would draw its first candidates again, and one that broke down for ever.
        sampler = optuna.samplers.TPESampler(seed=derive_seed(settings.seed, "sampler", len(trials)) % 2**32)
        self._memory = optuna.create_study(sampler=sampler, direction="maximize")
        self._memory.add_trials(past)
        self._interrupted = self._reclaim()
        self.results = {trial.user_attrs["spec"]: _accuracy(trial) for trial in past if is_trained(trial)}
        """Validation accuracy of each network trained so far, by the digest of its specification; none without one."""

    def _reclaim(self) -> list[FrozenTrial]:
        """Closes trials that killed searches left running; lists those not taken up again since.

        On SQLite the study's lock tells that no other search is at work, whatever this machine is called by now; on a
        server only this machine's own trials are known to be left over.
        """
        alone = self._storage.engine.url.get_backend_name() == "sqlite"
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING and (alone or trial.user_attrs.get("host") == socket.gethostname()):
                self._close_interrupted(trial.number)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            if trial.user_attrs.get("ended") == INTERRUPTED and trial.number not in retried
        ]

    def next(self) -> Proposal:
        """Draws a candidate, or takes up an interrupted one, and asks for the budget's verdict."""
        retry_of = None
        space = self._settings.space
        if self._interrupted:
            trial = self._interrupted.pop(0)
            retry_of = trial.number
            self._memory.enqueue_trial(trial.params)
        drawn = self._memory.ask(space.distributions)
        began = datetime.now()
        spec = space.spec(drawn.params, input_shape=self._input_shape, num_classes=self._num_classes)
        return Proposal(drawn, began, self._settings.budget.check(spec), retry_of)

    def reject(self, proposal: Proposal) -> None:
        """Closes a candidate that does not fit: pruned, with its constraint values, so that the sampler learns."""
        constraints = _constraints(proposal.verdict)
        for limit, value in constraints.items():
            proposal.drawn.set_constraint(limit, value)
        self._memory.tell(proposal.drawn, state=TrialState.PRUNED)
        self._write(proposal, TrialState.PRUNED, ended="over budget")

    def repeat(self, proposal: Proposal) -> None:
        """Answers a candidate that was trained before from the record."""
        value = self.results[proposal.spec.digest]
        state = _state(value)
        self._memory.tell(proposal.drawn, value, state=state)
        self._write(proposal, state, value=value, ended=REPEATED)

    def begin(self, proposal: Proposal, *, run: str, seed: int) -> Trial:
        """Writes a candidate down as running and gives its trial in the storage."""
        host = socket.gethostname()
        return Trial(self._study, self._write(proposal, TrialState.RUNNING, run=run, seed=seed, host=host))

    def report(self, proposal: Proposal, trial: Trial, *, value: float, step: int) -> None:
        """Tells of a candidate's validation accuracy at the end of a cycle."""
        trial.report(value, step=step)
        proposal.drawn.report(value, step=step)

    def finish(self, proposal: Proposal, trial: Trial, *, value: float | None, facts: dict[str, Any]) -> None:
        """Closes a trained candidate: complete with its validation accuracy, or pruned where it came to no result."""
        state = _state(value)
        with storage_errors(str(self._storage.url)):
            for key, fact in facts.items():
                trial.set_user_attr(key, fact)
            self._study.tell(trial.number, value, state=state)
        self._memory.tell(proposal.drawn, value, state=state)
        self.results[proposal.spec.digest] = value

    def interrupt(self, proposal: Proposal, trial: Trial) -> None:
        """Closes a candidate whose training was broken off; the next search takes it up again."""
        self._memory.tell(proposal.drawn, state=TrialState.FAIL)
        self._close_interrupted(trial.number)

    def fail(self, proposal: Proposal, trial: Trial, *, reason: str) -> None:
        """Closes a candidate that broke down; it is not tried again."""
        self._memory.tell(proposal.drawn, state=TrialState.FAIL)
        trial.set_user_attr("ended", reason)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def _close_interrupted(self, number: int) -> None:
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_user_attr(trial_id, "ended", INTERRUPTED)
        self._study.tell(number, state=TrialState.FAIL)

    def _write(self, proposal: Proposal, state: TrialState, *, value: float | None = None, **user_attrs: Any) -> int:
        """Writes a candidate's whole trial at once; gives its id in the storage."""
        spec, verdict = proposal.spec, proposal.verdict
        facts = {
            "architecture": spec.label,
            "spec": spec.digest,
            **verdict.cost._asdict(),
            "budget_used": round(self._settings.budget.share_used(verdict.cost), 6),
        }
        if proposal.retry_of is not None:
            facts["retry_of"] = proposal.retry_of
        trial = create_trial(
            state=state,
            value=value,
            params=proposal.drawn.params,
            distributions=proposal.drawn.distributions,
            constraints=_constraints(verdict),
            user_attrs={**facts, **user_attrs},
        )
        trial.datetime_start = proposal.began
        with storage_errors(str(self._storage.url)):
            return self._storage.create_new_trial(self._study_id, template_trial=trial)


def _constraints(verdict: Verdict) -> dict[str, float]:
    return {limit.limit: limit.violation for limit in verdict.limits}


def _state(value: float | None) -> TrialState:
    """How a trained candidate ends: complete with its value, pruned without one."""
    return TrialState.PRUNED if value is None else TrialState.COMPLETE


def _accuracy(trial: FrozenTrial) -> float | None:
    """The result of a trained candidate; Optuna gives a pruned trial its last report for a value, which is none."""
    return trial.value if trial.state == TrialState.COMPLETE else None


def _teaches(trial: FrozenTrial) -> bool:
    """Whether a sampler can learn from the trial: it has a result, or was pruned."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
