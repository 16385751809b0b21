"""The table of networks at one cap: how it is read, and replays of searches and of pruning against brute force."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from budgetnet.bench.quality import one_cap
from budgetnet.bench.quality.problem import Problem
from budgetnet.bench.quality.pruning import prune, replay_pruners
from budgetnet.bench.quality.replay import replay
from budgetnet.bench.quality.strategies import STRATEGIES
from budgetnet.cli.main import main
from budgetnet.common.files import write_yaml
from budgetnet.model.budget import Budget
from budgetnet.study.pruner import make_pruner
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.columns import sample_columns
from budgetnet.study.space.fitting import fit

SPACE: dict[str, Any] = {
    "stages": [2, 3],
    "growth": [1.0, 2.0],
    "blocks": [1, 2],
    "first_kernel_sizes": [3, 5],
    "block_kinds": ["basic", "bottleneck"],
    "stems": [{"stride": 2}, {"stride": 4}],
}
RECIPE = {
    "epochs": 7,
    "schedule": {"kind": "cosine-restarts", "first_cycle": 1, "cycle_factor": 2},
    "early_stopping": None,
}
NETWORKS, WHOLE = 60, 48
"""Networks of the table, and those of them with three seeds."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up table: 48 networks with three seeds, two of them diverged with one seed, and 12 with one seed."""
    folder = tmp_path_factory.mktemp("table")
    write_yaml(folder / "study.yaml", {"seeds": [0, 1, 2], "space": SPACE, "recipe": RECIPE})
    generator, space = np.random.default_rng(5), SearchSpace.from_mapping(SPACE)
    networks: list[dict[str, Any]] = []
    while len(networks) < NETWORKS:
        params = space.params_at(sample_columns(space.proposed("fit"), count=1, generator=generator), 0)
        image: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
        spec = fit(space, params, budget=Budget(max_params=60_000), sizing="fit", **image)
        if len(spec.stages) == params["stages"] and spec.digest[:16] not in {each["digest"] for each in networks}:
            networks.append(
                {
                    "network": len(networks),
                    **params,
                    "widths": "-".join(str(stage.channels) for stage in spec.stages),
                    "depths": "-".join(str(stage.blocks) for stage in spec.stages),
                    **spec.cost._asdict(),
                    "blocks": sum(stage.blocks for stage in spec.stages),
                    "digest": spec.digest[:16],
                }
            )
    write(folder / "networks.csv", networks)
    trainings = []
    for number, network in enumerate(networks):
        quality = 0.3 + 0.04 * np.log(network["macs"] / 1e5) + generator.normal(0, 0.03)
        for seed in range(3 if number < WHOLE else 1):
            shape = np.array([0.1, 0.05, 0.17, 0.02, 0.1, 0.19, 0.22])
            curve = quality + shape + generator.normal(0, 0.02, 7)
            diverged = (number, seed) in ((3, 1), (7, 2))
            trainings.append(
                {
                    "network": number,
                    "seed": seed,
                    "status": "diverged" if diverged else "complete",
                    **{f"accuracy_{each}": "" if diverged else f"{curve[each - 1]:.4f}" for each in range(1, 8)},
                    **{f"loss_{each}": "" if diverged else "1.5" for each in range(1, 8)},
                    "pflop": "0.001",
                    "seconds": "10.0",
                }
            )
    # In the order of a training that goes on, not sorted.
    generator.shuffle(trainings)
    write(folder / "trainings.csv", trainings)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def copied(table: Path, folder: Path) -> Path:
    for path in table.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def curves_by_hand(table: Path) -> dict[int, list[list[float]]]:
    """Accuracies by network, seed and epoch, of networks that were trained to the end with all three seeds."""
    found: dict[int, dict[int, list[float]]] = {}
    for row in read(table / "trainings.csv"):
        if row["status"] == "complete":
            curve = [float(row[f"accuracy_{each}"]) for each in range(1, 8)]
            found.setdefault(int(row["network"]), {})[int(row["seed"])] = curve
    return {number: [seeds[each] for each in range(3)] for number, seeds in sorted(found.items()) if len(seeds) == 3}


def test_table_has_the_networks_with_all_seeds_and_their_counts(table: Path) -> None:
    problem, curves, networks = one_cap.load(table), curves_by_hand(table), read(table / "networks.csv")
    assert (problem.table, problem.name) == ("one-cap", "46 networks")
    assert sorted(curves) == [number for number in range(WHOLE) if number not in (3, 7)]
    assert problem.curves is not None
    np.testing.assert_allclose(problem.curves.accuracy, 100 * np.array(list(curves.values())))
    np.testing.assert_array_equal(problem.accuracy, problem.curves.accuracy[:, :, -1])
    for name, column in (("macs", problem.macs), ("params", problem.size)):
        assert column is not None
        assert column.tolist() == [int(networks[number][name]) for number in curves]
    assert {name: column.tolist() for name, column in problem.features.items()} == {
        "log activations": [int(networks[number]["activations"]) for number in curves],
        "log blocks": [int(networks[number]["blocks"]) for number in curves],
    }
    # A parameter's index is that of its value among the space's choices.
    choices: dict[str, list[str]] = {"growth_2": ["1.0", "2.0"], "blocks_1": ["1", "2"], "stages": ["2", "3"]}
    for name, values in choices.items():
        place = list(problem.distributions).index(name)
        assert problem.indexes[:, place].tolist() == [values.index(networks[number][name]) for number in curves]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_only_networks_of_the_table_and_none_twice(strategy: str, table: Path) -> None:
    problem = one_cap.load(table)
    search = STRATEGIES[strategy][1](problem, 3)
    chosen = [next(search)]
    while len(chosen) < 30:
        chosen.append(search.send(float(problem.accuracy[chosen[-1], 0])))
    assert len(set(chosen)) == 30
    assert set(chosen) <= set(range(46))


