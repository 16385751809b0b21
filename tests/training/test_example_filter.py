"""Example filtering against losses computed in the test, and runs that share a cached selection."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_support import NoHostSynchronisation
from support import TINY, enlarged, prepare, restarts, tiny_recipe, untimed
from torch import Tensor

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.data.batches import BatchLoader
from budgetnet.data.filtered import FilteredBatchLoader
from budgetnet.data.on_device import to_device
from budgetnet.data.training_data import TrainingData
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, ExampleFilter, Mixing, Policy, Resizing
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.schedule import EarlyStopping
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.example_filter import PROXIES, ExampleSelection, Proxy, proxy_key
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import Execution
from budgetnet.training.trainer import identify, train

HARD = ExampleFilter(keep=0.4, backward_every=3)
EVERYTHING = Augmentation(
    crop_padding=1, alternating_flip=True, policy=Policy(), cutout=2, mixing=Mixing(kind="cutmix")
)
RECIPE = tiny_recipe(epochs=4, schedule=restarts(4), label_smoothing=0.1, example_filter=HARD)


def make_loader(dataset: DataSet, augmentation: Augmentation, *, count: int = 70, **options: Any) -> BatchLoader:
    chosen = np.arange(count)
    data = to_device(
        dataset.train_images, dataset.train_labels, chosen, device="cpu", mean=dataset.mean, std=dataset.std
    )
    return BatchLoader(data, augmentation, batch_size=16, seed=2, **options)


def make_proxy(loader: BatchLoader, recipe: Recipe) -> Proxy:
    spec = proxy_spec(input_shape=(1, 8, 8), num_classes=10)
    network = initialise(spec, 3).to(memory_format=torch.channels_last)
    return Proxy(network, loader, recipe, HARD, precision=torch.float32, execution=Execution(parts=2, compile=True))


def test_layers_and_multiply_accumulates_of_the_proxy() -> None:
    spec = proxy_spec(input_shape=(3, 32, 32), num_classes=10)
    maps = {stage.channels: stage.stride for stage in spec.stages}
    assert ([stage.blocks for stage in spec.stages], maps) == ([1, 1, 1], {32: 2, 64: 2})
    # Stem, then in each stage two 3x3 convolutions and a 1x1 convolution in the shortcut, and the classifier.
    stages = [(32, 32, 16), (32, 64, 8), (64, 64, 4)]
    macs = 9 * 3 * 32 * 32**2 + 640
    macs += sum((9 * (into * out + out * out) + into * out) * side**2 for into, out, side in stages)
    assert spec.macs == macs
    with pytest.raises(InputError, match=r"^example_filter = 'on': needs images of at least 5x5 pixels, not 4x9$"):
        proxy_spec(input_shape=(3, 4, 9), num_classes=10)
    proxy_spec(input_shape=(3, 5, 9), num_classes=10)


@pytest.mark.parametrize("augmentation", [Augmentation(crop_padding=1), EVERYTHING, Augmentation(mixing=Mixing())])
def test_the_images_of_highest_loss_are_selected(digits: DataSet, augmentation: Augmentation) -> None:
    """Oracle: the losses of a copy of the proxy, trained on every third batch with plain SGD in the test."""
    recipe = tiny_recipe(label_smoothing=0.2, momentum=0.0, weight_decay=0.0, augmentation=augmentation)
    loader = make_loader(digits, augmentation)
    proxy, rates = make_proxy(loader, recipe), [0.1, 0.2, 0.3, 0.4, 0.5]
    copy = make_proxy(make_loader(digits, augmentation), recipe).network.train()
    assert loader.sizes == [16, 16, 16, 16, 6]
    for epoch in (1, 2):
        found = proxy.choose(epoch, rates=rates)
        assert found.shape == (5, 6)
        loader.begin(epoch)
        for step, size in enumerate(loader.sizes):
            batch = loader.batch(torch.tensor(step), size=size)
            logits = copy(batch.inputs)
            targets = torch.nn.functional.one_hot(batch.labels, 10).float()
            if batch.mixed_labels is not None and batch.share is not None:
                targets = batch.share * targets + (1 - batch.share) * torch.nn.functional.one_hot(
                    batch.mixed_labels, 10
                )
            targets = 0.8 * targets + 0.2 / 10
            losses = -(targets * (logits - logits.exp().sum(dim=1, keepdim=True).log())).sum(dim=1)
            # 0.4 of 16 is 6.4, of 6 it is 2.4.
            count = 6 if size == 16 else 2
            hardest = sorted(range(size), key=(-losses.detach()).tolist().__getitem__)[:count]
            assert found[step].tolist() == sorted(hardest) + [0] * (6 - count)
            if step in (0, 3):
                copy.zero_grad()
                torch.autograd.backward(losses.mean())
                with torch.no_grad():
                    for parameter in copy.parameters():
                        assert parameter.grad is not None
                        parameter.sub_(rates[step] * parameter.grad)


@pytest.mark.parametrize("mixing", [None, Mixing(), Mixing(kind="cutmix")])
@pytest.mark.parametrize("keep", [0.4, 0.5])
@pytest.mark.parametrize("count", [70, 65, 63, 12])
def test_selected_images_equal_those_of_the_unfiltered_batch(
    digits: DataSet, mixing: Mixing | None, keep: float, count: int
) -> None:
    augmentation = EVERYTHING.model_copy(update={"mixing": mixing})
    data = enlarged(digits)
    options: dict[str, Any] = {"side": lambda epoch: 8 if epoch == 1 else 12}
    whole = make_loader(data, augmentation, count=count, **options)
    chosen = ExampleFilter(keep=keep)
    filtered = FilteredBatchLoader(
        whole.data, augmentation, batch_size=16, seed=2, example_filter=chosen, side=options["side"]
    )
    assert filtered.sizes == [chosen.kept(size) for size in whole.sizes]
    assert filtered.images == sum(filtered.sizes)
    assert filtered.batch_size == chosen.kept(16)
    chance = np.random.default_rng(0)
    for epoch in (1, 2):
        whole.begin(epoch)
        filtered.begin(epoch)
        positions = torch.zeros((len(whole.sizes), filtered.sizes[0]), dtype=torch.int64)
        for step, size in enumerate(whole.sizes):
            kept = chosen.kept(size)
            positions[step, :kept] = torch.from_numpy(np.sort(chance.choice(size, kept, replace=False)))
        filtered.choose(positions)
        for step, (size, kept) in enumerate(zip(whole.sizes, filtered.sizes, strict=True)):
            full, part = whole.batch(torch.tensor(step), size=size), filtered.batch(torch.tensor(step), size=kept)
            rows = positions[step, :kept]
            assert torch.equal(part.inputs, full.inputs[rows])
            assert torch.equal(part.labels, full.labels[rows])
            assert (part.mixed_labels is None) == (mixing is None)
            if part.mixed_labels is not None and full.mixed_labels is not None:
                assert torch.equal(part.mixed_labels, full.mixed_labels[rows])
                assert torch.equal(torch.stack([part.share, full.share])[0], full.share)  # type: ignore[list-item, arg-type]


def test_no_step_synchronises_with_the_device(digits: DataSet) -> None:
    loader = make_loader(digits, EVERYTHING)
    proxy = make_proxy(loader, tiny_recipe())
    filtered = FilteredBatchLoader(loader.data, EVERYTHING, batch_size=16, seed=2, example_filter=HARD)
    step = torch.tensor(0)
    proxy.begin(1, rates=[0.1] * 5)
    with NoHostSynchronisation():  # type: ignore[no-untyped-call]
        filtered.batch(step, size=6)
        proxy._forward_batch(16)
        proxy.train_batch(16)


def run(digits: DataSet, out: Path, *, spec: ModelSpec = TINY, recipe: Recipe = RECIPE, seed: int = 0) -> RunRecord:
    return train(spec, prepare(digits, recipe), recipe, seed=seed, out=out)


class _Epochs:
    """Records the epochs that proxies are trained for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: list[int] = []
        choose = Proxy.choose

        def counted(proxy: Proxy, epoch: int, *, rates: list[float]) -> Tensor:
            self.numbers.append(epoch)
            return choose(proxy, epoch, rates=rates)

        monkeypatch.setattr(Proxy, "choose", counted)

    def pop(self) -> list[int]:
        found, self.numbers = self.numbers, []
        return found


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> _Epochs:
    return _Epochs(monkeypatch)


