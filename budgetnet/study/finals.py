"""The finals: the best candidates trained in full with several seeds, ranked, and only then shown the test set.

What is ranked is the mean validation accuracy. The test set answers for finalists alone, is opened once for each, after
all of them stand, and every opening is written down before it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.errors import BudgetnetError
from budgetnet.data import DataSet
from budgetnet.engines.local import PlannedRun, is_complete
from budgetnet.evaluation.inference import evaluate_on_test
from budgetnet.runs.recipe import Recipe, require_reliable_validation
from budgetnet.runs.store import RunFolder
from budgetnet.study.driver import Arrangement
from budgetnet.study.finalists import Finalist, FinalResult, Finals, keep_finals, read_results
from budgetnet.study.outcomes import is_trained
from budgetnet.training.trainer import identify


def choose_finalists(study: optuna.Study, place: Arrangement, *, number: int, seeds: int, recipe: Recipe) -> Finals:
    """The best candidates of a study, and the best made by hand beside them if it is not among them.

    Args:
        study: the study.
        place: its question, and where it was worked on.
        number: how many candidates to choose.
        seeds: how often each is to be trained.
        recipe: how, with the values laid over that the search chose for a candidate. It is judged on the images that
            judged the search, whatever split it names.

    Raises:
        RecordError: a candidate's run folder is gone or damaged.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if is_trained(trial)]
    ranked = sorted(complete, key=lambda trial: (-float(trial.value or 0), trial.user_attrs["params"], trial.number))
    chosen = ranked[:number]
    by_hand = [trial for trial in ranked if "by_hand" in trial.user_attrs]
    if by_hand and by_hand[0] not in chosen:
        chosen.append(by_hand[0])
    own = place.settings.recipe
    same_split = {"validation_fraction": own.validation_fraction, "split_seed": own.split_seed}
    recipe = recipe.model_copy(update=same_split)
    numbers = tuple(place.settings.config.seed + step for step in range(seeds))
    finalists = (_finalist(trial, recipe, numbers, place) for trial in chosen)
    return Finals(finalists=tuple(finalists), seeds=numbers)


def _finalist(trial: FrozenTrial, recipe: Recipe, seeds: Sequence[int], place: Arrangement) -> Finalist:
    spec = RunFolder(place.out / trial.user_attrs["run"]).load().identity.spec
    by_hand = "by_hand" in trial.user_attrs
    if not by_hand:
        recipe = place.settings.space.recipe_for(trial.params, base=recipe)
    runs = (
        RunFolder.of(identify(spec, place.data, recipe, seed=seed, device=place.device), place.out).path.name
        for seed in seeds
    )
    return Finalist(
        trial=trial.number,
        name=spec.label if by_hand else f"#{trial.number}",
        spec=spec,
        recipe=recipe,
        by_hand=by_hand,
        runs=tuple(runs),
    )


def final_runs(finals: Finals) -> list[PlannedRun]:
    """Every training of the finals, one seed of all finalists after the other."""
    return [
        PlannedRun(spec=each.spec, recipe=each.recipe, seed=seed) for seed in finals.seeds for each in finals.finalists
    ]


def open_test_set(
    results: Sequence[FinalResult], dataset: DataSet, *, study_name: str, device: torch.device, out: Path
) -> None:
    """Judges every finalist's runs on the test set, opened once for each finalist; one judged before stays as it is.

    Args:
        results: the finalists, ranked, so that nothing seen here can change their order.
        dataset: the data set that they were trained on.
        study_name: name of the study, for the record of the opening.
        device: where to judge.
        out: folder of run folders, in which the openings are written down.

    Raises:
        DataError: an opening cannot be written down.
        RecordError: a run's weights are damaged.
    """
    for place, result in enumerate(results, 1):
        seeds = ", ".join(str(record.identity.seed) for record in result.records if record.test is None)
        reason = f"finalist {place} of {len(results)} of study {study_name}, trained with seeds {seeds}"
        evaluate_on_test(result.records, dataset, by=result.finalist.name, reason=reason, device=device, out=out)


def hold_finals(
    study: optuna.Study,
    place: Arrangement,
    dataset: DataSet,
    train_all: Callable[[Sequence[PlannedRun]], object],
    *,
    number: int,
    seeds: int,
    recipe: Recipe,
) -> list[FinalResult]:
    """Trains the finalists of a study, ranks them and opens the test set for them; what is done already stays as it is.

    Args:
        study: the study.
        place: its question, and where it was worked on.
        dataset: the data set, with its test set under seal.
        train_all: trains what is to be trained, in this process or in several.
        number: how many candidates to choose.
        seeds: how often each is trained.
        recipe: how.

    Raises:
        InputError: the recipe leaks, so that finalists cannot be ranked.
        BudgetnetError: nothing is there to choose from, or another process is training a finalist.
        BusyError: a search is at work on the study.
    """
    require_reliable_validation(recipe, field="final_recipe")
    with place.presence.searching():
        finals = choose_finalists(study, place, number=number, seeds=seeds, recipe=recipe)
        if not finals.finalists:
            raise BudgetnetError("no candidate came to a result, so there are no finalists")
        keep_finals(study, finals)
        train_all(final_runs(finals))
        waited_for = [
            run for each in finals.finalists for run in each.runs if not is_complete(RunFolder(place.out / run))
        ]
        if waited_for:
            raise BudgetnetError(f"{len(waited_for)} trainings of finalists came to no end, such as {waited_for[0]}")
        results = read_results(finals, place.out)
        open_test_set(results, dataset, study_name=place.study_name, device=place.device, out=place.out)
        return read_results(finals, place.out)
