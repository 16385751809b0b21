"""Runs for MLflow: one for each, found again by its digest, with parameters, metrics by epoch, and how it ended."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from budgetnet.common.errors import InputError
from budgetnet.common.files import replacing_file
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Announced
from budgetnet.training.trackers.base import (
    CURVES,
    LENGTH,
    RunTracker,
    curve_values,
    describe,
    final_values,
    require_package,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIGEST = "budgetnet.digest"
"""The tag that a run is found by: what determines it, whatever folder it lies in."""
_SQLITE = "sqlite:///"
_STATUS = {"complete": "FINISHED", "stopped": "KILLED", "diverged": "FAILED"}
_QUIET = {
    # Nothing is sent to anybody but the store that was named.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_PATIENCE = {
    # A server that is away is given up after seconds; training waits for it meanwhile.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class _Kept(NamedTuple):
    run_id: str
    length: float | None
    """Epochs of the end that is kept already."""


class MLflow(RunTracker[_Kept]):
    """Keeps runs in an MLflow tracking store."""

    name = "MLflow"

    def __init__(self, tracking_uri: str, experiment: str = "budgetnet") -> None:
        """Opens the store; a server is not asked before the first run begins.

        MLflow's telemetry is switched off for this process. How often and how long it asks a server that is away may be
        set by its own environment variables, ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` and ``MLFLOW_HTTP_REQUEST_TIMEOUT``.

        Args:
            tracking_uri: ``sqlite:///FILE``, which needs no server, another database, or a server's address.
            experiment: what its runs are kept under.

        Raises:
            InputError: MLflow is not installed, or cannot use such a store.
        """
        require_package("mlflow", extra="mlflow")
        super().__init__()
        self._uri, self._experiment = tracking_uri, experiment
        os.environ.update(_QUIET)
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        self._client = _open(tracking_uri)
        self._experiment_id = ""

    def _begin(self, run: Announced) -> tuple[_Kept, set[int]]:
        self._experiment_id = self._experiment_id or self._find_experiment()
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{_DIGEST}` = '{run.identity.digest}'", max_results=1
        )
        tags = _tags(run)
        entry = found[0] if found else self._client.create_run(self._experiment_id, run_name=run.run, tags=tags)
        run_id, known = entry.info.run_id, entry.data.params
        if found:
            self._client.update_run(run_id, status="RUNNING")
        facts = {name: value for name, value in describe(run).items() if name not in known}
        self._write(run_id, tags=tags, params=facts)
        # Every epoch is written whole, so one of its curves speaks for all.
        history = self._client.get_metric_history(run_id, next(iter(CURVES)))
        return _Kept(run_id, entry.data.metrics.get(LENGTH)), {metric.step for metric in history}

    def _keep(self, kept: _Kept, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            self._write(kept.run_id, metrics=curve_values(epoch), step=epoch.epoch)

    def _end(self, kept: _Kept, result: RunResult) -> None:
        values = final_values(result) if kept.length != result.epochs else {}
        self._write(kept.run_id, metrics=values, step=result.epochs, tags={"budgetnet.ended": result.reason})
        self._client.set_terminated(kept.run_id, _STATUS[result.status])

    def _break_off(self, kept: _Kept, reason: str | None) -> None:
        self._write(kept.run_id, tags={"budgetnet.ended": reason or "interrupted"})
        self._client.set_terminated(kept.run_id, "FAILED" if reason else "KILLED")

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        return found.experiment_id if found else str(self._client.create_experiment(self._experiment))

    def _write(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Writes everything at once, so that an epoch is kept whole or not at all."""
        from mlflow.entities import Metric, Param, RunTag

        now = time.time_ns() // 1_000_000
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def _tags(run: Announced) -> dict[str, str]:
    occasion = run.occasion
    tags = {"budgetnet.run": run.run, _DIGEST: run.identity.digest, "budgetnet.model.spec": run.identity.spec.digest}
    if occasion.study is not None:
        tags |= {"budgetnet.api.study": occasion.study, "budgetnet.trial": str(occasion.trial)}
    return tags


def _open(uri: str) -> MlflowClient:
    """A client of a store; a database is made where there is none.

    Raises:
        InputError: MLflow cannot use such a store.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if uri.startswith(_SQLITE):
            file = Path(uri.removeprefix(_SQLITE)).absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow cannot go on with tables that it was killed at, so they are made whole before they get their name.
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    with replacing_file(file) as part:
                        MlflowClient(tracking_uri=f"{_SQLITE}{part}")
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:
        sentence = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        rule = f"is no store that MLflow can use ({sentence}); {_SQLITE}FILE needs no server"
        raise InputError("tracker", uri, rule) from None
