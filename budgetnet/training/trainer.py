"""One seeded run: a network trained by a recipe on a data set, into a run folder, resumable after any epoch.

The test set plays no part here: learning, early stopping and the choice of the best epoch see training and validation
images only.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from budgetnet.common.errors import InputError
from budgetnet.data.training_data import TrainingData
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec, feature_sizes
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunIdentity, RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Announced, Callback, Occasion, Teller
from budgetnet.training.devices import choose_precision, describe_environment, threads_set_to
from budgetnet.training.run import Judge, TrainingRun
from budgetnet.training.step import Execution, cudnn_settings


def train(
    spec: ModelSpec,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    out: Path,
    execution: Execution | None = None,
    callback: Callback | None = None,
    occasion: Occasion | None = None,
    judge: Judge | None = None,
) -> RunRecord:
    """Trains a network, or goes on with a run that was interrupted, or answers from the record of a finished one.

    The record of a run that was stopped is an answer where the judge stands by it; else the run is trained anew.

    Args:
        spec: the network; its image shape and classes are replaced by the data's.
        data: what to train on, on the device to train on.
        recipe: how.
        seed: of initialisation, order and augmentation.
        out: folder in which the run's own folder lies.
        execution: how steps are carried out; as fast as is safe for runs of any length if left out.
        callback: is told of the run; what it raises breaks training off.
        occasion: what the run is trained for, for the callback.
        judge: may stop the run behind an epoch; nobody does if left out.

    Raises:
        RecordError: the run's folder is damaged or belongs to another run.
        BusyError: another process is training the same run.
        InputError: network, recipe and images do not go together.
    """
    device = data.train.images.device
    execution = execution or Execution()
    identity = identify(spec, data, recipe, seed=seed)
    folder = RunFolder.of(identity, out)
    told = Teller(callback, Announced(identity, folder.path.name, occasion or Occasion()))
    # The caller's random numbers are left as they were, on the CPU and on the CUDA device that trains.
    cuda = [device] if device.type == "cuda" else []
    with folder.locked(), torch.random.fork_rng(devices=cuda), cudnn_settings(execution):
        folder.begin(identity)
        if folder.finished:
            found = folder.load().result
            if found.status == "stopped" and not (judge and judge.stands_by(found)):
                folder.reopen()
        if not folder.finished:
            with threads_set_to(_threads(folder)):
                run = TrainingRun(identity, data, folder, execution)
                run.resume()
                environment = {**describe_environment(device), "execution": execution._asdict()}
                folder.note_environment(environment, first_epoch=run.progress.epoch + 1)
                with told.training(run.curves):
                    result = run.to_the_end(told, judge)
                    folder.finish(result)
                    told.ended(result)
            # A step and what repeats it hold each other. Let go of, they go by themselves; on a device, where the next
            # network needs their memory now, it is seen to that nothing else holds it.
            run.release()
            del run
            if device.type != "cpu":
                gc.collect()
            return folder.load()
        record = folder.load()
        with told.training(record.curves):
            told.ended(record.result)
        return record


def _threads(folder: RunFolder) -> int:
    """Return the number of threads to train on: that of the run's first epochs, on which the last bits depend.

    Never more than torch is set to: processes that share the cores would wait for each other.
    """
    return min(folder.recorded_threads() or torch.get_num_threads(), torch.get_num_threads())


def identify(
    spec: ModelSpec, data: TrainingData, recipe: Recipe, *, seed: int, device: torch.device | None = None
) -> RunIdentity:
    """What determines the run that `train` would train with these arguments, there or on another device.

    Raises:
        InputError: network, recipe and images do not go together.
    """
    recipe.require_images(*data.input_shape[1:])
    recipe.require_steps(len(data.train))
    device = device or data.train.images.device
    adapted = data.adapt(spec)
    if recipe.example_filter is not None:
        # Refuses images that are too small for the proxy.
        proxy_spec(input_shape=data.input_shape, num_classes=data.num_classes)
    if recipe.resizing is not None:
        try:
            feature_sizes(adapted, input_size=(recipe.resizing.start, recipe.resizing.start))
        except InputError as error:
            rule = f"is too small for {spec.label}: {error.field} {error.rule}"
            raise InputError("resizing.start", recipe.resizing.start, rule) from None
    return RunIdentity(
        spec=adapted,
        recipe=recipe,
        data=data.record,
        seed=seed,
        device=device.type,
        precision=choose_precision(recipe.precision, device),
    )
