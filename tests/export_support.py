"""Run folders with networks of any kind in them, made without training."""

from __future__ import annotations

from pathlib import Path

import torch
from support import prepare, tiny_recipe
from test_build import make_lively
from torch import nn

from budgetnet.checkpoint import save_tensors
from budgetnet.cost import cost_of
from budgetnet.data import DataSet
from budgetnet.data.device import ResidentImages, normalise
from budgetnet.recipe import Recipe
from budgetnet.records import DataRecord, Epoch, RunIdentity, RunRecord, RunResult
from budgetnet.run_folder import RunFolder
from budgetnet.spec import ModelSpec
from budgetnet.train import initialise


def made_run(
    spec: ModelSpec,
    dataset: DataSet,
    out: Path,
    *,
    recipe: Recipe | None = None,
    device: str = "cpu",
    **changes: object,
) -> RunRecord:
    """A run as training would have left it, with lively weights: batch norm in it is nowhere the identity.

    Args:
        spec: the network; takes on the data's shape and classes.
        dataset: what it is trained on, in name.
        out: where the run folder goes.
        recipe: how, in name.
        device: where, in name.
        changes: what its record says of its data in place of the truth.
    """
    recipe = recipe or tiny_recipe()
    data = prepare(dataset, recipe)
    facts = DataRecord(**{**data.record.to_mapping(), **changes})
    identity = RunIdentity(spec=data.adapt(spec), recipe=recipe, data=facts, seed=0, device=device)
    folder = RunFolder.of(identity, out)
    folder.begin(identity)
    folder.write_curves([Epoch(1, 1, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0)])
    torch.manual_seed(0)
    network = initialise(identity.spec, 0)
    make_lively(network)
    settle(network, data.train)
    save_tensors(folder.best, network.state_dict(), about={"epoch": 1, "run": identity.digest})
    folder.finish(
        RunResult(
            status="complete",
            reason="all 1 epochs",
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


def settle(network: nn.Module, images: ResidentImages) -> None:
    """Gives batch norm the statistics of real images, without which little of an image would reach the logits."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(normalise(images.images, images.mean, images.std))


def images_of(dataset: DataSet, count: int) -> torch.Tensor:
    """The first training images, float32 (count, channels, height, width) from 0 to 1."""
    return torch.from_numpy(dataset.train_images[:count].copy()).float() / 255


def logits_by_hand(record: RunRecord, images: torch.Tensor) -> torch.Tensor:
    """What a run's network says of images from 0 to 1, in double precision."""
    from budgetnet.build import build
    from budgetnet.checkpoint import load_tensors

    facts = record.identity.data
    mean, std = (torch.tensor(each, dtype=torch.float64).view(1, -1, 1, 1) for each in (facts.mean, facts.std))
    network = build(record.identity.spec).double()
    network.load_state_dict(load_tensors(record.folder / "best.safetensors")[0])
    with torch.no_grad():
        said: torch.Tensor = network.eval()((images.double() - mean) / std)
    return said
