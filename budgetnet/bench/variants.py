"""Training steps to compare: budgetnet's in several variants, and a plain training loop, on random images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from budgetnet.bench.baseline import PlainLoop
from budgetnet.bench.isolated import separate_process
from budgetnet.common import cpu
from budgetnet.data.batches import BatchLoader
from budgetnet.data.on_device import to_device
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep, cudnn_settings

_MAX_IMAGES, _MAX_BYTES = 40_000, 2**27
"""Limits of an epoch: as many images as in the paper where memory allows, so that costs per epoch, such as the start of
a DataLoader, have a realistic share."""
_MIN_BATCHES = 8
"""Least batches per epoch."""

PLAIN, UNTUNED = "plain loop", "budgetnet, untuned"
"""Names of variants; the second runs without the settings of `budgetnet.common.cpu`."""


class Setting(NamedTuple):
    """What is trained, and where."""

    spec: ModelSpec
    recipe: Recipe
    batch_size: int
    device: torch.device


class Variant(NamedTuple):
    """A way to run a training step."""

    name: str
    precision: str
    step: Callable[[], None]
    """Runs one training step, possibly asynchronously."""
    measured_step: Callable[[], int | None] | None = None
    """Runs one training step in a separate process and returns its peak memory in bytes; None in this process."""


def training_step(setting: Setting, *, precision: str, execution: Execution) -> Callable[[], None]:
    """Return a function that runs one of budgetnet's training steps on random images."""
    spec, device = setting.spec, setting.device
    images, labels = random_images(spec, epoch_size(setting))
    data = to_device(images, labels, device=device, mean=(0.5,) * len(images[0]), std=(0.25,) * len(images[0]))
    batches = BatchLoader(data, setting.recipe.augmentation, batch_size=setting.batch_size, seed=0)
    network = initialise(spec, 0).to(device).to(memory_format=torch.channels_last)
    trainer = TrainingStep(network, batches, setting.recipe, precision=PRECISIONS[precision], execution=execution)

    def run_steps() -> Iterator[None]:
        epoch = 0
        while True:
            epoch += 1
            trainer.begin(epoch, rates=[setting.recipe.learning_rate] * len(batches.sizes))
            for size in batches.sizes:
                trainer.train_batch(size)
                yield

    steps = run_steps()

    def step() -> None:
        with cudnn_settings(execution):
            next(steps)

    return step


def epoch_size(setting: Setting) -> int:
    """Return the number of images per epoch: whole batches, as many as the limits allow."""
    limit = min(_MAX_IMAGES, _MAX_BYTES // math.prod(setting.spec.input_shape))
    return max(_MIN_BATCHES, limit // setting.batch_size) * setting.batch_size


def random_images(spec: ModelSpec, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return random images uint8 (count, channels, height, width) and labels int64 (count,)."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *spec.input_shape), dtype=np.uint8)
    return images, generator.integers(0, spec.num_classes, count)


@contextmanager
def variants(setting: Setting, *, compiled: bool, autotune: bool = True) -> Iterator[list[Variant]]:
    """Create the plain loop, first, and budgetnet's variants, the default last.

    On a CPU the plain loop and `UNTUNED` run in a separate process, without budgetnet's CPU settings.

    Args:
        setting: what they train.
        compiled: whether torch.compile is one of the variants.
        autotune: whether cuDNN benchmarks its algorithms; not a variant, because the process keeps the chosen ones.
    """
    best = choose_precision("auto", setting.device)
    chosen = (
        [("budgetnet, float32", "float32", Execution(record=False, autotune=autotune))] if best != "float32" else []
    )
    if setting.device.type == "cuda":
        chosen.append(("budgetnet, no CUDA graph", best, Execution(record=False, autotune=autotune)))
    if compiled:
        chosen.append(("budgetnet, compiled", best, Execution(compile=True, autotune=autotune)))
    chosen.append(("budgetnet", best, Execution(autotune=autotune)))
    with ExitStack() as stack:
        if setting.device.type == "cpu" and cpu.uses_settings():
            remote = stack.enter_context(separate_process(partial(_untuned_steps, setting, best)))
            untuned = [Variant(UNTUNED, best, *remote[UNTUNED])]
            plain = Variant(PLAIN, "float32", *remote[PLAIN])
        else:
            untuned = []
            plain = Variant(PLAIN, "float32", stack.enter_context(_plain_step(setting)))
        *others, default = (
            Variant(name, precision, training_step(setting, precision=precision, execution=execution))
            for name, precision, execution in chosen
        )
        yield [plain, *others, *untuned, default]


@contextmanager
def _untuned_steps(setting: Setting, precision: str) -> Iterator[dict[str, Callable[[], None]]]:
    """Create the steps that are measured without budgetnet's CPU settings."""
    with _plain_step(setting) as plain:
        yield {PLAIN: plain, UNTUNED: training_step(setting, precision=precision, execution=Execution())}


@contextmanager
def _plain_step(setting: Setting) -> Iterator[Callable[[], None]]:
    """Create a step of the plain loop."""
    recipe = setting.recipe
    plain = PlainLoop(
        setting.spec,
        *random_images(setting.spec, epoch_size(setting)),
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        batch_size=setting.batch_size,
        device=setting.device,
        seed=0,
    )
    try:
        yield plain.step
    finally:
        plain.close()
