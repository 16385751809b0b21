"""The winner of a search that is ablated: found in a study of candidates of every outcome."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_support import WrittenStudy, every_outcome, network

from budgetnet.api.search_winner import find_winner
from budgetnet.common.errors import InputError
from budgetnet.study.storage import default_storage


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> WrittenStudy:
    return every_outcome(tmp_path_factory.mktemp("winner") / "runs")


@pytest.mark.parametrize("text", ["study", "study#best", "best"])
def test_the_winner_is_the_best_finalist_with_the_final_recipe(study: WrittenStudy, text: str) -> None:
    # Of the finalists, trial 2 has the most validation images right.
    found = find_winner(text, out=study.out, storage=None)
    assert (found.study, found.name, found.trial, found.seed) == ("study", "study", "#2", 0)
    assert found.spec == network(24)
    assert (found.recipe.digest, found.search_recipe.digest) == (study.recipe.digest,) * 2
    assert (found.budget, found.data) == (study.budget, "digits")
    assert found.fingerprint == study.settings.data.fingerprint


def test_a_trial_has_the_recipe_of_the_search(study: WrittenStudy) -> None:
    for text in ("study#1", "#1"):
        found = find_winner(text, out=study.out, storage=default_storage(study.out))
        assert (found.name, found.trial, found.spec) == ("study#1", "#1", network(16, 24))
        assert found.recipe.digest == found.search_recipe.digest == study.recipe.digest


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("study#3", "of = 'study#3': must be fully trained, but is pruned"),
        ("study#6", "of = 'study#6': has no run: over budget"),
        ("study#11", "of = 'study#11': must be fully trained, but is interrupted"),
        ("study#10", "of = 'study#10': has no run: duplicate"),
        ("study#99", "of = 'study#99': study study has no such trial"),
        ("study#last", "of = 'study#last': must be the name of a search, best, SEARCH#3, or #3 of the latest"),
        ("other", "of = 'other': no such study; the storage has study"),
    ],
)
def test_what_is_not_fully_trained_is_refused_in_one_line(study: WrittenStudy, text: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        find_winner(text, out=study.out, storage=None)
    assert str(caught.value) == line


def test_a_winner_whose_run_is_gone_is_told_in_one_line(tmp_path: Path) -> None:
    study = WrittenStudy(tmp_path / "runs")
    study.complete(network(16), 9_000, folder=False)
    with pytest.raises(InputError, match=r"^run folder = .*basic-16x1") as caught:
        find_winner("study", out=study.out, storage=None)
    assert "\n" not in str(caught.value)
