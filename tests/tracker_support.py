"""Logs of trackers, read with TensorBoard's and MLflow's own readers."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from budgetnet.training.trackers import MLflow, TensorBoard, Tracker

Points = list[tuple[int, float]]
CURVES = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "validation/loss": "validation_loss",
    "validation/accuracy": "validation_accuracy",
    "learning_rate": "learning_rate",
}


class Store:
    """Storage of one kind of tracker."""

    def __init__(self, kind: str, folder: Path, template: Path) -> None:
        self.kind, self.folder = kind, folder
        self._database = folder / "mlflow.db"
        if kind == "mlflow":
            shutil.copy(template, self._database)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self._database}"

    def tracker(self) -> Tracker:
        return MLflow(self.uri) if self.kind == "mlflow" else TensorBoard(self.folder / "tensorboard")

    def make_unavailable(self) -> None:
        """Make all further writes fail."""
        if self.kind == "mlflow":
            self._database.write_bytes(b"no database at all" * 1000)
            return
        shutil.rmtree(self.folder / "tensorboard")
        (self.folder / "tensorboard").write_text("no folder")

    def runs(self) -> dict[str, dict[str, Points]]:
        """Return all points of all scalars, duplicates included, by run folder name and scalar name."""
        return mlflow_points(self.uri) if self.kind == "mlflow" else board_points(self.folder / "tensorboard")


def mlflow_runs(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("budgetnet")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def mlflow_points(uri: str) -> dict[str, dict[str, Points]]:
    client, found = MlflowClient(uri), mlflow_runs(uri)
    names = [run.data.tags["budgetnet.run"] for run in found]
    assert len(set(names)) == len(names), "one run for each run folder"
    return {
        name: {
            metric: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            for metric in run.data.metrics
        }
        for name, run in zip(names, found, strict=True)
    }


def board_points(folder: Path) -> dict[str, dict[str, Points]]:
    points = {}
    for run in folder.iterdir():
        # Without purging by the reader, which would hide duplicates.
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}, purge_orphaned_data=False).Reload()
        names = events.Tags()["scalars"]
        points[run.name] = {name: [(each.step, each.value) for each in events.Scalars(name)] for name in names}
    return points


def curves_of(run: Path) -> dict[str, Points]:
    """Return the curves of a run folder by the metric names of trackers."""
    with (run / "curves.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [(int(row["epoch"]), float(row[column])) for row in rows] for name, column in CURVES.items()}
