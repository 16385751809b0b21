"""Networks with every kind of block, an odd-sized data set, and run folders created without training."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support import prepare, tiny_recipe
from torch import Tensor, nn

from budgetnet.data import DataSet
from budgetnet.data.dataset import make_dataset
from budgetnet.data.on_device import OnDeviceImages, normalise
from budgetnet.model.cost import cost_of
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunRecord, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.checkpoint import save_tensors
from budgetnet.training.initialisation import initialise


def randomise_batch_norm(network: nn.Module) -> None:
    """Randomise the statistics and scales of batch norm, so that no layer is the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


def create_run(
    spec: ModelSpec,
    dataset: DataSet,
    out: Path,
    *,
    recipe: Recipe | None = None,
    device: str = "cpu",
    **changes: object,
) -> RunRecord:
    """Create a finished run with random weights and random batch norm statistics, without training.

    Args:
        spec: the network, adapted to the data's image shape and classes.
        dataset: the data set that the record names.
        out: folder for the run folder.
        recipe: the recipe that the record names.
        device: the device that the record names.
        changes: fields of the data record to replace.
    """
    recipe = recipe or tiny_recipe()
    data = prepare(dataset, recipe)
    data_record = DataRecord(**{**data.record.to_mapping(), **changes})
    identity = RunIdentity(spec=data.adapt(spec), recipe=recipe, data=data_record, seed=0, device=device)
    folder = RunFolder.of(identity, out)
    folder.begin(identity)
    folder.write_curves([Epoch(1, 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0)])
    torch.manual_seed(0)
    network = initialise(identity.spec, 0)
    randomise_batch_norm(network)
    set_batch_norm_statistics(network, data.train)
    save_tensors(folder.best, network.state_dict(), about={"epoch": 1, "run": identity.digest})
    folder.finish(
        RunResult(
            status="complete",
            reason="its only epoch",
            **cost_of(identity.spec)._asdict(),
            epochs=1,
            cycles=0,
            best_epoch=1,
            validation_loss=1.0,
            validation_correct=20,
            validation_images=40,
            seconds=1.0,
        )
    )
    return folder.load()


def set_batch_norm_statistics(network: nn.Module, images: OnDeviceImages) -> None:
    """Set the running statistics of batch norm to those of real images, so that logits differ between images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(normalise(images.images, images.mean, images.std))


def images_of(dataset: DataSet, count: int) -> torch.Tensor:
    """Return the first training images, float32 (count, channels, height, width) from 0 to 1."""
    return torch.from_numpy(dataset.train_images[:count].copy()).float() / 255


def expected_logits(record: RunRecord, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of a run's network for images from 0 to 1, in double precision."""
    from budgetnet.model.network import build
    from budgetnet.training.checkpoint import load_tensors

    data = record.identity.data
    mean, std = (torch.tensor(each, dtype=torch.float64).view(1, -1, 1, 1) for each in (data.mean, data.std))
    network = build(record.identity.spec).double()
    network.load_state_dict(load_tensors(record.folder / "best.safetensors")[0])
    with torch.no_grad():
        logits: torch.Tensor = network.eval()((images.double() - mean) / std)
    return logits


