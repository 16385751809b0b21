"""The tables of results in the documentation: as written, and equal to what the records' own files say."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import sem, t, ttest_1samp
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "studies" / "results" / "make_results.py"
    sys.path.append(str(path.parent))
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    return module


def table(text: str, name: str) -> list[list[str]]:
    """Return the cells of the rows of a marked table, without its head."""
    found = re.search(rf"<!-- table: {name} -->(.*?)<!-- end of table -->", text, re.DOTALL)
    assert found is not None
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_tables_are_those_that_the_records_give(script: ModuleType) -> None:
    tables = script.all_tables(ROOT / "studies")
    marked = 0
    for page in script.pages(ROOT):
        text = page.read_text(encoding="utf-8")
        assert script.with_tables(text, tables) == text, f"{page.name}: run python studies/results/make_results.py"
        marked += len(script.TABLE.findall(text))
    assert marked >= 2


def test_each_evaluated_network_has_its_row() -> None:
    # Records of older versions lack fields that a specification has today.
    runs: dict[tuple[int, str], list[tuple[int, dict[str, int], float]]] = {}
    for path in (ROOT / "studies").glob("*/runs/*/test.json"):
        run, result = (json.loads((path.parent / name).read_text()) for name in ("run.json", "result.json"))
        if run["data"]["train_images"] >= 40_000:
            with (path.parent / "curves.csv").open(newline="") as file:
                minutes = sum(float(row["seconds"]) for row in csv.DictReader(file)) / 60
            entry = (run["seed"], json.loads(path.read_text()), minutes)
            runs.setdefault((result["params"], run["recipe"]["name"]), []).append(entry)
    rows = [row for row in table(RESULTS.read_text(), "results") if "as published" not in row[0]]
    expected = set()
    for (params, _), group in runs.items():
        correct = [test["correct"] for _, test, _ in group]
        assert {test["images"] for _, test, _ in group} == {10_000}
        assert len({seed for seed, _, _ in group}) == len(group)
        mean = float(np.mean(correct)) / 100
        if len(set(correct)) > 1:
            margin = float(t.ppf(0.975, len(correct) - 1) * sem(correct)) / 100
            low, high = mean - margin, mean + margin
        else:
            low, high = (100 * float(end) for end in proportion_confint(correct[0], 10_000, method="wilson"))
        minutes = float(np.mean([each for _, _, each in group]))
        expected.add((f"{params:,}", f"{minutes:.0f}", str(len(group)), f"{mean:.2f} [{low:.2f}, {high:.2f}]"))
    assert {(row[2], row[7], row[8], row[10].strip("*")) for row in rows} == expected
    assert len(rows) == len(runs)


def test_finals_of_the_search_follow_from_the_records() -> None:
    folder = ROOT / "studies" / "cifar10-search-cpu"
    finals = json.loads((folder / "leaderboard.json").read_text())["finals"]
    text = (folder / "README.md").read_text()
    # Wide enough that the differences of all found finalists hold together (Šidák).
    confidence = 0.95 ** (1 / (len(finals) - 1))
    found: dict[str, tuple[float, float, float]] = {}
    for final in finals:
        correct = [json.loads((folder / "runs" / run / "test.json").read_text())["correct"] for run in final["runs"]]
        assert final["test"] == [each / 10_000 for each in correct]
        mean = float(np.mean(correct)) / 100
        margin = float(t.ppf((1 + confidence) / 2, len(correct) - 1) * sem(correct)) / 100
        found[final["architecture"]] = (mean, mean - margin, mean + margin)
    (base,) = (final["architecture"] for final in finals if final["enqueued"])
    other, other_low, other_high = found.pop(base)
    for final in finals:
        if final["enqueued"]:
            continue
        mean, low, high = found[final["architecture"]]
        # MOVER (Zou and Donner 2008).
        ends = (
            mean - other - float(np.hypot(mean - low, other_high - other)),
            mean - other + float(np.hypot(high - mean, other - other_low)),
        )
        assert [final["gap"], *final["gap_interval"]] == pytest.approx([(mean - other) / 100, *(e / 100 for e in ends)])
        assert f"{mean - other:+.2f} [{ends[0]:+.2f}, {ends[1]:+.2f}]" in text


def test_trainings_of_the_reference_are_compared_as_their_runs_say() -> None:
    rows = table((ROOT / "docs" / "reproduction.md").read_text(), "reproductions")
    folders = {}
    for folder in (ROOT / "studies" / "reproduction" / "runs").iterdir():
        run = json.loads((folder / "run.json").read_text())
        assert (run["spec"]["name"], run["seed"]) == ("reference", 0)
        folders[run["recipe"]["name"]] = folder
    assert [row[0] for row in rows] == [f"`{name}`" for name in sorted(folders)]
    for row, (name, folder) in zip(rows, sorted(folders.items()), strict=True):
        result, test = (json.loads((folder / file).read_text()) for file in ("result.json", "test.json"))
        counts, images = [test["correct"], 9_141], [10_000, 10_000]
        low, high = (100 * float(end) for end in proportion_confint(counts[0], images[0], method="wilson"))
        _, p_value = proportions_ztest(counts, images)
        ends = confint_proportions_2indep(counts[0], images[0], counts[1], images[1], method="score", compare="diff")
        lowest, highest = (100 * float(end) for end in ends)
        reproduced = "*reproduced*" if p_value >= 0.05 else "*not reproduced*"
        assert row[1:] == [
            str(result["epochs"]),
            "1",
            f"{images[0]:,}",
            f"{counts[0] / 100:.2f} [{low:.2f}, {high:.2f}]",
            f"{(counts[0] - counts[1]) / 100:+.2f} [{lowest:+.2f}, {highest:+.2f}]",
            f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001",
            reproduced if name == "paper" else "*not comparable*",
        ]


def test_variants_of_the_winner_are_compared_as_the_runs_say() -> None:
    folder = ROOT / "studies" / "cifar10-winner-cpu"
    found = json.loads((folder / "results" / "results.json").read_text())["rows"]
    accuracies = {}
    for row in found:
        results = [json.loads((folder / "runs" / run["run"] / "result.json").read_text()) for run in row["runs"]]
        assert {result["params"] for result in results} == {row["params"]}
        shares = [result["validation_correct"] / result["validation_images"] for result in results]
        accuracies[row["variant"]] = np.array(shares)
    base = accuracies["winner"]
    others = {name: 100 * (each - base) for name, each in accuracies.items() if name != "winner"}
    p_values = [float(ttest_1samp(each, 0).pvalue) for each in others.values()]
    corrected = dict(zip(others, multipletests(p_values, method="holm")[1], strict=True))
    rows = table((folder / "README.md").read_text(), "winner")
    assert [row[0] for row in rows[1:]] == sorted(others, key=lambda name: others[name].mean())
    for variant, *_, n, mean, difference, p_value in rows:
        assert (int(n), mean) == (len(base), f"{100 * accuracies[variant].mean():.2f}")
        if variant == "winner":
            assert (difference, p_value) == ("", "")
            continue
        change = others[variant]
        low, high = t.interval(0.95, len(change) - 1, loc=change.mean(), scale=sem(change))
        text = f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        assert difference == (f"**{text}**" if corrected[variant] < 0.05 else text)
        assert p_value == f"{corrected[variant]:.3f}"


def test_random_candidates_are_compared_as_the_runs_say() -> None:
    page = ROOT / "studies" / "cifar10-random-cpu" / "README.md"
    rows = {row[0]: row[1:] for row in table(page.read_text(), "random")}
    assert len(rows) == 4
    operations = {}
    for sampler, folder in (("surrogate", "cifar10-search-cpu"), ("random", "cifar10-random-cpu")):
        trials = json.loads((ROOT / "studies" / folder / "trials.json").read_text())["trials"]
        by_run = {trial["run"]: trial for trial in trials if trial.get("trained")}
        found = []
        for path in (ROOT / "studies" / folder / "runs").glob("*/result.json"):
            run, result = (json.loads((path.parent / name).read_text()) for name in ("run.json", "result.json"))
            if run["recipe"]["name"] == "cifar10-search-cpu" and not run["spec"].get("name"):
                accuracy = result["validation_correct"] / result["validation_images"]
                assert by_run[path.parent.name]["accuracy"] == pytest.approx(accuracy)
                found.append((accuracy, result["validation_correct"], result["status"] == "stopped"))
        best = sorted(found, reverse=True)
        low, high = proportion_confint(best[0][1], 5000, method="wilson")
        assert rows[sampler][0] == str(len(found))
        assert rows[sampler][2:] == [
            str(sum(stopped for *_, stopped in found)),
            f"{100 * best[0][0]:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
            f"{100 * float(np.mean([accuracy for accuracy, *_ in best[:5]])):.2f}",
        ]
        operations[sampler] = [
            trial["train_flops"] for trial in trials if trial.get("trained") and not trial["enqueued"]
        ]
    least = min(map(sum, operations.values()))
    for sampler, flops in operations.items():
        within = int((np.cumsum(flops) <= least).sum())
        equal = rows[f"{sampler}, equal PFLOP"]
        assert equal[0] == str(within)
        assert float(equal[1]) == pytest.approx(sum(flops[:within]) / 1e15, rel=0.01)
