"""Trains each variant of study.yaml with each seed and sums up. Started again, it goes on; twice at once, it shares.

python studies/recipe-options/run.py --data arrays:cifar10.npz --out runs/recipe-options
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from budgetnet.data import load_dataset
from budgetnet.errors import BusyError
from budgetnet.files import read_mapping
from budgetnet.recipe import Recipe
from budgetnet.records import RunRecord
from budgetnet.spec import ModelSpec
from budgetnet.train import train
from budgetnet.training_data import TrainingData

HERE = Path(__file__).parent


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A mapping with changes in it, branch by branch."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if both else value
    return result


def main() -> None:
    """Trains what is missing and sums up all there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--study", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = read_mapping(options.study)
    recipes = {"base": Recipe.from_mapping(study["base"])}
    for name, changes in study["variants"].items():
        recipes[name] = Recipe.from_mapping(merged(study["base"], changes))
    spec = ModelSpec.resnet(**study["spec"])
    sizes = {"train_size": study["train_size"], "validation_size": study["validation_size"]}
    data = TrainingData.prepare(
        load_dataset(options.data), recipes["base"], device=torch.device(options.device), **sizes
    )
    options.out.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that a study broken off still compares all variants on the seeds it has.
    waiting = [(seed, name) for seed in study["seeds"] for name in recipes]
    records: dict[tuple[str, int], RunRecord] = {}
    while waiting:
        left = []
        for seed, name in waiting:
            try:
                record = train(spec, data, recipes[name], seed=seed, out=options.out)
            except BusyError:
                left.append((seed, name))
                continue
            records[name, seed] = record
            print(f"{name}, seed {seed}: {record.result.validation_accuracy:.4f}", flush=True)
        if len(left) == len(waiting):
            time.sleep(5)  # All that is left is being trained elsewhere.
        waiting = left
    write(options.out / "results.csv", study["seeds"], list(recipes), records)


def write(path: Path, seeds: list[int], names: list[str], records: dict[tuple[str, int], RunRecord]) -> None:
    """Writes and prints each variant's mean and its paired difference to the base, in points of accuracy."""
    scores = {
        name: np.array([100 * (records[name, seed].result.validation_accuracy or 0) for seed in seeds])
        for name in names
    }
    rows = []
    for name in names:
        row: dict[str, Any] = {"variant": name, "n": len(seeds)}
        row |= {"mean": f"{scores[name].mean():.2f}", "sd": f"{scores[name].std(ddof=1):.2f}"}
        differences = scores[name] - scores["base"]
        spread = differences.std(ddof=1) / len(seeds) ** 0.5 * stats.t.ppf(0.975, len(seeds) - 1)
        row |= {"difference": f"{differences.mean():+.2f}", "low": f"{differences.mean() - spread:+.2f}"}
        row |= {"high": f"{differences.mean() + spread:+.2f}"}
        row |= {f"seed {seed}": f"{score:.2f}" for seed, score in zip(seeds, scores[name], strict=True)}
        rows.append(row)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
