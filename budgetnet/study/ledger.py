"""Ledger of a study: reads and writes its trials in the storage."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from budgetnet.model.budget import SpecVerdict
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.bulk import Written, close_trial, insert_trial
from budgetnet.study.outcomes import DUPLICATE, INTERRUPTED, OVER_BUDGET, SURPLUS, TAKEN, is_interrupted, is_trained
from budgetnet.study.presence import GRACE_PERIOD, Presence
from budgetnet.study.storage import STORAGE_ERRORS, storage_errors

Key = str
"""Identity of a candidate within its study: the digests of its network and of its recipe."""


class Known(NamedTuple):
    """Result of a trained candidate."""

    value: float | None
    """Validation accuracy; None if it was pruned or has no result."""
    reports: dict[int, float]
    """Validation accuracy at the end of each cycle, by the epoch that ends it."""
    facts: dict[str, Any]
    """Attributes of its run."""


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


class Entry(NamedTuple):
    """A candidate to store as a trial."""

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
    enqueued: bool = False
    """Whether the user enqueued it."""

    @property
    def key(self) -> Key:
        """Identity of the candidate."""
        return candidate_key(self.verdict.spec, self.recipe)


def candidate_key(spec: ModelSpec, recipe: Recipe) -> Key:
    """Return the identity of a network trained with a recipe."""
    return f"{spec.digest[:32]}{recipe.digest[:32]}"


class Ledger:
    """Candidates of a study; read them and start new ones while holding the study's lock."""

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, presence: Presence, *, pruner: BasePruner | None = None
    ) -> None:
        """Make a ledger, to be read by `refresh`.

        Args:
            study: the study.
            storage: where it lives.
            presence: locks of the study and its workers.
            pruner: decides at the ends of cycles who goes on; everybody if left out.
        """
        self.study, self._storage, self._presence = study, storage, presence
        self._pruner = pruner or NopPruner()
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._mine: dict[int, FrozenTrial] = {}
        """Trials that this process began, by number, with what they have reported."""
        self._read: set[int] = set()
        self._failed: list[FrozenTrial] = []
        self._retried: set[int] = set()
        """Numbers of interrupted trials whose candidates were taken up again."""
        self.news: list[FrozenTrial] = []
        """Trials that have ended, as far as the sampler has not taken them yet."""
        self.results: dict[Key, Known] = {}
        """Every candidate trained so far."""
        self.running: dict[Key, FrozenTrial] = {}
        """Every candidate in training, this worker's own among them, and its trial."""
        self.interrupted: list[FrozenTrial] = []
        """Trials whose candidates wait to be taken up again, the oldest first."""
        self.trained = 0
        """Candidates that training time went into and that came to an end."""

    def refresh(self) -> None:
        """Read the trials of other workers and close the running trials of dead workers."""
        trials = self.study.get_trials(deepcopy=False)
        if self._close_lost(trials):
            trials = self.study.get_trials(deepcopy=False)
        self.running, taken_up = {}, set[int]()
        for trial in trials:
            if trial.number in self._read:
                continue
            if trial.state == TrialState.RUNNING:
                self.running.setdefault(trial.user_attrs.get("candidate", ""), trial)
                taken_up.add(trial.user_attrs.get("retry_of", -1))
            else:
                self._learn(trial)
        taken_up |= self._retried
        waiting = (trial for trial in self._failed if trial.number not in taken_up)
        self.interrupted = sorted(waiting, key=lambda trial: trial.number)

    def _close_lost(self, trials: list[FrozenTrial]) -> bool:
        """Closes what workers in sight left behind, and what workers out of sight have been silent about for long.

        Tells whether any trial may have been closed.
        """
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in running:
            if self._is_lost(trial):
                self._interrupt(trial._trial_id)
        if not self._presence.in_file:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                fail_stale_trials(self.study)
        return bool(running)

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial is no more."""
        worker = trial.user_attrs.get("worker")
        if worker == self._presence.worker:
            return trial.number not in self._mine
        if self._presence.in_sight(worker):
            return not self._presence.is_alive(worker)
        if worker is None:
            # Written by other means than insert_trial, so no heartbeat may ever have come from it.
            began = trial.datetime_start
            return began is None or datetime.now() - began > timedelta(seconds=GRACE_PERIOD)
        return False

    def _learn(self, trial: FrozenTrial) -> None:
        """Takes a trial that has ended into the books."""
        self._read.add(trial.number)
        self.news.append(trial)
        if is_interrupted(trial):
            self._failed.append(trial)
        # A retry that was skipped because enough are in training has released its candidate.
        if "retry_of" in trial.user_attrs and trial.user_attrs.get("ended") != SURPLUS:
            self._retried.add(trial.user_attrs["retry_of"])
        if is_trained(trial):
            self.trained += 1
            # Optuna gives a pruned trial its last report for a value, which is none.
            value = trial.value if trial.state == TrialState.COMPLETE else None
            facts = {key: trial.user_attrs[key] for key in _OF_THE_RUN if key in trial.user_attrs}
            known = Known(value, trial.intermediate_values, {**facts, "repeat_of": trial.number})
            self.results[trial.user_attrs["candidate"]] = known

    @property
    def others_elsewhere(self) -> bool:
        """Whether candidates are in training whose workers nobody here would start again."""
        return any(not self._presence.in_sight(trial.user_attrs.get("worker")) for trial in self.running.values())

    def reject(self, entry: Entry) -> Written:
        """Store a candidate over budget as a pruned trial with its constraint values."""
        return self._write(entry, TrialState.PRUNED, ended=OVER_BUDGET)

    def repeat(self, entry: Entry) -> Written:
        """Store a duplicate with the result of the earlier trial."""
        known = self.results[entry.key]
        return self._write(entry, _state(known.value), known=known, ended=DUPLICATE, **known.facts)

    def begin(self, entry: Entry, *, run: str, seed: int, trials: int | None = None) -> Written | None:
        """Store a candidate as a running trial; return None if another worker started it first.

        Args:
            entry: the candidate.
            run: name of its run folder.
            seed: of its run.
            trials: trained candidates that the study shall have; any number if left out.
        """
        written = self._write(
            entry,
            TrialState.RUNNING,
            run=run,
            seed=seed,
            host=socket.gethostname(),
            worker=self._presence.worker,
        )
        # Behind a file's gate everybody is known already.
        reason = None if self._presence.in_file else self._reason_to_skip(written, entry.key, trials)
        if reason is None:
            return written
        self._close(written, reason)
        return None

    def _close(self, written: Written, reason: str) -> None:
        close_trial(self._storage, written.trial_id, state=TrialState.PRUNED, value=None, user_attrs={"ended": reason})

    def _reason_to_skip(self, written: Written, key: Key, trials: int | None) -> str | None:
        """Return the reason to leave a candidate just started to workers on other machines, or None.

        The first in the storage go on. Numbers are given one after the other, so whoever comes later sees everybody
        before it: of those that take the same candidate one remains, and no more are begun than are wanted.
        """
        ahead = 0
        for trial in self.study.get_trials(deepcopy=False):
            before = trial.state == TrialState.RUNNING and trial.number < written.number
            trained = is_trained(trial)
            # A candidate trained before this one was proposed is a duplicate: its stored result is used.
            news = before or (trained and trial.number not in self._read)
            if news and trial.user_attrs.get("candidate") == key:
                return TAKEN
            ahead += before or trained
        return SURPLUS if trials is not None and ahead >= trials else None

    def report(self, written: Written, *, value: float, step: int) -> bool:
        """Store a candidate's validation accuracy after the epoch `step`; return whether the candidate stops there."""
        # Not through Optuna's Trial, which would ask a sampler for a candidate first.
        self._storage.set_trial_intermediate_value(written.trial_id, step, value)
        trial = self._mine[written.number]
        trial.intermediate_values[step] = value
        return bool(self._pruner.prune(self.study, trial))

    def reported_before(self, number: int | None) -> set[int]:
        """Return the epochs that an interrupted trial, and those that it had resumed, reported."""
        trials = {trial.number: trial for trial in self.study.get_trials(deepcopy=False)} if number is not None else {}
        epochs: set[int] = set()
        while number in trials:
            epochs |= set(trials[number].intermediate_values)
            number = trials[number].user_attrs.get("retry_of")
        return epochs

    def leave(self, written: Written) -> None:
        """Close the trial of a candidate that another process is training."""
        self._close(written, TAKEN)

    def finish(self, written: Written, *, value: float | None, facts: dict[str, Any]) -> bool:
        """Close a trial: complete with its validation accuracy, or pruned without one.

        Tells whether it was still this worker's: one that fell silent for long may have been given to another.
        """
        with storage_errors(self._storage):
            return close_trial(self._storage, written.trial_id, state=_state(value), value=value, user_attrs=facts)

    def interrupt(self, written: Written) -> None:
        """Close the trial of an interrupted candidate, which the search resumes."""
        # Where the storage is away it stays as if its worker had been killed, and what broke it off is what is told.
        with suppress(*STORAGE_ERRORS):
            self._interrupt(written.trial_id)

    def fail(self, written: Written, *, reason: str) -> None:
        """Close the trial of a failed candidate, which is not tried again."""
        with suppress(*STORAGE_ERRORS):
            close_trial(
                self._storage, written.trial_id, state=TrialState.FAIL, value=None, user_attrs={"ended": reason}
            )

    def _interrupt(self, trial_id: int) -> None:
        ended = {"ended": INTERRUPTED}
        close_trial(self._storage, trial_id, state=TrialState.FAIL, value=None, user_attrs=ended)

    def _write(self, entry: Entry, state: TrialState, *, known: Known | None = None, **user_attrs: Any) -> Written:
        """Store a candidate's trial in one transaction."""
        spec, verdict = entry.verdict.spec, entry.verdict
        facts = {
            "architecture": spec.label,
            "candidate": entry.key,
            "spec": spec.digest,
            **verdict.cost._asdict(),
            "budget_used": round(verdict.budget.share_used(verdict.cost), 6),
        }
        if entry.retry_of is not None:
            facts["retry_of"] = entry.retry_of
        if entry.enqueued:
            facts["enqueued"] = spec.to_mapping()
        trial = create_trial(
            state=state,
            value=known.value if known else None,
            params=entry.params,
            distributions=entry.distributions,
            constraints={limit.limit: limit.violation for limit in verdict.limits},
            intermediate_values=known.reports if known else None,
            user_attrs={**facts, **user_attrs},
            system_attrs=dict(entry.system_attrs),
        )
        trial.datetime_start = entry.began
        with storage_errors(self._storage):
            written = insert_trial(self._storage, self._study_id, trial)
        if state == TrialState.RUNNING:
            trial.number = written.number
            self._mine[written.number] = trial
        return written


def _state(value: float | None) -> TrialState:
    """Return the state of a trained candidate: complete with a value, pruned without."""
    return TrialState.PRUNED if value is None else TrialState.COMPLETE
