"""Python API: training, evaluation, prediction, ranking and export of runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from html_support import read
from PIL import Image
from support import TINY, tiny_recipe

import budgetnet as bn
from budgetnet.api.run import TrainedRun
from budgetnet.data import DataSet
from budgetnet.runs.store import TEST_OPENINGS_FILE

SIZES: Any = {"train_size": 64, "validation_size": 40}


@pytest.fixture(scope="module")
def runs(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> list[TrainedRun]:
    out = tmp_path_factory.mktemp("runs")
    recipe = tiny_recipe(epochs=2)
    return [bn.train(TINY, data=digits, recipe=recipe, seed=seed, out=out, device="cpu", **SIZES) for seed in (0, 1)]


def predicted(run: TrainedRun, pixels: torch.Tensor) -> torch.Tensor:
    """Return the classes of images (n, 1, 8, 8) of bytes, normalised by hand."""
    data = run.record.identity.data
    with torch.no_grad():
        logits: torch.Tensor = run.load()((pixels.float() / 255 - data.mean[0]) / data.std[0])
    return logits.argmax(dim=1)


def test_a_finished_run_is_read_from_its_record(runs: list[TrainedRun], digits: DataSet) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs[0].folder.iterdir()}
    recipe = tiny_recipe(epochs=2)
    again = bn.train(TINY, data=digits, recipe=recipe, seed=0, out=runs[0].folder.parent, device="cpu", **SIZES)
    assert again.folder == runs[0].folder
    assert {path: path.stat().st_mtime_ns for path in runs[0].folder.iterdir()} == before


def test_a_run_shows_its_accuracy_and_network(runs: list[TrainedRun]) -> None:
    result = runs[0].record.result
    assert result.validation_correct is not None
    assert runs[0].accuracy == result.validation_correct / 40
    text = read(runs[0]._repr_html_()).text
    assert f"{100 * result.validation_correct / 40:.0f}" in text
    assert runs[0].folder.name in text
    assert f"{TINY.params:,} parameters" in text


def test_spec_recipe_and_data_are_taken_by_name_or_file(tmp_path: Path) -> None:
    TINY.save(tmp_path / "tiny.yaml")
    tiny_recipe(epochs=3).save(tmp_path / "recipe.yaml")
    run = bn.train(
        tmp_path / "tiny.yaml",
        recipe=str(tmp_path / "recipe.yaml"),
        epochs=1,
        out=tmp_path,
        device="cpu",
        **SIZES,
    )
    assert run.spec.digest == TINY.replace(num_classes=10).digest
    assert (run.recipe.epochs, run.record.identity.data.name) == (1, "digits")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"train_size": 0}, "train_size"),
        ({"validation_size": "many"}, "validation_size"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"recipe": "none-such"}, "recipe"),
        ({"device": "tpu"}, "device"),
        ({"threads": 0}, "threads"),
        ({"threads": -1}, "threads"),
        ({"threads": "two"}, "threads"),
        ({"verbosity": "silent"}, "verbosity"),
        ({"callbacks": [print]}, "callbacks"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(changes: dict[str, object], field: str, tmp_path: Path) -> None:
    with pytest.raises(bn.InputError) as refused:
        bn.train(TINY, **{"out": tmp_path, "device": "cpu", **changes})  # type: ignore[arg-type]
    assert refused.value.field.strip("-") == field
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/runs"])
def test_a_folder_of_runs_that_cannot_be_written_to_is_refused_by_its_name(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("study.yaml").write_text(
        "{name: s, spec: resnet20, recipe: digits, seeds: 1, factors: {recipe.momentum: [0.5]}}"
    )
    for command in (partial(bn.train, TINY), bn.search, partial(bn.ablate, "study.yaml")):
        with pytest.raises(bn.InputError, match=f"^out = '{out}': must be a writable folder"):
            command(data="digits", out=out)


def test_a_name_too_long_for_a_folder_is_refused_by_its_field() -> None:
    name = "a" * 300
    with pytest.raises(bn.InputError, match=r"^out = 'a.*': cannot be used: File name too long$"):
        bn.train(TINY, out=Path(name) / "runs")
    with pytest.raises(bn.InputError, match=r"^ablation study = 'a.*': cannot be read: File name too long$"):
        bn.ablate(name)


def test_evaluation_on_validation_images_does_not_use_test_set(runs: list[TrainedRun]) -> None:
    evaluations = bn.evaluate([run.folder for run in runs], device="cpu")
    assert [each.scores.correct for each in evaluations] == [run.record.result.validation_correct for run in runs]
    frame = evaluations.frame()
    assert list(frame["accuracy"]) == [run.accuracy for run in runs]
    assert not (runs[0].folder.parent / TEST_OPENINGS_FILE).exists()
    assert len(evaluations.comparisons) == 1
    html = read(evaluations._repr_html_())
    assert all(run.folder.name in html.text for run in runs)


def test_an_ensemble_averages_probabilities(runs: list[TrainedRun]) -> None:
    evaluations = bn.evaluate([run.folder for run in runs], device="cpu")
    mean = np.mean([each.scores.probabilities for each in evaluations], axis=0)
    assert evaluations.ensemble().scores.correct == int((mean.argmax(axis=1) == evaluations[0].scores.labels).sum())


@pytest.mark.parametrize(("changes", "field"), [({"on": "tests"}, "on"), ({"tta": "spin"}, "tta")])
def test_evaluation_refuses_unknown_choices(runs: list[TrainedRun], changes: dict[str, str], field: str) -> None:
    with pytest.raises(bn.InputError, match="must be one of") as refused:
        bn.evaluate(runs[0].folder, **changes)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_an_evaluation_of_no_run_is_refused() -> None:
    for same_images in (False, True):
        with pytest.raises(bn.InputError, match=r"^runs = \[\]: must be at least one run folder$"):
            bn.evaluate([], same_images=same_images)


def test_predictions_are_those_of_the_network(runs: list[TrainedRun], digits: DataSet, tmp_path: Path) -> None:
    pixels = digits.train_images[:5]
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image[0]).save(path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    found = runs[0].predict([*paths, broken], device="cpu")
    expected = predicted(runs[0], torch.from_numpy(np.array(pixels)))
    assert list(found.frame()["class"]) == [str(number) for number in expected.tolist()]
    assert len(found.frame(top=3)) == 15
    assert [each.error is None for each in found] == [True] * 5 + [False]
    # A long path is shortened in messages.
    assert str(found[5].error).startswith("IMAGE = ")
    assert str(found[5].error).endswith(": is not a valid image: its content is of no known kind")
    assert "broken.png" in read(found._repr_html_()).text


def test_runs_are_ranked_by_validation_accuracy(runs: list[TrainedRun]) -> None:
    board = bn.leaderboard([run.folder for run in runs])
    ranked = [row for row in board if not row.is_reference]
    expected = sorted(runs, key=lambda run: (-(run.accuracy or 0), run.folder.name))
    assert [row.run for row in ranked] == [run.folder.name for run in expected]
    assert [row.rank for row in ranked] == [1, 2]
    assert {row.compared_with for row in board} == {board[0].name}, "these are no CIFAR-10 images"
    assert len(bn.leaderboard(runs[0].folder)) == 1


def test_runs_that_cannot_be_ranked_together_are_refused(
    runs: list[TrainedRun], digits: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(bn.InputError, match="twice"):
        bn.leaderboard([runs[0].folder, runs[0].folder])
    with pytest.raises(bn.InputError, match="must be at least one"):
        bn.leaderboard([])
    with pytest.raises(bn.RecordError, match="contains no run"):
        bn.leaderboard([runs[0].folder, tmp_path])
    other = bn.train(TINY, data=digits, recipe=tiny_recipe(epochs=1, split_seed=1), out=tmp_path, device="cpu", **SIZES)
    with pytest.raises(bn.InputError, match="has a different split"):
        bn.leaderboard([runs[0].folder, other.folder])
    leaking = tiny_recipe(epochs=1, validation_split="each-epoch")
    leaked = bn.train(TINY, data=digits, recipe=leaking, out=tmp_path, device="cpu", **SIZES)
    with pytest.raises(bn.InputError, match="validation images are also trained on"):
        bn.leaderboard(leaked.folder)


def test_an_exported_network_is_compared_first(runs: list[TrainedRun], tmp_path: Path) -> None:
    done = bn.export(runs[0].folder, format="safetensors", to=tmp_path)
    assert done.paths[0].parent == tmp_path
    assert done.difference == 0
