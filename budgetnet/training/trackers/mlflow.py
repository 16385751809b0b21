"""MLflow tracker: parameters, metrics of every epoch and final status of each run, identified by its digest."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from budgetnet.common.errors import InputError
from budgetnet.common.extras import require_extra
from budgetnet.common.files import atomic_write_path
from budgetnet.common.passwords import hide_passwords, without_password
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import RunInfo
from budgetnet.training.trackers.base import (
    CURVES,
    LENGTH,
    RunTracker,
    epoch_metrics,
    final_metrics,
    hyperparameters,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIGEST = "budgetnet.digest"
"""Tag by which a run is found again, wherever its folder is."""
_SQLITE = "sqlite:///"
_STATUS = {"complete": "FINISHED", "stopped": "KILLED", "diverged": "FAILED"}
_QUIET = {
    # Only the given tracking store is contacted.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_TIMEOUTS = {
    # Training waits for the server, so give up an unreachable one after seconds.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class _OpenRun(NamedTuple):
    run_id: str
    length: float | None
    """Number of epochs, if the end of the run was logged before."""


class MLflow(RunTracker[_OpenRun]):
    """Tracker for an MLflow tracking store."""

    name = "MLflow"

    def __init__(self, tracking_uri: str, experiment: str = "budgetnet") -> None:
        """Open the store; a server is first contacted when a run starts.

        MLflow's telemetry is disabled for this process. Its environment variables MLFLOW_HTTP_REQUEST_MAX_RETRIES and
        MLFLOW_HTTP_REQUEST_TIMEOUT set retries and timeouts for an unreachable server.

        Args:
            tracking_uri: ``sqlite:///FILE``, which needs no server, another database, or the address of a server.
            experiment: name of the experiment.

        Raises:
            InputError: MLflow is not installed or does not support the store.
        """
        require_extra("mlflow", "mlflow", field="tracker", value="mlflow")
        super().__init__()
        self.location, self._experiment = tracking_uri, experiment
        os.environ.update(_QUIET)
        for name, value in _TIMEOUTS.items():
            os.environ.setdefault(name, value)
        self._client = _open(tracking_uri)
        self._experiment_id = ""

    def _begin(self, run: RunInfo) -> tuple[_OpenRun, set[int]]:
        self._experiment_id = self._experiment_id or self._find_experiment()
        found = self._client.search_runs(
            [self._experiment_id], f"tags.`{_DIGEST}` = '{run.identity.digest}'", max_results=1
        )
        tags = _tags(run)
        entry = found[0] if found else self._client.create_run(self._experiment_id, run_name=run.run, tags=tags)
        run_id, logged = entry.info.run_id, entry.data.params
        if found:
            self._client.update_run(run_id, status="RUNNING")
        params = {name: value for name, value in hyperparameters(run).items() if name not in logged}
        self._write(run_id, tags=tags, params=params)
        # All metrics of an epoch are written together, so one of them shows which epochs were logged.
        history = self._client.get_metric_history(run_id, next(iter(CURVES)))
        return _OpenRun(run_id, entry.data.metrics.get(LENGTH)), {metric.step for metric in history}

    def _log_epochs(self, open_run: _OpenRun, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            self._write(open_run.run_id, metrics=epoch_metrics(epoch), step=epoch.epoch)

    def _end(self, open_run: _OpenRun, result: RunResult) -> None:
        metrics = final_metrics(result) if open_run.length != result.epochs else {}
        self._write(open_run.run_id, metrics=metrics, step=result.epochs, tags={"budgetnet.ended": result.reason})
        self._client.set_terminated(open_run.run_id, _STATUS[result.status])

    def _interrupt(self, open_run: _OpenRun, reason: str | None) -> None:
        self._write(open_run.run_id, tags={"budgetnet.ended": reason or "interrupted"})
        self._client.set_terminated(open_run.run_id, "FAILED" if reason else "KILLED")

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
        """Write metrics, parameters and tags in one request, so that an epoch is logged completely or not at all."""
        from mlflow.entities import Metric, Param, RunTag

        now = time.time_ns() // 1_000_000
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, now, step) for name, value in (metrics or {}).items()],
            params=[Param(name, str(value)) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def _tags(run: RunInfo) -> dict[str, str]:
    context = run.context
    tags = {"budgetnet.run": run.run, _DIGEST: run.identity.digest, "budgetnet.spec": run.identity.spec.digest}
    if context.study is not None:
        tags |= {"budgetnet.study": context.study, "budgetnet.trial": str(context.trial)}
    return tags


def _open(uri: str) -> MlflowClient:
    """Return a client of a store, creating a missing SQLite database.

    Raises:
        InputError: MLflow does not support the store.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if uri.startswith(_SQLITE):
            file = Path(uri.removeprefix(_SQLITE)).absolute()
            file.parent.mkdir(parents=True, exist_ok=True)
            # MLflow cannot use a database whose creation was killed, so create it under a temporary name.
            with FileLock(f"{file}.lock"):
                if not file.exists():
                    with atomic_write_path(file) as part:
                        MlflowClient(tracking_uri=f"{_SQLITE}{part}")
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:
        sentence = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        rule = f"is not a store that MLflow can use ({sentence}); {_SQLITE}FILE needs no server"
        raise InputError("tracker", without_password(uri), hide_passwords(rule, uri)) from None
