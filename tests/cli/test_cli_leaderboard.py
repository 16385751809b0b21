"""`budgetnet leaderboard` of run folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_support import Runs
from support import RunCommand

pytestmark = pytest.mark.usefixtures("folder")


def test_runs_are_ranked_by_validation_accuracy(runs: Runs, tell: RunCommand) -> None:
    records = runs("good0", "good1")
    expected = sorted(records, key=lambda record: -(record.result.validation_correct or 0))
    answer = tell("leaderboard", "good0", "good1", "--json")
    assert (answer.code, answer.err) == (0, "")
    rows = [row for row in json.loads(answer.out)["rows"] if not row["is_reference"]]
    assert [row["run"] for row in rows] == [record.folder.name for record in expected]
    assert [row["accuracy"] for row in rows] == [
        (record.result.validation_correct or 0) / record.result.validation_images for record in expected
    ]
    shown = tell("leaderboard", "good0", "good1")
    assert shown.code == 0
    assert "2 runs" in shown.out
    assert "which also selected each run's best epoch by its loss" in " ".join(shown.out.split())
    assert all(f"{100 * row['accuracy']:.0f} [" in shown.out for row in rows)


def test_duplicate_run_is_rejected(runs: Runs, tell: RunCommand) -> None:
    runs("good0")
    answer = tell("leaderboard", "good0", "good0")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "twice" in answer.err


def test_a_folder_without_a_run_beside_one_is_named(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0")
    (folder / "empty").mkdir()
    answer = tell("leaderboard", "good0", "empty")
    assert answer.code == 2
    assert "empty" in answer.err
    assert "contains no run" in answer.err
