"""`budgetnet.reproduce`: train published networks and compare them with the published results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from budgetnet.api.inputs import check_callbacks, make_trackers, named_dataset
from budgetnet.api.run import TrainedRun
from budgetnet.common.documents import look_up
from budgetnet.common.files import require_folder
from budgetnet.experiments.reproduction.config import EnsembleConfig, LeakageConfig, ReproductionConfig
from budgetnet.experiments.reproduction.running import KINDS, ReproductionResult, reproduction_result, run_groups
from budgetnet.experiments.reproduction.stored import store_reproduction
from budgetnet.runs.recipe import unfinished_cycle
from budgetnet.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from budgetnet.data import DataSet
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.progress import Verbosity

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduction:
    """A finished reproduction; notebooks show its runs and its result."""

    config: ReproductionConfig
    """Config of the reproduction."""
    records: tuple[RunRecord, ...]
    """Records of all runs, with test results."""
    result: ReproductionResult
    """Comparison with the published result."""

    @property
    def runs(self) -> list[TrainedRun]:
        """The trained runs."""
        return [TrainedRun(record.folder) for record in self.records]

    def frame(self) -> pd.DataFrame:
        """Return a data frame with one row per run; accuracies are shares."""
        import pandas as pd

        return pd.DataFrame([row.to_mapping() for row in self.result.rows])

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data, as ``budgetnet reproduce --json`` prints it."""
        return self.result.to_mapping()

    def _repr_html_(self) -> str:
        from budgetnet.visualization.reproduction_html import reproduction_html

        return reproduction_html(self.result)


def reproduce(
    what: Literal["reference", "leakage", "ladder", "ensemble"] | ReproductionConfig,
    *,
    data: DataSet | str | None = None,
    callbacks: Sequence[Callback] = (),
    verbosity: Verbosity | None = None,
    **fields: Any,
) -> Reproduction:
    """Train published networks and compare their test accuracy, as ``budgetnet reproduce`` does; resumable.

    The test set is used once, after the last run is complete; its use is logged in the folder of the runs.

    Args:
        what: ``reference``, the network of 91.41 %; ``leakage``, how much the notebook's validation split inflates
            accuracy; ``ladder``, the paper's four networks; ``ensemble``, the averaged members; or a config.
        data: data set, or the name of one, overriding the config's. Default: ``cifar10``.
        callbacks: callbacks of every run, in addition to the progress.
        verbosity: how much progress to show: ``quiet``, ``normal`` or ``verbose``. Default: that of the environment
            variable ``BUDGETNET_VERBOSITY``, else ``normal``.
        fields: options of the command, such as ``seeds=3``, ``recipe="fast"`` and ``out="runs"``, overriding the
            config's.

    Raises:
        InputError: a field is unknown or invalid, or a file that one names is.
        DataError: the data set is missing or damaged, or declared to be CIFAR-10 and cannot be.
        RecordError: a run folder is damaged.
        BudgetnetError: training ended without a usable network, so there is no test result.
    """
    check_callbacks(callbacks)
    named, dataset = named_dataset(data)
    fields |= named
    if isinstance(what, ReproductionConfig):
        config = what.replace(**fields)
    else:
        config = look_up(what, KINDS, field="what", missing="no such reproduction")(**fields)
    return run_reproduction(config, dataset=dataset, callbacks=callbacks, verbosity=verbosity, say=_log.warning)


def run_reproduction(
    config: ReproductionConfig,
    *,
    dataset: DataSet | None = None,
    callbacks: Sequence[Callback] = (),
    verbosity: Verbosity | None = None,
    say: Callable[[str], object],
) -> Reproduction:
    """Train every network with every seed and, when all runs are complete, evaluate them on the test set.

    Args:
        config: config of the reproduction; stored with the runs.
        dataset: data set, if it is already loaded.
        callbacks: callbacks of every run.
        verbosity: how much progress to show.
        say: called with each line of information for the user.

    Raises:
        BudgetnetError: see `reproduce`.
    """
    from budgetnet.study.choices import path_of_run

    if isinstance(config, LeakageConfig | EnsembleConfig):
        config = config.replace(spec=path_of_run(config.spec, out=config.out))
    groups = run_groups(config)
    require_folder(config.out, field="out")
    trackers = make_trackers(config.track, out=config.out)
    from budgetnet.data import declared_cifar10
    from budgetnet.engines.batch import Batch, first_run
    from budgetnet.engines.choice import EngineChoice, require_engine
    from budgetnet.engines.gpu_sharing import with_workers_per_gpu
    from budgetnet.engines.jobs import PlannedRun
    from budgetnet.training.callbacks import Callbacks
    from budgetnet.training.devices import choose_device
    from budgetnet.training.memory import memory_on
    from budgetnet.training.progress import chosen_verbosity, load_with_progress, showing
    from budgetnet.training.work import Work

    verbosity = chosen_verbosity(verbosity)
    chosen = choose_device(config.device)
    require_engine(config)
    dataset = dataset or load_with_progress(config.data, verbosity=verbosity)
    if config.declared:
        dataset = declared_cifar10(dataset, field="declare")
    shape: dict[str, Any] = {"input_shape": dataset.input_shape, "num_classes": dataset.num_classes}
    config = with_workers_per_gpu(
        config,
        dataset=dataset,
        device=chosen,
        trainings=lambda: [memory_on(chosen, each.spec.adapted(**shape), each.recipe) for each in groups],
        say=say,
    )
    engine = EngineChoice.of(config, device=chosen)
    batch = Batch(
        dataset,
        device=chosen,
        out=config.out,
        train_size=config.train_size,
        validation_size=config.validation_size,
        engine=engine,
    )
    # All networks with one seed before the next seed, so that an interrupted reproduction can still compare them.
    runs = [
        PlannedRun(spec=group.spec, recipe=group.recipe, seed=seed) for seed in config.seed_numbers for group in groups
    ]
    from budgetnet.training.threads import set_threads

    if line := set_threads(config.threads, lambda: first_run(batch, runs), processes=engine.workers_here):
        say(line)
    if any(batch.record(run) is None for run in runs):
        store_reproduction(config)
    for notice in dict.fromkeys(unfinished_cycle(group.recipe) for group in groups):
        if notice and verbosity != "quiet":
            say(notice)
    with showing(Work(noun="runs", total=len(runs)), verbosity=verbosity) as progress:
        records = batch.train(runs, Callbacks([progress, *trackers, *callbacks]))
    purpose = config.command.removeprefix("reproduce ")
    records = batch.evaluate_on_test(records, by=config.command, reason=f"reproduction of published results: {purpose}")
    result = reproduction_result(config, [records[place :: len(groups)] for place in range(len(groups))])
    return Reproduction(config, tuple(records), result)
