"""What is known of a candidate that has ended: from the study's storage, from its run folder, and from its draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from budgetnet.common.errors import BudgetnetError, InputError, RecordError
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import FITTING, fit
from budgetnet.study.storage import read_trials
from budgetnet.study.trials import Trial


class Candidate(NamedTuple):
    """A trial that has ended, with its network and its run."""

    trial: Trial
    trial_id: int
    """Of the trial in the storage."""
    violations: dict[str, float]
    """Its constraint values by limit: used / allowed - 1, above 0 where the limit does not hold."""
    spec: ModelSpec | None
    """Its network; none where neither a run nor the draw tells."""
    record: RunRecord | None
    """Its run, or that of the trial whose record answered; none where nothing was trained or the folder cannot tell."""
    trouble: str | None
    """What is missing of it, in words."""
    answered_by: int | None = None
    """Number of the trial whose record answered for it."""

    @property
    def whole(self) -> bool:
        """Whether nothing is missing that could be found again."""
        return self.trouble is None


class Candidates:
    """The candidates of a study that have ended."""

    def __init__(self, study: optuna.Study, settings: StudySettings, out: Path) -> None:
        """Reads the trials, but no run folder yet.

        Args:
            study: the study.
            settings: its question.
            out: folder of run folders.
        """
        self._settings, self._out = settings, out
        self._frozen = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        self.trials: list[Trial] = [trial for trial in read_trials(study) if trial.outcome != "running"]
        """What has ended, in the trials' order."""
        self._trained = {self._key(trial): trial for trial in self.trials if trial.trained}
        self._image: dict[str, Any] | None = None

    def _key(self, trial: Trial) -> Any:
        return self._frozen[trial.number].user_attrs.get("candidate")

    def read(self, trial: Trial) -> Candidate:
        """All that is known of a trial; what cannot be read is told in words."""
        frozen = self._frozen[trial.number]
        twin = self._trained.get(self._key(trial)) if trial.outcome == "duplicate" else None
        record, trouble = None, None
        run = (twin or trial).run if trial.outcome not in ("over budget", "skipped", "interrupted") else None
        if run is not None and (trial.trained or twin):
            try:
                record = self._record(run, trial)
            except BudgetnetError as error:
                trouble = str(error)
        spec = record.identity.spec if record else None
        if spec is None:
            spec = self._drawn(frozen, trial)
            if spec is None:
                trouble = trouble or "its network cannot be told from the draw by this version of budgetnet alone"
        return Candidate(
            trial=trial,
            trial_id=frozen._trial_id,
            violations=dict(frozen.constraints),
            spec=spec,
            record=record,
            trouble=trouble,
            answered_by=twin.number if twin else None,
        )

    def _record(self, run: str, trial: Trial) -> RunRecord:
        """The run of that name.

        Raises:
            RecordError: the folder is missing, unfinished or damaged, or holds another network.
        """
        if Path(run).name != run:
            raise RecordError("run folder", run, "is no name of a folder")
        record = RunFolder(self._out / run).load(weights=False)
        if record.identity.spec.digest != trial.spec:
            raise RecordError("run folder", str(self._out / run), "holds another network")
        return record

    def _drawn(self, frozen: FrozenTrial, trial: Trial) -> ModelSpec | None:
        """The network that a draw stands for, if its digest says that it is the one."""
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
        """Shape of the images and number of classes, which only networks of the study tell."""
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


def numbers_text(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: ``0-57,59``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def numbers_of(text: str) -> set[int]:
    """The numbers that `numbers_text` wrote."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
