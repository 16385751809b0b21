"""`budgetnet trials`, and searches without any result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import PAIR_SPACE, RunCommand, tiny_recipe

import budgetnet as bn
from budgetnet.study.space import SearchSpace

FOLDER = "is a folder without a run, and no study; --out FOLDER reads the studies in a folder"
OPTIONS: dict[str, Any] = {"device": "cpu", "train_size": 64, "validation_size": 40, "study": "mine"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    SearchSpace(**{**PAIR_SPACE, "stages": [1, 2]}).save("space.yaml")
    return tmp_path


def test_every_trial_is_listed_with_its_outcome(tell: RunCommand) -> None:
    recipe = tiny_recipe(epochs=1)
    study = bn.search(
        space="space.yaml",
        recipe=recipe,
        sizing="reject",
        sampler="tpe",
        max_params="3k",
        trials=2,
        verbosity="quiet",
        **OPTIONS,
    )
    expected = study.trials()
    assert {trial.outcome for trial in expected} >= {"complete", "over budget"}, "the test needs both"
    listed = json.loads(tell("trials", "--json").out)
    assert [trial["number"] for trial in listed["trials"]] == [trial.number for trial in expected]
    assert [trial["outcome"] for trial in listed["trials"]] == [trial.outcome for trial in expected]
    assert [trial["accuracy"] for trial in listed["trials"]] == [trial.accuracy for trial in expected]
    lines = tell("trials", "mine").out.splitlines()
    assert "at the epoch of the lowest validation loss before the trial ended" in " ".join(lines)
    for trial in expected:
        (line,) = [line for line in lines if line.split("│")[1:2] and line.split("│")[1].strip() == trial.name]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells[1] == trial.outcome
        assert cells[2] == ("" if trial.accuracy is None else f"{100 * trial.accuracy:.0f}")
    ordered = json.loads(tell("trials", "--sort", "accuracy", "--json").out)["trials"]
    accuracies = [trial["accuracy"] for trial in ordered if trial["accuracy"] is not None]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [trial["accuracy"] for trial in ordered[: len(accuracies)]] == accuracies, "without one they are last"


@pytest.mark.parametrize("width", [80, 120])
def test_every_trial_has_its_reason_whatever_the_width_of_the_terminal(
    tell: RunCommand, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    options = {"recipe": tiny_recipe(epochs=1), "sizing": "reject", "sampler": "tpe", "max_params": "3k", **OPTIONS}
    expected = bn.search(space="space.yaml", trials=2, verbosity="quiet", **options).trials()
    monkeypatch.setattr("budgetnet.cli.tables._PLAIN_WIDTH", width)
    lines = [line for line in tell("trials").out.splitlines() if "│" in line]
    assert max(map(len, lines)) <= width
    told: dict[str, str] = {}
    name = ""
    for cells in (line.split("│")[1:-1] for line in lines):
        name = cells[0].strip() or name
        told[name] = told.get(name, "") + cells[-1].replace(" ", "")
    assert len({trial.ended for trial in expected}) > 1
    for trial in expected:
        assert trial.ended
        assert told[trial.name].endswith(trial.ended.replace(" ", ""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sort", "size"], "--sort = 'size': must be one of number"),
        (["other"], "study = 'other': no such study; "),
        (["folder"], f"study = 'folder': {FOLDER}"),
    ],
)
def test_wrong_arguments_are_one_line(tell: RunCommand, arguments: list[str], message: str) -> None:
    bn.search(
        space="space.yaml", recipe=tiny_recipe(epochs=1), max_params="20k", trials=1, verbosity="quiet", **OPTIONS
    )
    Path("folder").mkdir()
    assert tell("trials").out.split("\n")[0].strip() == "mine: 1 trial"
    told = tell("trials", *arguments)
    assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert told.err.startswith(f"error: {message}")


def test_a_search_without_a_result_says_why_and_fails(tell: RunCommand) -> None:
    tiny_recipe(epochs=1, learning_rate=1e30).save("recipe.yaml")
    options = ["--space", "space.yaml", "--recipe", "recipe.yaml", "--trials", "2", "--device", "cpu"]
    options += ["--max-params", "20k"]
    told = tell("search", *options, "--train-size", "64", "--validation-size", "40", "--quiet")
    assert told.code == 1
    assert "2 trained" in told.out
    assert told.err.startswith("error: no candidate has a result: 2 trials: the loss was not finite")


def test_a_search_that_proposes_nothing_within_the_budget_ends_as_over_budget(
    tell: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 5)
    # Of widths from 8 to 4,096, next to none is as narrow as the smallest network, which fits.
    wide = SearchSpace(**{**PAIR_SPACE, "channels": [8, 4_096]})
    wide.save("wide.yaml")
    options = ["--space", "wide.yaml", "--max-params", "3k", "--train-size", "64", "--validation-size", "40"]
    told = tell("search", *options, "--sizing", "reject", "--sampler", "random", "--device", "cpu", "--quiet")
    assert (told.code, told.err.count("\n")) == (3, 2)
    stopped, error = told.err.splitlines()
    assert stopped.startswith(
        "stopped at 0 of 6 candidates: the last 5 proposals were nothing new that fits: 5 over budget"
    )
    assert error == "error: no proposed network is within the budget; --sizing fit solves for widths that are"
