"""How much of a space a budget admits, and what the command line tells of a space."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from support import PAIR_SPACE, TINY_SPACE, RunCommand, write_space

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.errors import OverBudgetError
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.memory import peak_memory
from budgetnet.statistics.intervals import wilson_interval
from budgetnet.study.space import SearchSpace, feasibility
from budgetnet.study.space.feasibility import require_feasible, share_within
from budgetnet.study.space.fitting import fit

IMAGE: dict[str, Any] = {"input_shape": (1, 8, 8), "num_classes": 10}
SPACE = SearchSpace.from_mapping(
    {**TINY_SPACE, "channels": [8, 24], "groups": [1, 4], "shortcuts": ["none", "padding"]}
)
BUDGET = Budget(max_params="20k", max_macs="300k")


def everything(space: SearchSpace) -> list[dict[str, Any]]:
    choices = [
        range(where.low, where.high + 1, where.step) if isinstance(where, IntDistribution) else where.choices
        for where in space.network.values()
        if isinstance(where, (IntDistribution, CategoricalDistribution))
    ]
    return [dict(zip(space.network, values, strict=True)) for values in itertools.product(*choices)]


def test_a_small_space_is_counted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not a divisor of the number of draws, so that the last part is a short one.
    monkeypatch.setattr(feasibility, "_AT_ONCE", 100)
    draws = everything(SPACE)
    within = sum(BUDGET.allows(SPACE.spec(params, **IMAGE).cost) for params in draws)
    found = share_within(SPACE, BUDGET, **IMAGE)
    assert 0 < within < len(draws)
    assert (found.within, found.samples, found.exact, found.interval) == (within, len(draws), True, None)
    assert found.share == within / len(draws)
    assert SPACE.size == len(draws)


def test_a_large_space_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = share_within(SPACE, BUDGET, **IMAGE)
    monkeypatch.setattr(feasibility, "MOST_COUNTED", SPACE.size - 1)
    monkeypatch.setattr(feasibility, "SAMPLED", 20_000)
    found = share_within(SPACE, BUDGET, **IMAGE, seed=3)
    assert (found.samples, found.exact) == (20_000, False)
    assert found.interval == wilson_interval(found.within, 20_000)
    assert found.interval.low < exact.share < found.interval.high
    assert found == share_within(SPACE, BUDGET, **IMAGE, seed=3)
    assert found.within != share_within(SPACE, BUDGET, **IMAGE, seed=2).within


def test_a_budget_that_the_smallest_network_meets_is_feasible() -> None:
    least = SPACE.smallest(**IMAGE)
    assert require_feasible(SPACE, Budget(max_params=least.params), **IMAGE)["params"].digest == least.digest
    with pytest.raises(OverBudgetError, match=rf"the smallest, .* {least.params:,} params exceed"):
        require_feasible(SPACE, Budget(max_params=least.params - 1), **IMAGE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_space(tmp_path / "pair.yaml", PAIR_SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_space_is_told_as_data(folder: Path, tell: RunCommand) -> None:
    answer = tell("space", "pair.yaml", "--max-params", "1362", "--input-shape", "1,8,8", "--json")
    assert (answer.code, answer.err) == (0, "")
    told = json.loads(answer.out)
    assert SearchSpace.from_mapping(told["space"]) == SearchSpace(**PAIR_SPACE)
    assert (told["size"], told["input_shape"], told["num_classes"]) == (2, [1, 8, 8], 10)
    # 18ww + 25w + 10 parameters: 1,362 for 8 channels, 5,018 for 16.
    assert told["within"] == {"within": 1, "samples": 2, "exact": True, "interval": None, "share": 0.5}
    assert told["smallest"]["params"]["params"] == 1362
    parameters = {parameter["name"]: parameter for parameter in told["parameters"]}
    assert parameters["channels"]["sizings"] == ["reject"]
    assert parameters["budget_share"]["sizings"] == ["scale"]
    assert parameters["block"] == {
        "name": "block",
        "choices": ["basic"],
        "count": 1,
        "sizings": ["fit", "scale", "reject"],
    }


def test_a_space_is_told_as_a_table(folder: Path, tell: RunCommand) -> None:
    SearchSpace(recipe={"weight_average": [None, 0.98], "nesterov": [True, False], "augmentation.cutout": [0, 8]}).save(
        folder / "many.yaml"
    )
    answer = tell("space", "many.yaml", "--max-params", "5M")
    assert (answer.code, answer.err) == (0, "")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in answer.out.splitlines()]
    assert ["channels", "32 to 96 by 8", "9", "reject"] in rows
    assert ["blocks_1 to 5", "1 to 2", "2 each", "all"] in rows
    assert ["growth_2 to 5", "1.0, 1.5, 2.0", "3 each", "all"] in rows
    assert ["recipe.weight_average", "none, 0.98", "2", "all"] in rows
    assert ["recipe.nesterov", "yes, no", "2", "all"] in rows
    assert ["budget_share", "0.1 to 1, log", "continuous", "scale"] in rows
    assert "1,119,744 combinations of the network's parameters, recipe values not counted" in answer.out
    assert "of all combinations, enumerated" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_a_named_space_is_sampled_and_fits_eighty_columns(tell: RunCommand) -> None:
    answer = tell("space", "resnet", "--max-params", "5e6", "--seed", "3")
    assert answer.code == 0
    assert "100,000 samples, 95 % interval" in answer.out
    assert answer.out != tell("space", "resnet", "--max-params", "5e6").out


def test_limits_of_the_deployed_network_are_counted_one_by_one(folder: Path, tell: RunCommand) -> None:
    limit = ["--max-peak-memory", "9K", "--input-shape", "1,8,8"]
    told = json.loads(tell("space", "pair.yaml", *limit, "--json").out)
    assert told["within"]["exact"] is True
    space = SearchSpace(**PAIR_SPACE)
    columns = space.enumerate(0, space.size)
    specs = [space.spec(space.complete(space.params_at(columns, row)), **IMAGE) for row in range(space.size)]
    peaks = [peak_memory(spec) for spec in specs]
    assert told["within"]["within"] == sum(peak <= 9 * 1024 for peak in peaks)
    assert 0 < told["within"]["within"] < space.size
    assert told["smallest"]["peak_memory"]["peak_memory"] == min(peaks)
    assert f"least peak memory: {short_bytes(min(peaks))}" in tell("space", "pair.yaml", *limit).out
    answer = tell("space", "pair.yaml", "--max-peak-memory", "1K", "--input-shape", "1,8,8")
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert f"{short_bytes(min(peaks))} peak memory exceed the 1.000 KiB allowed" in answer.err


def test_without_a_limit_no_share_is_told(folder: Path, tell: RunCommand) -> None:
    assert "at most" not in tell("space", "pair.yaml").out
    assert json.loads(tell("space", "pair.yaml", "--json").out)["within"] is None


def test_a_budget_that_nothing_fits_is_told_in_one_line(folder: Path, tell: RunCommand) -> None:
    answer = tell("space", "pair.yaml", "--max-params", "1361", "--input-shape", "1,8,8")
    assert (answer.code, answer.out) == (3, "")
    smallest = "the smallest, basic-8x1: 1,362 params exceed the 1,361 allowed"
    assert answer.err == f"error: no network of the space fits the budget; {smallest}\n"


def test_networks_with_fitted_widths_alone_fit(folder: Path, tell: RunCommand) -> None:
    wide = SearchSpace(**{**PAIR_SPACE, "channels": [32, 64]})
    wide.save(folder / "wide.yaml")
    answer = tell("space", "wide.yaml", "--max-params", "5k", "--input-shape", "1,8,8")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("only networks with fitted widths fit (--sizing fit or scale)\n")
    params = SearchSpace.params_at(wide.sample(count=1, generator=np.random.default_rng(0)), 0)
    assert fit(wide, params, budget=Budget(max_params="5k"), sizing="fit", **IMAGE).params <= 5_000
    with pytest.raises(OverBudgetError):
        require_feasible(wide, Budget(max_params="5k"), **IMAGE)
    assert "fitted widths" not in tell("space", "pair.yaml", "--max-params", "5k", "--input-shape", "1,8,8").out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["resnt"], "space = 'resnt': no such space, and no such file; did you mean resnet?"),
        (["none.yaml"], "space = 'none.yaml': no such file"),
        (["bad.yaml"], "bad.yaml: recipe.epochs = [3]: must be the same for all candidates"),
        (["paper", "--max-params", "0"], "--max-params = '0': must be a whole number"),
        (["paper", "--input-shape", "32,32"], "--input-shape = '32,32': must be channels, height and width"),
        (["paper", "--input-shape", "3,32,x"], "--input-shape = 'x': must be a whole number"),
        (["paper", "--input-shape", "3,5000,32"], "--input-shape = 5000: must be at most 4096"),
        (["paper", "--classes", "1"], "--classes = 1: must be at least 2"),
        (["huge.yaml", "--max-params", "100G", "--input-shape", "3,4096,4096"], "space = 'resnet': its largest"),
    ],
)
def test_what_is_no_space_is_told_in_one_line(
    folder: Path, tell: RunCommand, arguments: list[str], complaint: str
) -> None:
    (folder / "bad.yaml").write_text("recipe: {epochs: [3]}\n")
    huge = {"channels": [8, 65_536], "growth": [1.0], "blocks": [1, 256], "first_kernel_sizes": [1, 31]}
    write_space(folder / "huge.yaml", {**huge, "second_kernel_sizes": [1, 31]})
    answer = tell("space", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {complaint}")
    assert answer.err.count("\n") == 1
