"""Compare the arms of study.yaml by one search per arm and seed; run again, it continues with those not finished.

python studies/pruned-search/compare.py --out runs/pruned-search
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from budgetnet.common.files import read_mapping, write_json
from budgetnet.data import load_dataset
from budgetnet.data.training_data import TrainingData
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.statistics.intervals import mean_interval
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import Plan, SearchContext, make_settings
from budgetnet.study.driver import search
from budgetnet.study.storage import default_storage, open_storage
from budgetnet.training.callbacks import Callback, RunInfo
from budgetnet.training.devices import describe_environment

HERE = Path(__file__).parent


class Found(NamedTuple):
    """A candidate with complete training."""

    epochs: int
    """Total epochs of the search so far, over all candidates."""
    accuracy: float
    """Validation accuracy at its best epoch, from 0 to 1."""


class EpochBudget(Callback):
    """Callback that records candidates and stops a search after a number of epochs."""

    def __init__(self, epochs: int) -> None:
        self.remaining, self.used = epochs, 0
        self.found: list[Found] = []
        self.candidates = 0

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Count a candidate, or stop the search if no epoch remains."""
        if not self.remaining:
            raise KeyboardInterrupt
        self.candidates += 1

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """Stop the search if no epoch remains."""
        if not self.remaining:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Count an epoch."""
        self.remaining -= 1
        self.used += 1

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Record a candidate with complete training."""
        if result.status == "complete" and result.validation_accuracy is not None:
            self.found.append(Found(self.used, result.validation_accuracy))


def main() -> None:
    """Run missing searches and summarise all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--study", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--seeds", type=int, nargs="*", help="run only these seeds, without a summary (default: all)")
    options = parser.parse_args()
    # One thread, so that results do not depend on the number of cores.
    torch.set_num_threads(1)
    study = read_mapping(options.study)
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in options.seeds or study["seeds"]:
        for arm in study["arms"]:
            file = options.out / f"{arm}-{seed}.json"
            if not file.exists():
                write_json(file, run(study, arm, seed, options.out / f"{arm}-{seed}"))
            results[arm, seed] = read_mapping(file)
            best = max(found["accuracy"] for found in results[arm, seed]["found"])
            print(f"{arm}, seed {seed}: best {best:.4f} of {results[arm, seed]['candidates']} candidates", flush=True)
    if not options.seeds:
        summarise(study, results, options.out)


def run(study: dict[str, Any], arm: str, seed: int, out: Path) -> dict[str, Any]:
    """Run one search; return its candidates and the epochs after which each was found."""
    # Epochs and candidates are only counted in this process, so an interrupted search starts again.
    if out.exists():
        shutil.rmtree(out)
    recipe = Recipe.from_mapping(study["recipe"])
    data = TrainingData.prepare(
        load_dataset(study["data"]), recipe, device=torch.device("cpu"), train_size=study["train_size"]
    )
    fields = {name: study[name] for name in ("data", "train_size", "space", "max_params")}
    settings = make_settings(data, SearchConfig(recipe=recipe, seed=seed, **fields, **study["arms"][arm]))
    budget = EpochBudget(study["candidates"] * recipe.epochs)
    storage = open_storage(default_storage(out), create=True)
    place = SearchContext(settings, data, "search", storage, out)
    try:
        search(place, Plan(10 * study["candidates"]), budget)
    except KeyboardInterrupt:
        if budget.remaining:
            raise
    return {
        "arm": arm,
        "seed": seed,
        "epochs": budget.used,
        "candidates": budget.candidates,
        "found": [found._asdict() for found in budget.found],
        "environment": describe_environment(torch.device("cpu")),
    }


def best_within(result: dict[str, Any], epochs: float) -> float:
    """Return the best accuracy within a number of epochs, from 0 to 1; 0 before the first candidate."""
    return max((found["accuracy"] for found in result["found"] if found["epochs"] <= epochs), default=0.0)


def first_at(result: dict[str, Any], accuracy: float) -> float:
    """Return the epochs until this accuracy was reached; infinite if it never was."""
    return min((found["epochs"] for found in result["found"] if found["accuracy"] >= accuracy), default=math.inf)


def summarise(study: dict[str, Any], results: dict[tuple[str, int], dict[str, Any]], out: Path) -> None:
    """Write and print each search, and each arm's paired difference to the plain arm."""
    rows, summary = [], {}
    for arm in study["arms"]:
        gains, speeds = [], []
        for seed in study["seeds"]:
            result, plain = results[arm, seed], results["plain", seed]
            best, goal = best_within(result, math.inf), best_within(plain, math.inf)
            reached, needed = first_at(result, goal), first_at(plain, goal)
            gains.append(100 * (best - goal))
            speeds.append(math.log(reached / needed))
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "epochs": result["epochs"],
                    "candidates": result["candidates"],
                    "to the end": len(result["found"]),
                    "best %": f"{100 * best:.2f}",
                    "epochs to the plain best": "never" if reached == math.inf else int(reached),
                }
            )
        if arm != "plain":
            reached_in = [speed for speed in speeds if speed < math.inf]
            summary[arm] = {
                "best, difference to plain in points": interval(gains) or "too few seeds",
                "reached the plain best": f"{len(reached_in)} of {len(speeds)}",
                # Geometric mean of the ratio, over the pairs in which it is finite.
                "epochs to the plain best, ratio to plain": [math.exp(value) for value in interval(reached_in)]
                or "too few pairs",
            }
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(out / "summary.json", summary)
    for row in rows:
        print(" | ".join(str(value) for value in row.values()))
    for arm, facts in summary.items():
        print(arm)
        for name, fact in facts.items():
            shown = fact if isinstance(fact, str) else f"{fact[0]:.2f} [{fact[1]:.2f}, {fact[2]:.2f}]"
            print(f"  {name}: {shown}")


def interval(values: list[float]) -> list[float]:
    """Return mean and 95 % interval by Student's t-distribution; nothing for fewer than two values."""
    return [fmean(values), *mean_interval(values)] if len(values) > 1 else []


if __name__ == "__main__":
    main()
