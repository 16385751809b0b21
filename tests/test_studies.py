"""Studies: files of those that have not run can be read, and what was measured follows from the records beside it."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import sem, t, ttest_rel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from support import child_environment, finished

from budgetnet.common.documents import parse_count
from budgetnet.common.files import read_mapping, write_yaml
from budgetnet.experiments.ablation import AblationStudy
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


def pooled_by_hand(pairs: list[tuple[list[float], list[float]]]) -> tuple[float, float, float, float]:
    """Mean over networks of the mean difference, its 95 % interval and p-value, from the spread within networks."""
    differences = [np.subtract(own, other) for own, other in pairs]
    mean = float(np.mean([each.mean() for each in differences]))
    error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in differences)) / len(differences)
    freedom = sum(len(each) - 1 for each in differences)
    margin = float(t.ppf(0.975, freedom)) * error
    return mean, mean - margin, mean + margin, float(2 * t.sf(abs(mean) / error, freedom))


def test_table_of_fast_training_options_follows_from_the_records_of_its_runs(tmp_path: Path) -> None:
    folder = STUDIES / "fast-recipe"
    with tarfile.open(folder / "runs.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    rows = json.loads((folder / "results" / "results.json").read_text())["rows"]
    study = AblationStudy.load(folder / "study.yaml")
    variants = {(each.network, each.name): each for each in study.variants(input_shape=(3, 32, 32), num_classes=10)}
    accuracies: dict[tuple[str, str], list[float]] = {}
    used = []
    for row in rows:
        variant = variants.pop((row["network"], row["variant"]))
        for cell in row["runs"]:
            record = RunFolder(tmp_path / "runs" / cell["run"]).load(weights=False)
            assert (record.identity.spec.digest, record.identity.recipe.digest) == (
                variant.spec.digest,
                variant.recipe.digest,
            )
            assert (record.identity.data.train_images, record.identity.data.validation_images) == (10_000, 5_000)
            assert (record.identity.seed, record.result.validation_accuracy) == (cell["seed"], cell["accuracy"])
            assert record.test is None
            used.append(cell["run"])
        accuracies[row["network"], row["variant"]] = [cell["accuracy"] for cell in row["runs"]]
        assert [cell["seed"] for cell in row["runs"]] == [0, 1, 2, 3, 4]
    assert not variants
    assert sorted(used) == sorted(path.name for path in (tmp_path / "runs").iterdir())

    networks, options = list(study.networks), [*study.options, "all"]
    compared = {(option, "base"): (option, "base") for option in options}
    compared |= {(option, "all"): (f"all without {option}", "all") for option in study.options}
    found = {
        key: pooled_by_hand([(accuracies[network, own], accuracies[network, other]) for network in networks])
        for key, (own, other) in compared.items()
    }
    p_values = dict(zip(found, multipletests([each[3] for each in found.values()], method="holm")[1], strict=True))
    text = (folder / "README.md").read_text()
    for network in networks:
        base, every = (100 * float(np.mean(accuracies[network, name])) for name in ("base", "all"))
        assert f"| {network} | {base:.2f} | {every:.2f} |" in text
    helps = {key: p < 0.05 and (found[key][0] > 0) == (key[1] == "base") for key, p in p_values.items()}
    costs = {key: p < 0.05 and not helps[key] for key, p in p_values.items()}
    for option in options:
        cells, keys = [option], [key for key in found if key[0] == option]
        for key in keys:
            mean, low, high, _ = (100 * value for value in found[key])
            p_value = "<0.001" if p_values[key] < 0.001 else f"{p_values[key]:.3f}"
            cells += [f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", p_value]
        cells += [""] * (5 - len(cells))
        gains, losses = any(helps[key] for key in keys), any(costs[key] for key in keys)
        cells.append("mixed" if gains and losses else "helps" if gains else "costs" if losses else "not settled")
        assert f"| {' | '.join(cells)} |" in text


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
    assert 6 * spec.macs * 49_000 * recipe.epochs <= goal.petaflops * 1e15
    mean, error = float(np.mean(accuracies)), float(sem(accuracies))
    margin = float(t.ppf(0.975, 2)) * error
    shown = f"| **{mean:.2f} % [{mean - margin:.2f}, {mean + margin:.2f}]**, reached | {spec.params:,} |"
    assert f"{shown} {6 * spec.macs * 49_000 * recipe.epochs / 1e15:.3g} PFLOP |" in text
    assert mean >= goal.accuracy


def test_the_recipe_fast_is_the_base_of_its_study_and_the_options_that_help() -> None:
    study = AblationStudy.load(STUDIES / "fast-recipe" / "study.yaml")
    text = (STUDIES / "fast-recipe" / "README.md").read_text()
    verdicts = {
        name: re.search(rf"^\| {re.escape(name)} \|.*\| ([a-z ]+) \|$", text, re.MULTILINE) for name in study.options
    }
    taken = {name for name, found in verdicts.items() if found and found[1] in ("helps", "mixed")}
    expected = study.recipe.to_mapping()
    for name in taken:
        for path, value in study.options[name].items():
            document, *fields = path.split(".")
            if document == "recipe":
                part = expected
                for field in fields[:-1]:
                    part = part[field]
                part[fields[-1]] = value
    fast = named_recipe("fast")
    expected |= {"name": "fast", "epochs": fast.epochs, "test_time_flip": True}
    expected["schedule"] |= {"first_cycle": fast.epochs}
    assert fast.digest == Recipe.from_mapping(expected).digest
    assert taken == {
        "reflected translation by 2",
        "batch-norm biases x 64",
        "batch-norm momentum 0.4",
        "whitening",
        "Muon",
        "GELU",
    }


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


BASE_RECIPE: dict[str, Any] = {
    "learning_rate": 0.05,
    "epochs": 30,
    "schedule": {"first_cycle": 30},
    "early_stopping": None,
}
ONE_CYCLE: dict[str, Any] = {"schedule": {"kind": "one-cycle", "first_cycle": 30, "warmup_fraction": 0.2}}
WHAT_PAID: dict[str, Any] = {"nesterov": True, "label_smoothing": 0.1, **ONE_CYCLE}
RECIPES: dict[str, dict[str, Any]] = {
    "base": {},
    "learning rate 0.01": {"learning_rate": 0.01},
    "learning rate 0.1": {"learning_rate": 0.1},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "Nesterov": {"nesterov": True},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "one-cycle": ONE_CYCLE,
    "weight average 0.98": {"weight_average": 0.98},
    "flip at test time": {"test_time_flip": True},
    "alternating flip": {"augmentation": {"alternating_flip": True}},
    "cutout 8": {"augmentation": {"cutout": 8}},
    "cutout 16": {"augmentation": {"cutout": 16}},
    "TrivialAugment": {"augmentation": {"policy": {"kind": "trivial-augment"}}},
    "RandAugment": {"augmentation": {"policy": {"kind": "rand-augment"}}},
    "mixup 0.2": {"augmentation": {"mixing": {"kind": "mixup", "alpha": 0.2}}},
    "CutMix 1": {"augmentation": {"mixing": {"kind": "cutmix", "alpha": 1.0}}},
    "all that paid": {**WHAT_PAID, "test_time_flip": True},
}
"""What each variant of the study of recipe options changes in the base recipe, written out by hand."""
CONFIRMED = {"base": {}, "all that paid": RECIPES["all that paid"], "without test-time flip": WHAT_PAID}


@pytest.mark.parametrize(
    ("name", "table", "recipes", "common"),
    [("study", "results", RECIPES, {}), ("confirm", "confirm", CONFIRMED, {"split_seed": 1})],
)
def test_the_study_of_recipe_options_asks_what_its_tables_answer(
    name: str, table: str, recipes: dict[str, dict[str, Any]], common: dict[str, Any]
) -> None:
    folder = STUDIES / "recipe-options"
    study = AblationStudy.load(folder / f"{name}.yaml")
    variants = study.variants(input_shape=(3, 32, 32), num_classes=10)
    expected = {key: Recipe.from_mapping({**BASE_RECIPE, **common, **changes}) for key, changes in recipes.items()}
    assert {each.name: each.recipe.digest for each in variants} == {key: each.digest for key, each in expected.items()}
    network = ModelSpec.resnet(channels=[32, 64, 128], strides=[2, 2, 2])
    assert {each.spec.digest for each in variants} == {network.digest}
    assert (study.train_size, study.validation_size) == (2000, 3000)
    with (folder / f"{table}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["variant"] for row in rows] == [each.name for each in variants]
    # Each is a count of 3,000 images, written to a hundredth of a point.
    accuracies = {row["variant"]: [round(30 * float(row[f"seed {seed}"])) / 30 for seed in study.seeds] for row in rows}
    text = (STUDIES.parent / "docs" / "performance.md").read_text()
    for row in rows:
        own, base = accuracies[row["variant"]], accuracies["base"]
        said = "none" if row["variant"] == "base" else row["variant"]
        assert f"| {said} | {sum(own) / 3:.2f} | {row['sd']} |" in text
        assert float(row["sd"]) == pytest.approx(stdev(own), abs=0.0051)
        if own != base:
            test = ttest_rel(own, base)
            numbers = [sum(own) / 3 - sum(base) / 3, *test.confidence_interval()]
            assert [float(row[key]) for key in ("difference", "low", "high")] == pytest.approx(numbers, abs=0.0051)
            assert f"| {row['difference']} [{row['low']}, {row['high']}] |" in text


def test_corrected_for_all_options_one_loss_is_beyond_noise_and_the_confirmation_stands() -> None:
    found = {}
    for table in ("results", "confirm"):
        with (STUDIES / "recipe-options" / f"{table}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        values = {
            row["variant"]: [float(value) for key, value in row.items() if key.startswith("seed")] for row in rows
        }
        p_values = {
            key: 1.0 if own == values["base"] else ttest_rel(own, values["base"]).pvalue
            for key, own in values.items()
            if key != "base"
        }
        corrected = multipletests(list(p_values.values()), method="holm")[1]
        found[table] = {key: round(value, 2) for key, value in zip(p_values, corrected, strict=True) if value < 0.05}
    assert found == {
        "results": {"TrivialAugment": 0.03},
        "confirm": {"all that paid": 0.03, "without test-time flip": 0.03},
    }


def test_the_study_of_fast_recipes_has_three_networks_of_a_size_and_tries_each_option_alone_and_omitted() -> None:
    study = AblationStudy.load(STUDIES / "fast-recipe" / "study.yaml")
    variants = study.variants(input_shape=(3, 32, 32), num_classes=10)
    # A base, fourteen options alone, all of them together, and all without each of them.
    assert len({each.key for each in variants}) == len(variants) == 3 * (1 + 14 + 1 + 14)
    assert {each.network for each in variants} == {"basic", "preact", "se"}
    # A stem of 3x3 from 3 channels, and blocks of two 3x3 convolutions with a 1x1 shortcut where widths differ, each
    # followed by a norm of two numbers for each channel, then the classifier.
    pairs = [(16, 48), (48, 144)]
    blocks = sum(9 * into * out + 9 * out * out + 4 * out + into * out + 2 * out for into, out in pairs)
    basic = 27 * 16 + 32 + 2 * 9 * 16 * 16 + 4 * 16 + blocks + 144 * 10 + 10
    first = {each.network: each.spec for each in reversed(variants)}
    assert first["basic"].params == basic
    # Squeeze-and-excitation with a quarter of the channels: two layers with biases in each block.
    excitation = sum(2 * width * (width // 4) + width // 4 + width for width in (16, 48, 144))
    assert first["se"].params == basic + excitation
    # Whitening brings a convolution of 2x2 and a stem that takes its 24 channels.
    assert all(0.29e6 < each.spec.params < 0.31e6 and each.spec.macs < 8.5e6 for each in variants)


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


def test_the_goals_keep_their_limits() -> None:
    for goal, params, petaflops in (("94", 2_000_000, 0.36), ("95", 5_000_000, 1.4)):
        spec = ModelSpec.load(STUDIES / "goals" / f"spec-{goal}.yaml")
        recipe = Recipe.load(STUDIES / "goals" / f"recipe-{goal}.yaml")
        assert spec.params <= params
        # 49,000 of 50,000 images are trained on.
        assert recipe.validation_fraction == 0.02
        assert 6 * spec.macs * 49_000 * recipe.epochs <= petaflops * 1e15


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
