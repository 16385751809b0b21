"""From what a person asks for to a search at work: what the command line and notebooks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
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
from budgetnet.study.config import SearchConfig
from budgetnet.study.crew import Crew
from budgetnet.study.driver import Arrangement, Plan, SearchOutcome, question, require_feasible, search
from budgetnet.study.finalists import FinalResult
from budgetnet.study.finals import hold_finals
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.costs import drawn
from budgetnet.study.space.fitting import fit
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.training.callbacks import Callback
from budgetnet.training.devices import choose_device
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify


class Request(NamedTuple):
    """A search that was asked for, ready to begin."""

    config: SearchConfig
    """What was asked for."""
    place: Arrangement
    """The question, and where it is worked on."""
    by_hand: tuple[ModelSpec, ...]
    """Networks to be trained first, at the data's image shape."""


def arrange(dataset: DataSet, config: SearchConfig) -> Request:
    """Prepare the data, put the question and open the storage; a budget that nothing fits leaves no files behind.

    Args:
        dataset: images and classes.
        config: what is searched for, how and where.

    Raises:
        InputError: a field breaks a rule, or what it names is missing or does not go with the images.
        OverBudgetError: not even the smallest network of the space fits, or one to be trained first does not.
        RecordError: the storage cannot be used.
    """
    chosen = choose_device(config.device)
    count = config.workers or (torch.cuda.device_count() * config.per_gpu if chosen.type == "cuda" else 1)
    recipe = config.candidate_recipe
    # Several workers take the images to their devices themselves.
    where = chosen if count == 1 else torch.device("cpu")
    sizes = {"train_size": config.train_size, "validation_size": config.validation_size}
    data = TrainingData.prepare(dataset, recipe, device=where, **sizes)
    settings = question(data, config, device=chosen)
    by_hand = tuple(_networks(config, data))
    require_feasible(settings, data)
    for spec in by_hand:
        # Refuses a network that cannot be trained by the recipe on these images.
        identify(spec, data, recipe, seed=config.seed, device=chosen)
    kept = open_storage(config.storage or default_storage(config.out), create=True)
    study = config.study or settings.default_name
    return Request(config, Arrangement(settings, data, study, kept, config.out, count), by_hand)


def _networks(config: SearchConfig, data: TrainingData) -> Iterator[ModelSpec]:
    """The networks to be trained first, at the data's image shape.

    Raises:
        InputError: no such network, or one that the images are too small for.
        OverBudgetError: one does not fit the budget.
    """
    for each in config.enqueued:
        if isinstance(each, ModelSpec):
            network = data.adapt(each)
            config.budget.check(network).require()
            yield network
        else:
            yield from _fitting_zoo(config.budget, data)


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
    sizing = request.config.sizing
    generator = np.random.default_rng(request.config.seed)
    columns = drawn(settings.space.proposed(sizing), count=1, generator=generator)
    params = SearchSpace.params_at(columns, 0)
    spec = fit(settings.space, params, budget=settings.budget, sizing=sizing, **image)
    return FirstRun(spec, settings.recipe, data)


def run(request: Request, callback: Callback, *, deadline: float | None = None) -> SearchOutcome:
    """Train candidates until the study has as many as wanted; to go on is the same call.

    Args:
        request: the search.
        callback: is told of progress.
        deadline: when to stop, as `time.time` counts; never by default.

    Raises:
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question.
        BusyError: another search is at work on the study.
    """
    plan = Plan(request.config.trials, request.by_hand, deadline)
    if request.place.workers > 1:
        return Crew(request.place, callback).search(plan)
    return search(request.place, plan, callback)


def finish(request: Request, outcome: SearchOutcome, dataset: DataSet, callback: Callback) -> list[FinalResult]:
    """Train the finalists of a search that has come to its end, and open the test set for them.

    Raises:
        BudgetnetError: there is no candidate to choose from, or another process is training a finalist.
    """
    config = request.config
    return hold_finals(
        outcome.study,
        request.place,
        dataset,
        _trainer(request.place, callback),
        number=config.finalists,
        seeds=config.final_seeds,
        recipe=config.finalist_recipe,
    )


def _trainer(place: Arrangement, callback: Callback) -> Callable[[Sequence[PlannedRun]], object]:
    if place.workers > 1:
        return Crew(place, callback).train
    return lambda runs: train_runs(runs, place.data, out=place.out, callback=callback)
