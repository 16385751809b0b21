"""What a notebook begins: a search or an ablation in one call, with the command line's options as arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetnet.api.study import Study
from budgetnet.common.config import takes_fields_of
from budgetnet.common.errors import InputError
from budgetnet.runs.recipe import require_sound
from budgetnet.study.config import SearchConfig
from budgetnet.study.storage import storage_errors

if TYPE_CHECKING:
    from budgetnet.data import DataSet
    from budgetnet.experiments.ablation import AblationStudy
    from budgetnet.experiments.ablation.results import AblationResult, Method
    from budgetnet.study.driver import SearchOutcome
    from budgetnet.study.request import Request
    from budgetnet.training.callbacks import Callback

_log = logging.getLogger(__name__)


@takes_fields_of(SearchConfig)
def search(
    config: SearchConfig | None = None,
    *,
    data: DataSet | str | None = None,
    callbacks: Sequence[Callback] = (),
    **fields: Any,
) -> Study:
    """Search for the best network within a budget, as ``budgetnet search`` does; the same call resumes the search.

    Args:
        config: what is searched for, how and where; all defaults if not given.
        data: a data set, in place of the name of one.
        callbacks: called at the events of every run, beside the progress bars that a terminal shows.
        fields: fields of `SearchConfig`, in place of the config's.

    Raises:
        InputError: a field is unknown or breaks a rule.
        DataError: the data set is missing or damaged.
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study asks another question, or the storage cannot be used.
        BusyError: another search is at work on the study.
    """
    _check_callbacks(callbacks)
    named = data if data is None or isinstance(data, str) else data.name
    wanted = (config or SearchConfig()).replace(**fields, **({} if named is None else {"data": named}))
    dataset = None if data is None or isinstance(data, str) else data
    request, outcome = run_search(wanted, dataset=dataset, callbacks=callbacks, say=_log.warning)
    return Study(outcome.study, request.place.storage, wanted.out)


def run_search(
    config: SearchConfig,
    *,
    dataset: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    say: Callable[[str], object],
) -> tuple[Request, SearchOutcome]:
    """Search as a config says, with finals and notes for the dashboard.

    Args:
        config: what is searched for, how and where.
        dataset: the images, where they are loaded already.
        callbacks: called at the events of every run.
        say: called with each line of information for the user.

    Raises:
        BudgetnetError: see `search`.
    """
    deadline = None if config.timeout is None else time.time() + config.timeout
    _require_readable(config)
    from budgetnet.study.request import arrange, finish, likely_run, run
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import TerminalProgress, load_shown
    from budgetnet.visualization.dashboard import annotate_shown

    trackers = _make_trackers(config)
    # Before images are decoded for a device that this machine lacks.
    choose_device(config.device)
    dataset = dataset or load_shown(config.data)
    request = arrange(dataset, config)
    if config.threads is not None:
        from budgetnet.training.threads import set_threads

        say(set_threads(config.threads, lambda: likely_run(request), processes=request.place.workers))
    storage = request.place.storage
    with storage_errors(storage):
        with TerminalProgress(candidates=config.trials) as progress:
            outcome = run(request, Callbacks([progress, *trackers, *callbacks]), deadline=deadline)
        if config.finalists and outcome.end != "time" and outcome.trained:
            with TerminalProgress() as progress:
                finish(request, outcome, dataset, Callbacks([progress, *trackers, *callbacks]))
        # The study stands, whatever keeps the dashboard from showing it.
        if trouble := annotate_shown(outcome.study, storage, config.out):
            say(trouble)
    return request, outcome


def _make_trackers(config: SearchConfig) -> list[Callback]:
    if not config.track:
        return []
    from budgetnet.training.trackers import make_tracker

    return [make_tracker(each, out=config.out, field="track") for each in config.track]


def _require_readable(config: SearchConfig) -> None:
    """Read everything that a config names, before images are loaded for it.

    Raises:
        InputError: a recipe, space or network is missing or breaks a rule, or a recipe validates on images that it
            trains on.
    """
    require_sound(config.candidate_recipe, field="recipe")
    # Before a search whose finalists could not be ranked.
    require_sound(config.finalist_recipe, field="final_recipe")
    _ = config.search_space, config.enqueued


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
