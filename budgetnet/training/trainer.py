"""Training of one network into a run folder, seeded and resumable after every epoch.

The test set is not used: training, early stopping and the choice of the best epoch use training and validation images
only.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from budgetnet.common.errors import InputError
from budgetnet.data.training_data import TrainingData
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.sizes import feature_sizes, pooled_positions
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunIdentity, RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback, CallbackRunner, RunContext, RunInfo
from budgetnet.training.devices import choose_precision, describe_environment, torch_threads
from budgetnet.training.run import PruningCallback, TrainingRun
from budgetnet.training.step import Execution, cudnn_settings
from budgetnet.training.threads import run_threads


def train(
    spec: ModelSpec,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    out: Path,
    execution: Execution | None = None,
    callback: Callback | None = None,
    context: RunContext | None = None,
    pruning: PruningCallback | None = None,
) -> RunRecord:
    """Train one network, resume an interrupted run, or load the record of a finished one.

    A run that was stopped by pruning counts as finished if ``pruning`` confirms it; otherwise it is trained again.

    Args:
        spec: architecture; its input shape and number of classes are replaced by those of the data.
        data: training and validation images, on the training device.
        recipe: training recipe.
        seed: seed of initialisation, order of the images and augmentation.
        out: folder of run folders, in which the run's folder is created.
        execution: execution settings; default: `Execution()`.
        callback: receives the events of the run; its exceptions interrupt training.
        context: search or batch that the run belongs to, for the callback.
        pruning: may stop the run after an epoch; default: no pruning.

    Raises:
        RecordError: the run folder is damaged or belongs to another run.
        BusyError: another process is training the same run.
        InputError: network, recipe and images do not fit together.
    """
    device = data.train.images.device
    execution = execution or Execution()
    identity = identify(spec, data, recipe, seed=seed)
    folder = RunFolder.of(identity, out)
    callbacks = CallbackRunner(callback, RunInfo(identity, folder.path.name, context or RunContext()))
    # The caller's random state is restored, on the CPU and on the CUDA device used.
    cuda = [device] if device.type == "cuda" else []
    with folder.locked(), torch.random.fork_rng(devices=cuda), cudnn_settings(execution):
        folder.begin(identity)
        if needs_training(folder, pruning):
            if folder.finished:
                folder.reopen()
            with torch_threads(run_threads(folder, device)):
                run = TrainingRun(identity, data, folder, execution)
                run.resume()
                environment = {**describe_environment(device), "execution": execution._asdict()}
                folder.record_environment(environment, first_epoch=run.progress.epoch + 1)
                with callbacks.training(run.curves):
                    result = run.train(callbacks, pruning)
                    folder.finish(result, confusion=run.confusion)
                    callbacks.on_run_end(result)
            # A training step and its CUDA graph refer to each other; `release` breaks the cycle. On a device, where the
            # next network needs the memory at once, collect any other cycles too.
            run.release()
            del run
            if device.type != "cpu":
                gc.collect()
            return folder.load()
        record = folder.load()
        with callbacks.training(record.curves):
            callbacks.on_run_end(record.result)
        return record


def needs_training(folder: RunFolder, pruning: PruningCallback | None) -> bool:
    """Return whether a run is unfinished, or was stopped by pruning that ``pruning`` does not confirm.

    Raises:
        RecordError: the run folder is damaged.
    """
    if not folder.finished:
        return True
    stored = folder.load().result
    return stored.status == "stopped" and not (pruning and pruning.confirms_stop(stored))


def _require_sizes(spec: ModelSpec, recipe: Recipe, *, start: int) -> None:
    """Require that a network accepts the sizes that training images grow through.

    Raises:
        InputError: the smallest images are too small for it, or its last layer needs maps of one size.
    """
    full = spec.input_shape[1]
    sides = {full, *(recipe.side(epoch, full=full) for epoch in range(1, recipe.epochs + 1))}
    try:
        windows = {pooled_positions(spec, feature_sizes(spec, input_size=(side, side))[-1]) for side in sorted(sides)}
    except InputError as error:
        raise InputError(
            "resizing.start", start, f"is too small for {spec.label}: {error.field} {error.rule}"
        ) from None
    if len(windows) > 1:
        rule = f"does not go with {spec.label}: its head.pool_size makes as many features as its last map has windows"
        raise InputError("resizing.start", start, rule)


def identify(
    spec: ModelSpec, data: TrainingData, recipe: Recipe, *, seed: int, device: torch.device | None = None
) -> RunIdentity:
    """Return the identity of the run that `train` would train with these arguments, or on another device.

    Raises:
        InputError: network, recipe and images do not fit together.
    """
    recipe.check_image_size(*data.input_shape[1:])
    recipe.check_num_steps(len(data.train))
    device = device or data.train.images.device
    adapted = data.adapt(spec)
    if recipe.example_filter is not None:
        # Raises InputError if the images are too small for the proxy.
        proxy_spec(input_shape=data.input_shape, num_classes=data.num_classes)
    if recipe.resizing is not None:
        _require_sizes(adapted, recipe, start=recipe.resizing.start)
    return RunIdentity(
        spec=adapted,
        recipe=recipe,
        data=data.record,
        seed=seed,
        device=device.type,
        precision=choose_precision(recipe.precision, device),
    )
