"""What a search costs besides training: candidates an hour, the driver's share, and closing one that does not fit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch

from budgetnet.bench.measure import Goal
from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.model.budget import Budget
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunResult
from budgetnet.study.bulk import Written
from budgetnet.study.config import SearchConfig
from budgetnet.study.driver import Arrangement, Plan, question, search
from budgetnet.study.ledger import Entry, Ledger
from budgetnet.study.proposer import Proposals
from budgetnet.study.pruner import make_pruner
from budgetnet.study.settings import StudySettings
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.training.callbacks import Announced, Callback
from budgetnet.training.devices import describe_environment

REPEATS = 50
"""Candidates of each kind whose bookkeeping is measured."""
KNOWN = 1_000
"""Trained candidates in the study whose next ones are measured."""
_GOAL_CANDIDATES, _GOAL_PERCENT, _GOAL_LATE = 30, 5.0, 0.03
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
    """Wall time from its first step to its result, with all that its folder holds."""


class Bookkeeping(NamedTuple):
    """Seconds that the search itself took for one candidate."""

    proposal: float
    """What others wrote is read, the sampler chooses, the network is sized and counted."""
    write: float
    """What became of it stands in the study's file, where a kill of the process leaves it."""


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
    turning_away: list[Bookkeeping]
    """Of candidates over budget, in a study that holds little else."""
    late: list[Bookkeeping]
    """Of candidates that were not really trained, in a study that holds `KNOWN` trained ones."""

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
    def goals(self) -> list[Goal]:
        """What the search is to show of itself, as far as this measurement is long enough for it."""
        late = summed_up(self.late)["all"].median
        goals = [Goal(f"candidate {KNOWN + 1:,} of a study", "seconds", late, _GOAL_LATE, late <= _GOAL_LATE)]
        if len(self.candidates) >= _GOAL_CANDIDATES:
            share = 100 * self.overhead_share
            goals.append(Goal("besides training", "percent", share, _GOAL_PERCENT, share <= _GOAL_PERCENT))
        return goals

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
            "turning_away": {part: spread._asdict() for part, spread in summed_up(self.turning_away).items()},
            "known": KNOWN,
            "late": {part: spread._asdict() for part, spread in summed_up(self.late).items()},
            "goals": [goal._asdict() for goal in self.goals],
        }


class _Watcher(Callback):
    """Keeps what a search tells of its candidates, and hands on how far it is."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.candidates: list[Candidate] = []
        self.rejected = 0
        self._progress, self._began = progress, 0.0
        self._label = ""

    def turned_away(self, *, worker: int) -> None:  # noqa: ARG002 - there is but one
        self.rejected += 1

    def begun(self, run: Announced, *, worker: int) -> None:  # noqa: ARG002 - likewise
        self._label, self._began = run.label, time.perf_counter()
        self._progress(f"training candidate {run.occasion.trained + 1}: {run.label}, {run.params:,} parameters")

    def ended(self, result: RunResult, *, worker: int) -> None:  # noqa: ARG002 - likewise
        seconds = time.perf_counter() - self._began
        self.candidates.append(Candidate(self._label, result.params, result.epochs, result.seconds, seconds))


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
    settings = question(data, SearchConfig(recipe=recipe, seed=_SEED, **budget.to_mapping()))
    with TemporaryDirectory(prefix="budgetnet-bench-") as name:
        folder = Path(name)
        storage = open_storage(default_storage(folder), create=True)
        try:
            watcher = _Watcher(progress)
            place = Arrangement(settings, data, "searched", storage, folder)
            began = time.perf_counter()
            search(place, Plan(trials), watcher)
            seconds = time.perf_counter() - began
            if not watcher.candidates:
                raise BudgetnetError("no candidate came to a result: all were too large for the device's memory")
            progress(f"turning {REPEATS} candidates away")
            turning_away = _turn_away(place)
            progress(f"writing down candidates behind {KNOWN:,} others")
            late = _late(place)
        finally:
            # Or the file would still be open when the folder is taken away.
            storage.remove_session()
            storage.engine.dispose()
    environment = describe_environment(device)
    return SearchBenchmark(environment, settings, watcher.candidates, watcher.rejected, seconds, turning_away, late)


def summed_up(candidates: Sequence[Bookkeeping]) -> dict[str, Spread]:
    """What bookkeeping took, by part and in all."""
    parts = {part: [getattr(each, part) for each in candidates] for part in Bookkeeping._fields}
    parts["all"] = [sum(each) for each in candidates]
    return {part: Spread(statistics.median(times), min(times), max(times)) for part, times in parts.items()}


def _turn_away(place: Arrangement) -> list[Bookkeeping]:
    """Candidates under a budget that nothing in the space fits, as a search would turn them away."""
    settings, data = place.settings, place.data
    # One less than the smallest network has, so that the sampler, which learns, cannot settle on what fits.
    smallest = settings.space.smallest(input_shape=data.input_shape, num_classes=data.num_classes)
    hopeless = settings.config.replace(
        max_params=smallest.params - 1, max_macs=None, max_activations=None, sizing="reject"
    )
    place = place._replace(settings=settings.model_copy(update={"config": hopeless}), study_name="hopeless")

    return _keep_books(place, Ledger.turn_away)


def _late(place: Arrangement) -> list[Bookkeeping]:
    """Candidates that end as soon as they begin, in a study with many behind it."""
    place = place._replace(study_name="late")
    cycles = len(place.settings.recipe.schedule.cycle_ends(place.settings.recipe.epochs))
    chance = np.random.default_rng(_SEED)

    def train_nothing(ledger: Ledger, entry: Entry) -> Written:
        written = ledger.begin(entry, run="none", seed=_SEED)
        if written is None:
            raise BudgetnetError("nobody else is at work here, so nobody can have taken the candidate")
        for cycle in range(1, cycles + 1):
            ledger.report(written, value=chance.random(), step=cycle)
        ledger.finish(written, value=chance.random(), facts={"trained": True, "ended": "at once", "status": "complete"})
        return written

    # Drawn by chance, as a sampler that learns would take its time for each.
    by_chance = place.settings.config.replace(sampler="random")
    first = place._replace(settings=place.settings.model_copy(update={"config": by_chance}))
    _keep_books(first, train_nothing, count=KNOWN)
    return _keep_books(place, train_nothing)


def _keep_books(
    place: Arrangement, close: Callable[[Ledger, Entry], Written], *, count: int | None = None
) -> list[Bookkeeping]:
    """Proposes candidates and writes down what becomes of them, as a worker does, without training any."""
    name, storage = place.study_name, place.storage
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    kept = []
    with place.presence as presence:
        ledger = Ledger(
            study, storage, presence, pruner=make_pruner(place.settings.config.pruner, place.settings.recipe)
        )
        proposals = Proposals(ledger, place.settings, place.data)
        for _ in range(count or REPEATS):
            began = time.perf_counter()
            with presence.gate():
                ledger.refresh()
                proposal = proposals.next()
                proposed = time.perf_counter()
                proposals.written(proposal, close(ledger, proposal.entry))
            kept.append(Bookkeeping(proposed - began, time.perf_counter() - proposed))
    return kept
