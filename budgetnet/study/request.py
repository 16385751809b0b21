"""From what a person asks for to a search at work: what the command line and notebooks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.local import PlannedRun, train_runs
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import ENTRIES, get
from budgetnet.runs.recipe import Recipe
from budgetnet.study.crew import Crew
from budgetnet.study.driver import Arrangement, Plan, SearchOutcome, question, require_feasible, search
from budgetnet.study.finalists import FinalResult, FinalsWanted
from budgetnet.study.finals import hold_finals
from budgetnet.study.settings import PrunerName, SamplerName
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.costs import drawn
from budgetnet.study.space.fitting import fit
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.training.callbacks import Callback
from budgetnet.training.devices import choose_device
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify

ZOO = "zoo"
"""In place of a network: every named one that fits."""


class Request(NamedTuple):
    """A search that was asked for, ready to begin."""

    place: Arrangement
    """The question, and where it is worked on."""
    by_hand: tuple[ModelSpec, ...]
    """Networks to be trained first, at the data's image shape."""


def arrange(
    dataset: DataSet,
    recipe: Recipe,
    *,
    budget: Budget,
    space: SearchSpace,
    seed: int,
    out: Path,
    storage: str | None = None,
    study_name: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    per_gpu: int = 1,
    enqueue: Sequence[ModelSpec | str] = (),
    train_size: int | None = None,
    validation_size: int | None = None,
    sizing: Sizing = "fit",
    sampler: SamplerName = "tpe",
    pruner: PrunerName = "asha",
) -> Request:
    """Prepares the data, puts the question and opens the storage; a budget that nothing fits leaves no files behind.

    Args:
        dataset: images and classes.
        recipe: how candidates are trained.
        budget: what a candidate may cost.
        space: what may be proposed.
        seed: of proposals and of every candidate's run.
        out: folder of run folders.
        storage: URL of the studies' storage; the SQLite file in `out` if left out.
        study_name: name of the study; the one that the question gives if left out.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        workers: processes; one on a CPU and `per_gpu` on each GPU if left out.
        per_gpu: processes that share a GPU.
        enqueue: networks to be trained first; ``"zoo"`` stands for every named one that fits.
        train_size: train on so many of the training images; on all if left out.
        validation_size: validate on so many of those held out; on all if left out.
        sizing: how a draw meets the budget.
        sampler: what draws candidates.
        pruner: what ends candidates at restarts.

    Raises:
        InputError: an argument breaks a rule.
        OverBudgetError: not even the smallest network of the space fits, or one to be trained first does not.
        RecordError: the storage cannot be used.
    """
    chosen = choose_device(device)
    count = workers or (torch.cuda.device_count() * per_gpu if chosen.type == "cuda" else 1)
    # Several workers take the images to their devices themselves.
    where = chosen if count == 1 else torch.device("cpu")
    data = TrainingData.prepare(dataset, recipe, device=where, train_size=train_size, validation_size=validation_size)
    ways: dict[str, Any] = {"sizing": sizing, "sampler": sampler, "pruner": pruner}
    settings = question(data, recipe, budget=budget, seed=seed, space=space, device=chosen, **ways)
    by_hand = tuple(_networks(enqueue, budget, data))
    require_feasible(settings, data)
    for spec in by_hand:
        # Refuses a network that cannot be trained by the recipe on these images.
        identify(spec, data, recipe, seed=seed, device=chosen)
    kept = open_storage(storage or default_storage(out), create=True)
    return Request(Arrangement(settings, data, study_name or settings.default_name, kept, out, count), by_hand)


def _networks(wanted: Sequence[ModelSpec | str], budget: Budget, data: TrainingData) -> Iterator[ModelSpec]:
    """The networks to be trained first, at the data's image shape.

    Raises:
        InputError: no such network, or one that the images are too small for.
        OverBudgetError: one does not fit the budget.
    """
    for each in wanted:
        if each == ZOO:
            yield from _fitting_zoo(budget, data)
            continue
        network = data.adapt(get(each) if isinstance(each, str) else each)
        budget.check(network).require()
        yield network


def _fitting_zoo(budget: Budget, data: TrainingData) -> Iterator[ModelSpec]:
    for name in ENTRIES:
        with suppress(InputError):  # Made for larger images than these.
            network = data.adapt(get(name))
            if budget.check(network).fits:
                yield network


def likely_run(request: Request) -> FirstRun | None:
    """Return a run such as the search begins with, to measure steps of: of the first network given, or of a draw.

    None if the search does not train on the CPU.
    """
    place = request.place
    if place.settings.device != "cpu":
        return None
    settings, data = place.settings, place.data
    image: dict[str, Any] = {"input_shape": data.input_shape, "num_classes": data.num_classes}
    if request.by_hand:
        return FirstRun(request.by_hand[0], settings.recipe, data)
    columns = drawn(settings.space.proposed(settings.sizing), count=1, generator=np.random.default_rng(settings.seed))
    params = SearchSpace.params_at(columns, 0)
    spec = fit(settings.space, params, budget=settings.budget, sizing=settings.sizing, **image)
    return FirstRun(spec, settings.recipe, data)


def run(request: Request, callback: Callback, *, trials: int, deadline: float | None = None) -> SearchOutcome:
    """Trains candidates until the study has as many as wanted; to go on is the same call.

    Args:
        request: the search.
        callback: is told of progress.
        trials: trained candidates that the study shall have, in all.
        deadline: when to stop, as `time.time` counts; never if left out.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question.
        BusyError: another search is at work on the study.
    """
    plan = Plan(trials, request.by_hand, deadline)
    if request.place.workers > 1:
        return Crew(request.place, callback).search(plan)
    return search(request.place, plan, callback)


def finish(
    request: Request, outcome: SearchOutcome, dataset: DataSet, callback: Callback, *, wanted: FinalsWanted
) -> list[FinalResult]:
    """Trains the finalists of a search that has come to its end, and opens the test set for them.

    Raises:
        BudgetnetError: nothing is there to choose from, or another process is training a finalist.
    """
    return hold_finals(outcome.study, request.place, dataset, _trainer(request.place, callback), **wanted._asdict())


def _trainer(place: Arrangement, callback: Callback) -> Callable[[Sequence[PlannedRun]], object]:
    if place.workers > 1:
        return Crew(place, callback).train
    return lambda runs: train_runs(runs, place.data, out=place.out, callback=callback)