def test_runs_with_different_networks_share_one_proxy(digits: DataSet, tmp_path: Path, epochs: _Epochs) -> None:
    alone = untimed(run(digits, tmp_path / "alone"))
    other_alone = untimed(run(digits, tmp_path / "other", spec=TINY.replace(channels=[16])))
    assert epochs.pop() == [1, 2, 3, 4] * 2
    shared = tmp_path / "shared"
    other = untimed(run(digits, shared, spec=TINY.replace(channels=[16])))
    assert epochs.pop() == [1, 2, 3, 4]
    assert untimed(run(digits, shared)) == alone
    assert epochs.pop() == []
    assert other == other_alone
    assert len(list((shared / PROXIES).iterdir())) == 1


def test_a_longer_run_resumes_the_stored_proxy(digits: DataSet, tmp_path: Path, epochs: _Epochs) -> None:
    stopping = RECIPE.model_copy(update={"early_stopping": EarlyStopping(patience=1, min_delta=5.0), "epochs": 4})
    assert run(digits, tmp_path, recipe=stopping).result.epochs == 2
    assert epochs.pop() == [1, 2]
    record = run(digits, tmp_path)
    assert epochs.pop() == [3, 4]
    assert untimed(record) == untimed(run(digits, tmp_path / "alone"))