def test_nearest_network_is_that_with_most_values_in_common(table: Path) -> None:
    problem = one_cap.load(table)
    wanted = {name: int(problem.indexes[:, place].max()) for place, name in enumerate(problem.distributions)}
    # Every parameter of this space has at most two values.
    assert max(wanted.values()) == 1
    agreeing = (problem.indexes == np.array(list(wanted.values()))).sum(axis=1)
    # A number that differs counts as 4, a choice as 1.
    numbers = [name.startswith(("blocks", "stages", "full")) for name in wanted]
    distance = ((problem.indexes != np.array(list(wanted.values()))) * np.where(numbers, 4, 1)).sum(axis=1)
    assert agreeing.max() < len(wanted), "not in the table"
    found = problem.nearest(wanted, trained=())
    assert distance[found] == distance.min()
    again = problem.nearest(wanted, trained={found})
    assert again != found
    assert distance[again] == sorted(distance)[1]
    known = dict(zip(problem.distributions, problem.indexes[5].tolist(), strict=True))
    assert problem.nearest(known, trained={5}) == 5


def test_regret_is_that_of_the_network_that_one_seed_prefers(table: Path) -> None:
    curves = curves_by_hand(table)
    truth = [100 * sum(curve[-1] for curve in each) / 3 for each in curves.values()]
    judge = [each[1][-1] for each in curves.values()]
    problem = one_cap.load(table)
    order = np.random.default_rng(0).permutation(46).tolist()
    assert problem.regret(problem.accuracy[:, 1], order[:9]) == pytest.approx(
        max(truth) - truth[max(order[:9], key=judge.__getitem__)]
    )
    found = replay(problem, "random", seed=0, repetition=1)
    assert min(found.regrets) >= 0
    assert max(found.regrets) <= max(truth) - min(truth)


