"""`budgetnet.measure_device` and `budgetnet.check_device`: files of devices that networks are deployed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.common.cpu import available_cores
from budgetnet.common.documents import parse_count, parse_limit
from budgetnet.common.errors import InputError
from budgetnet.common.files import is_file_path, require_file_place

if TYPE_CHECKING:
    from budgetnet.devices.check import AnchorTime
    from budgetnet.devices.measure import Progress
    from budgetnet.model.deployed.calls import RuntimeName
    from budgetnet.model.deployed.device_file import DeviceFile
    from budgetnet.study.space import SearchSpace

MAX_PARAMS, MAX_MACS = "5M", "500M"
"""Largest networks whose operations are measured by default."""
MINUTES = 12.0
_MAX_BATCH = 4_096


def measure_device(
    to: str | Path,
    *,
    space: SearchSpace | str = "resnet",
    runtime: RuntimeName = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    max_params: float | str = MAX_PARAMS,
    max_macs: float | str = MAX_MACS,
    minutes: float = MINUTES,
    progress: Callable[[Progress], None] = lambda _progress: None,
) -> DeviceFile:
    """Measure how long operations take on this machine, and write a device's file, from which latency is predicted.

    An interrupted measurement goes on where it stopped.

    Args:
        to: the file, YAML or JSON.
        space: search space whose operations are measured, or its name or file.
        runtime: ``onnxruntime`` or ``torch``.
        threads: threads of an operation.
        batch: images that are classified at once.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.
        max_params: parameters of the largest networks whose operations are measured, such as "5M".
        max_macs: their multiply-accumulates.
        minutes: time after which no further round over the operations starts. Whole networks follow, for a minute.
        progress: is told how far the measurement is.

    Raises:
        InputError: the machine is too busy to measure, the runtime is not installed, an argument is out of range, the
            space has a single network within the limits, or the file's folder cannot be written to.
        OverBudgetError: no network of the space is within the limits.
    """
    from budgetnet.devices.measure import measure
    from budgetnet.devices.networks import Region
    from budgetnet.devices.runtimes import runtime_of
    from budgetnet.study.space import SearchSpace
    from budgetnet.study.space.named import named_space

    output = Path(to)
    require_file_place(output, field="to")
    if not 0 < minutes <= 24 * 60:
        raise InputError("minutes", minutes, "must be more than 0 and at most 1440")
    if not isinstance(space, SearchSpace):
        space = SearchSpace.load(space) if is_file_path(space) else named_space(space)
    numbers = {"threads": parse_count(threads, field="threads"), "batch": parse_count(batch, field="batch")}
    for name, most in (("threads", available_cores()), ("batch", _MAX_BATCH)):
        if numbers[name] > most:
            raise InputError(name, numbers[name], f"must be at most {most:,}")
    region = Region(
        space,
        input_shape,
        num_classes,
        parse_limit(max_params, field="max_params"),
        parse_limit(max_macs, field="max_macs"),
    )
    return measure(region, runtime_of(runtime, **numbers), output, minutes=minutes, progress=progress)


def check_device(path: str | Path) -> list[AnchorTime]:
    """Time three networks of a device's file again, and require that they take the time that they took.

    Args:
        path: the file.

    Raises:
        InputError: the file is invalid, was made on another machine or with another version of the runtime, the machine
            is too busy, or a network takes more than 5 % longer or shorter.
    """
    from budgetnet.devices.check import check

    return check(path)
