"""Files of studies that have not run here yet: at least they can be read, and their commands understood."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import child_environment, finished

from budgetnet.budget import Budget
from budgetnet.files import read_mapping, write_yaml
from budgetnet.recipe import Recipe
from budgetnet.search.rungs import rung_cycles
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
