"""`budgetnet.evaluate` and `budgetnet.predict`: trained networks on validation, test or other images."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from budgetnet.common.errors import InputError
from budgetnet.evaluation.results import (
    BINS,
    Comparison,
    EnsembleResult,
    EvaluatedRun,
    Part,
    compare,
    ensemble_result,
    require_common_images,
)
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from budgetnet.evaluation.predict import Prediction

Runs = Path | str | Sequence[Path | str]
"""A run folder, or several."""


class Evaluations(tuple[EvaluatedRun, ...]):
    """Results of evaluated runs, in the order in which they were given, and their comparisons."""

    @property
    def comparisons(self) -> list[Comparison]:
        """Pairwise comparisons of runs on the same images: McNemar's test with Holm's correction."""
        return compare(self)

    def ensemble(self) -> EnsembleResult:
        """Average the networks' probabilities, and compare the ensemble with its members.

        Raises:
            InputError: fewer than two runs, or runs on different images.
        """
        return ensemble_result([(each.record, each.scores) for each in self])

    def to_mapping(self, *, bins: int = BINS) -> dict[str, Any]:
        """Return the results as plain data; accuracies and errors from 0 to 1, the loss in nats.

        Args:
            bins: bins of the calibration error.
        """
        return {
            "on": self[0].part,
            "runs": [each.to_mapping(bins=bins) for each in self],
            "comparisons": [each.to_mapping() for each in self.comparisons],
        }

    def frame(self, *, bins: int = BINS) -> pd.DataFrame:
        """Return one row for each run: accuracies from 0 to 1, interval, loss and calibration error."""
        import pandas as pd

        lines = []
        for each in self:
            scores = each.scores
            lines.append(
                {
                    "run": each.run,
                    "architecture": each.record.identity.spec.label,
                    "params": each.record.result.params,
                    "on": each.part,
                    "accuracy": scores.accuracy,
                    "balanced_accuracy": scores.balanced_accuracy,
                    "low": scores.interval.low,
                    "high": scores.interval.high,
                    "correct": scores.correct,
                    "images": scores.images,
                    "loss": scores.loss,
                    "ece": scores.calibration(bins).ece,
                }
            )
        return pd.DataFrame(lines)

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import evaluations_html

        return evaluations_html(self)


class Predictions(tuple["Prediction", ...]):
    """Predicted classes of images, in their order.

    Attributes:
        class_names: names of the classes.
        record: the run whose network predicted.
    """

    class_names: tuple[str, ...]
    record: RunRecord

    @classmethod
    def of(cls, predictions: Sequence[Prediction], *, class_names: tuple[str, ...], record: RunRecord) -> Predictions:
        """Return the predictions with the names of their classes."""
        made = cls(predictions)
        made.class_names, made.record = class_names, record
        return made

    def frame(self, *, top: int = 1) -> pd.DataFrame:
        """Return the most probable classes of each image, one row for each image and class.

        Args:
            top: number of classes for each image.
        """
        import pandas as pd

        lines = [
            {"image": each.image, "class": self.class_names[number], "probability": probability}
            for each in self
            for number, probability in each.top_classes(top)
        ]
        return pd.DataFrame(lines, columns=["image", "class", "probability"])

    def to_csv(self) -> str:
        """Return one row for each image: the most probable class, its probability, and that of every class.

        An image that cannot be read has the reason under ``error`` and nothing else.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["image", "class", "probability", "error", *(f"probability {name}" for name in self.class_names)]
        )
        for each in self:
            if each.error is not None:
                writer.writerow([each.image, "", "", each.error.rule, *[""] * len(self.class_names)])
                continue
            assert each.probabilities is not None  # noqa: S101 - tells the type
            numbers = [f"{probability:.6g}" for probability in each.probabilities]
            ((best, _),) = each.top_classes(1)
            writer.writerow([each.image, self.class_names[best], numbers[best], "", *numbers])
        return stream.getvalue()

    def to_labels(self) -> str:
        """Return ``ID,Labels`` as CSV, as competitions ask for: numbers of images, from 0, and of their classes.

        Raises:
            InputError: an image could not be read.
        """
        unread = next((each.error for each in self if each.error is not None), None)
        if unread is not None:
            raise unread
        lines = [f"{number},{each.top_classes(1)[0][0]}" for number, each in enumerate(self)]
        return "\n".join(["ID,Labels", *lines]) + "\n"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import predictions_html

        return predictions_html(self, class_names=self.class_names)


