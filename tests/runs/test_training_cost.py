"""Training cost against hand counts, torch's own counter, and the epochs that runs really trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from record_support import run_record
from search_support import Question
from sqlalchemy import create_engine, text
from support import TINY, EachEpoch, Tell, patient, prepare, tiny_recipe, write_space
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
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.runs.time_to_accuracy import time_to_accuracy
from budgetnet.runs.training_cost import flops_by_epoch, training_flops
from budgetnet.study.storage import read_trials
from budgetnet.training.trainer import train

STUDIES = Path(__file__).parents[2] / "studies"
TINY_MACS = 64 * (9 * 1 * 8) + 64 * (2 * 9 * 8 * 8) + 8 * 10
"""`TINY` by hand: a 3x3 stem and a block of two 3x3 convolutions at 8x8 pixels, then a linear layer for 10 classes."""


def test_the_reference_costs_what_was_counted_by_hand() -> None:
    reference, paper = get("reference"), named_recipe("paper")
    # 6 x 793,446,912 MACs x 40,000 images
    assert training_flops(reference, paper, images=40_000, epochs=1) == 190_427_258_880_000
    assert training_flops(reference, paper, images=40_000) == 150 * 190_427_258_880_000
    assert training_flops(reference, paper, images=40_000, epochs=0) == 0


def test_small_images_of_the_first_epochs_cost_less() -> None:
    # Sides of 16, 24, 32 and 32 pixels; a network without strides costs in proportion to its pixels but for the head.
    spec = ModelSpec.resnet(channels=[8])
    recipe = tiny_recipe(epochs=4, resizing=Resizing(start=16, until=0.5))
    head = 8 * 10
    by_hand = [6 * 100 * ((spec.macs - head) * side**2 // 32**2 + head) for side in (16, 24, 32, 32)]
    assert flops_by_epoch(spec, recipe, images=100) == by_hand
    assert flops_by_epoch(spec, recipe, images=100, epochs=2) == by_hand[:2]


def test_filtering_counts_the_images_kept_and_the_proxy() -> None:
    spec = ModelSpec.resnet(channels=[8])
    recipe = tiny_recipe(epochs=2, batch_size=16, example_filter=ExampleFilter(keep=0.25, backward_every=3))
    # 100 images: six batches of 16 and one of 4. Kept: 6 x 4 + 2. The proxy learns from batches 1, 4 and 7: 36 images.
    # The proxy by hand: a stem, then blocks with a 1x1 shortcut at 16x16, 8x8 and 4x4 pixels, then 10 classes.
    proxy = 32**2 * 9 * 3 * 32 + 16**2 * (2 * 9 * 32 * 32 + 32 * 32) + 64 * 10
    proxy += 8**2 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) + 4**2 * (2 * 9 * 64 * 64 + 64 * 64)
    expected = 6 * spec.macs * 26 + proxy * (2 * 100 + 4 * 36)
    assert flops_by_epoch(spec, recipe, images=100) == [expected, expected]


# Without groups, whose gradients torch's counter takes for those of a full convolution.
@pytest.mark.parametrize("name", ["reference", "resnet20", "preact-resnet-20x4"])
def test_torch_counts_the_same_for_a_step(name: str) -> None:
    spec, images = get(name), 2
    network = build(spec)
    # With gradients of the images too, which training has no use for: the convention counts all layers alike.
    inputs = torch.randn(images, *spec.input_shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        loss = functional.cross_entropy(network(inputs), torch.zeros(images, dtype=torch.long))
        torch.autograd.backward(loss)
    assert counter.get_total_flops() == training_flops(spec, named_recipe("paper"), images=images, epochs=1)


@pytest.mark.parametrize(
    ("flops", "words"),
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
def test_petaflops_are_shown_in_three_figures(flops: int, words: str) -> None:
    assert short_petaflops(flops) == words


def rows_of(folder: Path) -> int:
    with (folder / "curves.csv").open() as stream:
        return len(list(csv.DictReader(stream)))


def test_a_run_that_stopped_early_costs_the_epochs_that_it_trained(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=9, early_stopping=patient(2, min_delta=100.0))
    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path)
    assert rows_of(record.folder) == 3
    assert read_mapping(record.folder / "result.json")["train_flops"] == 6 * TINY_MACS * 64 * 3
    assert record.train_flops == 6 * TINY_MACS * 64 * 3


def test_a_resumed_run_costs_the_epochs_of_all_its_starts(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=3)
    data = prepare(digits, recipe)

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, recipe, seed=0, out=tmp_path, callback=EachEpoch(interrupt))
    assert train(TINY, data, recipe, seed=0, out=tmp_path).train_flops == 6 * TINY_MACS * 64 * 3


class _StopsAfterTwo:
    def stands_by(self, result: RunResult) -> bool:
        return True

    def resumed(self, curves: Sequence[Epoch]) -> str | None:
        return None

    def behind(self, epoch: Epoch) -> str | None:
        return "enough" if epoch.epoch == 2 else None


def test_a_pruned_run_costs_the_epochs_that_it_trained(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=5)
    record = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path, pruning=_StopsAfterTwo())
    assert (record.result.status, record.train_flops) == ("stopped", 6 * TINY_MACS * 64 * 2)


def test_records_that_hold_no_count_are_counted_anew(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    folder = train(TINY, prepare(digits, recipe), recipe, seed=0, out=tmp_path).folder
    result = read_mapping(folder / "result.json")
    del result["train_flops"]
    write_json(folder / "result.json", result)
    record = RunFolder(folder).load()
    assert (record.result.train_flops, record.train_flops) == (None, 6 * TINY_MACS * 64 * 2)


def test_the_committed_records_of_a_study_can_be_counted() -> None:
    for folder in (STUDIES / "leakage" / "runs").iterdir():
        run, result = read_mapping(folder / "run.json"), read_mapping(folder / "result.json")
        expected = 6 * result["macs"] * run["data"]["train_images"] * rows_of(folder)
        assert RunFolder(folder).load(weights=False).train_flops == expected


def test_trials_keep_what_they_cost_and_those_of_older_studies_are_counted(digits: DataSet, tmp_path: Path) -> None:
    ask = Question(digits, tmp_path)
    outcome = ask(trials=3, recipe=tiny_recipe(epochs=2))
    trials = read_trials(outcome.study)
    trained = [trial for trial in trials if trial.trained]
    assert len(trained) == 3
    for trial in trained:
        record = RunFolder(tmp_path / (trial.run or "")).load()
        expected = 6 * trial.macs * record.identity.data.train_images * rows_of(record.folder)
        assert trial.train_flops == expected > 0
    assert {trial.train_flops for trial in trials if not trial.trained} <= {None}
    with create_engine(ask.storage).begin() as connection:
        removed = connection.execute(text("DELETE FROM trial_user_attributes WHERE key = 'train_flops'"))
    assert removed.rowcount == 3
    older = open_study(outcome.study.study_name, out=tmp_path).trials()
    assert [trial.train_flops for trial in older] == [trial.train_flops for trial in trials]


def test_commands_print_what_a_training_costs(tell: Tell, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    options = ["train", str(tmp_path / "tiny.yaml"), "--epochs", "2", "--train-size", "64", "--out", str(tmp_path)]
    # 6 x 78,416 MACs x 64 images x 2 epochs
    assert TINY_MACS == 78_416
    told = tell(*options)
    assert told.out.startswith("cost: at most 6.02e-08 PFLOP: 6 x 78.4k MACs x 64 images x 2 epochs\n")
    assert "trained for 6.02e-08 PFLOP, 2 epochs, " in told.out
    assert tell(*options).out == told.out, "a finished run prints the same from its record"
    assert json.loads(tell(*options, "--json").out)["train_flops"] == 60_223_488


def test_the_leaderboard_and_finals_show_what_trainings_cost(tell: Tell, tmp_path: Path) -> None:
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
def test_a_target_is_reached_by_the_first_epoch_that_is_as_good(target: float, epoch: int | None) -> None:
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


def test_the_command_compares_runs_by_their_curves(tell: Tell, tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    options = ["train", str(tmp_path / "tiny.yaml"), "--epochs", "2", "--train-size", "64", "--out", str(tmp_path)]
    tell(*options)
    tell(*options, "--seed", "1")
    folders = sorted(path.parent for path in tmp_path.glob("*/curves.csv"))
    with (folders[0] / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    low = 100 * float(rows[0]["validation_accuracy"])
    told = tell("time-to-accuracy", *map(str, folders), "--targets", f"100,{low}", "--json")
    first, second = json.loads(told.out)["runs"]
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
def test_targets_that_are_no_accuracies_are_refused(tell: Tell, tmp_path: Path, targets: str) -> None:
    told = tell("time-to-accuracy", str(tmp_path), "--targets", targets)
    assert told.code == 2
    assert "--targets" in told.err
    assert "must be accuracies in per cent, such as 90,93,94" in told.err


def test_a_specification_keeps_its_own_cost_on_larger_images() -> None:
    spec = ModelSpec.resnet(channels=[8], input_shape=(1, 16, 16))
    macs = 256 * (9 * 1 * 8) + 256 * (2 * 9 * 8 * 8) + 8 * 10
    assert training_flops(spec, tiny_recipe(), images=10) == 6 * macs * 10 * 2