def test_only_the_selected_share_of_each_batch_is_trained_on(digits: DataSet, tmp_path: Path) -> None:
    sizes: list[int] = []

    def watched(spec: ModelSpec, seed: int, **options: Any) -> Any:
        network = initialise(spec, seed, **options)
        if spec.label != "proxy":
            network.register_forward_pre_hook(
                lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None
            )
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("budgetnet.training.run.initialise", watched)
        record = train(TINY, prepare(digits, RECIPE, train_size=74), RECIPE, seed=0, out=tmp_path)
    assert sizes == [6, 6, 6, 6, 4] * 4  # 0.4 of 16, and of the last 10
    right = record.curves[0].train_accuracy * 28
    assert right == pytest.approx(round(right), abs=1e-9)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def swap(path: Path) -> None:
    shutil.copy(path.parent / "epoch-1.safetensors", path)


def alter(path: Path) -> None:
    """Replace the tensors by others of the same shape, with the original metadata."""
    tensors, about = load_tensors(path)
    save_tensors(path, {name: tensor.flip(0) for name, tensor in tensors.items()}, about=about)


@pytest.mark.parametrize("corrupt", [Path.unlink, damage, swap, alter])
@pytest.mark.parametrize("name", ["epoch-2.safetensors", "state.safetensors"])
def test_damaged_cache_files_are_recomputed(
    digits: DataSet, tmp_path: Path, epochs: _Epochs, caplog: pytest.LogCaptureFixture, corrupt: Any, name: str
) -> None:
    whole = untimed(run(digits, tmp_path / "whole"))
    out = tmp_path / "out"
    (record,) = [run(digits, out)]
    (folder,) = (out / PROXIES).iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    corrupt(folder / name)
    if name == "state.safetensors":
        (folder / "epoch-4.safetensors").unlink()
    epochs.pop()
    caplog.clear()
    shutil.rmtree(record.folder)
    assert untimed(run(digits, out)) == whole
    # From epoch 1, as no earlier state of the proxy is stored.
    assert epochs.pop() == ([1, 2] if name == "epoch-2.safetensors" else [1, 2, 3, 4])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    if corrupt in (damage, alter):
        assert f"{name} is damaged" in caplog.text


