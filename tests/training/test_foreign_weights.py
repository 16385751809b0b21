"""Weights of other programs: the authors' network rebuilt from their paper, torchvision's and names of other code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from support import same_weights, save_safetensors, save_torch
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec
from budgetnet.training.checkpoint import load_weights


class AuthorsBlock(nn.Module):
    """Convolutions of 5x5 and 3x3 with batch norm, and a projection called residual where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=5, stride=stride, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.residual = nn.Sequential()
        if stride != 1 or before != after:
            self.residual = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.residual(x))


class AuthorsNetwork(nn.Module):
    """Five layers of 64, 64, 128, 256 and 256 channels, 2, 2, 1, 1 and 1 blocks, 4x4 average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(AuthorsBlock(64, 64, 1), AuthorsBlock(64, 64, 1))
        self.layer2 = nn.Sequential(AuthorsBlock(64, 64, 1), AuthorsBlock(64, 64, 1))
        self.layer3 = nn.Sequential(AuthorsBlock(64, 128, 2))
        self.layer4 = nn.Sequential(AuthorsBlock(128, 256, 2))
        self.layer5 = nn.Sequential(AuthorsBlock(256, 256, 2))
        self.linear = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5):
            out = layer(out)
        out = nn.functional.avg_pool2d(out, 4)
        logits: Tensor = self.linear(out.flatten(1))
        return logits


@pytest.fixture(scope="module")
def authors() -> AuthorsNetwork:
    torch.manual_seed(0)
    network = AuthorsNetwork()
    with torch.no_grad():
        network(torch.rand(8, 3, 32, 32))  # In training mode, so that running statistics change from 0 and 1.
    return network.eval()


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("authors.pt", save_torch),
        ("authors.pth", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        ("wrapped.pt", lambda state, path: torch.save({"epoch": 81, "state_dict": state}, path)),
        ("parallel.pt", lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path)),
        ("authors.safetensors", save_safetensors),
    ],
)
def test_authors_weights_give_the_authors_logits(
    authors: AuthorsNetwork, tmp_path: Path, file: str, write: Callable[[dict[str, Tensor], Path], None]
) -> None:
    write(authors.state_dict(), tmp_path / file)
    network = zoo.get("reference").build()
    load_weights(network, tmp_path / file, spec=zoo.get("reference"))
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), authors(images))


TORCHVISION = {
    "regnetx-400mf": "regnet_x_400mf",
    "regnety-400mf": "regnet_y_400mf",
    "mobilenet-v2-224": "mobilenet_v2",
}
"""Names of torchvision that differ from ours."""


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        *itertools.product(["resnet18", "resnet50"], ["", "module.", "model.", "_orig_mod.", "module._orig_mod."]),
        *itertools.product(TORCHVISION, ["", "module."]),
    ],
)
def test_weights_of_torchvision_give_its_logits(tmp_path: Path, name: str, prefix: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, TORCHVISION.get(name, name))(num_classes=5).eval()
    torch.save({prefix + key: value for key, value in theirs.state_dict().items()}, tmp_path / "weights.pth")
    spec = zoo.get(name).replace(num_classes=5)
    ours = spec.build()
    load_weights(ours, tmp_path / "weights.pth", spec=spec)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images))


FOREIGN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "usual CIFAR code": (
        {"block": "preact", "squeeze_excitation_ratio": 0.5, "head": {"norm": False}},
        {
            "conv1": "stem.conv",
            "layer2.0.bn1": "stages.1.0.norm1",
            "layer2.0.conv2": "stages.1.0.conv2",
            "layer2.0.shortcut.0": "stages.1.0.shortcut.conv",
            "layer2.0.fc1": "stages.1.0.squeeze_excitation.reduce",
            "layer2.0.fc2": "stages.1.0.squeeze_excitation.expand",
            "linear": "head.linear",
        },
    ),
    "timm": (
        {
            "block": "bottleneck",
            "shortcut": "average-pool",
            "squeeze_excitation_ratio": 0.5,
            "stem": {"channels": 8, "inner_channels": [4, 6]},
        },
        {
            "conv1.0": "stem.inner.0.conv",
            "conv1.1": "stem.inner.0.norm",
            "conv1.3": "stem.inner.1.conv",
            "conv1.4": "stem.inner.1.norm",
            "conv1.6": "stem.conv",
            "bn1": "stem.norm",
            "layer2.0.conv3": "stages.1.0.conv3",
            "layer2.0.se.fc1": "stages.1.0.squeeze_excitation.reduce",
            "layer2.0.downsample.1": "stages.1.0.shortcut.conv",
            "layer2.0.downsample.2": "stages.1.0.shortcut.norm",
            "fc": "head.linear",
        },
    ),
}


@pytest.mark.parametrize("code", FOREIGN)
def test_names_of_other_programs_are_understood(tmp_path: Path, code: str) -> None:
    settings, names = FOREIGN[code]
    spec = ModelSpec.resnet(channels=[8, 16], **settings)
    source, target = build(spec), build(spec)
    theirs = {}
    for own, tensor in source.state_dict().items():
        path, _, leaf = own.rpartition(".")
        # The layers that are not listed have the names that all programs share.
        common = re.sub(r"^stages\.(\d+)", lambda found: f"layer{int(found[1]) + 1}", path).replace("norm", "bn")
        common = common.replace("shortcut.conv", "shortcut.0").replace("squeeze_excitation.reduce", "fc1")
        common = common.replace("shortcut.bn", "shortcut.1").replace("squeeze_excitation.expand", "fc2")
        theirs[f"{ {ours: name for name, ours in names.items()}.get(path, common) }.{leaf}"] = tensor
    if code == "timm":
        theirs = {
            name.replace(".shortcut.1", ".downsample.2").replace(".shortcut.0", ".downsample.1"): value
            for name, value in theirs.items()
        }
    torch.save(theirs, tmp_path / "x.pt")
    load_weights(target, tmp_path / "x.pt", spec=spec)
    assert same_weights(source.state_dict(), target.state_dict())


def test_what_does_not_fit_is_called_by_a_name_of_the_file(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "x.pt")
    for spec, rule in [
        (zoo.get("resnet18").replace(num_classes=5), "module.fc.weight must have shape (5, 512), not (1000, 512)"),
        (zoo.get("resnet34"), "and 77 more; the file has 'module.conv1.weight', 'module.bn1.weight'"),
        (zoo.get("resnet18").replace(shortcut="none"), "unknown: 'module.layer2.0.downsample.0.weight'"),
    ]:
        with pytest.raises(InputError) as caught:
            load_weights(spec.build(), tmp_path / "x.pt", spec=spec)
        assert rule in caught.value.rule