def halving_by_hand(curves: list[list[float]]) -> list[int]:
    """Epochs of each of some candidates, one after another, by the rule in the paper: half continue at each rung."""
    reached: dict[int, list[float]] = {1: [], 3: []}
    epochs = []
    for curve in curves:
        trained = 7
        for end in (1, 3):
            reached[end].append(curve[end - 1])
            ranked = sorted(reached[end], reverse=True)
            if curve[end - 1] < ranked[max(1, len(ranked) // 2) - 1]:
                trained = end
                break
        epochs.append(trained)
    return epochs


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_asha_stops_the_candidates_that_brute_force_stops(seed: int, table: Path) -> None:
    problem, curves = one_cap.load(table), list(curves_by_hand(table).values())
    order = np.random.default_rng(seed).permutation(46).tolist()
    assert problem.curves is not None
    found = prune(problem, make_pruner("asha", problem.curves.recipe), order, seed=seed)
    expected = halving_by_hand([curves[candidate][seed] for candidate in order])
    assert found.epochs == expected
    assert set(expected) == {1, 3, 7}


def test_pruning_is_compared_at_equal_candidates_and_at_equal_epochs(table: Path) -> None:
    problem, curves = one_cap.load(table), list(curves_by_hand(table).values())
    truth = [100 * sum(curve[-1] for curve in each) / 3 for each in curves]
    rows = {(row.pruner, row.candidates): row for row in replay_pruners(problem, (5, 20), count=7, seed=11)}
    assert [*rows] == [(name, number) for name in ("asha", "hyperband", "median") for number in (5, 20)]
    from budgetnet.common.seeding import derive_seed

    for number in (5, 20):
        row = rows["asha", number]
        assert row.compared == (1, 3)
        for repetition in range(7):
            seed = repetition % 3
            order = np.random.default_rng(derive_seed(11, "pruning", repetition)).permutation(46).tolist()
            epochs = halving_by_hand([curves[candidate][seed] for candidate in order])

            def regret(candidates: list[int], *, seed: int = seed) -> float:
                return max(truth) - truth[max(candidates, key=lambda each: curves[each][seed][-1])]

            def whole(count: int, *, order: list[int] = order, epochs: list[int] = epochs) -> list[int]:
                return [each for each, spent in zip(order[:count], epochs[:count], strict=True) if spent == 7]

            then = max(count for count in range(1, 47) if sum(epochs[:count]) <= 7 * number)
            assert row.plain[repetition] == pytest.approx(regret(order[:number]))
            assert row.pruned[repetition] == pytest.approx(regret(whole(number)))
            assert row.saved[repetition] == pytest.approx(1 - sum(epochs[:number]) / (7 * number))
            assert row.candidates_then[repetition] == then
            assert row.equal_epochs[repetition] == pytest.approx(regret(whole(then)))


def test_command_prints_both_tables_and_their_data(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "quality", "--one-cap", str(table), "--strategies", "random,surrogate", "--repeat", "4"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "one-cap: 46 networks" in printed
    assert "one-cap: random candidates, pruned after epoch 1, 3" in printed
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(row["table"], row["strategy"]) for row in answer["rows"]] == [
        ("one-cap", "random"),
        ("one-cap", "surrogate"),
    ]
    rows = {(row["pruner"], row["candidates"]): row for row in answer["pruning"]}
    problem: Problem = one_cap.load(table)
    for row in replay_pruners(problem, (5, 10, 20, 40), count=4, seed=0):
        assert rows[row.pruner, row.candidates] == json.loads(json.dumps(row.to_mapping()))


def edited(name: str, change: Callable[[list[dict[str, str]]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rows = read(folder / name)
        change(rows)
        write(folder / name, list(rows))

    return apply


def rewritten(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))

    return apply


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no study": (lambda folder: (folder / "study.yaml").unlink(), "study.yaml': no such file"),
    "study without a space": (rewritten("study.yaml", lambda _: "seeds: [0]\n"), "must be the study of a table"),
    "study with a wrong recipe": (
        rewritten("study.yaml", lambda text: text.replace("epochs: 7", "epochs: none")),
        "must be the study of a table",
    ),
    "no networks": (lambda folder: (folder / "networks.csv").unlink(), "networks.csv': no such file"),
    "empty": (
        rewritten("networks.csv", lambda _: ""),
        "networks.csv': must have the columns of its study: lacks",
    ),
    "other columns": (
        rewritten("trainings.csv", lambda text: text.replace("accuracy_3", "accuracy3", 1)),
        "trainings.csv': must have the columns of its study: lacks accuracy_3; has accuracy3",
    ),
    "columns in another order": (
        rewritten("trainings.csv", lambda text: text.replace("network,seed", "seed,network", 1)),
        "trainings.csv': must have the columns of its study: other order",
    ),
    "cut off": (rewritten("trainings.csv", lambda text: text[: len(text) - 30]), "must have 19 cells"),
    "too many cells": (rewritten("trainings.csv", lambda text: text + "1,2" + ",3" * 30), "must have 19 cells"),
    "not text": (lambda folder: (folder / "networks.csv").write_bytes(b"\xff\xfe\x00"), "must be a CSV file"),
    "value beyond the space": (
        edited("networks.csv", lambda rows: rows[4].update(first_kernel_size="7")),
        "line 6: first_kernel_size must be of the space, not '7'",
    ),
    "other widths": (
        edited("networks.csv", lambda rows: rows[4].update(widths="8-8-8-8-8-8")),
        "line 6: widths and depths must be a network's",
    ),
    "wrong count": (edited("networks.csv", lambda rows: rows[0].update(macs="17")), "line 2: macs must be"),
    "missing network": (edited("networks.csv", lambda rows: rows.pop(2)), "line 4: network must be 2"),
    "unknown network": (
        edited("trainings.csv", lambda rows: rows[0].update(network="900")),
        "line 2 must have a network of networks.csv",
    ),
    "unknown seed": (edited("trainings.csv", lambda rows: rows[0].update(seed="9")), "line 2 must have a network of"),
    "no number": (
        edited("trainings.csv", lambda rows: rows[0].update(accuracy_2="high")),
        "line 2 must have a network",
    ),
    "impossible accuracy": (
        edited("trainings.csv", lambda rows: [row.update(accuracy_2="61.2") for row in rows[:6]]),
        "must have accuracies from 0 to 1",
    ),
    "twice": (edited("trainings.csv", lambda rows: rows.append(rows[0])), "must not repeat a training"),
    "one seed only": (
        edited("trainings.csv", lambda rows: rows.__delitem__(slice(1, None))),
        "has 0 networks that were trained to the end with seeds [0, 1, 2]",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_gets_one_line_that_names_the_file_once(
    damage: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(table, tmp_path)
    break_it, line = DAMAGE[damage]
    break_it(folder)
    assert main(["bench", "quality", "--one-cap", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: --one-cap = ")
    assert line in errors
    assert len(errors.strip().splitlines()) == 1
    assert errors.count("study.yaml'") + errors.count("networks.csv'") + errors.count("trainings.csv'") == 1


def test_option_and_table_belong_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, line in (
        (["--tables", "one-cap"], "--one-cap = None: must name a folder"),
        (
            ["--tables", "hpolib", "--one-cap", str(tmp_path)],
            "is read for the table one-cap only, which --tables leaves out",
        ),
        (["--one-cap", str(tmp_path / "none")], "none/study.yaml': no such file"),
    ):
        assert main(["bench", "quality", *words]) == 2
        assert line in capsys.readouterr().err