def test_concurrent_runs_train_the_proxy_once(digits: DataSet, tmp_path: Path, epochs: _Epochs) -> None:
    expected = {
        width: untimed(run(digits, tmp_path / str(width), spec=TINY.replace(channels=[width]))) for width in (8, 16)
    }
    epochs.pop()
    data, shared = prepare(digits, RECIPE), tmp_path / "shared"
    found: dict[int, Tensor] = {}

    def select(number: int) -> None:
        found[number] = make_selection(data, shared).positions(2)

    threads = [threading.Thread(target=select, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert epochs.pop() == [1, 2]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    for width, alone in expected.items():
        assert untimed(run(digits, shared, spec=TINY.replace(channels=[width]))) == alone


def make_selection(data: TrainingData, out: Path) -> ExampleSelection:
    return ExampleSelection(
        identify(TINY, data, RECIPE, seed=0),
        BatchLoader(data.train, RECIPE.augmentation, batch_size=RECIPE.batch_size, seed=0),
        out=out,
        network=initialise,
        rates=lambda epoch: [RECIPE.schedule.learning_rate(epoch - 1 + step / 4, initial=0.05) for step in range(4)],
        begin=lambda _: None,
        execution=Execution(),
    )


def test_the_key_depends_on_everything_that_affects_the_proxy(digits: DataSet) -> None:
    def key(spec: ModelSpec = TINY, *, seed: int = 0, validation_size: int = 40, **changes: Any) -> str:
        recipe = RECIPE.model_copy(update=changes)
        return proxy_key(identify(spec, prepare(digits, recipe, validation_size=validation_size), recipe, seed=seed))

    same: list[dict[str, Any]] = [{"name": "other"}, {"early_stopping": EarlyStopping()}, {"test_time_flip": True}]
    same += [{"stochastic_depth": 0.2}, {"weight_average": 0.9}, {"test_time_flip": True, "test_time_shifts": True}]
    assert {key(**changes) for changes in same} | {key(TINY.replace(channels=[16]))} == {key()}
    different: list[dict[str, Any]] = [{"seed": 1}, {"validation_size": 41}, {"precision": "bfloat16"}]
    different += [{"learning_rate": 0.1}, {"epochs": 5}, {"batch_size": 8}, {"example_filter": ExampleFilter(keep=0.4)}]
    different += [{"augmentation": Augmentation()}, {"split_seed": 1}, {"label_smoothing": 0.0}, {"nesterov": True}]
    assert len({key(), *(key(**changes) for changes in different)}) == 1 + len(different)


@pytest.mark.gpu
def test_graphs_select_the_same_images_as_direct_calls(digits: DataSet) -> None:
    recipe = tiny_recipe(augmentation=EVERYTHING, resizing=Resizing(start=8))
    found = []
    for record in (True, False):
        data = to_device(
            enlarged(digits).train_images, digits.train_labels, device="cuda", mean=digits.mean, std=digits.std
        )
        loader = BatchLoader(data, EVERYTHING, batch_size=16, seed=2, side=lambda epoch: 8 if epoch == 1 else 16)
        network = initialise(proxy_spec(input_shape=(1, 16, 16), num_classes=10), 3).cuda()
        execution = Execution(record=record, autotune=False)
        proxy = Proxy(network, loader, recipe, HARD, precision=torch.float32, execution=execution)
        rates = [0.01] * len(loader.sizes)
        found.append(torch.cat([proxy.choose(epoch, rates=rates) for epoch in (1, 2)]))
        assert proxy.full_step.captured == record
    same = (found[0] == found[1]).float().mean().item()
    assert same > 0.9, "except where losses differ in their last digits"
