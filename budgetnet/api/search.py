"""What a notebook begins: a search or an ablation in one call, with the command line's options as arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.api.study import Study
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import default_recipe, named_recipe
from budgetnet.runs.recipe import Recipe, require_sound
from budgetnet.study.finalists import FinalsWanted
from budgetnet.study.settings import PrunerName, SamplerName
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.named import named_space
from budgetnet.study.storage import storage_errors

if TYPE_CHECKING:
    from budgetnet.data import DataSet
    from budgetnet.experiments.ablation import AblationStudy
    from budgetnet.experiments.ablation.results import AblationResult, Method
    from budgetnet.training.callbacks import Callback

_log = logging.getLogger(__name__)


def search(
    *,
    max_params: float | str | None = "5M",
    max_macs: float | str | None = None,
    max_activations: float | str | None = None,
    data: DataSet | str = "digits",
    trials: int = 6,
    timeout: float | None = None,
    space: SearchSpace | str = "resnet",
    sizing: Sizing = "fit",
    sampler: SamplerName = "tpe",
    pruner: PrunerName = "asha",
    enqueue: Sequence[ModelSpec | str] = (),
    recipe: Recipe | str | None = None,
    epochs: int | None = None,
    finalists: int = 0,
    final_seeds: int = 3,
    final_recipe: Recipe | str | None = None,
    study: str | None = None,
    storage: str | None = None,
    seed: int = 0,
    out: Path | str = "runs",
    device: str = "auto",
    workers: int | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> Study:
    """Searches for the best network within a budget, as ``budgetnet search`` does; the same call goes on with it.

    Args:
        max_params: most trainable parameters, such as 5e6 or "5M"; does not bind if none.
        max_macs: most multiply-accumulates for one image.
        max_activations: most output elements of convolutions and the linear layer for one image.
        data: a data set, or what ``--data`` takes: ``digits``, ``cifar10``, ``folder:PATH``, ``arrays:PATH.npz``.
        trials: trained candidates that the study shall have, in all.
        timeout: seconds after which to stop, within a step.
        space: what may be proposed: ``resnet``, ``paper``, or a space.
        sizing: ``fit``, ``scale`` or ``reject``: how a draw meets the budget.
        sampler: what draws candidates.
        pruner: what ends candidates at restarts.
        enqueue: networks to be trained first, or their names; ``"zoo"`` stands for every named one that fits.
        recipe: how candidates are trained; ``digits`` for the digits and else ``search`` if left out.
        epochs: in place of the recipe's.
        finalists: so many of the best are trained in full, and the test set is then opened for them.
        final_seeds: trainings of each finalist.
        final_recipe: how finalists are trained; ``digits`` for the digits and else ``modern`` if left out.
        study: name of the study; the same question finds its own if left out.
        storage: URL of the studies' storage; an SQLite file in `out` if left out.
        seed: of everything that is drawn.
        out: folder of run folders.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        workers: processes; one on a CPU and on each GPU if left out.
        train_size: train on so many of the training images.
        validation_size: validate on so many of those held out.
        callbacks: are told of every run, trackers among them, beside the bars that a terminal shows.

    Raises:
        InputError: an argument breaks a rule.
        DataError: the data set is missing or damaged.
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question, or the storage cannot be used.
        BusyError: another search is at work on the study.
    """
    _check_callbacks(callbacks)
    trials, final_seeds = parse_count(trials, field="trials"), parse_count(final_seeds, field="final_seeds")
    if finalists != 0:
        finalists = parse_count(finalists, field="finalists")
    workers = None if workers is None else parse_count(workers, field="workers")
    deadline = None if timeout is None else time.time() + timeout
    budget = Budget.from_mapping({"max_params": max_params, "max_macs": max_macs, "max_activations": max_activations})
    from budgetnet.study.request import arrange, finish, run
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.progress import TerminalProgress, load_shown
    from budgetnet.visualization.dashboard import annotate_shown

    dataset = load_shown(data) if isinstance(data, str) else data
    how = _recipe(recipe, default=default_recipe(dataset.name, other="search"))
    how = how if epochs is None else how.for_epochs(epochs)
    final = _recipe(final_recipe, default=default_recipe(dataset.name, other="modern"))
    # Before a search that would come to finals which nobody may rank.
    require_sound(final, field="final_recipe")
    wanted = FinalsWanted(finalists, final_seeds, final)
    request = arrange(
        dataset,
        how,
        budget=budget,
        space=named_space(space) if isinstance(space, str) else space,
        seed=seed,
        out=Path(out),
        storage=storage,
        study_name=study,
        device=device,
        workers=workers,
        enqueue=enqueue,
        train_size=train_size,
        validation_size=validation_size,
        sizing=sizing,
        sampler=sampler,
        pruner=pruner,
    )
    kept = request.place.storage
    with storage_errors(kept):
        with TerminalProgress(candidates=trials) as progress:
            outcome = run(request, Callbacks([progress, *callbacks]), trials=trials, deadline=deadline)
        if finalists and outcome.end != "time" and outcome.trained:
            with TerminalProgress() as progress:
                finish(request, outcome, dataset, Callbacks([progress, *callbacks]), wanted=wanted)
        # The study stands, whatever keeps the dashboard from showing it.
        if trouble := annotate_shown(outcome.study, kept, Path(out)):
            _log.warning("%s", trouble)
    return Study(outcome.study, kept, Path(out))


def ablate(
    study: AblationStudy | Path | str,
    *,
    data: DataSet | str | None = None,
    interval: Method = "t",
    out: Path | str = "runs",
    device: str = "auto",
    train_size: int | None = None,
    validation_size: int | None = None,
    callbacks: Sequence[Callback] = (),
    partial: bool = False,
) -> AblationResult:
    """Trains every variant of a study with the same seeds, as ``budgetnet ablate`` does; the same call goes on with it.

    Args:
        study: the ablation, or its YAML or JSON file.
        data: a data set, or what ``--data`` takes; the study's, and else the digits, if left out.
        interval: ``t``, or ``bootstrap`` for many seeds: how intervals and p-values are made.
        out: folder of run folders.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        train_size: train on so many of the training images; as the study says if left out.
        validation_size: validate on so many of those held out; as the study says if left out.
        callbacks: are told of every run, trackers among them, beside the bars that a terminal shows.
        partial: train nothing, and answer from the runs that are complete so far.

    Raises:
        InputError: the study's file breaks a rule.
        DataError: the data set is missing or damaged.
        OverBudgetError: the base does not fit.
        RecordError: a run's folder is damaged.
    """
    _check_callbacks(callbacks)
    from budgetnet.engines.local import Batch
    from budgetnet.experiments.ablation import AblationStudy
    from budgetnet.experiments.ablation.results import ablation_result
    from budgetnet.experiments.ablation.running import finished_variants, planned, train_variants
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import TerminalProgress, load_shown

    question = study if isinstance(study, AblationStudy) else AblationStudy.load(study)
    wanted = data or question.data or "digits"
    dataset = load_shown(wanted) if isinstance(wanted, str) else wanted
    variants = question.variants(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    batch = Batch(
        dataset,
        device=choose_device(device),
        out=Path(out),
        train_size=train_size or question.train_size,
        validation_size=validation_size or question.validation_size,
    )
    if partial:
        return ablation_result(question, variants, finished_variants(question, variants, batch), method=interval)
    with TerminalProgress(runs=len(planned(question, variants))) as progress:
        records = train_variants(question, variants, batch, Callbacks([progress, *callbacks]))
    return ablation_result(question, variants, records, method=interval)


def _check_callbacks(callbacks: Sequence[Callback]) -> None:
    from budgetnet.training.callbacks import Callback

    for each in callbacks:
        if not isinstance(each, Callback):
            raise InputError("callbacks", each, "must be instances of budgetnet.Callback, or of classes made from it")


def _recipe(recipe: Recipe | str | None, *, default: str) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else named_recipe(recipe or default)
