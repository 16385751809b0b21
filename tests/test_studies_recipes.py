"""Studies of recipe options and of fast training: what they compare, and tables that follow from their records."""

from __future__ import annotations

import csv
import json
import math
import re
import tarfile
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_rel
from statsmodels.stats.multitest import multipletests

from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.store import RunFolder

STUDIES = Path(__file__).parents[1] / "studies"


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
