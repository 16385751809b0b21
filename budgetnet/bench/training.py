"""How fast networks are trained: this package's step, in each way it can be carried out, beside a plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from budgetnet.bench.baseline import PlainLoop
from budgetnet.bench.hardware import PeakMemory, peak_macs_per_second, synchronise
from budgetnet.bench.measure import Goal, Measurement, Task, measure
from budgetnet.cost import cost_of
from budgetnet.data.device import resident
from budgetnet.data.feed import Feed
from budgetnet.environment import choose_precision, describe_environment
from budgetnet.errors import InputError
from budgetnet.initialisation import initialise
from budgetnet.learner import PRECISIONS, Execution, Learner, cudnn_settings
from budgetnet.recipe import Recipe
from budgetnet.spec import ModelSpec
from budgetnet.zoo import get

_IMAGES, _BYTES = 40_000, 2**27
"""Most images of an epoch, as many as the paper trains on, and the most memory they may take: what happens once an
epoch, such as a DataLoader's start, shall weigh what it weighs in earnest."""
_BATCHES = 8
"""Fewest batches of an epoch."""
_PASSES = 3
"""A training step multiplies three times what inference does: forward, and backward to inputs and to weights."""
_CALLS = 5
"""Calls that a measurement needs at least: two before it and three in it."""
_VARIANTS = 2.7
"""What one call of each way takes together, in steps of this package in float32; the plain loop takes longer."""


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


class Speed(NamedTuple):
    """What was measured of one way to train."""

    variant: str
    precision: str
    batch_size: int
    seconds_per_step: Measurement
    images_per_second: float
    """At the median."""
    share_of_peak: float
    """Multiply-accumulates done a second, over those of a large matrix product in the same precision (MFU)."""
    peak_memory: int | None
    """Bytes while this way trained: of the device, or resident in this process, the weights and images of the other
    ways included; None where the system does not tell."""

    def to_mapping(self) -> dict[str, Any]:
        """The measurement as plain data."""
        return {**self._asdict(), "seconds_per_step": self.seconds_per_step._asdict()}


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
    images, labels = noise(setting.spec, epoch_images(setting))
    with ExitStack() as stack:
        plain = PlainLoop(
            setting.spec,
            images,
            labels,
            learning_rate=setting.recipe.learning_rate,
            momentum=setting.recipe.momentum,
            weight_decay=setting.recipe.weight_decay,
            batch_size=setting.batch_size,
            device=setting.device,
            seed=0,
        )
        stack.callback(plain.close)
        found = [Variant("plain loop", "float32", plain.step)]
        for name, precision, execution in ways:
            found.append(Variant(name, precision, learning(setting, precision=precision, execution=execution)))
        yield found


def speeds(
    setting: Setting, found: list[Variant], *, seconds: float, progress: Callable[[str], None] | None = None
) -> list[Speed]:
    """Measures ways to train in turn, so that whatever else the machine does meets them all alike.

    Args:
        setting: what they train.
        found: the ways.
        seconds: how long the rounds may take together, behind the first steps; three rounds are made at least.
        progress: is told what is being done.
    """
    device = setting.device
    wanted = dict.fromkeys(variant.precision for variant in found)
    peaks = {name: peak_macs_per_second(device, PRECISIONS[name]) for name in wanted}
    memories: dict[str, int | None] = {}
    # Enough to record a graph in the first call, and to hide the wait at the end of each.
    steps = 1 if device.type == "cpu" else 20

    def call(variant: Variant) -> None:
        if progress:
            progress(variant.name)
        memory = PeakMemory(device) if variant.name not in memories else None
        for _ in range(steps):
            variant.step()
        synchronise(device)
        if memory:
            memories[variant.name] = memory.read()

    tasks = {variant.name: Task(partial(call, variant), units=steps) for variant in found}
    times = measure(tasks, seconds=seconds)
    macs = cost_of(setting.spec).macs * _PASSES * setting.batch_size
    return [
        Speed(
            variant=variant.name,
            precision=variant.precision,
            batch_size=setting.batch_size,
            seconds_per_step=times[variant.name],
            images_per_second=setting.batch_size / times[variant.name].median,
            share_of_peak=macs / times[variant.name].median / peaks[variant.precision],
            peak_memory=memories[variant.name],
        )
        for variant in found
    ]


