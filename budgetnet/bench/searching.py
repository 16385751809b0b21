"""What a search costs besides training: candidates an hour, the driver's share, and closing one that does not fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from optuna.storages import RDBStorage

from budgetnet.budget import Budget, Verdict
from budgetnet.data import DataSet
from budgetnet.environment import describe_environment
from budgetnet.errors import BudgetnetError
from budgetnet.recipe import Recipe
from budgetnet.records import Epoch, RunResult
from budgetnet.search.driver import question, search
from budgetnet.search.proposals import Proposals
from budgetnet.search.settings import StudySettings
from budgetnet.search.study import default_storage, open_storage, open_study
from budgetnet.training_data import TrainingData

REJECTED = 50
"""Candidates over budget that are drawn and closed."""
_SEED = 0


class Candidate(NamedTuple):
    """One candidate of the search that was trained to its end."""

    architecture: str
    params: int
    epochs: int
    """Epochs trained."""
    training_seconds: float
    """Wall time of its epochs, by its record."""
    seconds: float
    """Wall time from the verdict to its result, with all that is written down."""


class Rejection(NamedTuple):
    """Seconds that one candidate over budget took, from the draw until it was written down."""

    draw: float
    """The sampler's choice."""
    verdict: float
    """Specification and count."""
    write: float
    """The sampler is told, and the whole trial stands in the study's file, where a kill of the process leaves it."""


class Spread(NamedTuple):
    """Times of several candidates, in seconds."""

    median: float
    minimum: float
    maximum: float


class SearchBenchmark(NamedTuple):
    """A search, and candidates that were turned away."""

    environment: dict[str, Any]
    settings: StudySettings
    candidates: list[Candidate]
    turned_away: int
    """Candidates of the search that did not fit."""
    seconds: float
    """Wall time of the whole search, once data and storage were there."""
    rejections: list[Rejection]

    @property
    def candidates_per_hour(self) -> float:
        """Trained candidates, at the search's pace."""
        return 3600 * len(self.candidates) / self.seconds

    @property
    def overhead(self) -> float:
        """Seconds of the search for each candidate in which no epoch was trained.

        Proposals, with those turned away, building, and what is written down after each epoch.
        """
        return (self.seconds - sum(each.training_seconds for each in self.candidates)) / len(self.candidates)

    @property
    def overhead_share(self) -> float:
        """The overhead's share of the search."""
        return self.overhead * len(self.candidates) / self.seconds

    @property
    def closing(self) -> dict[str, Spread]:
        """What closing a candidate over budget takes, by part and in all."""
        parts = {part: [getattr(each, part) for each in self.rejections] for part in Rejection._fields}
        parts["all"] = [sum(each) for each in self.rejections]
        return {part: Spread(statistics.median(times), min(times), max(times)) for part, times in parts.items()}

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds."""
        return {
            "benchmark": "search",
            "environment": self.environment,
            "data": self.settings.data.name,
            "budget": self.settings.budget.to_mapping(),
            "recipe": self.settings.recipe.to_mapping(),
            "rows": [candidate._asdict() for candidate in self.candidates],
            "turned_away": self.turned_away,
            "seconds": self.seconds,
            "candidates_per_hour": self.candidates_per_hour,
            "overhead_per_candidate": self.overhead,
            "overhead_share": self.overhead_share,
            "rejected": len(self.rejections),
            "closing": {part: spread._asdict() for part, spread in self.closing.items()},
        }


class _Watcher:
    """Keeps what a search tells of its candidates, and hands on how far it is."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.candidates: list[Candidate] = []
        self.rejected = 0
        self._progress, self._began = progress, 0.0
        self._verdict: Verdict | None = None

    def turned_away(self) -> None:
        self.rejected += 1

    def begun(self, verdict: Verdict, *, trained: int) -> None:
        self._verdict, self._began = verdict, time.perf_counter()
        self._progress(f"training candidate {trained + 1}: {verdict.spec.label}, {verdict.cost.params:,} parameters")

    def stepped(self, epoch: int, share: float) -> None:
        """Nothing is kept of a step."""

    def epoch_ended(self, epoch: Epoch) -> None:
        """Nothing is kept of an epoch."""

    def ended(self, result: RunResult | None) -> None:
        if result is not None and self._verdict is not None:
            seconds = time.perf_counter() - self._began
            label = self._verdict.spec.label
            self.candidates.append(Candidate(label, result.params, result.epochs, result.seconds, seconds))


def run(
    dataset: DataSet,
    recipe: Recipe,
    *,
    budget: Budget,
    device: torch.device,
    trials: int,
    progress: Callable[[str], None],
) -> SearchBenchmark:
    """Searches the default space in a temporary folder, with storage as a real search has it.

    Args:
        dataset: what candidates are trained on.
        recipe: how.
        budget: what a candidate may cost.
        device: where they are trained.
        trials: candidates to train.
        progress: is told what is being done.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        BudgetnetError: no candidate came to a result.
    """
    data = TrainingData.prepare(dataset, recipe, device=device)
    settings = question(data, recipe, budget=budget, seed=_SEED)
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        folder = Path(name)
        storage = open_storage(default_storage(folder), create=True)
        try:
            watcher = _Watcher(progress)
            began = time.perf_counter()
            search(settings, data, study_name="searched", storage=storage, out=folder, trials=trials, observer=watcher)
            seconds = time.perf_counter() - began
            if not watcher.candidates:
                raise BudgetnetError("no candidate came to a result: all were too large for the device's memory")
            progress(f"closing {REJECTED} candidates over budget")
            rejections = _reject(storage, settings, data)
        finally:
            # Or the file would still be open when the folder is taken away.
            storage.remove_session()
            storage.engine.dispose()
    environment = describe_environment(device)
    return SearchBenchmark(environment, settings, watcher.candidates, watcher.rejected, seconds, rejections)


def _reject(storage: RDBStorage, settings: StudySettings, data: TrainingData) -> list[Rejection]:
    """Draws and closes candidates under a budget that nothing in the space fits, as a search would."""
    shape, classes = data.input_shape, data.num_classes
    # One less than the smallest network has, so that the sampler, which learns, cannot settle on what fits.
    smallest = settings.space.smallest(input_shape=shape, num_classes=classes)
    settings = settings.model_copy(update={"budget": Budget(max_params=smallest.params - 1)})
    study = open_study(storage, "rejected", settings)
    proposals = Proposals(study, storage, settings, input_shape=shape, num_classes=classes)
    rejections = []
    for _ in range(REJECTED):
        began = datetime.now()
        proposal = proposals.next()
        judged = datetime.now()
        proposals.reject(proposal)
        written = datetime.now()
        # A proposal knows when it had been drawn, which parts the draw from the verdict.
        moments = (began, proposal.began, judged, written)
        rejections.append(Rejection(*((later - moment).total_seconds() for moment, later in pairwise(moments))))
    return rejections
