"""`budgetnet reproduce` on real runs and on stored records: output and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import TINY, RunCommand, snapshot, strict_json, tiny_recipe

from budgetnet.common.errors import DataError
from budgetnet.data import declared_cifar10, load_dataset, read_openings, split
from budgetnet.model.cost import cost_of
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunResult, TestResult
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder

SMALL = ["--data", "digits", "--epochs", "2", "--train-size", "64", "--validation-size", "40", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    TINY.replace(name="mine").save(tmp_path / "spec.yaml")
    tiny_recipe(name="short").save(tmp_path / "recipe.yaml")
    return tmp_path


def answered(tell: RunCommand, *arguments: str) -> Any:
    answer = tell("reproduce", *arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    return strict_json(answer.out)


def test_leak_is_measured_in_pairs_from_records(
    folder: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["leakage", "--spec", "spec.yaml", "--seeds", "2", *SMALL]
    found = answered(tell, *arguments)
    assert [(row["recipe"], row["seed"], row["leaks"]) for row in found["runs"]] == [
        ("as-run", 0, True),
        ("as-run", 1, True),
        ("paper", 0, False),
        ("paper", 1, False),
    ]
    for row in found["runs"]:
        record = RunFolder(folder / "runs" / row["run"]).load()
        assert record.test is not None
        assert row["validation_accuracy"] == record.result.validation_accuracy
        assert row["test_accuracy"] == record.test.correct / 360
        assert row["train_accuracy"] == record.curves[(record.result.best_epoch or 0) - 1].train_accuracy
        assert record.identity.recipe.epochs == 2
    (opening,) = read_openings(folder / "runs" / TEST_OPENINGS_FILE)
    assert (opening["by"], opening["reason"]) == ("reproduce leakage", "reproduction of published results: leakage")
    assert sorted(opening["runs"]) == sorted(row["run"] for row in found["runs"])
    before = snapshot(folder)
    table = tell("reproduce", *arguments)
    assert table.code == 0
    assert snapshot(folder) == before, "answered from the records, and nothing is opened again"
    assert table.out.count("as-run (leaking)") == 3
    assert f"as-run is {LEAKAGE_WARNING}" in table.out
    assert "published (leaking)" in table.out
    monkeypatch.setattr("budgetnet.cli.tables._PLAIN_WIDTH", 80)
    narrow = tell("reproduce", *arguments).out.splitlines()
    assert all("leaking)" in line for line in narrow if "as-run" in line and "│" in line), "no name is cut in two"
    assert max(len(line) for line in narrow if "│" in line) <= 80


def test_the_ladder_trains_every_rung_with_the_same_seeds(folder: Path, tell: RunCommand) -> None:
    sizes = ["--data", "digits", "--train-size", "16", "--validation-size", "10", "--device", "cpu"]
    found = answered(tell, "ladder", "--seeds", "1", "--recipe", "recipe.yaml", "--epochs", "1", *sizes)
    assert [rung["name"] for rung in found["rungs"]] == [
        "ladder-small",
        "ladder-wide",
        "ladder-large-kernel",
        "reference",
    ]
    assert [rung["stated_params"] for rung in found["rungs"]] == [2_600_000, 4_900_000, 4_200_000, 4_662_346]
    # On grey images the stem has 9 weights a channel instead of 27.
    assert found["rungs"][-1]["params"] == 4_662_346 - 64 * 18
    assert {rung["verdict"]["outcome"] for rung in found["rungs"]} == {"not comparable"}
    assert [row["seed"] for row in found["runs"]] == [0] * 4


def test_ensemble_averages_predictions_on_the_test_set(folder: Path, tell: RunCommand) -> None:
    arguments = ["ensemble", "--spec", "spec.yaml", "--members", "3", *SMALL]
    found = answered(tell, *arguments)
    probabilities, right = [], []
    for row in found["runs"]:
        tensors = load_file(folder / "runs" / row["run"] / "test-scores.safetensors")
        probabilities.append(tensors["probabilities"])
        right.append((tensors["probabilities"].argmax(axis=1) == tensors["labels"]).mean())
    together = (np.mean(probabilities, axis=0).argmax(axis=1) == tensors["labels"]).mean()
    assert [row["test_accuracy"] for row in found["runs"]] == pytest.approx(right)
    assert [member["accuracy"] for member in found["members"]] == pytest.approx(right)
    assert found["mean"]["accuracy"] == pytest.approx(np.mean(right))
    assert found["ensemble"]["accuracy"] == pytest.approx(together)
    spec = TINY.replace(num_classes=10)
    assert (found["ensemble"]["params"], found["fits"]) == (3 * spec.params, True)
    assert (found["outcome"], found["published"]["accuracy"]) == ("not comparable", 0.85)
    over = tell("reproduce", *arguments, "--max-params", str(3 * spec.params - 1))
    assert (over.code, over.err) == (3, "")
    assert "published: about 85 %" in over.out
    assert len(read_openings(folder / "runs" / TEST_OPENINGS_FILE)) == 1
    assert tell("reproduce", "ensemble", "--members", "1", "--data", "digits").err.startswith("error: --members = '1'")


BAD = [
    (["reference", "--declare", "mnist"], "--declare = 'mnist': must be 'cifar10'"),
    (["reference", "--data", "digits", "--declare", "cifar10"], "--declare = 'digits': needs 50,000 training"),
    (["reference", "--data", "digits", "--seeds", "0"], "--seeds = '0'"),
    (["ladder", "--data", "digits", "--seeds", "5000"], "--seeds = '5000': must be at most 1,000"),
    (
        ["leakage", "--data", "digits", "--seed", "4294967295"],
        "--seed = 4294967295: must leave room for 3 seeds",
    ),
    (["leakage", "--spec", "nonsense"], "--spec = 'nonsense'"),
    (["reference", "--recipe", "nonsense"], "--recipe = 'nonsense'"),
    (["reference", "--data", "nowhere"], "--data"),
    (["leakage", "--data", "digits", "--out", "spec.yaml"], "--out = 'spec.yaml': must be a writable folder"),
    (["leakage", "--data", "digits", "--out", "spec.yaml/runs"], "--out = 'spec.yaml/runs': must be a writable folder"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD)
def test_bad_input_gives_one_line_and_writes_nothing(
    folder: Path, tell: RunCommand, arguments: list[str], line: str
) -> None:
    before = snapshot(folder)
    answer = tell("reproduce", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"error: {line}")
    assert snapshot(folder) == before


@pytest.fixture(scope="module")
def blank_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of CIFAR-10's numbers and shape, all black."""
    path = tmp_path_factory.mktemp("copy") / "copy.npz"
    labels = np.arange(50_000, dtype=np.uint8) % 10
    images: dict[str, Any] = {"train_images": np.zeros((50_000, 32, 32, 3), np.uint8), "train_labels": labels}
    images |= {"test_images": np.zeros((10_000, 32, 32, 3), np.uint8), "test_labels": labels[:10_000]}
    np.savez_compressed(path, **images)
    return path


