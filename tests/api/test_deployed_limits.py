"""A search with limits of the deployed network, from its config to its tables and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import TINY_SPACE, RunCommand, tiny_recipe

from budgetnet import Study, report, search
from budgetnet.common.errors import OverBudgetError
from budgetnet.data import DataSet
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.model.deployed.weights import weight_bytes
from budgetnet.study.reading import read_trials
from budgetnet.visualization.dashboard.notes import budget_table

LIMITS: dict[str, Any] = {"max_params": None, "max_weights": "8K", "weight_precision": "int8", "max_peak_memory": "24K"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def study(digits: DataSet, out: Path) -> Study:
    recipe = tiny_recipe(epochs=1)
    sampled: dict[str, Any] = {"space": TINY_SPACE, "recipe": recipe, "out": out, "device": "cpu", "data": digits}
    return search(trials=3, study="mine", sizing="reject", sampler="tpe", pruner="none", seed=1, **LIMITS, **sampled)


def test_candidates_over_a_limit_are_not_trained(study: Study) -> None:
    trials = study.trials()
    assert {trial.outcome for trial in trials} == {"complete", "over budget"}
    for trial in trials:
        needs = trial.needs
        assert trial.fits == (needs["weights"] <= 8 * 1024 and needs["peak_memory"] <= 24 * 1024)
        assert trial.budget_used == pytest.approx(max(needs["weights"] / 8192, needs["peak_memory"] / 24_576), abs=1e-6)


def test_what_is_limited_is_shown_with_every_candidate(study: Study, out: Path, tell: RunCommand) -> None:
    frame, board = study.frame(), study.leaderboard()
    best = study.best()
    assert frame.loc[best.trial.number, "peak_memory"] == peak_memory(best.spec)
    assert frame.loc[best.trial.number, "weights"] == weight_bytes(best.spec, "int8")
    assert list(board.frame()["peak_memory"]) == [row.needs["peak_memory"] for row in board]
    assert "peak memory" in board._repr_html_()
    assert "at most 8.000 KiB weights in int8, 24.00 KiB peak memory" in study._repr_html_()
    told = tell("leaderboard", "mine", "--out", str(out))
    assert "mine: at most 8.000 KiB weights in int8, 24.00 KiB peak memory" in told.out
    assert "--max-weights 8K --weight-precision int8 --max-peak-memory 24K" in told.out
    rows = json.loads(tell("leaderboard", "mine", "--out", str(out), "--json").out)["rows"]
    assert rows[0]["peak_memory"] == peak_memory(best.spec)
    trials = json.loads(tell("trials", "mine", "--out", str(out), "--json").out)["trials"]
    assert all("weights" in trial and "needs" not in trial for trial in trials)


def test_pages_show_what_is_limited(study: Study, tmp_path: Path) -> None:
    report("mine", out=study.out, to=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "at most 8.000 KiB weights in int8, 24.00 KiB peak memory" in page
    assert "peak memory, KiB" in page
    over = next(trial for trial in study.trials() if not trial.fits)
    assert "times as much" in page
    note = budget_table(over, study.settings)
    assert "peak memory" in note
    assert "24.00 KiB" in note


def test_a_search_that_nothing_fits_ends_before_it_begins(digits: DataSet, tmp_path: Path) -> None:
    with pytest.raises(OverBudgetError, match=r"^no network of the space fits .* KiB peak memory exceed the 1.000 KiB"):
        search(data=digits, max_peak_memory="1K", trials=1, out=tmp_path, device="cpu")


def test_stored_trials_are_read_with_what_they_need(study: Study) -> None:
    assert [trial.needs for trial in read_trials(study._study)] == [trial.needs for trial in study.trials()]