class TrainBenchmark(NamedTuple):
    """What was trained, and how fast in each way."""

    environment: dict[str, Any]
    spec: ModelSpec
    speeds: list[Speed]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times the plain loop's images a second each other way to train has."""
        plain, *others = self.speeds
        return {speed.variant: speed.images_per_second / plain.images_per_second for speed in others}

    @property
    def goals(self) -> list[Goal]:
        """The goals for the reference on this kind of device, and whether they were met."""
        if self.spec.digest != get("reference").digest:
            return []
        own = self.speeds[-1]
        gain = self.ratios[own.variant]
        if self.environment["device"] != "cuda":
            return [Goal("times the plain loop's images a second", "times", gain, 1.4, gain >= 1.4)]
        epoch = 40_000 / own.images_per_second
        goals = [Goal("times the plain loop's images a second", "times", gain, 15, gain >= 15)]
        goals.append(Goal("epoch of 40,000 images, at most", "seconds", epoch, 0.8, epoch <= 0.8))
        if own.peak_memory is not None:
            goals.append(Goal("peak memory, at most", "bytes", own.peak_memory, 4e9, own.peak_memory <= 4e9))
        return goals

    def to_mapping(self) -> dict[str, Any]:
        """The benchmark as plain data; times in seconds, memory in bytes."""
        return {
            "benchmark": "train",
            "environment": self.environment,
            "network": {"name": self.spec.label, **self.spec.cost._asdict()},
            "rows": [speed.to_mapping() for speed in self.speeds],
            "ratios": self.ratios,
            "goals": [goal._asdict() for goal in self.goals],
        }


def run(
    spec: ModelSpec,
    *,
    device: torch.device,
    seconds: float,
    batch_size: int | None = None,
    compiled: bool = False,
    autotune: bool = True,
    progress: Callable[[str], None],
) -> TrainBenchmark:
    """Trains a network in every way there is on this device, in turn, on images of noise.

    Args:
        spec: the network.
        device: where to train.
        seconds: about how long to measure in all; every way is timed three times however long that takes.
        batch_size: images in a step; if left out, as many as the paper's 128, or fewer where three steps of each way
            would take longer than that.
        compiled: whether torch.compile is one of the ways.
        autotune: whether cuDNN tries its algorithms.
        progress: is told what is being done.

    Raises:
        InputError: the network's images are neither grey nor of three colours, as the plain loop needs them.
    """
    if spec.input_shape[0] not in (1, 3):
        raise InputError(
            "input_shape", list(spec.input_shape), "must have 1 or 3 channels, as the plain loop reads images"
        )
    setting = Setting(spec, Recipe(), batch_size or Recipe().batch_size, device)
    if batch_size is None and device.type == "cpu":
        progress("finding a batch size that three steps of each way fit into the time with")
        setting = setting._replace(batch_size=fitting_batch(setting, seconds=seconds))
    with variants(setting, compiled=compiled, autotune=autotune) as found:
        return TrainBenchmark(
            describe_environment(device), spec, speeds(setting, found, seconds=seconds / 2, progress=progress)
        )


def fitting_batch(setting: Setting, *, seconds: float) -> int:
    """The largest batch, halved from the setting's, with which `speeds` of all variants is done in about that time.

    Judged by one plain step on a few images, as time grows with their number.
    """
    few = setting._replace(batch_size=min(16, setting.batch_size))
    step = learning(few, precision="float32", execution=Execution(record=False))
    times = measure({"step": Task(step)}, seconds=0)
    an_image = times["step"].median / few.batch_size
    batch_size = setting.batch_size
    while batch_size > few.batch_size and an_image * batch_size * _CALLS * _VARIANTS > seconds:
        batch_size //= 2
    return batch_size
