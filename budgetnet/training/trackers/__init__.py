"""Trackers: callbacks that log runs to TensorBoard or MLflow. Each needs an optional dependency."""

from __future__ import annotations

from pathlib import Path

from budgetnet.common.config import require_tracker, tracker_text
from budgetnet.common.errors import InputError
from budgetnet.common.passwords import hide_passwords
from budgetnet.training.trackers.base import Tracker
from budgetnet.training.trackers.mlflow import MLflow
from budgetnet.training.trackers.tensorboard import TensorBoard

__all__ = ["MLflow", "TensorBoard", "Tracker", "make_tracker"]


def make_tracker(text: str, *, out: Path, field: str) -> Tracker:
    """Create the tracker given by ``tensorboard``, ``tensorboard:FOLDER``, ``mlflow`` or ``mlflow:URI``.

    Args:
        text: name, optionally with a colon and the location of the logs.
        out: folder of run folders, the default location.
        field: name of the field or option in errors.

    Raises:
        InputError: unknown tracker, package not installed, or unusable location.
    """
    require_tracker(text, field=field)
    name, _, location = text.partition(":")
    try:
        if name == "tensorboard":
            return TensorBoard(location or out / "tensorboard")
        return MLflow(location or f"sqlite:///{(out / 'mlflow.db').resolve()}")
    except InputError as error:
        raise InputError(field, tracker_text(text), hide_passwords(error.rule, location)) from None
