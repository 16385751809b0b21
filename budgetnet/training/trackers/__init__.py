"""Trackers: callbacks that keep what they are told where TensorBoard or MLflow shows it. Each needs an extra."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.errors import InputError
from budgetnet.training.trackers.base import Tracker
from budgetnet.training.trackers.mlflow import MLflow
from budgetnet.training.trackers.tensorboard import TensorBoard

__all__ = ["MLflow", "TensorBoard", "Tracker", "make_tracker"]


def make_tracker(text: str, *, out: Path, field: str) -> Tracker:
    """The tracker that a text names: ``tensorboard``, ``tensorboard:FOLDER``, ``mlflow`` or ``mlflow:URI``.

    Args:
        text: its name, and its place behind a colon.
        out: folder of run folders, in which it keeps what has no place of its own.
        field: what to call the text in an error.

    Raises:
        InputError: no such tracker, one whose package is not installed, or a place that it cannot use.
    """
    name, colon, place = text.partition(":")
    if name not in ("tensorboard", "mlflow") or (colon and not place):
        raise InputError(field, text, "must be tensorboard, tensorboard:FOLDER, mlflow or mlflow:URI")
    try:
        if name == "tensorboard":
            return TensorBoard(place or out / "tensorboard")
        return MLflow(place or f"sqlite:///{(out / 'mlflow.db').resolve()}")
    except InputError as error:
        raise InputError(field, text, error.rule) from None
