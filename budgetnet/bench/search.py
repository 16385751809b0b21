"""Benchmark of a search: candidates per hour, and the overhead per candidate besides training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial

from budgetnet.bench.measure import Goal, Spread
from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.model.budget import Budget
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunResult
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import Plan, SearchContext, make_settings
from budgetnet.study.driver import search
from budgetnet.study.proposer import Proposals
from budgetnet.study.pruner import make_pruner
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.study.trial_store import Candidate, TrialStore
from budgetnet.training.callbacks import Callback, RunInfo
from budgetnet.training.devices import describe_environment

REPEATS = 50
"""Candidates of each kind whose overhead is measured."""
KNOWN = 1_000
"""Earlier trials of the study in which the overhead of further candidates is measured."""
_GOAL_CANDIDATES, _GOAL_PERCENT, _GOAL_SECONDS = 30, 5.0, 0.03
_SEED = 0


class TrainedCandidate(NamedTuple):
    """A trained candidate of the search."""

    architecture: str
    params: int
    epochs: int
    """Number of epochs trained."""
    training_seconds: float
    """Wall time of its epochs, as recorded."""
    seconds: float
    """Wall time from the start of its run to its result, with all files of the run folder."""


class Overhead(NamedTuple):
    """Seconds of the search itself for one candidate."""

    proposal: float
    """Reading new trials, sampling, sizing and counting the network."""
    write: float
    """Storing the outcome durably."""


class SearchBenchmark(NamedTuple):
    """A short search, and the overhead of candidates that are not trained."""

    environment: dict[str, Any]
    settings: StudySettings
    candidates: list[TrainedCandidate]
    rejected: int
    """Candidates over budget in the search."""
    seconds: float
    """Wall time of the search, without loading data and creating the storage."""
    rejections: list[Overhead]
    """Of candidates over budget, in a new study."""
    late: list[Overhead]
    """Of candidates within the budget, in a study with `KNOWN` earlier trials."""

    @property
    def candidates_per_hour(self) -> float:
        """Trained candidates per hour of the search."""
        return 3600 * len(self.candidates) / self.seconds

    @property
    def overhead(self) -> float:
        """Seconds per trained candidate that are not spent in epochs.

        Includes proposals, rejected ones too, building networks, and writing files after each epoch.
        """
        return (self.seconds - sum(each.training_seconds for each in self.candidates)) / len(self.candidates)

    @property
    def overhead_share(self) -> float:
        """Share of the search's wall time that is overhead."""
        return self.overhead * len(self.candidates) / self.seconds

    @property
    def goals(self) -> list[Goal]:
        """Goals; the one for the overhead needs at least 30 candidates."""
        late = summarise(self.late)["all"].median
        goals = [Goal.at_most(f"overhead of candidate {KNOWN + 1:,} of a study", "seconds", late, _GOAL_SECONDS)]
        if len(self.candidates) >= _GOAL_CANDIDATES:
            goals.append(Goal.at_most("overhead", "percent", 100 * self.overhead_share, _GOAL_PERCENT))
        return goals

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        return {
            "benchmark": "search",
            "environment": self.environment,
            "data": self.settings.data.name,
            "budget": self.settings.budget.to_mapping(),
            "recipe": self.settings.recipe.to_mapping(),
            "rows": [candidate._asdict() for candidate in self.candidates],
            "rejected": self.rejected,
            "seconds": self.seconds,
            "candidates_per_hour": self.candidates_per_hour,
            "overhead_per_candidate": self.overhead,
            "overhead_share": self.overhead_share,
            "rejections": {part: spread._asdict() for part, spread in summarise(self.rejections).items()},
            "known": KNOWN,
            "late": {part: spread._asdict() for part, spread in summarise(self.late).items()},
            "goals": [goal._asdict() for goal in self.goals],
        }


