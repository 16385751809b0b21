"""Named networks against hand counts and the numbers published by their sources."""

from __future__ import annotations

import pytest
import torch
import torchvision

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.model.module_cost import module_cost

WIDTHS = (16, 32, 64)


def conv_norm(before: int, after: int, size: int, groups: int = 1) -> int:
    """Count the parameters of a square convolution without bias and of the batch norm after it."""
    return size * size * before * after // groups + 2 * after


def cifar_resnet(blocks: int) -> int:
    """Count a CIFAR ResNet (He et al. 2015, section 4.2) with 6 n + 2 layers and padding shortcuts (option A)."""
    total = conv_norm(3, 16, 3)
    before = 16
    for width in WIDTHS:
        total += conv_norm(before, width, 3) + (2 * blocks - 1) * conv_norm(width, width, 3)
        before = width
    return total + 64 * 10 + 10


def preact_resnet(widths: tuple[int, ...], *, stem: int, blocks: int) -> int:
    """Count a pre-activation ResNet (He et al. 2016): projections without norm, one norm before the head."""
    total, before = 9 * 3 * stem, stem
    for width in widths:
        for position in range(blocks):
            in_channels = width if position else before
            total += 2 * in_channels + 9 * in_channels * width + 2 * width + 9 * width * width
            total += in_channels * width if in_channels != width else 0
        before = width
    return total + 2 * before + 10 * before + 10


def resnext_29() -> int:
    """Count ResNeXt-29 (Xie et al. 2017): 1x1, 3x3 in 32 groups, 1x1; three stages of three blocks."""
    total, before = conv_norm(3, 64, 3), 64
    for inner, width in ((128, 256), (256, 512), (512, 1024)):
        for position in range(3):
            in_channels = width if position else before
            total += (
                conv_norm(in_channels, inner, 1) + conv_norm(inner, inner, 3, groups=32) + conv_norm(inner, width, 1)
            )
        total += conv_norm(before, width, 1)
        before = width
    return total + 1024 * 10 + 10


def basic_resnet(widths: tuple[int, ...], blocks: tuple[int, ...], sizes: tuple[int, int] = (3, 3)) -> int:
    """Count a network of basic blocks with the given kernel sizes and a projection in every stage but the first."""
    total, before = conv_norm(3, widths[0], 3), widths[0]
    for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        total += conv_norm(before, width, sizes[0]) + conv_norm(width, width, sizes[1])
        total += (count - 1) * (conv_norm(width, width, sizes[0]) + conv_norm(width, width, sizes[1]))
        # The first stage has the width and resolution of the stem; every later one halves the map.
        total += conv_norm(before, width, 1) if index else 0
        before = width
    return total + 10 * before + 10


COUNTS = {
    "reference": 4_662_346,
    "ladder-wide": 4_903_242,
    "ladder-large-kernel": 4_243_786,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "wrn-16-4": 2_748_890,
    "preact-resnet-20x4": 4_326_986,
    "wrn-40-2": 2_243_546,
    "wrn-28-10": 36_479_194,
    # Counts of K. Liu's pytorch-cifar.
    "preact-resnet18": 11_171_146,
    "mobilenet-v2": 2_296_922,
    # Counts that their authors print.
    "nyu-dl-cerberus": 4_918_602,
    "zhoucailin": 4_469_578,
    "soumilinandi": 4_573_994,
    "zbw-p": 2_818_122,
    # Counts of torchvision, and of timm for the last two.
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnext50-32x4d": 25_028_904,
    "wide-resnet50-2": 68_883_240,
    "mobilenet-v2-224": 3_504_872,
    "regnetx-400mf": 5_495_976,
    "regnety-400mf": 4_344_144,
    "resnet18-d": 11_708_744,
    "se-resnet18": 11_778_592,
}

TORCHVISION = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnext50-32x4d": "resnext50_32x4d",
    "wide-resnet50-2": "wide_resnet50_2",
    "mobilenet-v2-224": "mobilenet_v2",
    "regnetx-400mf": "regnet_x_400mf",
    "regnety-400mf": "regnet_y_400mf",
}


@pytest.mark.parametrize(("name", "theirs"), TORCHVISION.items())
def test_networks_of_torchvision_have_its_cost(name: str, theirs: str) -> None:
    # RegNet's constructor computes with tensors, which have no values on the meta device.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = getattr(torchvision.models, theirs)()
    assert module_cost(network, input_shape=(3, 224, 224)) == zoo.get(name).cost


@pytest.mark.parametrize(("name", "params"), COUNTS.items())
def test_params_match_published_counts(name: str, params: int) -> None:
    assert zoo.get(name).params == params


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("resnet20", cifar_resnet(3)),
        ("resnet56", cifar_resnet(9)),
        ("wrn-16-4", preact_resnet((64, 128, 256), stem=16, blocks=2)),
        ("preact-resnet-20x4", preact_resnet((64, 128, 256), stem=64, blocks=3)),
        ("resnext-29-32x4d", resnext_29()),
        ("ladder-wide", basic_resnet((64, 128, 256, 512), (1, 1, 1, 1))),
        ("ladder-large-kernel", basic_resnet((64, 128, 256, 256), (1, 1, 1, 1), (5, 3))),
    ],
)
def test_params_match_hand_counts(name: str, by_hand: int) -> None:
    assert zoo.get(name).params == by_hand


@pytest.mark.parametrize(("name", "millions"), [("resnet20", "0.27"), ("resnet56", "0.85")])
def test_cifar_resnets_have_the_published_size(name: str, millions: str) -> None:
    assert f"{zoo.get(name).params / 1e6:.2f}" == millions


@pytest.mark.parametrize(
    ("name", "stated"), [("ladder-small", 2.6), ("ladder-wide", 4.9), ("ladder-large-kernel", 4.2), ("reference", 4.6)]
)
def test_ladder_params_are_within_a_tenth_of_a_million_of_the_published_ones(name: str, stated: float) -> None:
    assert abs(zoo.get(name).params / 1e6 - stated) < 0.1


def test_only_the_first_rung_has_an_inferred_layout() -> None:
    assert [name for name, entry in zoo.ENTRIES.items() if entry.inferred] == ["ladder-small"]


@pytest.mark.parametrize("name", zoo.names())
def test_every_entry_has_its_name_and_a_source(name: str) -> None:
    spec = zoo.get(name)
    assert spec.name == spec.label == name
    assert (spec.input_shape, spec.num_classes) in (((3, 32, 32), 10), ((3, 224, 224), 1000))
    assert zoo.ENTRIES[name].source


@pytest.mark.parametrize("name", zoo.names())
def test_attribute_and_get_return_the_same_specification(name: str) -> None:
    attribute = name.replace("-", "_")
    assert getattr(zoo, attribute) is zoo.get(name)
    assert attribute in dir(zoo)


def test_unknown_attribute_raises_attribute_error() -> None:
    assert not hasattr(zoo, "resnet21")


@pytest.mark.parametrize(
    ("name", "hint"), [("refrence", "did you mean reference?"), ("x", "available: reference, "), ("", "available: ref")]
)
def test_unknown_name_suggests_alternatives(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        zoo.get(name)
    assert caught.value.field == "spec"
    assert hint in caught.value.rule
