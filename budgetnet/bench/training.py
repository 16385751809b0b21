"""How fast networks are trained: this package's step, in each way it can be carried out, beside a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch

from budgetnet.bench.hardware import PeakMemory, peak_macs_per_second, synchronise
from budgetnet.bench.measure import Goal, Measurement, Task, measure
from budgetnet.bench.variants import UNTUNED, Setting, Variant, learning, variants
from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment, threads_set_to
from budgetnet.training.step import PRECISIONS, Execution
from budgetnet.training.threads import Wanted, measure_threads, most_threads

_PASSES = 3
"""A training step multiplies three times what inference does: forward, and backward to inputs and to weights."""
_CALLS = 5
"""Calls that a measurement needs at least: two before it and three in it."""
_VARIANTS = 3.2
"""What one call of each way takes together, in steps of this package in float32; the plain loop takes longer."""


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
        if variant.measured_step is not None and variant.name not in memories:
            memories[variant.name] = variant.measured_step()
            return
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
    def settings_gain(self) -> float | None:
        """How many times the images a second of `UNTUNED` this package's has; None if that was not measured."""
        rates = {speed.variant: speed.images_per_second for speed in self.speeds}
        return rates["budgetnet"] / rates[UNTUNED] if UNTUNED in rates else None

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
            "settings_gain": self.settings_gain,
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
    threads: Wanted | None = None,
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
        threads: torch's number of threads, or ``"auto"``, for all ways but the plain loop and `UNTUNED`.
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
    if threads == "auto" and device.type == "cpu" and most_threads() > 1:
        progress("measuring steps with one thread and with all")
        step = learning(setting, precision=choose_precision("auto", device), execution=Execution())
        threads = measure_threads(step, most=most_threads()).fastest
    with variants(setting, compiled=compiled, autotune=autotune) as found, ExitStack() as stack:
        if isinstance(threads, int):
            stack.enter_context(threads_set_to(threads))
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
