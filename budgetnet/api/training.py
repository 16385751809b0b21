"""`budgetnet.train`: train one network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.api.inputs import check_callbacks, dataset_of, recipe_of, seed_of, sizes_of, spec_of, threads_of
from budgetnet.api.run import TrainedRun
from budgetnet.common.documents import parse_count
from budgetnet.common.files import require_folder
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import default_recipe
from budgetnet.runs.recipe import Recipe, unfinished_cycle
from budgetnet.runs.store import RunFolder

if TYPE_CHECKING:
    import torch

    from budgetnet.data import DataSet
    from budgetnet.data.training_data import TrainingData
    from budgetnet.training.callbacks import Callback
    from budgetnet.training.progress import Verbosity
    from budgetnet.training.threads import FirstRun, ThreadCount

_log = logging.getLogger(__name__)


class Training(NamedTuple):
    """A prepared training run: data loaded and split, run folder known, not yet trained."""

    spec: ModelSpec
    """The network, with the data's image shape and number of classes."""
    data: TrainingData
    """Training and validation images on the device."""
    recipe: Recipe
    seed: int
    out: Path
    device: torch.device

    @property
    def folder(self) -> RunFolder:
        """The run's folder, which need not exist yet."""
        from budgetnet.training.trainer import identify

        return RunFolder.of(identify(self.spec, self.data, self.recipe, seed=self.seed), self.out)

    def first_run(self) -> FirstRun | None:
        """Return the run, to time its first steps, if it is unfinished and on the CPU; else None."""
        from budgetnet.training.threads import FirstRun

        unfinished = self.device.type == "cpu" and not self.folder.finished
        return FirstRun(self.spec, self.recipe, self.data, self.folder) if unfinished else None

    def run(
        self,
        *,
        compile: bool = False,  # noqa: A002 - what torch calls it
        cuda_graphs: bool = True,
        callbacks: Sequence[Callback] = (),
        verbosity: Verbosity | None = None,
    ) -> TrainedRun:
        """Train from the last finished epoch to the end; a finished run is loaded and not trained again."""
        from budgetnet.training.callbacks import Callbacks
        from budgetnet.training.progress import showing
        from budgetnet.training.step import Execution
        from budgetnet.training.trainer import train as train_network

        with showing(verbosity=verbosity) as progress:
            record = train_network(
                self.spec,
                self.data,
                self.recipe,
                seed=self.seed,
                out=self.out,
                execution=Execution(record=cuda_graphs, compile=compile),
                callback=Callbacks([progress, *callbacks]),
            )
        return TrainedRun(record.folder)


def prepare(
    spec: ModelSpec | Path | str,
    *,
    data: DataSet | str = "digits",
    recipe: Recipe | Path | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    out: Path | str = "runs",
    device: str = "auto",
    train_size: int | None = None,
    validation_size: int | None = None,
    verbosity: Verbosity | None = None,
) -> Training:
    """Load and split the data of a training run; arguments and errors as those of `train`."""
    network, sizes, seed = spec_of(spec), sizes_of(train_size, validation_size), seed_of(seed)
    name = data if isinstance(data, str) else data.name
    how = recipe_of(default_recipe(name, other="paper") if recipe is None else recipe)
    how = how if epochs is None else how.with_epochs(parse_count(epochs, field="epochs"))
    from budgetnet.data.training_data import TrainingData
    from budgetnet.training.devices import choose_device

    chosen = choose_device(device)
    prepared = TrainingData.prepare(dataset_of(data, verbosity=verbosity), how, device=chosen, **sizes)
    return Training(prepared.adapt(network), prepared, how, seed, Path(out), chosen)


def train(
    spec: ModelSpec | Path | str,
    *,
    data: DataSet | str = "digits",
    recipe: Recipe | Path | str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    out: Path | str = "runs",
    device: str = "auto",
    threads: ThreadCount | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    compile: bool = False,  # noqa: A002 - what torch calls it
    cuda_graphs: bool = True,
    callbacks: Sequence[Callback] = (),
    verbosity: Verbosity | None = None,
) -> TrainedRun:
    """Train one network into a run folder, as ``budgetnet train`` does.

    An interrupted run resumes after its last finished epoch; a finished one is read from its record. The test set is
    not used.

    Args:
        spec: the network: a spec, the name of one, or a file.
        data: a data set, or its name: ``digits``, ``cifar10``, ``folder:PATH``, ``arrays:PATH.npz`` or another
            that ``--data`` takes.
        recipe: a recipe, the name of one, or a file. Default: ``digits`` for the digits, else ``paper``.
        epochs: number of epochs. Default: the recipe's.
        seed: of initialisation, order and augmentation, at least 0.
        out: folder of run folders.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        threads: CPU threads, or ``"auto"`` to measure which number is fastest. Default: one per free core.
        train_size: number of training images. Default: all.
        validation_size: number of validation images. Default: all that the recipe holds out.
        compile: whether to compile the training step with torch.compile.
        cuda_graphs: whether to capture training steps as CUDA graphs, on devices that support them.
        callbacks: callbacks of the run, including trackers, in addition to the progress.
        verbosity: how much progress to show: ``quiet``, ``normal`` or ``verbose``. Default: that of the environment
            variable ``BUDGETNET_VERBOSITY``, else ``normal``.

    Raises:
        InputError: an argument is invalid, or network, recipe and images do not fit together.
        DataError: the data set is missing or damaged.
        RecordError: the run folder is damaged, or belongs to another run.
        BusyError: another process is training the same run.
    """
    check_callbacks(callbacks)
    threads = threads_of(threads)
    require_folder(Path(out), field="out")
    from budgetnet.training.progress import chosen_verbosity

    verbosity = chosen_verbosity(verbosity)
    ready = prepare(
        spec,
        data=data,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        out=out,
        device=device,
        train_size=train_size,
        validation_size=validation_size,
        verbosity=verbosity,
    )
    from budgetnet.training.threads import set_threads

    set_threads(threads, ready.first_run)
    if verbosity != "quiet" and (notice := unfinished_cycle(ready.recipe)):
        _log.warning(notice)
    return ready.run(compile=compile, cuda_graphs=cuda_graphs, callbacks=callbacks, verbosity=verbosity)
