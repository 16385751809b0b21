"""A candidate that was trained to its end: its record, and its network to be built anew or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.study.trials import Trial

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import nn


class TrainedCandidate:
    """A candidate of a study that was trained to its end."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial, self.folder = trial, folder

    @property
    def record(self) -> RunRecord:
        """Its run: what it was trained by and on, its curves and its result.

        Raises:
            RecordError: the run's folder is missing or damaged.
        """
        return RunFolder(self.folder).load(weights=False)

    @property
    def spec(self) -> ModelSpec:
        """Its network.

        Raises:
            RecordError: the run's folder is missing or damaged.
        """
        return self.record.identity.spec

    @property
    def recipe(self) -> Recipe:
        """How it was trained.

        Raises:
            RecordError: the run's folder is missing or damaged.
        """
        return self.record.identity.recipe

    def build(self) -> nn.Module:
        """A new network of its kind, untrained; takes images as (N, C, H, W) and gives logits as (N, classes).

        Raises:
            RecordError: the run's folder is missing or damaged.
        """
        return self.spec.build()

    def load(self) -> nn.Module:
        """Its network with the weights of its best epoch, on the CPU and ready to be asked.

        Images have their data set's mean subtracted and are divided by its standard deviation, channel by channel;
        both stand in `record.identity.data`.

        Raises:
            RecordError: the run's folder or its weights are missing or damaged.
        """
        import torch

        from budgetnet.evaluation.inference import trained_network

        return trained_network(RunFolder(self.folder).load(), torch.device("cpu")).eval()

    def curves(self) -> Figure:
        """Its training and validation accuracy over the epochs.

        Raises:
            RecordError: the run's folder is missing or damaged.
        """
        from budgetnet.visualization.figures import accuracy_curves

        return accuracy_curves(self.record)

    def __repr__(self) -> str:
        accuracy = "" if self.trial.accuracy is None else f", {100 * self.trial.accuracy:.2f} %"
        return f"TrainedCandidate({self.trial.name} {self.trial.architecture}, {self.trial.params:,} params{accuracy})"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import candidate_html

        return candidate_html(self.trial, self.spec)