def lay_down_run(out: Path, data: DataRecord, *, seed: int, correct: int, network: str = "reference") -> None:
    """A finished run of a network by the recipe `paper`, judged on the test set."""
    spec = get(network)
    identity = RunIdentity(
        spec=spec, recipe=named_recipe("paper"), data=data, seed=seed, device="cpu", precision="float32"
    )
    for precision in ("float32", "bfloat16"):  # Whichever this processor would train in.
        identity = identity.model_copy(update={"precision": precision})
        run = RunFolder.of(identity, out)
        run.path.mkdir(parents=True)
        run.begin(identity)
        run.write_curves([Epoch(1, 1, 0.01, 1.0, 0.5, 1.0, 0.5, 1.0)])
        save_file({"weights": np.zeros(1)}, run.best)
        facts: dict[str, Any] = cost_of(spec)._asdict()
        facts |= {"epochs": 1, "cycles": 0, "best_epoch": 1, "validation_loss": 1.0, "seconds": 1.0}
        facts |= {"validation_correct": 5_000, "validation_images": 10_000}
        run.finish(RunResult(status="complete", reason="its only epoch", **facts))
        run.write_test(TestResult(loss=0.4, correct=correct, images=10_000, reason="a test"))


@pytest.mark.parametrize(
    ("counts", "declared", "code", "outcome"),
    [
        ([9_120, 9_150, 9_133], True, 0, "reproduced"),
        ([8_900, 8_950, 8_930], True, 4, "not reproduced"),
        ([8_900, 8_950, 8_930], False, 0, "not comparable"),
    ],
)
def test_exit_code_depends_on_verdict(
    folder: Path, tell: RunCommand, blank_copy: Path, counts: list[int], declared: bool, code: int, outcome: str
) -> None:
    dataset = load_dataset(f"arrays:{blank_copy}")
    if declared:
        dataset = declared_cifar10(dataset, field="--declare")
    parts = split(dataset.train_labels, validation_fraction=0.2, seed=0)
    data = DataRecord(
        name=dataset.name,
        provenance=dataset.provenance,
        fingerprint=dataset.fingerprint,
        is_original_cifar10=False,
        mean=dataset.mean,
        std=dataset.std,
        split_fingerprint=parts.fingerprint,
        train_images=40_000,
        validation_images=10_000,
    )
    for seed, count in enumerate(counts):
        lay_down_run(folder / "runs", data, seed=seed, correct=count)
    arguments = ["reference", "--data", f"arrays:{blank_copy}", "--seeds", str(len(counts)), "--device", "cpu"]
    arguments += ["--declare", "cifar10"] if declared else []
    answer = tell("reproduce", *arguments)
    assert (answer.code, answer.err) == (code, "")
    assert f"verdict: {outcome}\n" in answer.out
    assert "agrees: 44 of 44 rows equal, 4,662,346 parameters" in answer.out
    assert ("only by --declare cifar10" in answer.out) == declared
    assert ("--declare cifar10 vouches for a copy" in answer.out) != declared
    mean = f"{sum(counts) / 300:.2f}"
    assert re.search(rf"test accuracy: {re.escape(mean)} % \(sd \d\.\d\d\) here, n = 3; 91\.41 published", answer.out)
    found = json.loads(tell("reproduce", *arguments, "--json").out)
    assert (found["verdict"]["outcome"], found["published_loss"]) == (outcome, 0.315)
    assert found["test_loss"] == pytest.approx(0.4)
    for network in ("ladder-small", "ladder-wide", "ladder-large-kernel"):
        for seed in range(len(counts)):
            lay_down_run(folder / "runs", data, seed=seed, correct=8_000, network=network)
    ladder = tell("reproduce", "ladder", *arguments[1:])
    assert (ladder.code, ladder.err) == (code, "")
    assert f"verdict: {outcome}\n" in ladder.out