class _Recorder(Callback):
    """Callback that records the candidates of a search and reports progress."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.candidates: list[TrainedCandidate] = []
        self.rejected = 0
        self._progress, self._start, self._label = progress, 0.0, ""

    def on_trial_rejected(self, *, worker: int) -> None:  # noqa: ARG002 - only one worker
        self.rejected += 1

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:  # noqa: ARG002 - likewise
        self._label, self._start = run.label, time.perf_counter()
        self._progress(f"training candidate {run.context.trained + 1}: {run.label}, {run.params:,} parameters")

    def on_run_end(self, result: RunResult, *, worker: int) -> None:  # noqa: ARG002 - likewise
        seconds = time.perf_counter() - self._start
        self.candidates.append(TrainedCandidate(self._label, result.params, result.epochs, result.seconds, seconds))


def run(
    dataset: DataSet,
    recipe: Recipe,
    *,
    budget: Budget,
    device: torch.device,
    trials: int,
    progress: Callable[[str], None],
) -> SearchBenchmark:
    """Search the default space in a temporary folder, with the default storage.

    Args:
        dataset: training data.
        recipe: training recipe.
        budget: limits of a candidate.
        device: where candidates are trained.
        trials: number of candidates to train.
        progress: called with a description of each step.

    Raises:
        OverBudgetError: the smallest network of the space is over budget.
        BudgetnetError: no candidate has a result.
    """
    data = TrainingData.prepare(dataset, recipe, device=device)
    settings = make_settings(data, SearchConfig(recipe=recipe, seed=_SEED, **budget.to_mapping()))
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        folder = Path(name)
        storage = open_storage(default_storage(folder), create=True)
        try:
            recorder = _Recorder(progress)
            context = SearchContext(settings, data, "searched", storage, folder)
            start = time.perf_counter()
            search(context, Plan(trials), recorder)
            seconds = time.perf_counter() - start
            if not recorder.candidates:
                raise BudgetnetError("no candidate has a result: all ran out of memory on this device")
            progress(f"rejecting {REPEATS} candidates")
            rejections = _measure_rejections(context)
            progress(f"storing candidates after {KNOWN:,} earlier trials")
            late = _measure_late(context)
        finally:
            # Closes the file before its folder is removed.
            storage.remove_session()
            storage.engine.dispose()
    environment = describe_environment(device)
    return SearchBenchmark(environment, settings, recorder.candidates, recorder.rejected, seconds, rejections, late)


def summarise(candidates: Sequence[Overhead]) -> dict[str, Spread]:
    """Return the spread of each part of the overhead and of their sum, ``all``."""
    parts = {part: Spread.of([getattr(each, part) for each in candidates]) for part in Overhead._fields}
    return {**parts, "all": Spread.of([sum(each) for each in candidates])}


def _measure_rejections(context: SearchContext) -> list[Overhead]:
    """Reject candidates under a budget that no network of the space fits."""
    settings, data = context.settings, context.data
    # One parameter below the smallest network, so that the sampler cannot adapt to networks that fit.
    smallest = settings.space.smallest(input_shape=data.input_shape, num_classes=data.num_classes)
    infeasible = settings.config.replace(
        max_params=smallest.params - 1, max_macs=None, max_activations=None, sizing="reject"
    )
    context = context._replace(settings=settings.model_copy(update={"config": infeasible}), study_name="infeasible")
    return _measure_overhead(context, TrialStore.reject)


def _measure_late(context: SearchContext) -> list[Overhead]:
    """Store candidates with invented results in a study with many earlier trials."""
    context = context._replace(study_name="late")
    ends = context.settings.recipe.schedule.cycle_ends(context.settings.recipe.epochs)
    generator = np.random.default_rng(_SEED)

    def store_result(store: TrialStore, candidate: Candidate) -> FrozenTrial:
        trial = store.begin(candidate, run="none", seed=_SEED)
        store.flush()
        for end in ends:
            store.report(trial, value=generator.random(), step=end)
            store.flush()
        facts = {"trained": True, "ended": "at once", "status": "complete"}
        store.finish(trial, value=generator.random(), facts=facts)
        return trial

    # Random sampling for the earlier trials, because TPE takes longer for each.
    random = context.settings.config.replace(sampler="random")
    first = context._replace(settings=context.settings.model_copy(update={"config": random}))
    _measure_overhead(first, store_result, count=KNOWN)
    return _measure_overhead(context, store_result)


def _measure_overhead(
    context: SearchContext, end: Callable[[TrialStore, Candidate], FrozenTrial], *, count: int | None = None
) -> list[Overhead]:
    """Propose candidates and store their outcomes as a search does, without training."""
    name, storage = context.study_name, context.storage
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    overheads = []
    lock, pruner = context.lock, make_pruner(context.settings.config.pruner, context.settings.recipe)
    with lock.held():
        store = TrialStore(study, storage, study_name=name, lock=lock, pruner=pruner)
        proposals = Proposals(store, context.settings, context.data)
        for _ in range(count or REPEATS):
            start = time.perf_counter()
            proposal = proposals.next()
            proposed = time.perf_counter()
            proposals.stored(proposal, end(store, proposal.candidate))
            store.flush()
            overheads.append(Overhead(proposed - start, time.perf_counter() - proposed))
    return overheads
