"""Resumed runs give bit-identical results, whenever and however they are interrupted."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support import (
    TINY,
    EachEpoch,
    RunCommand,
    enlarged,
    patient,
    prepare,
    restarts,
    started,
    tiny_recipe,
    untimed,
    wait_for,
)

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.model.network import build
from budgetnet.runs.augmentation import Augmentation, ColorJitter, ExampleFilter, Mixing, Policy, Resizing
from budgetnet.runs.optimizer import OptimizerChoice
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunRecord
from budgetnet.runs.schedule import Lookahead, Muon, Schedule
from budgetnet.runs.store import RunFolder
from budgetnet.training.example_filter import PROXIES
from budgetnet.training.trainer import train

RECIPE = tiny_recipe(
    epochs=6,
    learning_rate=0.4,
    schedule=restarts(2, cycle_factor=2),
    early_stopping=patient(4),
    augmentation=Augmentation(crop_padding=1, flip=True),
)


class InterruptedRunError(Exception):
    """Interrupts a run in these tests."""


def run(digits: DataSet, out: Path, *, stop_after: int | None = None, recipe: Recipe = RECIPE) -> RunRecord:
    def on_epoch(epoch: Epoch) -> None:
        shutil.copy(next(out.glob("*/best.safetensors")), out / f"best-{epoch.epoch}")
        if epoch.epoch == stop_after:
            raise InterruptedRunError

    spec = TINY.replace(head={"dropout": 0.3}, stem={"channels": 8, "whitening": 2})
    data = prepare(enlarged(digits) if recipe.resizing else digits, recipe)
    return train(spec, data, recipe, seed=5, out=out, callback=EachEpoch(on_epoch))


def interrupted_run(digits: DataSet, out: Path, epoch: int, recipe: Recipe = RECIPE) -> Path:
    with pytest.raises(InterruptedRunError):
        run(digits, out, stop_after=epoch, recipe=recipe)
    return next(path.parent for path in out.glob("*/run.json"))


EVERYTHING = RECIPE.model_copy(
    update={
        "nesterov": True,
        "weight_average": 0.9,
        "precision": "bfloat16",
        "test_time_flip": True,
        "test_time_shifts": True,
        "resizing": Resizing(start=8, until=0.6),
        "example_filter": ExampleFilter(backward_every=2),
        "augmentation": Augmentation(
            crop_padding=1,
            alternating_flip=True,
            color_jitter=ColorJitter(brightness=0.5, contrast=0.5),
            policy=Policy(),
            cutout=2,
            mixing=Mixing(kind="cutmix"),
            padding_mode="reflect",
        ),
    }
)


FAST = RECIPE.model_copy(
    update={
        "schedule": Schedule(kind="linear", first_cycle=6, warmup_start=0.3, warmup_fraction=0.25, minimum=0.01),
        "momentum": 0.85,
        "nesterov": True,
        "per_1024_examples": True,
        "norm_bias_rate": 8.0,
        "freeze_norm_scales": True,
        "norm_momentum": 0.4,
        "initialisation": "dirac",
        "lookahead": Lookahead(every=2),
        "muon": Muon(),
        "weight_average": 0.9,
        "stochastic_depth": 0.3,
    }
)


LEAKAGE_WARNING = RECIPE.model_copy(update={"validation_split": "each-epoch", "augmented_validation": True})
FILTERED = LEAKAGE_WARNING.model_copy(update={"augmented_validation": False, "example_filter": ExampleFilter(keep=0.3)})


ADAMW = RECIPE.model_copy(
    update={
        "learning_rate": 0.01,
        "optimizer": OptimizerChoice(kind="adamw", betas=(0.8, 0.98)),
        "norm_bias_rate": 8.0,
        "gradient_clipping": 0.5,
        "stochastic_depth": 0.5,
        "example_filter": ExampleFilter(backward_every=2),
    }
)
ADAM = ADAMW.model_copy(update={"optimizer": OptimizerChoice(kind="adam"), "muon": Muon(), "example_filter": None})


PLATEAU = RECIPE.model_copy(
    update={"schedule": Schedule(kind="plateau", patience=0, factor=0.5, threshold=0.9), "early_stopping": None}
)


RECIPES = {"plain": RECIPE, "everything": EVERYTHING, "leaking": LEAKAGE_WARNING, "filtered": FILTERED, "fast": FAST}
RECIPES |= {"adamw": ADAMW, "adam": ADAM, "plateau": PLATEAU}


def test_the_learning_rate_falls_before_and_after_every_interruption(digits: DataSet, tmp_path: Path) -> None:
    rates = [epoch.learning_rate for epoch in run(digits, tmp_path, recipe=PLATEAU).curves]
    assert rates[1] > rates[2] > rates[3] > rates[4] > rates[5], "otherwise the next test shows nothing of a plateau"


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_resumed_run_is_bit_identical(digits: DataSet, tmp_path: Path, epoch: int, recipe: Recipe) -> None:
    whole = untimed(run(digits, tmp_path / "whole", recipe=recipe))
    interrupted_run(digits, tmp_path / "broken", epoch, recipe)
    assert untimed(run(digits, tmp_path / "broken", recipe=recipe)) == whole
    if recipe.example_filter:
        # Without its cache, the proxy is trained again from the beginning.
        folder = interrupted_run(digits, tmp_path / "uncached", epoch, recipe)
        shutil.rmtree(folder.parent / PROXIES)
        assert untimed(run(digits, tmp_path / "uncached", recipe=recipe)) == whole


def test_lost_best_weights_are_restored_from_the_checkpoint(digits: DataSet, tmp_path: Path) -> None:
    whole = run(digits, tmp_path / "whole")
    losses = [epoch.validation_loss for epoch in whole.curves]
    bests = [number for number, loss in enumerate(losses, 1) if loss == min(losses[:number])]
    last = bests[-1]
    assert len(bests) > 1, "the test needs a second best epoch"
    for name, older in [("older", True), ("none", False)]:
        out = tmp_path / name
        folder = interrupted_run(digits, out, last)
        (folder / "best.safetensors").unlink()
        if older:
            shutil.copy(out / f"best-{last - 1}", folder / "best.safetensors")
        assert untimed(run(digits, out)) == untimed(whole)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_network(path: Path) -> None:
    tensors = {f"network.{name}": value for name, value in build(TINY.replace(channels=[16])).state_dict().items()}
    save_file(tensors, path, metadata={"about": '{"epoch": 3, "best_epoch": 3}'})


def with_unknown_metadata(path: Path) -> None:
    save_file(load_file(path), path, metadata={"about": '{"epoch": 3, "surprise": 1}'})


def first_two_lines(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def nonsense(path: Path) -> None:
    path.write_text("epoch,cycle\nx,y\n")


def without_starts(path: Path) -> None:
    path.write_text("{}")


def with_starts_that_are_numbers(path: Path) -> None:
    path.write_text('{"starts": [1, 2]}')


def a_row_ahead(path: Path) -> None:
    path.write_text(path.read_text() + "3,2,0.1,9.0,0.1,9.0,0.1,1.0\n")


@pytest.mark.parametrize("damage", [Path.unlink, first_two_lines, nonsense, a_row_ahead])
def test_curves_that_differ_from_the_checkpoint_are_rewritten(
    digits: DataSet, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Curves are written before the checkpoint, so a kill in between leaves them one epoch ahead."""
    whole = untimed(run(digits, tmp_path / "whole"))
    damage(interrupted_run(digits, tmp_path / "broken", 2) / "curves.csv")
    assert untimed(run(digits, tmp_path / "broken")) == whole


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("checkpoint.safetensors", truncate),
        ("checkpoint.safetensors", of_another_network),
        ("checkpoint.safetensors", with_unknown_metadata),
        ("checkpoint.safetensors", nonsense),
        ("best.safetensors", truncate),
        ("run.json", truncate),
        ("run.json", nonsense),
        ("environment.json", truncate),
        ("environment.json", without_starts),
        ("environment.json", with_starts_that_are_numbers),
    ],
)
def test_a_damaged_folder_is_reported_and_not_changed(digits: DataSet, tmp_path: Path, file: str, damage: Any) -> None:
    folder = interrupted_run(digits, tmp_path, 3)
    damage(folder / file)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RecordError) as caught:
        run(digits, tmp_path)
    assert "\n" not in str(caught.value)
    assert file.partition(".")[0] in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_lost_best_weights_of_an_earlier_epoch_are_reported(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=8, learning_rate=0.4)
    whole = run(digits, tmp_path / "whole", recipe=recipe)
    best = whole.result.best_epoch
    assert best is not None
    assert best < 8
    folder = interrupted_run(digits, tmp_path / "broken", best + 1, recipe)
    (folder / "best.safetensors").unlink()
    with pytest.raises(RecordError, match=f"epoch {best}"):
        run(digits, tmp_path / "broken", recipe=recipe)


