"""Benchmark of a training step by class of work, measured by torch's profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from budgetnet.bench.hardware import synchronise
from budgetnet.bench.measure import Measurement, Task, measure
from budgetnet.bench.variants import Setting, training_step
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.training.devices import choose_precision, describe_environment
from budgetnet.training.step import Execution

CLASSES: dict[str, tuple[str, ...]] = {
    "batch norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "optimiser": ("sgd", "adam", "multi_tensor"),
    "loss and metrics": ("softmax", "nll_loss", "cross_entropy", "argmax"),
    "gathering and augmentation": ("index", "gather", "randperm", "random", "pad", "where", "roll", "arange"),
    "convolution": ("conv", "cudnn", "mkldnn", "xmma", "implicit", "wgrad", "dgrad", "fprop"),
    "matrix product": ("gemm", "gemv", "addmm", "aten::mm", "aten::linear", "cutlass"),
    "copies and casts": (
        "copy",
        "memcpy",
        "memset",
        "nchwtonhwc",
        "nhwctonchw",
        "catarray",
        "aten::cat",
        "fill",
        "_to_",
    ),
    "activation and sums": ("threshold", "clamp", "relu", "add", "elementwise", "mul", "div", "sub", "reduce", "sum"),
}
"""Substrings of the names of operations and kernels, by class; the first match counts."""
OTHER = "other"
_WARM_UP, _STEPS = 5, 10


class Share(NamedTuple):
    """Time of one class of work."""

    work: str
    seconds_per_step: float
    share: float
    """Share of the time of all operations."""
    largest: str
    """The operation or kernel of this class that takes longest."""


class Profile(NamedTuple):
    """Time of a step by class of work."""

    seconds_per_step: float
    """Sum over all operations; on a GPU, over its kernels."""
    shares: list[Share]
    """Sorted, the largest first."""


class ProfileBenchmark(NamedTuple):
    """Profile of a network's training step, and its wall time without the profiler."""

    environment: dict[str, Any]
    spec: ModelSpec
    batch_size: int
    profile: Profile
    wall: dict[str, Measurement]
    """Wall time of a step of ``all images`` and of ``two images``."""

    @property
    def fixed_seconds(self) -> float:
        """Time of a step that does not depend on the number of images."""
        whole, two = (times.median for times in self.wall.values())
        return fixed_seconds(whole, two, batch_size=self.batch_size)

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data; times in seconds."""
        return {
            "benchmark": "profile",
            "environment": self.environment,
            "network": self.spec.label,
            "batch_size": self.batch_size,
            "seconds_per_step": self.profile.seconds_per_step,
            "wall": {name: times._asdict() for name, times in self.wall.items()},
            "rows": [share._asdict() for share in self.profile.shares],
        }


def run(
    spec: ModelSpec, *, device: torch.device, batch_size: int | None = None, progress: Callable[[str], None]
) -> ProfileBenchmark:
    """Profile training steps of a network on random images, and measure their wall time.

    Args:
        spec: the network.
        device: where to train.
        batch_size: images per step; default: 128, or 32 on a CPU.
        progress: called with a description of each step.
    """
    batch_size = batch_size or (32 if device.type == "cpu" else 128)
    setting = Setting(spec, Recipe(), batch_size, device)
    progress(f"steps of {batch_size} images under torch's profiler")
    precision = choose_precision("auto", device)

    def step_of(images: int) -> Callable[[], None]:
        # Not as a CUDA graph: that is one launch, whose parts some versions of the profiler do not report.
        return training_step(
            setting._replace(batch_size=images), precision=precision, execution=Execution(record=False)
        )

    found = profile_steps(step_of(batch_size), device=device)
    tasks = {
        name: Task(_finished(step_of(images), device))
        for name, images in (("all images", batch_size), ("two images", 2))
    }
    return ProfileBenchmark(describe_environment(device), spec, batch_size, found, measure(tasks, seconds=2))


def classify(name: str) -> str:
    """Return the class of work of an operation or kernel."""
    lowered = name.lower()
    return next((work for work, parts in CLASSES.items() if any(part in lowered for part in parts)), OTHER)


def fixed_seconds(whole: float, two: float, *, batch_size: int) -> float:
    """Extrapolate the time of a step to zero images, linearly from two measurements.

    Args:
        whole: seconds of a step of ``batch_size`` images.
        two: seconds of a step of two images.
        batch_size: images of the larger step.
    """
    return max(0.0, two - 2 * (whole - two) / (batch_size - 2)) if batch_size > 2 else two


def profile_steps(step: Callable[[], None], *, device: torch.device) -> Profile:
    """Run training steps under torch's profiler and sum their operations by class of work.

    Args:
        step: one training step, such as `budgetnet.bench.variants.training_step` returns.
        device: the device of the step; kernels are counted on a GPU, operations on a CPU.
    """
    for _ in range(_WARM_UP):
        step()
    synchronise(device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    # Without acc_events some versions of torch warn about events of earlier cycles, although there is only one cycle.
    with profile(activities=activities, acc_events=True) as recorded:
        for _ in range(_STEPS):
            step()
        synchronise(device)
    times: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in recorded.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        # The optimiser's annotations are mirrored on the device and would count its kernels twice.
        kernel = event.device_type.name == "CUDA" and not event.is_user_annotation
        if microseconds > 0 and (kernel or not on_gpu):
            times[classify(event.key)][event.key] += microseconds / 1e6 / _STEPS
    total = sum(sum(operations.values()) for operations in times.values())
    shares = []
    for work, operations in times.items():
        seconds = sum(operations.values())
        shares.append(Share(work, seconds, seconds / total, max(operations, key=operations.__getitem__)))
    return Profile(total, sorted(shares, key=lambda share: -share.seconds_per_step))


def _finished(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function that runs a step and waits until the device has finished it."""

    def run_step() -> None:
        step()
        synchronise(device)

    return run_step
