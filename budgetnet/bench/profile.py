"""Where the time of a training step goes, by class of work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from budgetnet.bench.hardware import synchronise

CLASSES: dict[str, tuple[str, ...]] = {
    "batch norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "optimiser": ("sgd", "multi_tensor"),
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
"""Parts of the names of operations and kernels that tell their class; the first that fits decides."""
OTHER = "other"
_STEPS = 10


class Share(NamedTuple):
    """What one class of work took."""

    work: str
    seconds_per_step: float
    share: float
    """Of the time that all operations took."""
    largest: str
    """The operation or kernel of the class that took the most."""


class Profile(NamedTuple):
    """Where the time of a step went."""

    seconds_per_step: float
    """Sum over all operations; on a GPU, of its kernels."""
    shares: list[Share]
    """The largest first."""


def classify(name: str) -> str:
    """The class of work that an operation or kernel belongs to, by its name."""
    lowered = name.lower()
    return next((work for work, parts in CLASSES.items() if any(part in lowered for part in parts)), OTHER)


def finished(step: Callable[[], None], *, device: torch.device) -> None:
    """A training step, until the device has done it."""
    step()
    synchronise(device)


def fixed_seconds(whole: float, two: float, *, batch_size: int) -> float:
    """What a step would take with no image at all, along the line through two measurements.

    Args:
        whole: seconds of a step of ``batch_size`` images.
        two: seconds of a step of two images.
        batch_size: images of the larger step.
    """
    return max(0.0, two - 2 * (whole - two) / (batch_size - 2)) if batch_size > 2 else two


def profiled(step: Callable[[], None], *, device: torch.device, steps: int = _STEPS) -> Profile:
    """Runs training steps under torch's profiler and sums up what they did.

    Args:
        step: one training step, such as `budgetnet.bench.variants.learning` gives.
        device: that it runs on; of a GPU its kernels are counted, of a CPU its operations.
        steps: to run, behind a few that are not counted.
    """
    for _ in range(5):
        step()
    synchronise(device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    # Where events are not kept, some versions of torch warn that they are not, though there is but one cycle of them.
    with profile(activities=activities, acc_events=True) as recorded:
        for _ in range(steps):
            step()
        synchronise(device)
    taken: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in recorded.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        # Marks that the optimiser sets around its kernels are mirrored on the device, and would count them twice.
        kernel = event.device_type.name == "CUDA" and not event.is_user_annotation
        if microseconds > 0 and (kernel or not on_gpu):
            taken[classify(event.key)][event.key] += microseconds / 1e6 / steps
    total = sum(sum(operations.values()) for operations in taken.values())
    shares = []
    for work, operations in taken.items():
        seconds = sum(operations.values())
        shares.append(Share(work, seconds, seconds / total, max(operations, key=operations.__getitem__)))
    return Profile(total, sorted(shares, key=lambda share: -share.seconds_per_step))
