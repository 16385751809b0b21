"""`budgetnet ablate --of` on a real search: which network it ablates, what it reuses, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import TINY_SPACE, RunCommand, snapshot, tiny_recipe, write_space

import budgetnet as bn
from budgetnet.data import DataSet
from budgetnet.experiments.ablation.stored import stored_ablations
from budgetnet.experiments.ablation.winner import SearchWinner
from budgetnet.runs.store import RunFolder
from budgetnet.study.winner import winner as recommended
from budgetnet.visualization.report.run_reader import Reader
from budgetnet.visualization.report.winners import read_why

SMALL: dict[str, Any] = {"train_size": 64, "validation_size": 40, "device": "cpu"}
SPACE = {**TINY_SPACE, "recipe": {"learning_rate": [0.02, 0.1]}}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a search of three networks, of which the best was trained again, and one without a network."""
    folder = tmp_path_factory.mktemp("searched")
    tiny_recipe(epochs=1).save(folder / "recipe.yaml")
    write_space(folder / "space.yaml", SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        known: dict[str, Any] = {"recipe": "recipe.yaml", "space": "space.yaml", "max_params": "20k", **SMALL}
        bn.search(study="first", trials=3, **known)
        finals: dict[str, Any] = {"finalists": 1, "final_seeds": 2, "final_recipe": "recipe.yaml", "final_epochs": 2}
        bn.search(study="final", trials=2, seed=1, **finals, **known)
        yield folder


@pytest.fixture
def folder(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(searched, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def without_storage(folder: Path) -> dict[str, Any]:
    """All files but those of SQLite, which writes its log into the storage when it is read."""
    return {path: state for path, state in snapshot(folder).items() if "studies.db" not in path}


def answered(tell: RunCommand, *arguments: str) -> Any:
    answer = tell("ablate", "--base", "ladder-small", "--device", "cpu", *arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    return json.loads(answer.out)


def test_the_winner_is_compared_with_each_factor_of_the_base(folder: Path, tell: RunCommand) -> None:
    best = bn.open_study("first").best()
    runs = {path.parent for path in folder.glob("runs/*/run.json")}
    before = snapshot(best.folder)
    found = answered(tell, "--of", "first", "--seeds", "2")
    winner, *others = found["rows"]
    assert (winner["variant"], winner["is_base"]) == ("winner", True)
    assert winner["runs"][0]["run"] == best.folder.name, "the search's run with this seed is not trained again"
    assert snapshot(best.folder) == before
    assert others[-1]["variant"] == "whole ladder-small, refitted"
    for row in found["rows"]:
        assert row["params"] <= winner["params"] <= 20_000
        for cell in row["runs"]:
            record = RunFolder(folder / "runs" / cell["run"]).load()
            assert (record.identity.seed, record.result.validation_accuracy) == (cell["seed"], cell["accuracy"])
            assert record.result.params == row["params"]
            assert record.identity.data.train_images == 64
    trained = {path.parent for path in folder.glob("runs/*/run.json")} - runs
    assert len(trained) == 2 * len(found["rows"]) - 1
    assert found["remarks"][0].startswith(f"winner: #{best.trial.number} of first; each variant takes one factor")
    assert bn.ablate(of="first", base="ladder-small", seeds=2, device="cpu").to_mapping() == found
    (stored,) = stored_ablations(folder / "runs")
    assert isinstance(stored.config.of, SearchWinner)
    assert stored.config.of.study == "first"


def test_the_report_of_the_search_has_the_ablation_or_the_command_for_it(folder: Path, tell: RunCommand) -> None:
    assert tell("report", "first", "-o", "page.html").code == 0
    page = (folder / "page.html").read_text()
    assert page.count("Why is it the best?</h2>") == 1
    line = "budgetnet ablate --of first --device cpu"
    assert f"The winner was not ablated yet: <code>{line}</code>" in page
    found = answered(tell, "--of", "first", "--seeds", "1")
    study = bn.open_study("first")
    config = study.settings.config.replace(study="first", out=Path("runs"))
    why = read_why("first", config, None, Reader())
    assert why is None, "a search without a winner has nothing to ablate"
    for options in ([], ["--ablation", "runs"]):
        assert tell("report", "first", "-o", "page.html", *options).code == 0
        page = (folder / "page.html").read_text()
        assert "budgetnet ablate --of first --base ladder-small --seeds 1 --device cpu" in page
        assert page.count("whole ladder-small, refitted</th>") == 1
        assert "No factor that is set back changes the accuracy beyond noise" in page
        for row in found["rows"]:
            assert f"{row['params']:,}" in page
    best = recommended(study.leaderboard(), [])
    assert best is not None
    stale = read_why("first", config, best._replace(trial="#99"), Reader())
    assert stale is not None
    assert stale.ablations[0].remarks == (f"{best.trial} was the winner when this was trained, and #99 is now",)
    assert tell("report", "final", "-o", "page.html").code == 0
    assert "budgetnet ablate --of final" in (folder / "page.html").read_text()
    assert "whole ladder-small" not in (folder / "page.html").read_text()
    # Killed before all of its runs were finished, then before any was.
    last = found["rows"][-1]
    (folder / "runs" / last["runs"][0]["run"] / "result.json").unlink()
    assert tell("report", "first", "-o", "page.html").code == 0
    assert f"{last['variant']} has no run here." in (folder / "page.html").read_text()
    for row in found["rows"]:
        for cell in row["runs"]:
            (folder / "runs" / cell["run"] / "result.json").unlink(missing_ok=True)
    assert tell("report", "first", "-o", "page.html").code == 0
    assert "An ablation of the winner has no results yet: <code>budgetnet ablate --of first" in (
        (folder / "page.html").read_text()
    )


def test_a_finalist_is_ablated_with_the_final_recipe_and_a_trial_with_that_of_the_search(
    folder: Path, tell: RunCommand
) -> None:
    best = bn.open_study("final").finals()[0]
    # The study has the recipe, whatever became of the file since.
    (folder / "recipe.yaml").unlink()
    for name in ("final", "best"):
        found = answered(tell, "--of", name, "--list")
        assert found["remarks"][0].startswith(f"winner: #{best.finalist.trial} of final;")
        rows = {row["variant"]: row for row in found["rows"]}
        rate = best.finalist.recipe.learning_rate
        assert ("learning_rate=0.05" in rows, rate == 0.05) == (True, False)
    answered(tell, "--of", f"final#{best.finalist.trial}", "--seeds", "1")
    (stored,) = stored_ablations(folder / "runs")
    assert isinstance(stored.config.of, SearchWinner)
    assert (stored.config.of.name, stored.study.base_recipe.epochs) == (f"final#{best.finalist.trial}", 1)
    answered(tell, "--of", "final", "--seeds", "1", "--list")
    assert bn.ablate(of="final", partial=True, device="cpu").study.base_recipe.epochs == 2


def test_the_base_may_be_a_file_or_a_trial(folder: Path, tell: RunCommand) -> None:
    _, other, *_ = bn.open_study("first").leaderboard()
    for out in ("runs", "elsewhere"):
        listed = tell("ablate", "--of", "first", "--base", f"first{other.name}", "--list", "--out", out)
        assert (listed.code, listed.err) == (0, "")
        assert f"whole {other.architecture}" in listed.out
        file = f"{out}/{other.run}/spec.yaml"
        assert tell("ablate", "--of", "first", "--base", file, "--list", "--out", out).out == listed.out
        if out == "runs":
            (folder / "runs").rename(folder / "elsewhere")


def test_a_trial_as_base_is_looked_for_where_the_search_is(
    folder: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, other, *_ = bn.open_study("first").leaderboard()
    command = ["ablate", "--of", "first", "--base", f"first{other.name}", "--list"]
    listed = tell(*command)
    assert (listed.code, listed.err) == (0, "")
    (folder / "databases").mkdir()
    for file in (folder / "runs").glob("studies.db*"):
        file.rename(folder / "databases" / file.name)
    moved = tell(*command, "--storage", "sqlite:///databases/studies.db")
    assert (moved.out, moved.err) == (listed.out, "")
    for file in (folder / "databases").iterdir():
        file.rename(folder / "runs" / file.name)
    monkeypatch.chdir(folder / "runs")
    here = tell(*command, "--out", ".")
    assert (here.out, here.err) == (listed.out, "")


def test_the_help_says_how_to_name_a_trial_of_the_latest_search(folder: Path, tell: RunCommand) -> None:
    shown = " ".join(tell("ablate", "--help").out.replace("│", " ").split())
    assert "or '#3' for that of the latest search" in shown
    trial = f"#{bn.open_study('final').finals()[0].finalist.trial}"
    listed = tell("ablate", "--of", trial, "--list")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out == tell("ablate", "--of", f"final{trial}", "--list").out


def test_other_images_than_those_of_the_search_are_refused(folder: Path, tell: RunCommand, digits: DataSet) -> None:
    images, labels = digits.train_images[:, 0], digits.train_labels
    np.savez(folder / "some.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    for option in (["--list"], []):
        answer = tell("ablate", "--of", "first", "--data", "arrays:some.npz", *option)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == "error: --data = 'arrays:some.npz': must be the images of first, digits\n"


BAD = [
    (["--of", "first", "study"], "--of = 'first': must not be given with a study's file"),
    (["--of", "first", "--change", "recipe.epochs=3"], "--change = 'recipe.epochs=3': must not be given with of"),
    (["study", "--base", "resnet20"], "--base = 'resnet20': is for the winner of a search: must be given with of"),
    ([], "study = None: must be a study's file or folder, unless of names a search"),
    (["--of", "nothing"], "--of = 'nothing': no such study; the storage has final, first"),
    (["--of", "first#99"], "--of = 'first#99': study first has no such trial"),
    (["--of", "first#x"], "--of = 'first#x': must be the name of a search, best, SEARCH#3, or #3 of the latest"),
    (["--of", "first", "--base", "nowhere"], "--base = 'nowhere': no such network"),
    (["--of", "first", "--out", "empty"], "--storage = 'sqlite:"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD)
def test_bad_input_gives_one_line_and_writes_nothing(
    folder: Path, tell: RunCommand, arguments: list[str], line: str
) -> None:
    (folder / "study").write_text(yaml.safe_dump({}))
    before = without_storage(folder)
    answer = tell("ablate", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"error: {line}")
    assert without_storage(folder) == before


def test_a_search_without_a_trained_network_is_told_in_one_line(folder: Path, tell: RunCommand) -> None:
    tiny_recipe(epochs=1, learning_rate=1e30).save(folder / "diverging.yaml")
    write_space(folder / "plain.yaml", TINY_SPACE)
    options = ["--recipe", "diverging.yaml", "--space", "plain.yaml", "--max-params", "20k", "--trials", "1"]
    tell("search", "--study", "none", *options, "--train-size", "64", "--validation-size", "40", "--device", "cpu")
    answer = tell("ablate", "--of", "none")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: --of = 'none': study none has no fully trained network yet\n"
