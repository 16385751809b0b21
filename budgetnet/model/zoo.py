"""Named networks below five million parameters: the paper's networks and other published residual networks.

``zoo.get("wrn-16-4")`` and ``zoo.wrn_16_4`` return the same specification.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from budgetnet.common.documents import look_up
from budgetnet.common.files import exists, is_file_path
from budgetnet.model.spec import ModelSpec

_PAPER = "Inouye, Shah, Xhelollari: Deep Learning Mini Project, NYU Tandon"


class ZooEntry(NamedTuple):
    """A named network and its source."""

    settings: dict[str, Any]
    """Arguments of `ModelSpec.resnet`."""
    source: str
    inferred: bool = False
    """Whether the layout was inferred from the parameter count, because the source does not state it."""


def _cifar_resnet(blocks: int) -> dict[str, Any]:
    return {"channels": [16, 32, 64], "blocks": blocks, "shortcut": {"kind": "padding"}}


ENTRIES: dict[str, ZooEntry] = {
    "reference": ZooEntry(
        {
            "channels": [64, 64, 128, 256, 256],
            "blocks": [2, 2, 1, 1, 1],
            "strides": [1, 1, 2, 2, 2],
            "kernel_sizes": (5, 3),
        },
        f"{_PAPER}, Table 1",
    ),
    "ladder-small": ZooEntry(
        {"channels": [64, 64, 128, 256], "blocks": [2, 2, 1, 2], "strides": [1, 1, 2, 2]},
        f"{_PAPER}; stated as four layers, 3-64-128-256, 2.6M parameters; the paper leaves the layout open",
        inferred=True,
    ),
    "ladder-wide": ZooEntry(
        {"channels": [64, 128, 256, 512]},
        f"{_PAPER}; stated as 64-128-256-512, 4.9M parameters; one block a stage found by counting",
    ),
    "ladder-large-kernel": ZooEntry(
        {"channels": [64, 128, 256, 256], "kernel_sizes": (5, 3)},
        f"{_PAPER}; stated as 64-128-256-256 with 5x5 kernels, 4.2M parameters; one block a stage found by counting",
    ),
    "resnet20": ZooEntry(_cifar_resnet(3), "He et al. 2015, Deep Residual Learning for Image Recognition, section 4.2"),
    "resnet56": ZooEntry(_cifar_resnet(9), "He et al. 2015, Deep Residual Learning for Image Recognition, section 4.2"),
    "wrn-16-4": ZooEntry(
        {"channels": [64, 128, 256], "blocks": 2, "block": "preact", "stem": 16},
        "Zagoruyko and Komodakis 2016, Wide Residual Networks",
    ),
    "preact-resnet-20x4": ZooEntry(
        {"channels": [64, 128, 256], "blocks": 3, "block": "preact"},
        "He et al. 2016, Identity Mappings in Deep Residual Networks, depth 20 at four times the width",
    ),
    "resnext-29-32x4d": ZooEntry(
        {
            "channels": [256, 512, 1024],
            "blocks": 3,
            "block": "bottleneck",
            "bottleneck_ratio": 0.5,
            "groups": 32,
            "stem": 64,
        },
        "Xie et al. 2017, Aggregated Residual Transformations, at 32 groups of 4 channels in the first stage",
    ),
}


def names() -> list[str]:
    """Return the names of all networks in the zoo."""
    return list(ENTRIES)


@cache
def get(name: str) -> ModelSpec:
    """Return the specification with a given name.

    Raises:
        InputError: no network has this name.
    """
    entry = look_up(name, ENTRIES, field="spec", missing="no such network, and no such file")
    return ModelSpec.resnet(name=name, **entry.settings)


def __getattr__(name: str) -> ModelSpec:
    entry = name.replace("_", "-")
    if entry in ENTRIES:
        return get(entry)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name.replace("-", "_") for name in ENTRIES)])


def find_spec(text: str) -> ModelSpec:
    """Return the network of that name, in that YAML or JSON file, or of that run folder.

    Raises:
        InputError: no such name or file, or a file that breaks a rule.
    """
    in_run = Path(text) / "spec.yaml"
    if text not in ENTRIES and exists(in_run):
        return ModelSpec.load(in_run)
    return ModelSpec.load(text) if text not in ENTRIES and is_file_path(text) else get(text)