def test_a_finished_run_is_loaded_without_training(digits: DataSet, tmp_path: Path) -> None:
    record = run(digits, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in record.folder.iterdir()}
    assert set(before) == {
        "run.json", "spec.yaml", "recipe.yaml", "environment.json", "curves.csv", "confusion.csv", "best.safetensors",
        "result.json", ".lock",
    }  # fmt: skip
    assert run(digits, tmp_path, stop_after=1) == record
    assert {path.name: path.stat().st_mtime_ns for path in record.folder.iterdir()} == before


OPTIONS = ["train", "spec.yaml", "--recipe", "recipe.yaml", "--train-size", "400", "--validation-size", "40"]
OPTIONS += ["--seed", "7", "--device", "cpu"]


def command_folder(path: Path) -> Path:
    path.mkdir()
    TINY.save(path / "spec.yaml")
    recipe = tiny_recipe(epochs=30, learning_rate=0.3, schedule=restarts(7, cycle_factor=2, minimum=0.001))
    recipe.save(path / "recipe.yaml")
    return path


def only_run(folder: Path) -> RunFolder:
    (path,) = (folder / "runs").iterdir()
    return RunFolder(path)


def interrupted(folder: Path, sent: signal.Signals, *, rows: int) -> tuple[int, str]:
    """Send a signal to a training process after ``rows`` epochs; return its exit code and standard error."""

    def trained() -> bool:
        return any(
            len(path.read_text().splitlines()) > rows and (path.parent / "checkpoint.safetensors").exists()
            for path in (folder / "runs").glob("*/curves.csv")
        )

    with started(*OPTIONS, cwd=folder) as process:
        wait_for(trained, process=process)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
        return process.returncode, stderr


def test_a_killed_and_interrupted_command_gives_bit_identical_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: RunCommand
) -> None:
    broken, whole = command_folder(tmp_path / "broken"), command_folder(tmp_path / "whole")
    assert interrupted(broken, signal.SIGKILL, rows=1) == (-signal.SIGKILL, "")
    assert only_run(broken).checkpoint.exists()
    for sent, rows, expected in ((signal.SIGINT, 8, 130), (signal.SIGTERM, 14, 143)):
        code, stderr = interrupted(broken, sent, rows=rows)
        assert code == expected
        assert stderr.endswith("interrupted: run the same command to resume after the last finished epoch\n")
        assert "Traceback" not in stderr
        assert not only_run(broken).finished
    for folder in (broken, whole):
        monkeypatch.chdir(folder)
        assert tell(*OPTIONS).code == 0
    assert untimed(only_run(broken).load()) == untimed(only_run(whole).load())
    assert only_run(broken).load().result.epochs == 30
    assert not list(broken.rglob("checkpoint.safetensors"))
