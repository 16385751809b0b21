"""Files of studies that have not run here yet: at least they can be read, and their commands understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import finished

from budgetnet.budget import Budget
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
