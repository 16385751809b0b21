"""Finals: train the best candidates with several seeds, rank them, and evaluate them on the test set.

Finalists are ranked by mean validation accuracy. The test set is opened only for finalists, once for each, after all of
them are trained, and every opening is logged before it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.engines.batch import is_complete, train_runs
from budgetnet.engines.jobs import PlannedRun
from budgetnet.evaluation.inference import evaluate_on_test
from budgetnet.runs.recipe import Recipe, require_reliable_validation
from budgetnet.runs.store import RunFolder
from budgetnet.study.context import SearchContext
from budgetnet.study.finalists import Finalist, FinalResult, Finals, load_finals, read_results, store_finals
from budgetnet.study.objectives import unbeaten
from budgetnet.study.outcomes import accuracy_of, is_trained
from budgetnet.training.callbacks import Callback
from budgetnet.training.trainer import identify
from budgetnet.training.work import Work

_SPLIT = ("validation_fraction", "split_seed")
"""Fields of a recipe that determine the split of the training images."""


def overridden_split(recipe: Recipe, *, own: Recipe) -> str | None:
    """Return what to say of a final recipe that has another split than the search, which is used; None if it has not.

    Args:
        recipe: final recipe.
        own: recipe of the search.
    """
    changes = [
        f"{name} {getattr(own, name)} in place of {getattr(recipe, name)}"
        for name in _SPLIT
        if getattr(own, name) != getattr(recipe, name)
    ]
    return f"final_recipe: finalists are trained on the search's split, {' and '.join(changes)}" if changes else None


def choose_finalists(study: optuna.Study, context: SearchContext, *, number: int, seeds: int, recipe: Recipe) -> Finals:
    """Return the best candidates of a study, and the best enqueued one in addition if it is not among them.

    With several objectives these are the most accurate ones on the Pareto front, which may have fewer than asked for.

    Args:
        study: the study.
        context: the study's settings, data, storage and folder.
        number: number of candidates to choose.
        seeds: number of trainings of each.
        recipe: final recipe, with the validation split of the search; values that the search sampled for a candidate
            override it.

    Raises:
        RecordError: a candidate's run folder is missing or damaged.
        StoreError: it is to be copied from a cluster's store, which cannot be read.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if is_trained(trial)]
    costs = context.settings.config.costs
    points = [(-trial.values[0], *trial.values[1:]) for trial in complete]
    front = {complete[place].number for place in unbeaten(points)}
    ranked = sorted(complete, key=lambda trial: (-(accuracy_of(trial) or 0), trial.user_attrs["params"], trial.number))
    chosen = [trial for trial in ranked if not costs or trial.number in front][:number]
    enqueued = [trial for trial in ranked if "enqueued" in trial.user_attrs]
    if enqueued and enqueued[0] not in chosen:
        chosen.append(enqueued[0])
    own = context.settings.recipe
    recipe = recipe.model_copy(update={name: getattr(own, name) for name in _SPLIT})
    numbers = tuple(context.settings.config.seed + step for step in range(seeds))
    finalists = (_finalist(trial, recipe, numbers, context) for trial in chosen)
    return Finals(finalists=tuple(finalists), seeds=numbers, recipe=recipe)


def _finalist(trial: FrozenTrial, recipe: Recipe, seeds: Sequence[int], context: SearchContext) -> Finalist:
    folder = RunFolder(context.out / trial.user_attrs["run"])
    if not folder.finished:
        # It was trained on a cluster, for a driver whose machine is gone.
        context.engine_choice.fetch(folder.path.name, out=context.out)
    spec = folder.load().identity.spec
    enqueued = "enqueued" in trial.user_attrs
    if not enqueued:
        recipe = context.settings.space.recipe_for(trial.params, base=recipe)
    runs = (
        RunFolder.of(identify(spec, context.data, recipe, seed=seed, device=context.device), context.out).path.name
        for seed in seeds
    )
    return Finalist(
        trial=trial.number,
        name=spec.label if enqueued else f"#{trial.number}",
        spec=spec,
        recipe=recipe,
        enqueued=enqueued,
        runs=tuple(runs),
    )


