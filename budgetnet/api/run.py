"""Trained runs for notebooks: record, network and curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.statistics.intervals import Interval, format_with_interval, wilson_interval

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import nn

    from budgetnet.api.evaluation import Evaluations, Predictions


class TrainedRun:
    """A finished training run.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def record(self) -> RunRecord:
        """The run's record: identity, curves and result.

        Raises:
            RecordError: the run folder is missing, unfinished or damaged.
        """
        return RunFolder(self.folder).load(weights=False)

    @property
    def spec(self) -> ModelSpec:
        """The network's specification."""
        return self.record.identity.spec

    @property
    def recipe(self) -> Recipe:
        """The training recipe."""
        return self.record.identity.recipe

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy of the best epoch, from 0 to 1; None for a run without a result."""
        result = self.record.result
        return None if result.validation_correct is None else result.validation_correct / result.validation_images

    @property
    def interval(self) -> Interval | None:
        """95 % Wilson interval of the validation accuracy; None for a run without a result."""
        result = self.record.result
        if result.validation_correct is None:
            return None
        return wilson_interval(result.validation_correct, result.validation_images)

    def build(self) -> nn.Module:
        """Build a new, untrained network of the same specification.

        It maps images (batch, channels, height, width) to logits (batch, num_classes).
        """
        return self.spec.build()

    def load(self) -> nn.Module:
        """Load the network with the weights of its best epoch, on the CPU and in evaluation mode.

        Its inputs are images with pixels from 0 to 1, normalised per channel with the mean and standard deviation in
        `record.identity.data`.

        Raises:
            RecordError: the run folder or its weights are missing or damaged.
        """
        import torch

        from budgetnet.evaluation.inference import trained_network

        return trained_network(RunFolder(self.folder).load(), torch.device("cpu")).eval()

    def curves(self) -> Figure:
        """Draw training and validation accuracy by epoch."""
        from budgetnet.visualization.figures import accuracy_curves

        return accuracy_curves(self.record)

    def evaluate(
        self, *, on: str = "validation", data: str | None = None, tta: str = "recipe", device: str = "auto"
    ) -> Evaluations:
        """Evaluate the network; see `budgetnet.evaluate`."""
        from budgetnet.api.evaluation import evaluate

        return evaluate(self.folder, on=on, data=data, tta=tta, device=device)

    def predict(self, images: Sequence[Path | str] | Path | str, *, device: str = "auto") -> Predictions:
        """Predict the classes of image files; see `budgetnet.predict`."""
        from budgetnet.api.evaluation import predict

        return predict(self.folder, images, device=device)

    def __repr__(self) -> str:
        accuracy, interval, text = self.accuracy, self.interval, "no result"
        if accuracy is not None and interval is not None:
            images = self.record.result.validation_images
            text = f"{format_with_interval(accuracy, interval, images=images)} %"
        return f"TrainedRun({self.folder.name}: {text} validation accuracy)"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import run_html

        return run_html(self.record)
