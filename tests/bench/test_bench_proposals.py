"""`bench proposals`: statistics of proposals, JSON and table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import PAIR_SPACE, TINY_SPACE, RunCommand, write_space

from budgetnet.bench.proposals import SizingResult, run
from budgetnet.common.errors import InputError
from budgetnet.model.budget import Budget
from budgetnet.study.space import SearchSpace


def test_statistics_are_over_proposals_within_the_budget() -> None:
    row = SizingResult("reject", 4, budget_used=[0.5, 0.1, 0.9], seconds=[1.0, 2.0, 3.0, 6.0])
    assert (row.share_within, row.median_use, row.seconds_per_proposal) == (0.75, 0.5, 3.0)
    assert row.low_use == pytest.approx(0.1 + 0.1 * 0.4)
    assert row.interval.low < 0.75 < row.interval.high
    nothing = SizingResult("reject", 1, budget_used=[], seconds=[1.0])
    assert (nothing.share_within, nothing.median_use, nothing.low_use) == (0.0, None, None)


def test_proposals_of_every_sizing_are_reported(tmp_path: Path, tell: RunCommand) -> None:
    space = write_space(tmp_path / "space.yaml", TINY_SPACE)
    shape = ["--input-shape", "1,8,8", "--count", "30"]
    answer = tell("bench", "proposals", space, "--max-params", "50k", *shape, "--json")
    assert (answer.code, answer.err) == (0, "")
    result = json.loads(answer.out)
    assert [row["sizing"] for row in result["rows"]] == ["fit", "scale", "reject"]
    assert {row["proposals"] for row in result["rows"]} == {30}
    fitted, scaled, rejected = result["rows"]
    assert fitted["within"] == scaled["within"] == 30
    assert 0 < rejected["within"] < 30
    assert scaled["median_use"] < fitted["median_use"] <= 1
    assert [goal["met"] for goal in result["goals"][:1]] == [True]
    assert result["budget"]["max_params"] == 50_000
    table = tell("bench", "proposals", space, "--max-params", "50k", *shape)
    assert table.code == 0
    assert all(word in table.out for word in ("sizing", "fit", "scale", "reject", "at most 50,000 params", "1x8x8"))
    assert max(map(len, table.out.splitlines())) <= 80


def test_no_proposal_within_the_budget(tmp_path: Path, tell: RunCommand) -> None:
    space = write_space(tmp_path / "space.yaml", PAIR_SPACE)
    answer = tell("bench", "proposals", space, "--max-params", "1", "--count", "3")
    assert answer.code == 0
    assert "not met" in answer.out
    row = json.loads(tell("bench", "proposals", space, "--max-params", "1", "--count", "3", "--json").out)["rows"][0]
    assert (row["within"], row["median_use"]) == (0, None)


def test_same_seed_gives_same_proposals() -> None:
    space, budget = SearchSpace(**TINY_SPACE), Budget(max_params="50k")
    rows = [
        run(
            space,
            budget=budget,
            input_shape=(1, 8, 8),
            num_classes=10,
            proposals=20,
            seed=seed,
            progress=lambda _: None,
        ).rows
        for seed in (0, 0, 1)
    ]
    budget_used = [[row.budget_used for row in each] for each in rows]
    assert budget_used[0] == budget_used[1]
    assert budget_used[0] != budget_used[2]


def test_a_budget_without_limits_is_rejected() -> None:
    with pytest.raises(InputError, match="max_params"):
        run(
            SearchSpace(),
            budget=Budget(),
            input_shape=(1, 8, 8),
            num_classes=10,
            proposals=1,
            seed=0,
            progress=lambda _: None,
        )


def test_invalid_count_is_rejected(tell: RunCommand) -> None:
    answer = tell("bench", "proposals", "--count", "0")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: --count = '0': must be a whole number")