def test_declared_copy_is_normalised_as_original_cifar10(blank_copy: Path) -> None:
    copy = load_dataset(f"arrays:{blank_copy}")
    vouched = declared_cifar10(copy, field="--declare")
    assert (vouched.mean, vouched.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert vouched.provenance.endswith("declared to be CIFAR-10 by its user")
    assert (vouched.is_original_cifar10, vouched.fingerprint) == (False, copy.fingerprint)
    assert copy.mean == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="--declare"):
        declared_cifar10(load_dataset("digits"), field="--declare")


def test_a_search_refuses_to_rank_by_a_leaking_validation(folder: Path, tell: RunCommand) -> None:
    before = snapshot(folder)
    for option in ("--recipe", "--final-recipe"):
        answer = tell("search", option, "as-run", "--trials", "1")
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"error: {option} = 'as-run': cannot rank networks")
    assert snapshot(folder) == before


def test_leaking_recipe_is_marked_in_all_output(folder: Path, tell: RunCommand) -> None:
    arguments = ["train", "spec.yaml", "--recipe", "as-run", *SMALL]
    assert LEAKAGE_WARNING in tell(*arguments).out
    assert json.loads(tell(*arguments, "--json").out)["leaks"] is True
    sound = ["train", "spec.yaml", "--recipe", "paper", *SMALL]
    assert LEAKAGE_WARNING not in tell(*sound).out
    assert json.loads(tell(*sound, "--json").out)["leaks"] is False