def evaluate(
    runs: Runs,
    *,
    on: str = "validation",
    data: str | None = None,
    tta: str = "recipe",
    device: str = "auto",
    by: str = "evaluate",
    same_images: bool = False,
) -> Evaluations:
    """Evaluate trained networks, as ``budgetnet evaluate`` does.

    The test set is used only with ``on="test"``, and each use is recorded.

    Args:
        runs: a run folder or the name of a run, such as ``best`` or ``#3``, or several.
        on: ``validation``: the images that each run was validated on; ``test``: a test set.
        data: where the data set is, or another one for ``on="test"``. Default: the run's own.
        tta: views of each image whose probabilities are averaged: ``none``, ``flip``, ``flip-and-shifts``, or
            ``recipe`` for those of each run's recipe.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        by: name of the caller, for the log of test set uses.
        same_images: whether to reject runs on different images, as an ensemble must.

    Raises:
        InputError: an argument is invalid, or a run is given twice.
        DataError: a data set cannot be loaded, or is not the one that a run was trained on.
        RecordError: a run folder is unfinished or damaged, or its split cannot be reproduced.
    """
    parts = get_args(Part)
    if on not in parts:
        raise InputError("on", on, f"must be one of {', '.join(parts)}")
    views = get_args(Views)
    if tta not in (*views, "recipe"):
        raise InputError("tta", tta, f"must be one of {', '.join((*views, 'recipe'))}")
    from budgetnet.evaluation.evaluate import evaluate_runs
    from budgetnet.evaluation.run_data import EvaluationRequest, read_runs, require_common_classes
    from budgetnet.study.run_names import run_path
    from budgetnet.training.progress import load_with_progress

    paths = _paths(runs)
    if not paths:
        raise InputError("runs", [], "must be at least one run folder")
    part = cast(Part, on)
    records = read_runs(list(map(run_path, paths)))
    if same_images:
        require_common_classes(records)
    if same_images and (part == "validation" or data is None):
        require_common_images(records, part)
    chosen = None if tta == "recipe" else cast(Views, tta)
    request = EvaluationRequest(part, data=data, views=chosen, device=device, by=by, class_names=not same_images)
    return Evaluations(evaluate_runs(records, request, load=load_with_progress))


def predict(
    run: Path | str, images: Sequence[Path | str] | Path | str | npt.NDArray[np.uint8], *, device: str = "auto"
) -> Predictions:
    """Predict the classes of images by a run's network, as ``budgetnet predict`` does.

    Args:
        run: the run folder, or the name of a run, such as ``best`` or ``#3``.
        images: one or several paths of image files of any size, of folders of them with their subfolders, or of
            ``.npz`` files with an array ``images``, or patterns such as ``photos/*.png``; or such an array, uint8 (n,
            height, width) or (n, height, width, 1 or 3).
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Returns:
        One prediction for each image. One that cannot be read has an `error` in place of probabilities.

    Raises:
        RecordError: the run folder is unfinished or damaged.
        InputError: a folder holds no image file, or an array or its file is not as described.
    """
    import numpy as np

    from budgetnet.data.prediction_images import list_array, list_images
    from budgetnet.evaluation.predict import predict as predict_images
    from budgetnet.evaluation.run_data import class_names, read_runs
    from budgetnet.study.run_names import run_path
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import counting, load_with_progress

    (record,) = read_runs([run_path(run)])
    listed = list_array(images) if isinstance(images, np.ndarray) else list_images(_paths(images))
    with counting("predicting") as progress:
        predictions = predict_images(record, listed, device=choose_device(device), progress=progress)
    return Predictions.of(predictions, class_names=class_names(record, load=load_with_progress), record=record)


def _paths(paths: Runs) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
