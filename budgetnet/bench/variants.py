"""Ways to train: this package's step, in each way it can be carried out, and a plain loop, on images of noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from budgetnet.bench.baseline import PlainLoop
from budgetnet.bench.isolated import ways_apart
from budgetnet.common import cpu
from budgetnet.data.batches import Feed
from budgetnet.data.on_device import resident
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, Learner, cudnn_settings

_IMAGES, _BYTES = 40_000, 2**27
"""Most images of an epoch, as many as the paper trains on, and the most memory they may take: what happens once an
epoch, such as a DataLoader's start, shall weigh what it weighs in earnest."""
_BATCHES = 8
"""Fewest batches of an epoch."""


PLAIN, UNTUNED = "plain loop", "budgetnet, untuned"
"""Names of ways to train; of the second, see `budgetnet.common.cpu.uses_settings`."""


class Setting(NamedTuple):
    """What is trained, on what."""

    spec: ModelSpec
    recipe: Recipe
    batch_size: int
    device: torch.device


class Variant(NamedTuple):
    """One way to train."""

    name: str
    precision: str
    step: Callable[[], None]
    """Does one training step; may leave it to the device."""
    measured_step: Callable[[], int | None] | None = None
    """Does one training step and returns its peak memory, in bytes, where it is done in another process."""


def learning(setting: Setting, *, precision: str, execution: Execution) -> Callable[[], None]:
    """A function that does one step of this package's training on images of noise, without end."""
    spec, device = setting.spec, setting.device
    images, labels = noise(spec, epoch_images(setting))
    data = resident(images, labels, device=device, mean=(0.5,) * len(images[0]), std=(0.25,) * len(images[0]))
    feed = Feed(data, setting.recipe.augmentation, batch_size=setting.batch_size, seed=0)
    network = initialise(spec, 0).to(device).to(memory_format=torch.channels_last)
    learner = Learner(network, feed, setting.recipe, precision=PRECISIONS[precision], execution=execution)

    def steps() -> Iterator[None]:
        epoch = 0
        while True:
            epoch += 1
            learner.begin(epoch, rates=[setting.recipe.learning_rate] * len(feed.sizes))
            for size in feed.sizes:
                learner.learn(size)
                yield

    endless = steps()

    def step() -> None:
        with cudnn_settings(execution):
            next(endless)

    return step


def epoch_images(setting: Setting) -> int:
    """How many images an epoch of a measurement has: whole batches, as near to those of a real one as memory allows."""
    most = min(_IMAGES, _BYTES // math.prod(setting.spec.input_shape))
    return max(_BATCHES, most // setting.batch_size) * setting.batch_size


def noise(spec: ModelSpec, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images and labels of no meaning: uint8 (count, channels, height, width) and int64 (count,)."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *spec.input_shape), dtype=np.uint8)
    return images, generator.integers(0, spec.num_classes, count)


@contextmanager
def variants(setting: Setting, *, compiled: bool, autotune: bool = True) -> Iterator[list[Variant]]:
    """The plain loop and this package's ways to train, the last the one it takes by itself.

    On a CPU the plain loop and `UNTUNED` run in another process, without this package's settings for CPUs.

    Args:
        setting: what they train.
        compiled: whether torch.compile is one of the ways.
        autotune: whether cuDNN tries its algorithms; not a way of its own, as what it finds is kept by the process.
    """
    best = choose_precision("auto", setting.device)
    recording = setting.device.type == "cuda"
    ways = [("budgetnet, float32", "float32", Execution(record=False, autotune=autotune))] if best != "float32" else []
    if recording:
        ways.append(("budgetnet, no replay", best, Execution(record=False, autotune=autotune)))
    if compiled:
        ways.append(("budgetnet, compiled", best, Execution(compile=True, autotune=autotune)))
    ways.append(("budgetnet", best, Execution(autotune=autotune)))
    with ExitStack() as stack:
        if setting.device.type == "cpu" and cpu.uses_settings():
            apart = stack.enter_context(ways_apart(partial(_without_settings, setting, best)))
            precisions = {PLAIN: "float32", UNTUNED: best}
            found = [Variant(name, precisions[name], *way) for name, way in apart.items()]
            plain, before = found
            others = [Variant(name, each, learning(setting, precision=each, execution=how)) for name, each, how in ways]
            yield [plain, *others[:-1], before, others[-1]]
            return
        found = [Variant(PLAIN, "float32", stack.enter_context(_plain_step(setting)))]
        for name, precision, execution in ways:
            found.append(Variant(name, precision, learning(setting, precision=precision, execution=execution)))
        yield found


@contextmanager
def _without_settings(setting: Setting, precision: str) -> Iterator[dict[str, Callable[[], None]]]:
    """The ways that are measured in a process without this package's settings for CPUs."""
    with _plain_step(setting) as plain:
        yield {PLAIN: plain, UNTUNED: learning(setting, precision=precision, execution=Execution())}


@contextmanager
def _plain_step(setting: Setting) -> Iterator[Callable[[], None]]:
    """A step of the plain loop."""
    recipe = setting.recipe
    plain = PlainLoop(
        setting.spec,
        *noise(setting.spec, epoch_images(setting)),
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
