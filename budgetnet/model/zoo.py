"""Named networks: the paper's, other published residual networks, and what other teams of the same course built.

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


_IMAGENET: dict[str, Any] = {"input_shape": (3, 224, 224), "num_classes": 1000}
_STEM = {"channels": 64, "kernel_size": 7, "stride": 2, "pool_size": 3}
_WIDE = [256, 512, 1024, 2048]
_HE = "He et al. 2015, Deep Residual Learning for Image Recognition"
_REGNET: dict[str, Any] = {
    **_IMAGENET,
    "block": "bottleneck",
    "bottleneck_ratio": 1,
    "strides": 2,
    "stem": {"channels": 32, "stride": 2},
}


def _resnet50(**settings: Any) -> dict[str, Any]:
    layout = {"channels": _WIDE, "blocks": [3, 4, 6, 3], "block": "bottleneck", "stem": _STEM}
    return {**_IMAGENET, **layout, **settings}


def _resnet18(**settings: Any) -> dict[str, Any]:
    return {**_IMAGENET, "channels": [64, 128, 256, 512], "blocks": 2, "stem": _STEM, **settings}


def _wide_resnet(width: int, blocks: int) -> dict[str, Any]:
    channels = [16 * width, 32 * width, 64 * width]
    return {"channels": channels, "blocks": blocks, "block": "preact", "stem": 16}


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
    "wrn-16-4": ZooEntry(_wide_resnet(4, 2), "Zagoruyko and Komodakis 2016, Wide Residual Networks"),
    "wrn-40-2": ZooEntry(_wide_resnet(2, 6), "Zagoruyko and Komodakis 2016, Wide Residual Networks"),
    "wrn-28-10": ZooEntry(_wide_resnet(10, 4), "Zagoruyko and Komodakis 2016, Wide Residual Networks"),
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
    "preact-resnet18": ZooEntry(
        {"channels": [64, 128, 256, 512], "blocks": 2, "block": "preact", "head": {"norm": False}},
        "He et al. 2016, Identity Mappings in Deep Residual Networks, as in K. Liu's pytorch-cifar",
    ),
    "mobilenet-v2": ZooEntry(
        {
            "channels": [16, 24, 32, 64, 96, 160, 320],
            "blocks": [1, 2, 3, 4, 3, 3, 1],
            "strides": [1, 1, 2, 2, 1, 2, 1],
            "block": "bottleneck",
            "block_activation": False,
            "bottleneck_ratio": [1, 6, 6, 6, 6, 6, 6],
            "bottleneck_ratio_of": "input",
            "group_width": 1,
            "shortcut": [
                "projection",
                "projection",
                "identity",
                "identity",
                "projection",
                "identity",
                "projection",
            ],
            "stem": 32,
            "head": {"channels": 1280},
        },
        "Sandler et al. 2018, MobileNetV2, for 32x32 images as in K. Liu's pytorch-cifar",
    ),
    "mobilenet-v2-224": ZooEntry(
        {
            **_IMAGENET,
            "channels": [16, 24, 32, 64, 96, 160, 320],
            "blocks": [1, 2, 3, 4, 3, 3, 1],
            "strides": [1, 2, 2, 2, 1, 2, 1],
            "block": "bottleneck",
            "block_activation": False,
            "bottleneck_ratio": [1, 6, 6, 6, 6, 6, 6],
            "bottleneck_ratio_of": "input",
            "equal_expansion": False,
            "group_width": 1,
            "shortcut": "identity",
            "activation": "relu6",
            "stem": {"channels": 32, "stride": 2},
            "head": {"channels": 1280, "dropout": 0.2},
        },
        "Sandler et al. 2018, MobileNetV2, table 2, as in torchvision; for 224x224 images",
    ),
    "nyu-dl-cerberus": ZooEntry(
        {"channels": [64, 128, 256], "blocks": [3, 5, 3]},
        "itskavyagupta/nyu-dl-cerberus on GitHub, README: 64-128-256 channels, 3-5-3 blocks",
    ),
    "zhoucailin": ZooEntry(
        {
            "channels": [64, 128, 256],
            "blocks": [3, 5, 2],
            "kernel_sizes": [(5, 5), (3, 3), (3, 3)],
            "shortcut": {"kernel_size": 3},
            "stem": {"channels": 64, "kernel_size": 5},
            "head": {"pool_size": 4},
        },
        "ZhouCailin/ResNet-cifar10 on GitHub, README; the kernels found by counting each of its layers",
    ),
    "soumilinandi": ZooEntry(
        {"channels": [32, 64, 256, 256], "blocks": 2, "head": {"pool_size": 1, "dropout": 0.2}},
        "soumilinandi/ResNet-CIFAR10-Classifier on GitHub, notebook; without its dropout between two stages",
    ),
    "zbw-p": ZooEntry(
        {
            "channels": [32, 64, 128, 256],
            "blocks": 2,
            "squeeze_excitation_ratio": [0, 0, 1 / 16, 1 / 16],
            "squeeze_excitation": {"rounding": "down", "bias": False},
            "stem": {"channels": 32, "bias": True},
            "head": {"dropout": 0.2},
        },
        "ZBW-P/Deep-learning-resnet on GitHub, notebook Project1",
    ),
    "resnet18": ZooEntry(_resnet18(), f"{_HE}, table 1; for 224x224 images"),
    "resnet34": ZooEntry(_resnet18(blocks=[3, 4, 6, 3]), f"{_HE}, table 1; for 224x224 images"),
    "resnet50": ZooEntry(_resnet50(), f"{_HE}, table 1, with strides on the 3x3 convolutions as in torchvision"),
    "resnet18-d": ZooEntry(
        _resnet18(
            stem={"channels": 64, "inner_channels": [32, 32], "stride": 2, "pool_size": 3}, shortcut="average-pool"
        ),
        "He et al. 2019, Bag of Tricks for Image Classification, ResNet-D, as in timm; for 224x224 images",
    ),
    "se-resnet18": ZooEntry(
        _resnet18(squeeze_excitation_ratio=1 / 16),
        "Hu et al. 2018, Squeeze-and-Excitation Networks, reduction 16, as in timm's legacy_seresnet18",
    ),
    "wide-resnet50-2": ZooEntry(
        _resnet50(bottleneck_ratio=0.5),
        "Zagoruyko and Komodakis 2016, Wide Residual Networks, as in torchvision; for 224x224 images",
    ),
    "resnext50-32x4d": ZooEntry(
        _resnet50(bottleneck_ratio=0.5, groups=32),
        "Xie et al. 2017, Aggregated Residual Transformations, table 1; for 224x224 images",
    ),
    "regnetx-400mf": ZooEntry(
        {**_REGNET, "channels": [32, 64, 160, 400], "blocks": [1, 2, 7, 12], "group_width": 16},
        "Radosavovic et al. 2020, Designing Network Design Spaces, as in torchvision; for 224x224 images",
    ),
    "regnety-400mf": ZooEntry(
        {
            **_REGNET,
            "channels": [48, 104, 208, 440],
            "blocks": [1, 3, 6, 6],
            "group_width": 8,
            "squeeze_excitation_ratio": 0.25,
            "squeeze_excitation": {"ratio_of": "input", "place": "inner"},
        },
        "Radosavovic et al. 2020, Designing Network Design Spaces, as in torchvision; for 224x224 images",
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
