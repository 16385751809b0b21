"""`budgetnet.search` and `budgetnet.ablate`, with the command-line options as arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgetnet.api.inputs import check_callbacks, make_trackers, named_dataset, with_paths_of_runs
from budgetnet.api.study import Study
from budgetnet.common.config import takes_fields_of
from budgetnet.common.files import require_folder
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.runs.recipe import require_reliable_validation, unfinished_cycle
from budgetnet.study.config import SearchConfig
from budgetnet.study.storage import storage_errors

if TYPE_CHECKING:
    from budgetnet.data import DataSet
    from budgetnet.experiments.ablation import AblationStudy
    from budgetnet.experiments.ablation.results import AblationResult
    from budgetnet.runs.records import RunRecord
    from budgetnet.study.driver import SearchOutcome
    from budgetnet.study.request import Request
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.progress import Verbosity

_log = logging.getLogger(__name__)


@takes_fields_of(SearchConfig)
def search(
    config: SearchConfig | None = None,
    *,
    data: DataSet | str | None = None,
    callbacks: Sequence[Callback] = (),
    verbosity: Verbosity | None = None,
    **fields: Any,
) -> Study:
    """Search for the best network within a budget, as ``budgetnet search`` does; the same call resumes the search.

    Args:
        config: config of the search. Default: all defaults.
        data: data set, or the name of one, overriding the config's.
        callbacks: callbacks of every run, in addition to the progress.
        verbosity: how much progress to show: ``quiet``, ``normal`` or ``verbose``. Default: that of the environment
            variable ``BUDGETNET_VERBOSITY``, else ``normal``.
        fields: fields of `SearchConfig`, overriding the config's.

    Raises:
        InputError: a field is unknown or invalid.
        DataError: the data set is missing or damaged.
        OverBudgetError: not even the smallest network of the space fits.
        RecordError: the study has another config, or the storage cannot be used.
        BusyError: another process is running a search of the study.
    """
    check_callbacks(callbacks)
    named, dataset = named_dataset(data)
    chosen = (config or SearchConfig()).replace(**fields, **named)
    request, outcome = run_search(chosen, dataset=dataset, callbacks=callbacks, verbosity=verbosity, say=_log.warning)
    return Study(outcome.study, request.context.storage, chosen.out)


def run_search(
    config: SearchConfig,
    *,
    dataset: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    verbosity: Verbosity | None = None,
    say: Callable[[str], object],
) -> tuple[Request, SearchOutcome]:
    """Run a search, train its finalists, and write notes for the dashboard.

    Args:
        config: config of the search.
        dataset: data set, if it is already loaded.
        callbacks: callbacks of every run.
        verbosity: how much progress to show.
        say: called with each line of information for the user.

    Raises:
        BudgetnetError: see `search`.
    """
    deadline = None if config.timeout is None else time.time() + config.timeout
    config = config.with_paths_of_runs()
    _require_readable(config)
    require_folder(config.out, field="out")
    from budgetnet.engines.choice import require_engine
    from budgetnet.engines.gpu_sharing import with_workers_per_gpu
    from budgetnet.study.finals import overridden_split
    from budgetnet.study.request import arrange, finish, likely_run, run, sampled_trainings, trained_before
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.progress import chosen_verbosity, load_with_progress, showing
    from budgetnet.training.work import Work
    from budgetnet.visualization.dashboard import annotate_shown

    verbosity = chosen_verbosity(verbosity)
    trackers = make_trackers(config.track, out=config.out)
    # Check the device and the engine before decoding images.
    device = choose_device(config.device)
    require_engine(config)
    images = dataset = dataset or load_with_progress(config.data, verbosity=verbosity)
    config = with_workers_per_gpu(
        config,
        dataset=images,
        device=device,
        trainings=lambda: sampled_trainings(config, images, device=device),
        say=say,
    )
    request = arrange(dataset, config)
    notices = [unfinished_cycle(config.candidate_recipe)]
    if config.finalists and config.final_recipe is not None:
        notices.append(overridden_split(config.finalist_recipe, own=config.candidate_recipe))
    for notice in notices if verbosity != "quiet" else ():
        if notice:
            say(notice)
    from budgetnet.training.threads import set_threads

    processes = request.context.engine_choice.workers_here
    if line := set_threads(config.threads, lambda: likely_run(request), processes=processes):
        say(line)
    storage = request.context.storage
    with storage_errors(storage):
        with showing(trained_before(request), verbosity=verbosity) as progress:
            outcome = run(request, Callbacks([progress, *trackers, *callbacks]), deadline=deadline)
        if config.finalists and outcome.end != "time" and outcome.trained:
            work = Work(noun="trainings of finalists")
            with showing(work, verbosity=verbosity) as progress:
                finals = finish(request, outcome, dataset, Callbacks([progress, *trackers, *callbacks]), work)
            if len(finals) < config.finalists:
                kind = "on the Pareto front" if config.costs else "fully trained"
                say(f"{len(finals)} of {config.finalists} finalists: no more candidates are {kind}")
            if config.max_latency_ms is not None:
                _store_latencies(outcome, config, say)
        # The study is complete even if its dashboard notes cannot be written.
        if problem := annotate_shown(outcome.study, storage, config.out, quiet=verbosity == "quiet"):
            say(problem)
    return request, outcome


def _store_latencies(outcome: SearchOutcome, config: SearchConfig, say: Callable[[str], object]) -> None:
    """Store the latency of the finalists with the study, measured if this machine is the device."""
    from budgetnet.devices.finalists import latencies_of
    from budgetnet.study.finalists import load_finals, store_finals

    finals = load_finals(outcome.study)
    if finals is None or (finals.latencies and all(each.measured_ms is not None for each in finals.latencies)):
        return
    latencies, reason = latencies_of([finalist.spec for finalist in finals.finalists], config.budget)
    store_finals(outcome.study, finals.model_copy(update={"latencies": tuple(latencies)}))
    if reason:
        say(f"the latency of finalists was predicted and not measured: {reason}")


def _require_readable(config: SearchConfig) -> None:
    """Load every file that a config names, before images are loaded.

    Raises:
        InputError: a recipe, space or network is missing or invalid, or a recipe validates on training images.
    """
    require_reliable_validation(config.candidate_recipe, field="recipe")
    # Check now rather than after the search, as finalists could not be ranked.
    require_reliable_validation(config.finalist_recipe, field="final_recipe")
    _ = config.search_space, config.enqueued
    if config.device_file is not None:
        _ = config.budget.device


@takes_fields_of(AblationConfig)
def ablate(
    study: AblationConfig | AblationStudy | Path | str | None = None,
    *,
    data: DataSet | str | None = None,
    callbacks: Sequence[Callback] = (),
    partial: bool = False,
    verbosity: Verbosity | None = None,
    **fields: Any,
) -> AblationResult:
    """Train every variant of a study with the same seeds, as ``budgetnet ablate`` does; the same call resumes it.

    Args:
        study: the ablation, its YAML or JSON file, its folder, or a config; omitted with ``of="SEARCH"``, which ablates
            the winner of a search.
        data: data set, or the name of one, overriding the config's.
        callbacks: callbacks of every run, in addition to the progress.
        partial: train nothing, and return the result of the runs that are complete so far.
        verbosity: how much progress to show: ``quiet``, ``normal`` or ``verbose``. Default: that of the environment
            variable ``BUDGETNET_VERBOSITY``, else ``normal``.
        fields: fields of `AblationConfig`, overriding the config's.

    Raises:
        InputError: a field is unknown or invalid, or the study's file is.
        DataError: the data set is missing or damaged.
        OverBudgetError: the base is over budget.
        RecordError: a run folder is damaged.
    """
    check_callbacks(callbacks)
    named, dataset = named_dataset(data)
    fields |= named
    config = study.replace(**fields) if isinstance(study, AblationConfig) else AblationConfig(study=study, **fields)
    config = with_paths_of_runs(config)
    return run_ablation(
        config, dataset=dataset, callbacks=callbacks, partial=partial, verbosity=verbosity, say=_log.warning
    )[0]


def run_ablation(
    config: AblationConfig,
    *,
    dataset: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    partial: bool = False,
    verbosity: Verbosity | None = None,
    say: Callable[[str], object],
) -> tuple[AblationResult, dict[tuple[str, str], list[RunRecord]]]:
    """Train the variants of an ablation, and store its config with the runs.

    Args:
        config: config of the ablation.
        dataset: data set, if it is already loaded.
        callbacks: callbacks of every run.
        partial: train and store nothing.
        verbosity: how much progress to show.
        say: called with each line of information for the user.

    Returns:
        The result, and the records of each variant by the digests of its network and recipe.

    Raises:
        BudgetnetError: see `ablate`.
    """
    study = config.changed_study
    if not partial:
        require_folder(config.out, field="out")
    from budgetnet.api.search_winner import require_data_of_search
    from budgetnet.engines.batch import Batch, first_run
    from budgetnet.engines.choice import EngineChoice, require_engine
    from budgetnet.engines.gpu_sharing import with_workers_per_gpu
    from budgetnet.experiments.ablation.results import ablation_result
    from budgetnet.experiments.ablation.running import finished_variants, planned_runs, train_variants
    from budgetnet.experiments.ablation.stored import store_ablation
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.memory import memory_on
    from budgetnet.training.progress import chosen_verbosity, load_with_progress, showing
    from budgetnet.training.work import Work

    verbosity = chosen_verbosity(verbosity)
    trackers = [] if partial else make_trackers(config.track, out=config.out)
    require_engine(config)
    dataset = dataset or load_with_progress(config.data_name, verbosity=verbosity)
    require_data_of_search(config, dataset)
    variants = study.variants(input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    device, runs = choose_device(config.device), planned_runs(study, variants)
    if not partial:
        config = with_workers_per_gpu(
            config,
            dataset=dataset,
            device=device,
            trainings=lambda: [memory_on(device, each.spec, each.recipe) for each in runs],
            say=say,
        )
    engine = EngineChoice.of(config, device=device)
    batch = Batch(dataset, device=device, out=config.out, engine=engine, **config.sizes)
    if partial:
        records = finished_variants(study, variants, batch)
        return ablation_result(study, variants, records, method=config.interval), records
    for variant in variants:
        if variant.is_base:
            variant.verdict.require()
    from budgetnet.training.threads import set_threads

    if line := set_threads(config.threads, lambda: first_run(batch, runs), processes=engine.workers_here):
        say(line)
    if any(batch.record(run) is None for run in runs):
        store_ablation(config)
    if verbosity != "quiet" and (notice := unfinished_cycle(study.base_recipe)):
        say(notice)
    with showing(Work(noun="runs", total=len(runs)), verbosity=verbosity) as progress:
        records = train_variants(study, variants, batch, Callbacks([progress, *trackers, *callbacks]))
    return ablation_result(study, variants, records, method=config.interval), records
