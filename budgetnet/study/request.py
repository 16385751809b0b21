"""Prepare, run and finish a search from its config, for the command line and the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch

from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.choice import EngineChoice
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import ENTRIES, get
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.training_memory import TrainingMemory
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import Plan, SearchContext, make_settings, of_final_recipe, require_feasible
from budgetnet.study.driver import SearchOutcome, search
from budgetnet.study.finalists import FinalResult
from budgetnet.study.finals import describe_finals, run_finals
from budgetnet.study.reading import read_trials
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.columns import sample_columns
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.pool import Image
from budgetnet.study.storage import default_storage, find_study, open_storage, storage_errors
from budgetnet.study.trials import count_outcomes
from budgetnet.training.callbacks import Callback
from budgetnet.training.devices import choose_device
from budgetnet.training.memory import memory_on
from budgetnet.training.threads import FirstRun
from budgetnet.training.trainer import identify
from budgetnet.training.work import Work

_SAMPLED = 50
"""Number of sampled candidates whose training memory is looked at."""


class Request(NamedTuple):
    """A prepared search."""

    config: SearchConfig
    """Options of the search."""
    context: SearchContext
    """Settings, data, storage and folder of the study."""
    enqueued: tuple[ModelSpec, ...]
    """Networks to train first, with the data's image shape."""


def arrange(dataset: DataSet, config: SearchConfig) -> Request:
    """Prepare the data, the settings and the storage; nothing is written if no network fits the budget.

    Args:
        dataset: images and classes.
        config: options of the search.

    Raises:
        InputError: a field breaks a rule, or what it names is missing or does not fit the images.
        OverBudgetError: not even the smallest network of the space fits, or one to be trained first does not.
        RecordError: the storage cannot be used.
    """
    chosen = choose_device(config.device)
    engine = EngineChoice.of(config, device=chosen)
    recipe = config.candidate_recipe
    sizes = {"train_size": config.train_size, "validation_size": config.validation_size}
    data = TrainingData.prepare(dataset, recipe, device=engine.place(chosen), **sizes)
    settings = make_settings(data, config, device=chosen)
    enqueued = tuple(_networks(config, data))
    require_feasible(settings, data)
    for spec in enqueued:
        # Raises if the network cannot be trained with the recipe on these images.
        identify(spec, data, recipe, seed=config.seed, device=chosen)
        if config.finalists:
            with of_final_recipe():
                identify(spec, data, config.finalist_recipe, seed=config.seed, device=chosen)
    kept = open_storage(config.storage or default_storage(config.out), create=True)
    study = config.study or settings.default_name
    return Request(config, SearchContext(settings, data, study, kept, config.out, engine), enqueued)


def _networks(config: SearchConfig, data: TrainingData) -> Iterator[ModelSpec]:
    """Yield the networks to train first, with the data's image shape.

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
    small = [name for name, entry in ENTRIES.items() if "input_shape" not in entry.settings]
    for name in small:
        with suppress(InputError):  # Needs larger images.
            network = data.adapt(get(name))
            if budget.check(network).fits:
                yield network


def likely_run(request: Request) -> FirstRun | None:
    """Return a run to time training steps with: of the first enqueued network, else of a sampled one.

    None if the search does not train on the CPU.
    """
    context = request.context
    if context.settings.device != "cpu":
        return None
    settings, data = context.settings, context.data
    if request.enqueued:
        return FirstRun(request.enqueued[0], settings.recipe, data)
    image = Image(data.input_shape, data.num_classes)
    spec, _ = next(_sampled(request.config, image, count=1))
    return FirstRun(spec, settings.recipe, data)


def sampled_trainings(config: SearchConfig, dataset: DataSet, *, device: torch.device) -> Iterator[TrainingMemory]:
    """Yield the memory of the trainings of sampled candidates within the budget, and of the networks to train first.

    Args:
        config: options of the search.
        dataset: images and classes.
        device: device to train on.
    """
    image, finals = Image(dataset.input_shape, dataset.num_classes), config.finalists > 0
    for spec, recipe in _sampled(config, image, count=_SAMPLED):
        if config.budget.admits(spec):
            yield memory_on(device, spec, recipe)
            if finals:
                yield memory_on(device, spec, config.finalist_recipe)
    named = (each for each in config.enqueued if isinstance(each, ModelSpec))
    for spec in (config.search_space.smallest(**image._asdict()), *(each.adapted(**image._asdict()) for each in named)):
        yield memory_on(device, spec, config.candidate_recipe)


def _sampled(config: SearchConfig, image: Image, *, count: int) -> Iterator[tuple[ModelSpec, Recipe]]:
    """Yield sampled candidates, of which some are over budget where widths are not fitted."""
    space, sizing = config.search_space, config.sizing
    generator = np.random.default_rng(config.seed)
    columns = sample_columns(space.proposed(sizing), count=count, generator=generator)
    for row in range(count):
        params = SearchSpace.params_at(columns, row)
        spec = fit(space, params, budget=config.budget, sizing=sizing, **image._asdict())
        yield spec, space.recipe_for(params, base=config.candidate_recipe)


def trained_before(request: Request) -> Work:
    """Return the search as work to show progress on, with what earlier searches of the study have done."""
    context, total = request.context, request.config.trials
    with storage_errors(context.storage):
        try:
            trials = read_trials(find_study(context.storage, context.study_name))
        except RecordError:  # There is no such study yet.
            return Work(noun="trials", total=total)
    counts = count_outcomes(trials)
    return Work(
        noun="trials",
        total=total,
        trained=counts["trained"],
        pruned=counts["pruned"],
        rejected=counts["over_budget"],
        best=max((each.accuracy or 0.0 for each in trials if each.outcome == "complete"), default=None),
    )


def run(request: Request, callback: Callback, *, deadline: float | None = None) -> SearchOutcome:
    """Train candidates until the study has enough; the same call resumes the search.

    Args:
        request: the search.
        callback: called with the progress.
        deadline: time to stop at, on the clock of `time.time`. Default: never.

    Raises:
        InputError: the limit on training operations allows no candidate.
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study exists with another config.
        BusyError: another search is running on the study.
    """
    plan = Plan(request.config.trials, request.enqueued, deadline, request.config.max_train_flops)
    return search(request.context, plan, callback)


def finish(
    request: Request, outcome: SearchOutcome, dataset: DataSet, callback: Callback, work: Work
) -> list[FinalResult]:
    """Train the finalists of a finished search and evaluate them on the test set.

    Args:
        request: the search.
        outcome: its result.
        dataset: data set with its sealed test set.
        callback: receives the events of the runs.
        work: is given the number of trainings, those that are complete, and their names.

    Raises:
        BudgetnetError: no candidate has a result, or another process is training a finalist.
    """
    config = request.config
    return run_finals(
        outcome.study,
        request.context,
        dataset,
        callback,
        number=config.finalists,
        seeds=config.final_seeds,
        recipe=config.finalist_recipe,
        started=lambda finals: describe_finals(finals, work, out=request.context.out),
    )
