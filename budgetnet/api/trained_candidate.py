"""Trained candidates of studies, for notebooks."""

from __future__ import annotations

from pathlib import Path

from budgetnet.api.run import TrainedRun
from budgetnet.common.formatting import percent
from budgetnet.study.trials import Trial


class TrainedCandidate(TrainedRun):
    """A fully trained candidate: its trial and its run.

    Attributes:
        trial: the trial from the study's storage.
    """

    def __init__(self, trial: Trial, folder: Path) -> None:
        super().__init__(folder)
        self.trial = trial

    def __repr__(self) -> str:
        accuracy = "" if self.accuracy is None else f", {percent(self.accuracy, images=self.trial.images)} %"
        return f"TrainedCandidate({self.trial.name} {self.trial.architecture}, {self.trial.params:,} params{accuracy})"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import candidate_html

        return candidate_html(self.trial, self.record)
