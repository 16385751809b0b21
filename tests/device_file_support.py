"""A small space whose operations are timed in a few seconds, and a device's file of it made on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from budgetnet.devices.measure import measure
from budgetnet.devices.networks import Region
from budgetnet.devices.runtimes import runtime_of
from budgetnet.model.deployed.calls import RuntimeName
from budgetnet.model.deployed.device_file import DeviceFile
from budgetnet.model.spec import ModelSpec
from budgetnet.study.space import SearchSpace

SMALL_SPACE: dict[str, Any] = {
    "name": "small",
    "stages": [1, 2],
    "channels": [8, 16],
    "growth": [1.0, 2.0],
    "blocks": [1, 1],
    "full_size_stages": [1, 1],
    "first_kernel_sizes": [3],
    "second_kernel_sizes": [3],
    "block_kinds": ["basic"],
    "squeeze_excitation_ratios": [0.0],
}
IMAGE: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
REGION = Region(SearchSpace.from_mapping(SMALL_SPACE), **IMAGE, max_params=40_000, max_macs=2_000_000)
NETWORK = ModelSpec.resnet(channels=[8, 16], blocks=1, **IMAGE)
"""A network of the space."""
WIDER = ModelSpec.resnet(channels=[16, 32], blocks=1, **IMAGE)


def measure_small(
    path: Path, *, runtime: RuntimeName = "onnxruntime", region: Region = REGION, **settings: Any
) -> DeviceFile:
    """Measure this machine in a few seconds, however busy it is."""
    quick: dict[str, Any] = {"minutes": 1e-3, "judged": 4, "sampled": 40, "even_if_busy": True, **settings}
    return measure(region, runtime_of(runtime, threads=1, batch=1), path, **quick)


def resigned(device: DeviceFile, **changes: Any) -> DeviceFile:
    """Return a file with other fields and their digest, as if it had been made so."""
    fields = {name: getattr(device, name) for name in type(device).model_fields}
    return type(device).signed(**{**fields, **changes})
