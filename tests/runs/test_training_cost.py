"""Training cost and time to accuracy against hand counts, torch's FLOP counter and the curves of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from record_support import run_record
from search_support import SearchRunner
from support import TINY, EachEpoch, RunCommand, StopAfter, patient, prepare, tiny_recipe, write_space
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from budgetnet.api.study import open_study
from budgetnet.common.files import read_mapping, write_json
from budgetnet.common.formatting import short_petaflops
from budgetnet.data import DataSet
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.augmentation import ExampleFilter, Resizing
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.runs.time_to_accuracy import time_to_accuracy
from budgetnet.runs.training_cost import flops_by_epoch, training_flops
from budgetnet.study.reading import read_trials
from budgetnet.training.trainer import train

STUDIES = Path(__file__).parents[2] / "studies"
TINY_MACS = 64 * (9 * 1 * 8) + 64 * (2 * 9 * 8 * 8) + 8 * 10
"""MACs of `TINY`: a 3x3 stem and a block of two 3x3 convolutions at 8x8 pixels, then a linear layer for 10 classes."""


def test_cost_of_the_reference_equals_a_hand_count() -> None:
    reference, paper = get("reference"), named_recipe("paper")
    # 6 x 793,446,912 MACs x 40,000 images
    assert training_flops(reference, paper, images=40_000, epochs=1) == 190_427_258_880_000
    assert training_flops(reference, paper, images=40_000) == 150 * 190_427_258_880_000
    assert training_flops(reference, paper, images=40_000, epochs=0) == 0


def test_progressive_resizing_reduces_the_cost_of_early_epochs() -> None:
    # Sides of 16, 24, 32 and 32 pixels; without strides, all MACs but those of the head are proportional to the pixels.
    spec = ModelSpec.resnet(channels=[8])
    recipe = tiny_recipe(epochs=4, resizing=Resizing(start=16, until=0.5))
    head = 8 * 10
    by_hand = [6 * 100 * ((spec.macs - head) * side**2 // 32**2 + head) for side in (16, 24, 32, 32)]
    assert flops_by_epoch(spec, recipe, images=100) == by_hand
    assert flops_by_epoch(spec, recipe, images=100, epochs=2) == by_hand[:2]


def test_example_filtering_counts_selected_images_and_the_proxy() -> None:
    spec = ModelSpec.resnet(channels=[8])
    recipe = tiny_recipe(epochs=2, batch_size=16, example_filter=ExampleFilter(keep=0.25, backward_every=3))
    # 100 images: six batches of 16 and one of 4. Selected: 6 x 4 + 2. The proxy is trained on batches 1, 4 and 7, 36
    # images. Its MACs: a stem, then blocks with a 1x1 shortcut at 16x16, 8x8 and 4x4 pixels, then 10 classes.
    proxy = 32**2 * 9 * 3 * 32 + 16**2 * (2 * 9 * 32 * 32 + 32 * 32) + 64 * 10
    proxy += 8**2 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) + 4**2 * (2 * 9 * 64 * 64 + 64 * 64)
    expected = 6 * spec.macs * 26 + proxy * (2 * 100 + 4 * 36)
    assert flops_by_epoch(spec, recipe, images=100) == [expected, expected]


# No grouped convolutions: torch's counter counts their gradients as those of a full convolution.
@pytest.mark.parametrize("name", ["reference", "resnet20", "preact-resnet-20x4"])
def test_cost_equals_torch_flop_counter(name: str) -> None:
    spec, images = get(name), 2
    network = build(spec)
    # The convention counts gradients of inputs in all layers, so the images require gradients too.
    inputs = torch.randn(images, *spec.input_shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        loss = functional.cross_entropy(network(inputs), torch.zeros(images, dtype=torch.long))
        torch.autograd.backward(loss)
    assert counter.get_total_flops() == training_flops(spec, named_recipe("paper"), images=images, epochs=1)


@pytest.mark.parametrize(
    ("flops", "expected"),
    [
        (0, "0"),
        (52_048_486_656, "5.20e-05"),
        (2_674_000_000_000, "0.00267"),
        (190_427_258_880_000, "0.190"),
        (1_356_000_000_000_000, "1.36"),
        (28_564_088_832_000_000, "28.6"),
        (190_427_258_880_000_000, "190"),
        (1_260_400_000_000_000_000, "1,260"),
    ],
)
def test_petaflops_are_formatted_with_three_digits(flops: int, expected: str) -> None:
    assert short_petaflops(flops) == expected


def count_rows(folder: Path) -> int:
    with (folder / "curves.csv").open() as stream:
        return len(list(csv.DictReader(stream)))


def test_early_stopped_run_counts_only_trained_epochs(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=9, early_stopping=patient(2, min_delta=100.0))
    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert count_rows(record.folder) == 3
    assert read_mapping(record.folder / "result.json")["train_flops"] == 6 * TINY_MACS * 64 * 3
    assert record.train_flops == 6 * TINY_MACS * 64 * 3


def test_resumed_run_counts_the_epochs_before_and_after(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=3)
    data = prepare(digits, recipe)

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(interrupt))
    assert train(TINY, data, recipe, seed=0, out=tmp_path).train_flops == 6 * TINY_MACS * 64 * 3


def test_pruned_run_counts_only_trained_epochs(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=5)
    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path, pruning=StopAfter(2))
    assert (record.result.status, record.train_flops) == ("stopped", 6 * TINY_MACS * 64 * 2)


def test_cost_of_older_records_is_computed(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    folder = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path).folder
    result = read_mapping(folder / "result.json")
    del result["train_flops"]
    write_json(folder / "result.json", result)
    record = RunFolder(folder).load()
    assert (record.result.train_flops, record.train_flops) == (None, 6 * TINY_MACS * 64 * 2)


def test_cost_of_committed_records_is_computed() -> None:
    for folder in (STUDIES / "leakage" / "runs").iterdir():
        run, result = read_mapping(folder / "run.json"), read_mapping(folder / "result.json")
        expected = 6 * result["macs"] * run["data"]["train_images"] * count_rows(folder)
        assert RunFolder(folder).load(weights=False).train_flops == expected


def test_trials_store_their_cost(digits: DataSet, tmp_path: Path) -> None:
    run_search = SearchRunner(digits, tmp_path)
    outcome = run_search(trials=3, recipe=tiny_recipe(epochs=2))
    trials = read_trials(outcome.study)
    trained = [trial for trial in trials if trial.trained]
    assert len(trained) == 3
    for trial in trained:
        record = RunFolder(tmp_path / (trial.run or "")).load()
        expected = 6 * trial.macs * record.identity.data.train_images * count_rows(record.folder)
        assert trial.train_flops == expected > 0
    assert {trial.train_flops for trial in trials if not trial.trained} <= {None}


def test_train_command_prints_the_cost(tell: RunCommand, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    options = ["train", str(tmp_path / "tiny.yaml"), "--epochs", "2", "--train-size", "64", "--out", str(tmp_path)]
    # 6 x 78,416 MACs x 64 images x 2 epochs
    assert TINY_MACS == 78_416
    result = tell(*options)
    assert result.out.startswith("cost: at most 6.02e-08 PFLOP: 6 x 78.4k MACs x 64 images x 2 epochs\n")
    assert "trained for 6.02e-08 PFLOP, 2 epochs, " in result.out
    assert ", epoch 2 of 2 (lowest validation loss); " in result.out
    assert tell(*options).out == result.out, "a finished run prints the same output"
    assert json.loads(tell(*options, "--json").out)["train_flops"] == 60_223_488
    options[3] = "1"
    result = tell(*options)
    assert " x 64 images x 1 epoch\n" in result.out
    assert "trained for 3.01e-08 PFLOP, 1 epoch, " in result.out


def test_leaderboard_and_finals_show_training_cost(tell: RunCommand, tmp_path: Path) -> None:
    space = write_space(tmp_path / "space.yaml", {"stages": [1, 1], "blocks": [1, 1], "full_size_stages": [1, 1]})
    options = ["--max-params", "20k", "--space", space, "--trials", "2", "--epochs", "1", "--train-size", "64"]
    options += ["--finalists", "1", "--final-seeds", "2", "--final-epochs", "2", "--out", str(tmp_path)]
    found = json.loads(tell("search", *options, "--json").out)
    for row in found["rows"]:
        if row["is_reference"]:
            assert row["train_flops"] is None
        else:
            assert row["train_flops"] == 6 * row["macs"] * 64
    (final,) = found["finals"]
    assert final["train_flops"] == [6 * final["macs"] * 64 * 2] * 2
    printed = tell("leaderboard", "--out", str(tmp_path)).out
    assert printed.count("PFLOP") == 4
    best = next(row for row in found["rows"] if row["rank"] == 1)
    assert f"{6 * best['macs'] * 64 / 1e15:.2e}" in printed
    board = open_study(out=tmp_path).leaderboard().frame()
    assert board["train_flops"].dropna().tolist() == [row["train_flops"] for row in found["rows"] if row["rank"]]


CURVE = [0.802, 0.9299, 0.923, 0.95]
"""Validation accuracies of four epochs, of 10,000 images each."""


@pytest.mark.parametrize(
    ("target", "epoch"), [(0.5, 1), (0.802, 1), (0.923, 2), (0.9299, 2), (0.93, 4), (0.95, 4), (0.9501, None)]
)
def test_target_is_reached_at_the_first_sufficient_epoch(target: float, epoch: int | None) -> None:
    record = run_record()
    curves = tuple(
        record.curves[0]._replace(epoch=number, validation_accuracy=accuracy, seconds=10.0 * number)
        for number, accuracy in enumerate(CURVE, 1)
    )
    record = record._replace(curves=curves, result=record.result.model_copy(update={"epochs": 4}))
    reached = time_to_accuracy(record, target)
    if epoch is None:
        assert reached is None
        return
    assert reached is not None, "0.802 x 10,000 is a little more than 8,020 as a float"
    assert (reached.epoch, reached.accuracy) == (epoch, CURVE[epoch - 1])
    assert reached.train_flops == 190_427_258_880_000 * epoch
    assert reached.seconds == {1: 10, 2: 30, 4: 100}[epoch]


def test_time_to_accuracy_command_reads_the_curves(tell: RunCommand, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    options = ["train", str(tmp_path / "tiny.yaml"), "--epochs", "2", "--train-size", "64", "--out", str(tmp_path)]
    tell(*options)
    tell(*options, "--seed", "1")
    folders = sorted(path.parent for path in tmp_path.glob("*/curves.csv"))
    with (folders[0] / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    low = 100 * float(rows[0]["validation_accuracy"])
    result = tell("time-to-accuracy", *map(str, folders), "--targets", f"100,{low}", "--json")
    first, second = json.loads(result.out)["runs"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert [each["target"] for each in first["targets"]] == [pytest.approx(low / 100), 1.0]
    assert first["targets"][0]["reached"] == {
        "epoch": 1,
        "accuracy": float(rows[0]["validation_accuracy"]),
        "train_flops": 6 * TINY_MACS * 64,
        "seconds": float(rows[0]["seconds"]),
    }
    assert first["targets"][1]["reached"] is None
    printed = tell("time-to-accuracy", *map(str, folders), "--targets", "100").out
    assert printed.count("100 │         - │") == 2


@pytest.mark.parametrize("targets", ["", "0", "101", "90,x", "nan"])
def test_time_to_accuracy_command_rejects_invalid_targets(tell: RunCommand, tmp_path: Path, targets: str) -> None:
    result = tell("time-to-accuracy", str(tmp_path), "--targets", targets)
    assert result.code == 2
    assert "--targets" in result.err
    assert "must be accuracies in per cent, such as 90,93,94" in result.err


def test_cost_uses_the_input_size_of_the_spec() -> None:
    spec = ModelSpec.resnet(channels=[8], input_shape=(1, 16, 16))
    macs = 256 * (9 * 1 * 8) + 256 * (2 * 9 * 8 * 8) + 8 * 10
    assert training_flops(spec, tiny_recipe(), images=10) == 6 * macs * 10 * 2
