"""Compare samplers by searches with the same limit on training operations; run again, it resumes.

python studies/samplers/compare_samplers.py studies/samplers/digits.yaml --out runs/samplers-digits
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

import budgetnet as bn
from budgetnet.common.files import read_mapping, write_json
from budgetnet.data import load_dataset
from budgetnet.data.training_data import TrainingData
from budgetnet.runs.recipe import Recipe
from budgetnet.statistics.pairs import paired_difference
from budgetnet.study.config import SearchConfig
from budgetnet.study.space.pool import Image, draw
from budgetnet.training.devices import choose_device, describe_environment

MOST = 1_000
"""More candidates than any search trains within its limit."""


def main() -> None:
    """Run missing searches and summarise all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="the images, in place of the study's name for them")
    options = parser.parse_args()
    study = read_mapping(options.study)
    config = SearchConfig(
        recipe=Recipe.from_mapping(study["recipe"]),
        sizing="fit",
        pruner="none",
        trials=MOST,
        threads=1,
        device="cpu",
        **{name: study[name] for name in ("max_params", "train_size", "space")},
        **({"validation_size": study["validation_size"]} if "validation_size" in study else {}),
    )
    data = options.data or study["data"]
    limit = expected_cost(config, data, candidates=study["candidates"])
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in study["seeds"]:
        for arm in study["arms"]:
            file = options.out / f"{arm}-{seed}.json"
            if not file.exists():
                write_json(file, run(config, data, arm, seed, limit, options.out / f"{arm}-{seed}"))
            found = results[arm, seed] = read_mapping(file)
            print(f"{arm}, seed {seed}: best {found['best']:.4f} of {found['candidates']} candidates", flush=True)
    summarise(study, results, options.out)


def expected_cost(config: SearchConfig, data: str, *, candidates: int) -> float:
    """Return the PFLOP that a number of random candidates cost on average."""
    recipe = config.candidate_recipe
    sizes = {"train_size": config.train_size, "validation_size": config.validation_size}
    images = TrainingData.prepare(load_dataset(data), recipe, device=choose_device("cpu"), **sizes)
    _, features = draw(
        config.search_space,
        config.budget,
        Image(images.input_shape, images.num_classes),
        sizing="fit",
        count=4_000,
        generator=np.random.default_rng(0),
    )
    macs = float(np.exp(features[:, 0]).mean())
    return candidates * 6 * macs * len(images.train) * recipe.epochs / 1e15


def run(config: SearchConfig, data: str, arm: str, seed: int, limit: float, out: Path) -> dict[str, Any]:
    """Run one search; return its candidates in the order of their trials."""
    study = bn.search(
        config, data=data, sampler=arm, seed=seed, max_train_flops=limit, out=out, study="search", verbosity="quiet"
    )
    trained = [trial for trial in study.trials() if trial.accuracy is not None and trial.outcome == "complete"]
    return {
        "arm": arm,
        "seed": seed,
        "limit_pflop": limit,
        "best": max(trial.accuracy or 0.0 for trial in trained),
        "candidates": len(trained),
        "accuracies": [trial.accuracy for trial in trained],
        "params": [trial.params for trial in trained],
        "macs": [trial.macs for trial in trained],
        "environment": describe_environment(choose_device("cpu")),
    }


def summarise(study: dict[str, Any], results: dict[tuple[str, int], dict[str, Any]], out: Path) -> None:
    """Write and print each search, and the paired difference of each two samplers."""
    rows = [
        {
            "sampler": arm,
            "seed": seed,
            "best %": f"{100 * results[arm, seed]['best']:.2f}",
            "candidates": results[arm, seed]["candidates"],
        }
        for arm in study["arms"]
        for seed in study["seeds"]
    ]
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    summary = {}
    ours = study["arms"][-1]
    for arm in study["arms"][:-1]:
        best = [[results[name, seed]["best"] for seed in study["seeds"]] for name in (ours, arm)]
        found = paired_difference(*best)
        summary[f"{ours} - {arm}"] = {
            "points": 100 * found.mean,
            "interval": None if found.interval is None else [100 * end for end in found.interval],
            "p": found.p_value,
            "pairs": len(study["seeds"]),
        }
    write_json(out / "summary.json", summary)
    for row in rows:
        print(" | ".join(map(str, row.values())))
    for name, facts in summary.items():
        print(name, facts)


if __name__ == "__main__":
    main()
