"""Studies: files of those that have not run can be read, and what was measured follows from the records beside it."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import sem, t, ttest_rel
from statsmodels.stats.proportion import proportion_confint
from support import child_environment, finished, wait_for

from budgetnet.common.documents import parse_count
from budgetnet.common.files import read_mapping, write_yaml
from budgetnet.experiments.reproduction.leakage import leakage_result
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import RunFolder
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.feasibility import require_feasible

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
    assert sorted(used) == sorted(path.name for path in folder.iterdir() if path.is_dir())


class Goal(NamedTuple):
    accuracy: float
    params: int
    petaflops: float
    targets: tuple[float, ...]
    openings: str


GOALS = {
    "94": Goal(94.0, 2_000_000, 0.36, (0.9, 0.93), "test-openings.jsonl"),
    "95": Goal(95.0, 5_000_000, 1.4, (0.9, 0.93, 0.94), "test-openings-95.jsonl"),
}


@pytest.mark.parametrize("name", GOALS)
def test_result_of_a_goal_follows_from_its_records(name: str) -> None:
    goal, folder = GOALS[name], STUDIES / "goals"
    spec, recipe = ModelSpec.load(folder / f"spec-{name}.yaml"), Recipe.load(folder / f"recipe-{name}.yaml")
    evaluated = json.loads((folder / f"evaluate-{name}.json").read_text())
    reached = json.loads((folder / f"time-to-accuracy-{name}.json").read_text())["runs"]
    text = (folder / "README.md").read_text()
    accuracies = []
    for run, times in zip(evaluated["runs"], reached, strict=True):
        record = RunFolder(folder / "runs" / run["run"]).load(weights=False)
        identity = record.identity
        assert (identity.spec.digest, identity.recipe.digest) == (spec.digest, recipe.digest)
        assert (identity.data.train_images, identity.data.validation_images) == (49_000, 1_000)
        assert record.test is not None
        assert (identity.seed, record.test.correct, record.test.images) == (run["seed"], run["correct"], 10_000)
        assert record.result.train_flops == 6 * spec.macs * 49_000 * recipe.epochs
        low, high = proportion_confint(record.test.correct, 10_000, method="wilson")
        minutes = {}
        for target in goal.targets:
            first = next(epoch.epoch for epoch in record.curves if (epoch.validation_accuracy or 0) >= target)
            minutes[target] = sum(epoch.seconds for epoch in record.curves[:first]) / 60
            (found,) = [each["reached"] for each in times["targets"] if each["target"] == target]
            assert (found["epoch"], found["seconds"] / 60) == (first, pytest.approx(minutes[target]))
        accuracy = record.test.correct / 100
        row = f"| {identity.seed} | {accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}] |"
        assert f"{row} {' | '.join(f'{minutes[target]:.1f}' for target in goal.targets)} |" in text
        accuracies.append(accuracy)
    assert [run["seed"] for run in evaluated["runs"]] == [0, 1, 2]
    openings = [json.loads(line)["runs"] for line in (folder / goal.openings).read_text().splitlines()]
    # Each run is evaluated once.
    assert [run for opening in openings for run in opening] == [run["run"] for run in evaluated["runs"]]
    assert spec.params <= goal.params
    assert recipe.validation_fraction == 0.02
    assert 6 * spec.macs * 49_000 * recipe.epochs <= goal.petaflops * 1e15
    mean, error = float(np.mean(accuracies)), float(sem(accuracies))
    margin = float(t.ppf(0.975, 2)) * error
    shown = f"| **{mean:.2f} % [{mean - margin:.2f}, {mean + margin:.2f}]**, reached | {spec.params:,} |"
    assert f"{shown} {6 * spec.macs * 49_000 * recipe.epochs / 1e15:.3g} PFLOP |" in text
    assert mean >= goal.accuracy


def test_the_search_on_a_gpu_prunes_at_restarts_and_ends_on_one() -> None:
    recipe = Recipe.load(STUDIES / "cifar10-search" / "recipe.yaml")
    ends = recipe.schedule.cycle_ends(recipe.epochs)
    assert ends == [2, 6, 14, 30]


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


@pytest.mark.slow
def test_an_interrupted_search_of_the_comparison_has_the_epochs_of_an_uninterrupted_one(tmp_path: Path) -> None:
    script = STUDIES / "pruned-search" / "compare.py"
    study = read_mapping(script.with_name("study.yaml"))
    study |= {"train_size": 60, "candidates": 4, "arms": {"plain": study["arms"]["plain"]}}
    write_yaml(tmp_path / "study.yaml", study)
    options: dict[str, Any] = {"cwd": tmp_path, "env": child_environment(), "text": True}

    def command(out: str) -> list[str]:
        return [sys.executable, str(script), "--study", "study.yaml", "--seeds", "0", "--out", out]

    process = subprocess.Popen(command("out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    wait_for(lambda: list((tmp_path / "out" / "plain-0").glob("*/result.json")), process=process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert not (tmp_path / "out" / "plain-0.json").exists(), "the interruption came too late for this test"
    for out in ("out", "undisturbed"):
        subprocess.run(command(out), capture_output=True, check=True, timeout=300, **options)
    one, other = (json.loads((tmp_path / out / "plain-0.json").read_text()) for out in ("out", "undisturbed"))
    for result in (one, other):
        del result["environment"]
    assert one == other
    assert (one["candidates"], len(one["found"])) == (4, 4)
    trained = [json.loads(path.read_text()) for path in (tmp_path / "out" / "plain-0").glob("*/result.json")]
    assert sum(result["epochs"] for result in trained) == one["epochs"] == 4 * study["recipe"]["epochs"]


def test_the_trainings_that_chose_the_goals_recipe_are_those_of_its_table() -> None:
    text = (STUDIES / "goals" / "README.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.partition("## How network")[2].splitlines()
        if line.startswith("| ") and not line.startswith("| network")
    ]
    found = []
    for folder in (STUDIES / "goals" / "choice").iterdir():
        run = json.loads((folder / "run.json").read_text())
        with (folder / "curves.csv").open(newline="") as stream:
            last = list(csv.DictReader(stream))[-1]
        spec = ModelSpec.from_mapping(run["spec"])
        flops = 6 * spec.macs * run["data"]["train_images"] * int(last["epoch"])
        accuracies = (100 * float(last[name]) for name in ("train_accuracy", "validation_accuracy"))
        found.append([f"{flops / 1e15:.3f}", *(f"{accuracy:.1f}" for accuracy in accuracies)])
    assert sorted(found) == sorted(row[2:] for row in rows)
    assert len(found) == 3


@pytest.mark.parametrize("results", sorted((STUDIES / "samplers" / "results").iterdir()), ids=lambda path: path.name)
def test_comparison_of_samplers_follows_from_its_records(results: Path) -> None:
    study = read_mapping(STUDIES / "samplers" / f"{results.name}.yaml")
    text = (STUDIES / "samplers" / "README.md").read_text()
    seeds = [seed for seed in study["seeds"] if all((results / f"{arm}-{seed}.json").exists() for arm in study["arms"])]
    best: dict[str, list[float]] = {}
    for arm in study["arms"]:
        found = [json.loads((results / f"{arm}-{seed}.json").read_text()) for seed in seeds]
        assert len({each["limit_pflop"] for each in found}) == 1
        for each in found:
            # The next candidate would have been beyond the limit, so that nearly all of it was used.
            used = sum(each["macs"]) * 6 * study["train_size"] * study["recipe"]["epochs"] / 1e15
            assert 0.5 * each["limit_pflop"] < used <= each["limit_pflop"]
            assert max(each["params"]) <= parse_count(str(study["max_params"]), field="max_params")
        best[arm] = [100 * max(each["accuracies"]) for each in found]
        shown = ", ".join(f"{value:.2f}" for value in best[arm])
        assert f"| {arm} | {shown} | {', '.join(str(each['candidates']) for each in found)} |" in text
    for arm in ("random", "tpe"):
        differences = np.subtract(best["surrogate"], best[arm])
        margin = t.ppf(0.975, len(differences) - 1) * sem(differences)
        mean = differences.mean()
        assert f"surrogate - {arm} {mean:+.2f} [{mean - margin:+.2f}, {mean + margin:+.2f}]" in text.replace("\n", " ")