SPECS: dict[str, dict[str, Any]] = {
    "basic": {"shortcut": {"kind": "projection", "kernel_size": 3}, "kernel_sizes": (5, 1), "stem": {"stride": 2}},
    "basic-pooled": {"shortcut": {"kind": "average-pool"}, "activation": "gelu", "head": {"dropout": 0.5}},
    "basic-max-pool": {"downsampling": "max-pool", "activation": "gelu", "stem": {"whitening": 2}},
    "basic-padded": {"shortcut": {"kind": "padding"}, "activation": "leaky_relu", "head": {"pooling": "max"}},
    "basic-plain": {"shortcut": {"kind": "none"}, "squeeze_excitation_ratio": 0.5, "stem": {"whitening": 2}},
    "preact": {"block": "preact", "groups": 2, "activation": "silu", "squeeze_excitation_ratio": 0.25},
    "preact-pooled": {"block": "preact", "shortcut": {"kind": "average-pool", "kernel_size": 3}},
    "preact-padded": {"block": "preact", "shortcut": {"kind": "padding"}, "stem": {"kernel_size": 7, "channels": 4}},
    "preact-plain": {"block": "preact", "shortcut": {"kind": "none"}, "stem": {"whitening": 3}},
    "preact-max-pool": {"block": "preact", "downsampling": "max-pool", "groups": 2},
    "bottleneck": {"block": "bottleneck", "bottleneck_ratio": 0.5, "groups": 4, "squeeze_excitation_ratio": 0.5},
    "bottleneck-pooled": {
        "block": "bottleneck",
        "shortcut": {"kind": "average-pool"},
        "activation": "silu",
        "head": {"scale": 0.125},
    },
    "bottleneck-depthwise": {
        "block": "bottleneck",
        "bottleneck_ratio": 1,
        "groups": 8,
        "shortcut": {"kind": "padding"},
    },
    "bottleneck-max-pool": {"block": "bottleneck", "downsampling": "max-pool", "groups": 2},
    "bottleneck-inverted": {
        "block": "bottleneck",
        "bottleneck_ratio": 3,
        "bottleneck_ratio_of": "input",
        "group_width": 1,
        "block_activation": False,
        "shortcut": "identity",
        "squeeze_excitation_ratio": 0.25,
        "squeeze_excitation": {"place": "inner", "ratio_of": "inner", "rounding": "multiple-of-8"},
        "head": {"channels": 24, "pool_size": 2},
    },
    "bottleneck-without-expansion": {
        "block": "bottleneck",
        "bottleneck_ratio": 1,
        "equal_expansion": False,
        "group_width": 1,
        "block_activation": False,
        "shortcut": "identity",
        "activation": "relu6",
        "squeeze_excitation_ratio": 0.25,
        "squeeze_excitation": {"place": "inner"},
    },
    "preact-bottleneck-without-expansion": {
        "block": "preact-bottleneck",
        "bottleneck_ratio": 1,
        "equal_expansion": False,
        "downsampling": "max-pool",
    },
    "bottleneck-one-group": {"block": "bottleneck", "bottleneck_ratio": 1, "group_width": [8, 16]},
    "preact-bottleneck": {
        "block": "preact-bottleneck",
        "block_dropout": 0.5,
        "squeeze_excitation_ratio": 0.5,
        "squeeze_excitation": {"place": "inner", "bias": False},
        "shortcut": {"bias": True},
        "head": {"norm": False},
    },
    "mixed": {
        "block": ["basic", "preact"],
        "shortcut": ["identity", {"kind": "projection", "norm": True}],
        "activation": ["silu", "gelu"],
        "conv_bias": [True, False],
        "groups": [1, 4],
        "squeeze_excitation_ratio": [0, 0.5],
        "stem": {"inner_channels": [4, 6], "bias": True, "squeeze_excitation_ratio": 0.5, "pool_size": 3},
    },
    "mixed-pooled": {
        "shortcut": ["average-pool", "none"],
        "block_dropout": [0, 0.25],
        "downsampling": "max-pool",
        "stem": {"pool_size": 2, "pool_stride": 2, "norm": False},
        "head": {"pooling": "max", "pool_size": 1, "norm": True},
    },
    "bottleneck-plain": {"block": "bottleneck", "shortcut": {"kind": "none"}, "head": {"pooling": "max"}},
}
"""Every kind of block and shortcut; each other setting occurs in one of them."""


def spec_of(name: str) -> ModelSpec:
    settings: dict[str, Any] = {"kernel_sizes": (3, 3), **SPECS[name]}
    # A stride of 3, so that feature maps have odd sides that the strides do not divide.
    widths = [8, 8] if name == "bottleneck-depthwise" else [8, 16]
    settings["stem"] = {"channels": 8, **settings.get("stem", {})}
    return ModelSpec.resnet(channels=widths, blocks=[2, 1], strides=[1, 3], **settings)


def odd_sized_dataset() -> DataSet:
    """Return a data set of colour images of 7x10 pixels, with class names."""
    generator = np.random.default_rng(2)

    def part(count: int) -> Any:
        return generator.integers(0, 256, (count, 7, 10, 3), dtype=np.uint8)

    return make_dataset(
        name="arrays:/home/somebody/odd.npz",
        train_images=part(250),
        train_labels=np.arange(250) % 3,
        test_images=part(9),
        test_labels=np.arange(9) % 3,
        class_names=["a cat", "o'dog", 'the "bird"'],
        provenance="made for a test",
    )


def random_dataset(channels: int, height: int, width: int, *, classes: int) -> DataSet:
    """Return a data set of random images, grey if they have one channel and colour if they have more."""
    generator = np.random.default_rng(3)

    def part(count: int) -> Any:
        shape = (count, height, width) if channels == 1 else (count, height, width, 3)
        return generator.integers(0, 256, shape, dtype=np.uint8)

    return make_dataset(
        name="arrays:random.npz",
        train_images=part(200 * classes),
        train_labels=np.arange(200 * classes) % classes,
        test_images=part(3 * classes),
        test_labels=np.arange(3 * classes) % classes,
        provenance="made for a test",
    )


def run_module(path: Path, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = runpy.run_path(str(path))["load"]()(images)
    return logits
