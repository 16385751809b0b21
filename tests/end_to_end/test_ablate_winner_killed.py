"""The ablation of a search's winner, killed at the end of an epoch, goes on to what it would have come to."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from search_support import reached
from support import TINY_SPACE, finished, start, tiny_recipe, wait_for, write_space

from budgetnet.runs.store import RunFolder

SEARCH = [
    "--data",
    "digits",
    "--max-params",
    "20k",
    "--trials",
    "3",
    "--space",
    "space.yaml",
    "--recipe",
    "recipe.yaml",
]
SIZES = ["--train-size", "100", "--validation-size", "40", "--device", "cpu", "--threads", "1"]
ABLATE = ["ablate", "--of", "best", "--seeds", "2", "--device", "cpu", "--threads", "1"]
EPOCHS = 8


def epochs_of(run: Path) -> int:
    """Epochs that a run has finished."""
    curves = run / "curves.csv"
    return len(curves.read_text().splitlines()) - 1 if curves.exists() else 0


@pytest.mark.slow
def test_a_killed_ablation_of_a_winner_is_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    tiny_recipe(epochs=EPOCHS).save(folder / "recipe.yaml")
    # One kind of block and no pruning: few factors, and a winner of which all is known.
    space = {**TINY_SPACE, "block_kinds": ["preact"], "squeeze_excitation_ratios": [0.25]}
    write_space(folder / "space.yaml", space)
    done = finished("search", *SEARCH, *SIZES, "--pruner", "none", cwd=folder)
    assert done.returncode == 0, done.stderr
    searched = {path.parent for path in (folder / "runs").glob("*/run.json")}
    shutil.copytree(folder, tmp_path / "whole")
    whole = finished(*ABLATE, "--json", cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    process = start(*ABLATE, "--json", cwd=folder)

    def in_training() -> Path | None:
        """A run of the ablation that has finished some epochs, after another that is complete."""
        runs = {path.parent for path in (folder / "runs").glob("*/run.json")} - searched
        complete = {run for run in runs if (run / "result.json").exists()}
        return next((run for run in runs - complete if complete and 1 < epochs_of(run) < EPOCHS), None)

    half = wait_for(in_training, process=process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (half / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/result.json")}
    seen = (half / "curves.csv").read_text().splitlines()
    assert 2 < len(seen) <= EPOCHS
    partial = finished(*ABLATE, "--partial", "--json", cwd=folder)
    assert "nothing was trained" in partial.stderr
    again = finished(*ABLATE, "--json", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(whole.stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done is not trained again"
    # Lines have the times that epochs took. Of the last one, the checkpoint may not have been written.
    kept = (half / "curves.csv").read_text().splitlines()
    assert kept[: len(seen) - 1] == seen[:-1], "finished epochs are not trained again"
    assert reached(folder / "runs") == reached(tmp_path / "whole" / "runs")
    check_table(json.loads(again.stdout), folder, searched)


def check_table(found: dict[str, Any], folder: Path, searched: set[Path]) -> None:
    """Trace each number of the table to the records of the runs."""
    winner, *others = found["rows"]
    assert winner["variant"] == "winner"
    assert folder / "runs" / winner["runs"][0]["run"] in searched, "the run of the search is used"
    names = [row["variant"].partition("=")[0].partition(",")[0] for row in others]
    assert names[0] == "depth"
    assert names[-1] == "whole reference"
    assert {"block", "kernel_sizes", "squeeze_excitation"} <= set(names)
    for row in found["rows"]:
        records = [RunFolder(folder / "runs" / cell["run"]).load() for cell in row["runs"]]
        accuracies = [record.result.validation_accuracy or 0.0 for record in records]
        assert [record.identity.seed for record in records] == [0, 1]
        assert [cell["accuracy"] for cell in row["runs"]] == accuracies
        assert row["mean"] == sum(accuracies) / 2
        assert {record.result.params for record in records} == {row["params"]}
        assert row["params"] <= winner["params"] <= 20_000
        if row is not winner:
            assert abs(row["difference"] - (row["mean"] - winner["mean"])) < 1e-12
    shown = finished(*ABLATE, cwd=folder)
    for row in found["rows"]:
        assert f"{row['params']:,}" in shown.stdout
        assert f"{100 * row['mean']:.2f}" in shown.stdout
    assert finished("report", "-o", "page.html", cwd=folder).returncode == 0
    page = (folder / "page.html").read_text()
    assert "Why is it the best?</h2>" in page
    assert page.count("whole reference, refitted</th>") == 1