def _incomplete(finals: Finals, out: Path) -> list[PlannedRun]:
    """Return the trainings of the finals that are not complete, ordered by seed, then by finalist."""
    return [
        PlannedRun(spec=each.spec, recipe=each.recipe, seed=seed)
        for place, seed in enumerate(finals.seeds)
        for each in finals.finalists
        if not is_complete(RunFolder(out / each.runs[place]))
    ]


def open_test_set(
    results: Sequence[FinalResult], dataset: DataSet, *, study_name: str, device: torch.device, out: Path
) -> None:
    """Evaluate the runs of every finalist on the test set, opened once for each; existing results are kept.

    Args:
        results: the finalists, already ranked, so that test results cannot change their order.
        dataset: data set that they were trained on.
        study_name: name of the study, for the log of openings.
        device: device to evaluate on.
        out: folder of run folders, which has the log of openings.

    Raises:
        DataError: an opening cannot be logged.
        RecordError: a run's weights are damaged.
    """
    for rank, result in enumerate(results, 1):
        seeds = ", ".join(str(record.identity.seed) for record in result.records if record.test is None)
        reason = f"finalist {rank} of {len(results)} of study {study_name}, trained with seeds {seeds}"
        evaluate_on_test(result.records, dataset, by=result.finalist.name, reason=reason, device=device, out=out)


def describe_finals(finals: Finals, work: Work, *, out: Path) -> None:
    """Give the number, the state and the names of the finals' trainings to what shows progress."""
    work.total = len(finals.finalists) * len(finals.seeds)
    work.names = {
        run: f"finalist {place}/{len(finals.finalists)}, seed {turn}/{len(finals.seeds)}"
        for place, finalist in enumerate(finals.finalists, 1)
        for turn, run in enumerate(finalist.runs, 1)
    }
    work.trained = sum(is_complete(RunFolder(out / run)) for run in work.names)


def run_finals(
    study: optuna.Study,
    context: SearchContext,
    dataset: DataSet,
    callback: Callback,
    *,
    number: int,
    seeds: int,
    recipe: Recipe,
    started: Callable[[Finals], object] = lambda _: None,
) -> list[FinalResult]:
    """Train the finalists of a study, rank them and evaluate them on the test set; existing results are kept.

    Args:
        study: the study.
        context: the study's settings, data, storage and folder.
        dataset: data set with its sealed test set.
        callback: receives the events of the runs.
        number: number of candidates to choose.
        seeds: number of trainings of each.
        recipe: final recipe.
        started: called with the finals before they are trained.

    Raises:
        InputError: the recipe validates on training images, so finalists cannot be ranked.
        BudgetnetError: no candidate has a result, or another process is training a finalist.
        BusyError: a search is running on the study.
    """
    require_reliable_validation(recipe, field="final_recipe")
    with context.lock.held():
        finals = choose_finalists(study, context, number=number, seeds=seeds, recipe=recipe)
        if not finals.finalists:
            raise BudgetnetError("no candidate has a result, so there are no finalists")
        earlier = load_finals(study)
        if earlier is not None and earlier.finalists == finals.finalists:
            finals = finals.model_copy(update={"latencies": earlier.latencies})
        store_finals(study, finals)
        started(finals)
        train_runs(_incomplete(finals, context.out), context.engine, callback)
        if missing := _incomplete(finals, context.out):
            first = f"{missing[0].spec.label}, seed {missing[0].seed}"
            raise BudgetnetError(f"{len(missing)} trainings of finalists are incomplete, such as {first}")
        results = read_results(finals, context.out)
        open_test_set(results, dataset, study_name=context.study_name, device=context.device, out=context.out)
        return read_results(finals, context.out)
