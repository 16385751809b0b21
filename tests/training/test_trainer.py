"""Training against update rules re-implemented in the test, and against the recorded curves."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import TINY, EachEpoch, StopAfter, enlarged, learning_rates, prepare, same_weights, tiny_recipe, untimed
from torch.nn import functional

import budgetnet as bn
from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet, split
from budgetnet.data.batches import BatchLoader
from budgetnet.data.dataset import make_dataset
from budgetnet.data.on_device import normalise
from budgetnet.data.resplit import ResplitImages
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Resizing
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callback
from budgetnet.training.initialisation import initialise
from budgetnet.training.trainer import train


def pixels(dataset: DataSet, positions: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return training images normalised in float64."""
    scaled = dataset.train_images[positions].astype(np.float64) / 255
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
    return torch.from_numpy((scaled - mean) / std).float()


AUGMENTED = {"augmentation": Augmentation(crop_padding=1, flip=True)}


def test_the_same_seed_gives_the_same_weights_curves_and_result(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(**AUGMENTED)
    data = prepare(digits, recipe)
    spec = TINY.replace(head={"dropout": 0.5})
    runs = []
    for number in range(2):
        torch.manual_seed(number)  # the global random state must not matter
        runs.append(untimed(train(spec, data, recipe, seed=3, out=tmp_path / str(number))))
    first, second = runs
    other = untimed(train(spec, data, recipe, seed=4, out=tmp_path / "0"))
    assert first == second
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_training_restores_the_global_random_state(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    before = torch.get_rng_state()
    train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_updates_match_momentum_and_weight_decay_in_plain_code(
    digits: DataSet, tmp_path: Path, momentum: float
) -> None:
    decay, rate, epochs = 0.01, 0.05, 3
    settings = {"momentum": momentum, "weight_decay": decay, "learning_rate": rate}
    recipe = tiny_recipe(
        epochs=epochs, batch_size=64, **settings
    )  # all images in one batch: their order does not matter

    def copy_checkpoint(_: Epoch) -> None:
        shutil.copy(next(tmp_path.glob("*/checkpoint.safetensors")), tmp_path / "last")

    record = train(TINY, prepare(digits, recipe), recipe, seed=1, out=tmp_path, callback=EachEpoch(copy_checkpoint))
    parts = split(digits.train_labels, validation_fraction=0.2, seed=0, train_size=64, validation_size=40)
    inputs, labels = pixels(digits, parts.train), torch.from_numpy(digits.train_labels[parts.train])
    network = initialise(TINY, 1)
    velocity = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    losses = []
    for _ in range(epochs):
        network.zero_grad()
        loss = functional.cross_entropy(network(inputs), labels)
        torch.autograd.backward(loss)
        losses.append(loss.item())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                velocity[name] = momentum * velocity[name] + parameter.grad + decay * parameter
                parameter.sub_(rate * velocity[name])
    last = load_file(tmp_path / "last")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(last[f"network.{name}"], tensor, rtol=1e-3, atol=1e-5)
    assert [epoch.train_loss for epoch in record.curves] == pytest.approx(losses, rel=1e-4)


def test_a_leaking_run_uses_the_split_of_each_epoch(digits: DataSet, tmp_path: Path) -> None:
    leaks = {"validation_split": "each-epoch", "augmented_validation": True, **AUGMENTED}
    # With a negligible learning rate only the running statistics change, which depend on the training images.
    leaking = tiny_recipe(epochs=3, learning_rate=1e-12, momentum=0.0, weight_decay=0.0, **leaks)
    data = prepare(digits, leaking)
    curves = train(TINY, data, leaking, seed=3, out=tmp_path).curves
    split = ResplitImages(
        data.train, data.validation, leaking.augmentation, resplit_each_epoch=True, augmented=True, seed=3
    )
    loader = BatchLoader(split.train, leaking.augmentation, batch_size=16, seed=3)
    network = initialise(TINY, 3)
    for epoch in curves:
        split.begin(epoch.epoch)
        loader.begin(epoch.epoch)
        network.train()
        for step, size in enumerate(loader.sizes):
            network(loader.batch(torch.tensor(step), size=size).inputs)
        network.eval()
        with torch.no_grad():
            logits = network(normalise(split.validation.images, split.validation.mean, split.validation.std))
        loss = functional.cross_entropy(logits, split.validation.labels).item()
        assert epoch.validation_loss == pytest.approx(loss, rel=1e-4)
    assert len({epoch.validation_loss for epoch in curves}) == 3


def test_the_saved_weights_have_the_lowest_validation_loss(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=8, learning_rate=0.4)
    checkpoints = {}

    def save(epoch: Epoch) -> None:
        checkpoints[epoch.epoch] = load_file(next(tmp_path.glob("*/checkpoint.safetensors")))

    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path, callback=EachEpoch(save))
    losses = [epoch.validation_loss for epoch in record.curves]
    best = 1 + losses.index(min(losses))
    assert best < 8, "the test needs a best epoch before the last"
    assert record.result.best_epoch == best
    assert record.result.validation_loss == min(losses)

    network = build(TINY)
    weights = load_file(record.folder / "best.safetensors")
    assert all(torch.equal(tensor, checkpoints[best][f"network.{name}"]) for name, tensor in weights.items())
    network.load_state_dict(weights)
    network.eval()
    held_out = split(digits.train_labels, validation_fraction=0.2, seed=0, train_size=64, validation_size=40).validation
    with torch.no_grad():
        logits = network(pixels(digits, held_out)).double().numpy()
    labels = digits.train_labels[held_out]
    assert int((logits.argmax(axis=1) == labels).sum()) == record.result.validation_correct
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert -log_probabilities[np.arange(40), labels].mean() == pytest.approx(min(losses), rel=1e-5)


def test_a_recipe_that_needs_larger_images_is_rejected_before_anything_is_written(
    digits: DataSet, tmp_path: Path
) -> None:
    recipe = tiny_recipe(augmentation=Augmentation(crop_padding=8, padding_mode="reflect"))
    with pytest.raises(InputError, match=r"^augmentation\.crop_padding = 8: must be less than 8 "):
        train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_training_images_grow_and_validation_images_do_not(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs_seen: list[tuple[bool, int, int]] = []

    def watched(spec: ModelSpec, seed: int, **options: Any) -> Any:
        network = initialise(spec, seed, **options)
        network.register_forward_pre_hook(
            lambda module, inputs: inputs_seen.append((module.training, *inputs[0].shape[2:]))
        )
        return network

    monkeypatch.setattr("budgetnet.training.run.initialise", watched)
    recipe = tiny_recipe(epochs=6, resizing=Resizing(start=8, until=0.5))
    train(TINY, prepare(enlarged(digits), recipe), recipe, seed=0, out=tmp_path)
    # 8, 10.67 and 13.33 in the first half, rounded; 4 steps per epoch.
    sides = [side for side in (8, 12, 12, 16, 16, 16) for _ in range(4)]
    assert [(height, width) for training, height, width in inputs_seen if training] == [(side, side) for side in sides]
    assert {(height, width) for training, height, width in inputs_seen if not training} == {(16, 16)}


def test_a_network_too_deep_for_the_smallest_images_is_rejected_before_training(
    digits: DataSet, tmp_path: Path
) -> None:
    recipe = tiny_recipe(resizing=Resizing(start=8))
    deep = ModelSpec.resnet(channels=[8] * 5, strides=[1, 2, 2, 2, 2])
    data = prepare(enlarged(digits), recipe)
    with pytest.raises(
        InputError, match=r"^resizing\.start = 8: is too small for .*: stages\[4\]\.stride would shrink"
    ):
        train(deep, data, recipe, seed=0, out=tmp_path)
    assert not list(tmp_path.iterdir())
    train(deep, data, recipe.model_copy(update={"resizing": Resizing(start=12)}), seed=0, out=tmp_path)


def test_a_network_that_needs_maps_of_one_size_is_rejected_before_training(digits: DataSet, tmp_path: Path) -> None:
    windowed = ModelSpec.resnet(channels=[8, 8], strides=[1, 2]).replace(head={"pool_size": 4})
    for start, rule in ((8, "does not go with .*: its head.pool_size makes"), (4 * 3, "does not go with")):
        recipe = tiny_recipe(resizing=Resizing(start=start))
        with pytest.raises(InputError, match=rf"^resizing\.start = {start}: {rule}"):
            train(windowed, prepare(enlarged(digits), recipe), recipe, seed=0, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_deleted_during_the_training_ends_the_run(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=3)
    data = prepare(digits, recipe)

    def delete(epoch: Epoch) -> None:
        if epoch.epoch == 1:
            (folder,) = tmp_path.iterdir()
            shutil.rmtree(folder)

    with pytest.raises(RecordError, match="was deleted while the run was trained; the same command trains it from"):
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(delete))
    assert list(tmp_path.iterdir()) == []
    assert train(TINY, data, recipe, seed=0, out=tmp_path).result.epochs == 3


def test_each_record_of_a_run_that_was_pruned_is_kept_when_it_is_trained_on(digits: DataSet, tmp_path: Path) -> None:
    class OfAnotherSearch(StopAfter):
        def confirms_stop(self, result: RunResult) -> bool:
            return False

    recipe = tiny_recipe(epochs=3)
    data = prepare(digits, recipe)
    options: dict[str, Any] = {"seed": 0, "out": tmp_path}
    pruned = [train(TINY, data, recipe, pruning=OfAnotherSearch(epochs), **options) for epochs in (1, 2)]
    record = train(TINY, data, recipe, **options)
    folder = RunFolder(record.folder)
    assert (record.result.status, record.result.epochs) == ("complete", 3)
    for epochs, earlier in enumerate(pruned, start=1):
        kept = folder.pruned_after(epochs).load(weights=False)
        assert (kept.result, kept.curves, kept.identity) == (earlier.result, earlier.curves, record.identity)
        assert kept.result.epochs == epochs
        assert bn.ModelSpec.load(kept.folder / "spec.yaml") == kept.identity.spec
        assert bn.Recipe.load(kept.folder / "recipe.yaml") == kept.identity.recipe
    assert not folder.pruned_after(3).path.exists()


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(learning_rate=1e30)
    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert record.result.status == "diverged"
    assert record.result.validation_accuracy is None
    assert "epoch 1" in record.result.reason


@pytest.mark.parametrize("size", [17, 33])
def test_a_last_batch_of_one_image_is_skipped_if_batch_norm_needs_two(
    digits: DataSet, tmp_path: Path, size: int
) -> None:
    # The last feature map is a single pixel, so batch norm needs at least two images.
    spec = ModelSpec.resnet(channels=[8, 8, 8, 8], input_shape=(1, 8, 8))
    recipe = tiny_recipe()
    with learning_rates() as used:
        record = train(spec, prepare(digits, recipe, train_size=size), recipe, seed=0, out=tmp_path)
    assert len(used) == 2 * (size // 16)
    right = record.curves[0].train_accuracy * (size - 1)
    assert right == pytest.approx(round(right), abs=1e-9)


def test_the_test_images_do_not_affect_training(digits: DataSet, tmp_path: Path) -> None:
    """Two data sets that differ only in their test images give equal runs."""
    recipe = tiny_recipe(**AUGMENTED)

    def with_test_images(images: np.ndarray[Any, Any]) -> DataSet:
        return make_dataset(
            name="digits",
            train_images=digits.train_images.transpose(0, 2, 3, 1),
            train_labels=digits.train_labels,
            test_images=images,
            test_labels=np.zeros(len(images), dtype=np.int64),
            provenance="made for this test",
        )

    datasets = [with_test_images(np.full((50, 8, 8, 1), grey, dtype=np.uint8)) for grey in (0, 255)]
    assert datasets[0].fingerprint != datasets[1].fingerprint
    runs = [train(TINY, prepare(data, recipe), recipe, seed=0, out=tmp_path) for data in datasets]
    assert runs[0].folder != runs[1].folder
    # The files also contain the run's digest, so compare the weights only.
    assert untimed(runs[0])[1:] == untimed(runs[1])[1:]
    first, second = (load_file(run.folder / "best.safetensors") for run in runs)
    assert same_weights(first, second)


def test_input_shape_and_number_of_classes_come_from_the_data(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=1)
    record = train(ModelSpec.resnet(channels=[8], name="mine"), prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert (record.identity.spec.input_shape, record.identity.spec.num_classes) == ((1, 8, 8), 10)
    assert record.identity.spec.name == "mine"


def test_every_step_is_reported(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    steps: list[tuple[int, float]] = []

    class Steps(Callback):
        def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
            steps.append((epoch, share))

    train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path, callback=Steps())
    assert steps == [(epoch, share) for epoch in (1, 2) for share in (0.25, 0.5, 0.75, 1.0)]


@pytest.mark.parametrize("option", [{}, {"weight_average": 0.9}, {"example_filter": ExampleFilter()}])
def test_a_network_is_freed_at_the_end_of_its_run(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
) -> None:
    networks = []

    def initialise_watched(spec: ModelSpec, seed: int, **options: Any) -> Any:
        network = initialise(spec, seed, **options)
        networks.append(weakref.ref(network))
        return network

    monkeypatch.setattr("budgetnet.training.run.initialise", initialise_watched)
    recipe = tiny_recipe(**option)
    gc.collect()
    gc.disable()
    try:
        train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
        assert not any(reference() for reference in networks), "freed without the garbage collector"
        assert len(networks) == (2 if "example_filter" in option else 1)
    finally:
        gc.enable()
