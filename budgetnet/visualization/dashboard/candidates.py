"""Finished candidates of a study, from its storage, the run folders and the sampled values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from budgetnet.common.errors import BudgetnetError, InputError, RecordError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.study.reading import read_trials
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import FITTING, fit
from budgetnet.study.trials import Outcome, Trial

_WITHOUT_RUN: tuple[Outcome, ...] = ("over budget", "skipped", "interrupted", "resumed")
"""Outcomes of trials that have no run of their own to read."""


class Candidate(NamedTuple):
    """A finished trial with its network and its run."""

    trial: Trial
    trial_id: int
    """Id of the trial in the storage."""
    violations: dict[str, float]
    """Constraint values by limit: used / allowed - 1, above 0 if the limit is exceeded."""
    spec: ModelSpec | None
    """Its network; None if neither a run nor the sampled values define it."""
    record: RunRecord | None
    """Its run, or for a duplicate that of the original; None if nothing was trained or the folder is unreadable."""
    trouble: str | None
    """What is missing, as text."""
    duplicate_of: int | None = None
    """For a duplicate, the number of the trial that was trained."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.trouble is None


class Candidates:
    """The finished candidates of a study."""

    def __init__(self, study: optuna.Study, settings: StudySettings, out: Path) -> None:
        """Read the trials, but no run folder yet.

        Args:
            study: the study.
            settings: its settings.
            out: folder of run folders.
        """
        self._settings, self._out = settings, out
        self._frozen = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        self.trials: list[Trial] = [trial for trial in read_trials(study) if trial.outcome != "running"]
        """Finished trials, in order."""
        self._trained = {self._key(trial): trial for trial in self.trials if trial.trained}
        self._image: dict[str, Any] | None = None

    def _key(self, trial: Trial) -> Any:
        return self._frozen[trial.number].user_attrs.get("candidate")

    def id_of(self, trial: Trial) -> int:
        """Return the id of a trial in the storage."""
        return self._frozen[trial.number]._trial_id

    def read(self, trial: Trial) -> Candidate:
        """Return a candidate; what cannot be read is described in `trouble`."""
        frozen = self._frozen[trial.number]
        original = self._trained.get(self._key(trial)) if trial.outcome == "duplicate" else None
        record, trouble = None, None
        run = (original or trial).run if trial.outcome not in _WITHOUT_RUN else None
        if run is not None and (trial.trained or original):
            try:
                record = self._record(run, trial)
            except BudgetnetError as error:
                trouble = str(error)
        spec = record.identity.spec if record else None
        if spec is None:
            spec = self._sampled_spec(frozen, trial)
            if spec is None:
                trouble = trouble or "this version of budgetnet cannot rebuild the network from the sampled values"
        return Candidate(
            trial=trial,
            trial_id=self.id_of(trial),
            violations=dict(frozen.constraints),
            spec=spec,
            record=record,
            trouble=trouble,
            duplicate_of=original.number if original else None,
        )

    def _record(self, run: str, trial: Trial) -> RunRecord:
        """Load the run with that name.

        Raises:
            RecordError: the folder is missing, unfinished or damaged, or contains another network.
        """
        if Path(run).name != run:
            raise RecordError("run folder", run, "must be the name of a folder")
        folder = RunFolder(self._out / run)
        # A pruned run that was trained on since has kept the record that its trial is about.
        if trial.outcome == "pruned" and trial.epochs and (kept := folder.pruned_after(trial.epochs)).finished:
            folder = kept
        record = folder.load(weights=False)
        if record.identity.spec.digest != trial.spec:
            raise RecordError("run folder", str(self._out / run), "contains another network")
        return record

    def _sampled_spec(self, frozen: FrozenTrial, trial: Trial) -> ModelSpec | None:
        """Rebuild the network from the sampled values; None if its digest differs."""
        try:
            if trial.enqueued:
                return ModelSpec.from_mapping(frozen.user_attrs["enqueued"])
            image = self._find_image() if self._settings.fitting == FITTING else None
            if image is None:
                return None
            settings = self._settings
            spec = fit(settings.space, frozen.params, budget=settings.budget, sizing=settings.config.sizing, **image)
        except (InputError, KeyError):
            return None
        return spec if spec.digest == trial.spec else None

    def _find_image(self) -> dict[str, Any] | None:
        """Return image shape and number of classes, from any known network of the study."""
        if self._image is None:
            spec = next(self._known_networks(), None)
            if spec is not None:
                self._image = {"input_shape": spec.input_shape, "num_classes": spec.num_classes}
        return self._image

    def _known_networks(self) -> Any:
        for trial in self.trials:
            try:
                if trial.enqueued:
                    yield ModelSpec.from_mapping(self._frozen[trial.number].user_attrs["enqueued"])
                elif trial.trained and trial.run is not None:
                    yield self._record(trial.run, trial).identity.spec
            except (BudgetnetError, KeyError):
                continue
