"""Benchmark of training speed: variants of budgetnet's training step, compared with a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch

from budgetnet.bench.hardware import PeakMemory, peak_macs_per_second, synchronise
from budgetnet.bench.measure import Goal, Measurement, Task, measure
from budgetnet.bench.variants import UNTUNED, Setting, Variant, training_step, variants
from budgetnet.common.errors import InputError
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment, torch_threads
from budgetnet.training.step import PRECISIONS, Execution
from budgetnet.training.threads import ThreadCount, max_threads, measure_threads

_PASSES = 3
"""Multiply-accumulates of a training step relative to inference: forward, and backward to inputs and to weights."""
_MIN_CALLS = 5
"""Least calls of a measurement: two for warm-up and three samples."""
_VARIANTS = 3.2
"""Time of one call of every variant, in steps of budgetnet in float32; the plain loop takes longer than one."""


class Speed(NamedTuple):
    """Speed of one variant."""

    variant: str
    precision: str
    batch_size: int
    seconds_per_step: Measurement
    images_per_second: float
    """At the median time."""
    share_of_peak: float
    """Multiply-accumulates per second, relative to a large matrix product in the same precision (MFU)."""
    peak_memory: int | None
    """Bytes while this variant trains: allocated on the device, or the RSS of this process, including the weights and
    images of the other variants; None where the system does not report it."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**self._asdict(), "seconds_per_step": self.seconds_per_step._asdict()}


def measure_speeds(
    setting: Setting, found: list[Variant], *, seconds: float, progress: Callable[[str], None] | None = None
) -> list[Speed]:
    """Measure variants in alternating rounds.

    Args:
        setting: what they train.
        found: the variants.
        seconds: approximate duration of all rounds after the warm-up; at least three rounds are measured.
        progress: called with the name of each variant before its steps.
    """
    device = setting.device
    precisions = dict.fromkeys(variant.precision for variant in found)
    peaks = {name: peak_macs_per_second(device, PRECISIONS[name]) for name in precisions}
    memories: dict[str, int | None] = {}
    # On a GPU enough to capture a CUDA graph in the first call, and to amortise the synchronisation after each.
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
    """Speed of every variant, the plain loop first and the default last."""

    environment: dict[str, Any]
    spec: ModelSpec
    speeds: list[Speed]

    @property
    def ratios(self) -> dict[str, float]:
        """Images per second of each other variant, relative to the plain loop."""
        plain, *others = self.speeds
        return {speed.variant: speed.images_per_second / plain.images_per_second for speed in others}

    @property
    def settings_gain(self) -> float | None:
        """Images per second relative to `UNTUNED`; None if that was not measured."""
        rates = {speed.variant: speed.images_per_second for speed in self.speeds}
        return rates["budgetnet"] / rates[UNTUNED] if UNTUNED in rates else None

    @property
    def goals(self) -> list[Goal]:
        """Goals for the reference network on this kind of device."""
        if self.spec.digest != get("reference").digest:
            return []
        default = self.speeds[-1]
        on_gpu = self.environment["device"] == "cuda"
        ratio, limit = self.ratios[default.variant], 15 if on_gpu else 1.4
        goals = [Goal.at_least("times the plain loop's images per second", "times", ratio, limit)]
        if on_gpu:
            epoch = 40_000 / default.images_per_second
            goals.append(Goal.at_most("epoch of 40,000 images, at most", "seconds", epoch, 0.8))
            if default.peak_memory is not None:
                goals.append(Goal.at_most("peak memory, at most", "bytes", default.peak_memory, 4e9))
        return goals

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds, memory in bytes."""
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
    threads: ThreadCount | None = None,
    progress: Callable[[str], None],
) -> TrainBenchmark:
    """Measure every variant that this device supports, on random images.

    Args:
        spec: the network.
        device: where to train.
        seconds: approximate duration; every variant is timed at least three times.
        batch_size: images per step; default: 128, or fewer if three steps of each variant take longer than `seconds`.
        compiled: whether to measure torch.compile.
        autotune: whether cuDNN benchmarks its algorithms.
        threads: torch's number of threads, or ``"auto"``; not used by the plain loop and `UNTUNED`.
        progress: called with a description of each step.

    Raises:
        InputError: the network's images do not have 1 or 3 channels, as the plain loop requires.
    """
    if spec.input_shape[0] not in (1, 3):
        raise InputError(
            "input_shape",
            list(spec.input_shape),
            "must have 1 or 3 channels, because the plain loop uses Pillow images",
        )
    setting = Setting(spec, Recipe(), batch_size or Recipe().batch_size, device)
    if batch_size is None and device.type == "cpu":
        progress("choosing a batch size")
        setting = setting._replace(batch_size=fitting_batch(setting, seconds=seconds))
    if threads == "auto" and device.type == "cpu" and max_threads() > 1:
        progress("measuring one thread and all threads")
        step = training_step(setting, precision=choose_precision("auto", device), execution=Execution())
        threads = measure_threads(step, most=max_threads()).fastest
    with variants(setting, compiled=compiled, autotune=autotune) as found, ExitStack() as stack:
        if isinstance(threads, int):
            stack.enter_context(torch_threads(threads))
        return TrainBenchmark(
            describe_environment(device), spec, measure_speeds(setting, found, seconds=seconds / 2, progress=progress)
        )


def fitting_batch(setting: Setting, *, seconds: float) -> int:
    """Halve the batch size until `measure_speeds` of all variants takes about the given time.

    The time is estimated from steps on at most 16 images, assuming that it is proportional to the batch size.
    """
    few = setting._replace(batch_size=min(16, setting.batch_size))
    step = training_step(few, precision="float32", execution=Execution(record=False))
    times = measure({"step": Task(step)}, seconds=0)
    seconds_per_image = times["step"].median / few.batch_size
    batch_size = setting.batch_size
    while batch_size > few.batch_size and seconds_per_image * batch_size * _MIN_CALLS * _VARIANTS > seconds:
        batch_size //= 2
    return batch_size
