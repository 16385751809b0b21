"""The finals: the best candidates trained in full with several seeds, ranked, and only then shown the test set.

What is ranked is the mean validation accuracy. The test set answers for finalists alone, is opened once for each, after
all of them stand, and every opening is written down before it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from budgetnet.checkpoint import load_tensors
from budgetnet.data import DataSet
from budgetnet.data.device import resident
from budgetnet.errors import BudgetnetError, BusyError, InputError, RecordError
from budgetnet.evaluate import Evaluator
from budgetnet.fields import Document
from budgetnet.learner import PRECISIONS
from budgetnet.recipe import Recipe
from budgetnet.records import RunRecord, TestResult
from budgetnet.run_folder import RunFolder
from budgetnet.search.driver import Arrangement
from budgetnet.search.fates import is_trained
from budgetnet.search.finalists import OPENINGS, Finalist, FinalResult, Finals, keep_finals, read_results
from budgetnet.search.memory import with_memory
from budgetnet.search.observer import Announced, Observer
from budgetnet.spec import ModelSpec
from budgetnet.train import identify, initialise, train
from budgetnet.training_data import TrainingData


class FinalRun(Document):
    """One training of one finalist."""

    spec: ModelSpec
    """The network."""
    recipe: Recipe
    """How it is trained."""
    seed: int
    """Of initialisation, order and augmentation."""


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
    numbers = tuple(place.settings.seed + step for step in range(seeds))
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


def final_runs(finals: Finals) -> list[FinalRun]:
    """Every training of the finals, one seed of all finalists after the other."""
    return [
        FinalRun(spec=each.spec, recipe=each.recipe, seed=seed) for seed in finals.seeds for each in finals.finalists
    ]


def train_runs(runs: Sequence[FinalRun], data: TrainingData, *, out: Path, observer: Observer, worker: int = 0) -> None:
    """Trains what is not trained yet, and leaves to other workers what they are at.

    Args:
        runs: the trainings.
        data: training and validation images, on the device to train on.
        out: folder of run folders.
        observer: is told of progress.
        worker: number of the worker.
    """
    for run in runs:
        if RunFolder.of(identify(run.spec, data, run.recipe, seed=run.seed), out).finished:
            continue
        observer.begun(Announced(run.spec.label, run.spec.params, trained=0), worker=worker)
        try:
            record, _ = with_memory(_attempt(run, data, out, observer, worker))
        except BusyError:
            continue
        observer.ended(record.result if record else None, worker=worker)


def _attempt(
    run: FinalRun, data: TrainingData, out: Path, observer: Observer, worker: int
) -> Callable[[Any], RunRecord]:
    return lambda execution: train(
        run.spec,
        data,
        run.recipe,
        seed=run.seed,
        out=out,
        execution=execution,
        on_epoch=lambda epoch: observer.epoch_ended(epoch, worker=worker),
        on_step=lambda epoch, share: observer.stepped(epoch, share, worker=worker),
    )


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
        waiting = [record for record in result.records if record.test is None]
        if not waiting:
            continue
        # Before the test set is opened, which it must not be in vain.
        networks = [_trained_network(record, device) for record in waiting]
        seeds = ", ".join(str(record.identity.seed) for record in waiting)
        reason = f"finalist {place} of {len(results)} of study {study_name}, trained with seeds {seeds}"
        images, labels = dataset.test.open(reason=reason, by=result.finalist.name, log=out / OPENINGS)
        test = resident(images, labels, device=device, mean=dataset.mean, std=dataset.std)
        for record, network in zip(waiting, networks, strict=True):
            precision, flip = PRECISIONS[record.identity.precision], record.identity.recipe.test_time_flip
            judged = Evaluator(network, test, precision=precision, flip=flip)()
            outcome = TestResult(loss=judged.loss, correct=judged.correct, images=judged.images, reason=reason)
            RunFolder(record.folder).write_test(outcome)


def _trained_network(record: RunRecord, device: torch.device) -> nn.Module:
    """The network of a finished run with its best weights."""
    path = RunFolder(record.folder).best
    network = initialise(record.identity.spec, record.identity.seed).to(device)
    try:
        network.load_state_dict(load_tensors(path)[0])
    except (InputError, RuntimeError):
        rule = "is damaged: not the weights of this run's network; delete the run folder to train it anew"
        raise RecordError("best weights", str(path), rule) from None
    return network


def hold_finals(
    study: optuna.Study,
    place: Arrangement,
    dataset: DataSet,
    train_all: Callable[[Sequence[FinalRun]], None],
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
        BudgetnetError: nothing is there to choose from, or another process is training a finalist.
        BusyError: a search is at work on the study.
    """
    with place.presence.searching():
        finals = choose_finalists(study, place, number=number, seeds=seeds, recipe=recipe)
        if not finals.finalists:
            raise BudgetnetError("no candidate came to a result, so there are no finalists")
        keep_finals(study, finals)
        train_all(final_runs(finals))
        waited_for = [run for each in finals.finalists for run in each.runs if not RunFolder(place.out / run).finished]
        if waited_for:
            raise BudgetnetError(f"{len(waited_for)} trainings of finalists came to no end, such as {waited_for[0]}")
        results = read_results(finals, place.out)
        open_test_set(results, dataset, study_name=place.study_name, device=place.device, out=place.out)
        return read_results(finals, place.out)
