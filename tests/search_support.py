"""Recorder of callbacks, and a runner of searches with fixed settings."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from support import TINY_SPACE, prepare, tiny_recipe

from budgetnet.data import DataSet
from budgetnet.engines.choice import EngineChoice
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import Plan, SearchContext, make_settings
from budgetnet.study.driver import SearchOutcome, search
from budgetnet.study.lock import StudyLock
from budgetnet.study.objectives import CostName
from budgetnet.study.proposer import Proposals
from budgetnet.study.pruner import Pruner
from budgetnet.study.sampling.optuna_sampler import OptunaSampler
from budgetnet.study.space import SearchSpace
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.study.trial_store import TrialStore
from budgetnet.training.callbacks import Callback, RunInfo

MAX_PARAMS = 20_000

StoredTrial = dict[str, Any]


def read_trials(folder: Path) -> list[StoredTrial]:
    """Every trial, with its user attributes and values, read without Optuna; none before there is a file of them."""
    database = folder / "runs" / "studies.db"
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        rows = connection.execute(
            "SELECT t.trial_id, t.number, t.state, t.datetime_complete, v.value FROM trials t "
            "LEFT JOIN trial_values v ON v.trial_id = t.trial_id ORDER BY t.trial_id"
        ).fetchall()
        trials = []
        for identity, number, state, complete, value in rows:
            query = "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ? ORDER BY key"
            facts = {key: json.loads(text) for key, text in connection.execute(query, (identity,))}
            trials.append({"number": number, "state": state, "complete": complete, "value": value, **facts})
        return trials
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


class Watcher(Callback):
    """Callback that records the events of a search."""

    def __init__(self, *, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.turned = 0
        self.networks: list[RunInfo] = []
        self.epochs: list[Epoch] = []
        self.results: list[RunResult] = []
        self.broken: list[str | None] = []
        self._stop_at, self._error = stop_at, error

    def on_trial_rejected(self, *, worker: int) -> None:
        self.turned += 1

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        self.networks.append(run)

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        self.epochs.append(epoch)
        if len(self.networks) == self._stop_at:
            raise self._error

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        self.results.append(result)

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        self.broken.append(reason)


class SearchRunner:
    """Callable that runs or resumes a search on a study."""

    def __init__(self, digits: DataSet, out: Path, *, storage: str | None = None) -> None:
        self.digits, self.out = digits, out
        self.storage = storage or default_storage(out)

    def __call__(
        self,
        *,
        trials: int,
        space: dict[str, Any] = TINY_SPACE,
        recipe: Recipe | None = None,
        watcher: Callback | None = None,
        name: str = "study",
        out: Path | None = None,
        max_params: int | None = MAX_PARAMS,
        ways: dict[str, Any] | None = None,
        enqueued: tuple[ModelSpec, ...] = (),
        deadline: float | None = None,
        workers: int = 1,
        **limits: int,
    ) -> SearchOutcome:
        """Searches with proposals as they come and nobody pruned, unless ``ways`` says otherwise."""
        sizes = {"train_size": 64, "validation_size": 40}
        asked: dict[str, Any] = {
            "sampler": "tpe",
            "sizing": "reject",
            "pruner": "none",
            **sizes,
            **limits,
            **(ways or {}),
        }
        config = SearchConfig(
            recipe=recipe or tiny_recipe(epochs=1), max_params=max_params, space=SearchSpace(**space), **asked
        )
        data = prepare(self.digits, config.candidate_recipe, **sizes)
        settings = make_settings(data, config)
        storage = open_storage(self.storage, create=True)
        try:
            engine = EngineChoice("local", workers)
            context = SearchContext(settings, data, name, storage, out or self.out, engine)
            return search(context, Plan(trials, enqueued, deadline, config.max_train_flops), watcher or Watcher())
        finally:
            storage.remove_session()
            storage.engine.dispose()


def optuna_study(proposals: Proposals) -> optuna.Study:
    """Return the study in memory of Optuna's sampler."""
    assert isinstance(proposals.sampler, OptunaSampler)
    return proposals.sampler.study


@contextmanager
def opened_store(
    study: optuna.Study,
    out: Path,
    *,
    storage: str | None = None,
    pruner: Pruner | None = None,
    costs: tuple[CostName, ...] = (),
) -> Iterator[TrialStore]:
    """The trials of a study as its driver holds them, with the study locked."""
    kept = open_storage(storage or default_storage(out), create=True)
    lock = StudyLock(kept, study.study_name, out)
    try:
        with lock.held():
            yield TrialStore(
                study, kept, study_name=study.study_name, lock=lock, pruner=pruner or Pruner(), costs=costs
            )
    finally:
        kept.remove_session()
        kept.engine.dispose()


def reached(out: Path) -> dict[str, tuple[dict[str, Any], list[Epoch]]]:
    """Return the result and the curves of every run in a folder, without the time that they took."""
    found = {}
    for file in out.glob("*/result.json"):
        result = {key: value for key, value in json.loads(file.read_text()).items() if "seconds" not in key}
        found[file.parent.name] = result, [each._replace(seconds=0.0) for each in RunFolder(file.parent).read_curves()]
    return found
