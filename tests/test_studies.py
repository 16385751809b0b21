"""Studies: files of those that have not run can be read, and what was measured follows from the records beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel
from support import child_environment, finished

from budgetnet.budget import Budget
from budgetnet.files import read_mapping, write_yaml
from budgetnet.recipe import Recipe, named_recipe
from budgetnet.records import RunRecord
from budgetnet.reproduction.leakage import leakage_result
from budgetnet.run_folder import RunFolder
from budgetnet.searching.rungs import rung_cycles
from budgetnet.space import SearchSpace
from budgetnet.space.share import require_feasible

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*/space.yaml")), ids=lambda path: path.parent.name)
def test_the_spaces_of_studies_hold_networks_within_the_budget(path: Path) -> None:
    require_feasible(SearchSpace.load(path), Budget(max_params="5M"), input_shape=(3, 32, 32), num_classes=10)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_recipes_of_studies_can_be_read(path: Path) -> None:
    if path.stem in ("recipe", "final"):
        assert Recipe.load(path).name.startswith("cifar10-")


def kept_runs(study: str) -> list[RunRecord]:
    """The records of a study, by recipe and seed."""
    records = [RunFolder(path).load(weights=False) for path in (STUDIES / study / "runs").iterdir()]
    return sorted(records, key=lambda record: (record.identity.recipe.digest, record.identity.seed))


def test_what_is_said_of_the_leak_follows_from_its_records() -> None:
    records = kept_runs("leakage")
    leaking = [record for record in records if record.identity.recipe.leaks]
    sound = [record for record in records if not record.identity.recipe.leaks]
    assert [record.identity.seed for record in leaking] == [record.identity.seed for record in sound] == [0, 1, 2, 3, 4]
    for name, side in (("as-run", leaking), ("paper", sound)):
        assert {record.identity.recipe.digest for record in side} == {named_recipe(name).digest}
    found = leakage_result(leaking, sound).to_mapping()
    kept = json.loads((STUDIES / "leakage" / "leakage.json").read_text())
    assert found == kept
    text = (STUDIES / "leakage" / "README.md").read_text()
    for recipe in found["recipes"]:
        for measure in ("train_accuracy", "validation_accuracy", "test_accuracy", "gap"):
            assert f"{100 * recipe[measure]:.2f}" in text
    assert f"{100 * found['difference_of_gaps']['mean']:.2f} points" in text


def test_what_is_said_of_the_schedule_follows_from_its_records() -> None:
    kept = json.loads((STUDIES / "schedule" / "results" / "results.json").read_text())
    folder = STUDIES / "schedule" / "runs"
    base = [cell["accuracy"] for cell in kept["rows"][0]["runs"]]
    text = (STUDIES / "schedule" / "README.md").read_text()
    used = []
    for row in kept["rows"]:
        accuracies = []
        for cell in row["runs"]:
            record = RunFolder(folder / cell["run"]).load(weights=False)
            assert (record.identity.seed, record.result.validation_accuracy) == (cell["seed"], cell["accuracy"])
            assert (record.result.params, record.test) == (row["params"], None)
            accuracies.append(cell["accuracy"])
            used.append(cell["run"])
        assert f"| 5 | {100 * sum(accuracies) / 5:.2f} |" in text
        if not row["is_base"]:
            test = ttest_rel(accuracies, base)
            low, high = test.confidence_interval()
            difference = 100 * (sum(accuracies) - sum(base)) / 5
            assert f"{difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]" in text
            assert row["p_value"] == pytest.approx(test.pvalue)
    assert sorted(used) == sorted(path.name for path in folder.iterdir())


def test_the_search_on_a_gpu_prunes_at_restarts_and_ends_on_one() -> None:
    recipe = Recipe.load(STUDIES / "cifar10-search" / "recipe.yaml")
    ends = recipe.schedule.cycle_ends(recipe.epochs)
    assert ends == [2, 6, 14, 30]
    assert rung_cycles(ends, epochs=recipe.epochs) == [1, 2, 3]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_on_a_gpu_share_it_and_come_to_finals(tmp_path: Path) -> None:
    """Two processes on one GPU, on the digits, as the study has them on CIFAR-10."""
    options = ["search", "--max-params", "100k", "--device", "cuda", "--per-gpu", "2", "--trials", "4", "--epochs", "3"]
    done = finished(*options, "--finalists", "1", "--final-seeds", "2", "--final-epochs", "2", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["trained"] == 4
    assert len(answer["finals"][0]["test"]) == 2


@pytest.mark.slow
def test_the_comparison_of_searches_goes_on_and_sums_up_what_it_found(tmp_path: Path) -> None:
    script = STUDIES / "pruned-search" / "compare.py"
    study = read_mapping(script.with_name("study.yaml"))
    study |= {"train_size": 60, "seeds": [0, 1], "candidates": 3}
    write_yaml(tmp_path / "study.yaml", study)
    command = [sys.executable, str(script), "--study", "study.yaml", "--out", "out"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": child_environment(), "text": True, "timeout": 300}
    first = subprocess.run([*command, "--seeds", "1"], capture_output=True, check=True, **options)
    assert first.stdout.count("seed 1: best") == 3
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*-1.json")}
    subprocess.run(command, capture_output=True, check=True, **options)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in kept} == kept
    results = {
        (arm, seed): json.loads((tmp_path / "out" / f"{arm}-{seed}.json").read_text())
        for arm in study["arms"]
        for seed in (0, 1)
    }
    assert {result["epochs"] for result in results.values()} == {3 * study["recipe"]["epochs"]}
    best = {key: max(found["accuracy"] for found in result["found"]) for key, result in results.items()}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for arm in ("pruned", "pruned-by-chance"):
        gains = [100 * (best[arm, seed] - best["plain", seed]) for seed in (0, 1)]
        assert summary[arm]["best, difference to plain in points"][0] == pytest.approx(sum(gains) / 2)
