"""Train networks of nearly equal parameters, for a table to compare searches on; run again, it resumes.

python studies/one-cap/train_networks.py --data cifar10 --out runs/one-cap
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import kendalltau

from budgetnet.common.documents import parse_count
from budgetnet.common.files import read_mapping, remove_partial_files, write_json, write_text
from budgetnet.data import load_dataset
from budgetnet.data.training_data import TrainingData
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunRecord
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.columns import sample_columns
from budgetnet.study.space.fitting import fit
from budgetnet.training.devices import describe_environment
from budgetnet.training.trainer import train

HERE = Path(__file__).parent
IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}


class Network(NamedTuple):
    """A drawn network."""

    params: dict[str, Any]
    """Its sample of the space."""
    spec: ModelSpec


def main() -> None:
    """Train what is missing, and sum up what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=HERE / "study.yaml")
    parser.add_argument("--data", help="the images, in place of the study's name for them")
    parser.add_argument("--out", type=Path, help="folder of the tables")
    parser.add_argument("--summary", type=Path, metavar="FOLDER", help="only sum up the tables of a folder")
    options = parser.parse_args()
    if options.summary is not None:
        print_summary(options.summary, read_mapping(options.study))
        return
    if options.out is None:
        parser.error("needs --out or --summary")
    # One thread, so that results do not depend on the number of cores.
    torch.set_num_threads(1)
    study = read_mapping(options.study)
    recipe = Recipe.from_mapping(study["recipe"])
    if options.out.exists():
        remove_partial_files(options.out)
    networks = draw(study)
    # With its study, a table is complete: it says what networks and accuracies are.
    write_text(options.out / "study.yaml", options.study.read_text())
    keep_networks(options.out / "networks.csv", networks_csv(networks))
    data = TrainingData.prepare(
        load_dataset(options.data or study["data"]),
        recipe,
        device=torch.device("cpu"),
        train_size=study["train_size"],
        validation_size=study["validation_size"],
    )
    keep_facts(options.out / "about.json", recipe, data)
    train_missing(study, networks, recipe, data, options.out)
    print_summary(options.out, study)


def draw(study: Mapping[str, Any]) -> list[Network]:
    """Draw different networks that use nearly all allowed parameters, each rebuilt by its sample, widths and blocks."""
    space = SearchSpace.from_mapping(study["space"])
    most, macs = (parse_count(study[name], field=name) for name in ("max_params", "max_macs"))
    generator, found = np.random.default_rng(study["draw_seed"]), dict[str, Network]()
    while len(found) < study["networks"]:
        sample = sample_columns(space.proposed("fit"), count=1, generator=generator)
        params = space.params_at(sample, 0)
        spec = fit(space, params, budget=Budget(max_params=most), sizing="fit", **IMAGE)
        if spec.params < study["min_share"] * most or spec.macs > macs or len(spec.stages) != params["stages"]:
            continue
        # A sample that had to be reduced to fit is another network than it says.
        if rebuilt(space, params, spec).digest == spec.digest:
            found.setdefault(spec.digest, Network(params, spec))
    return list(found.values())


def rebuilt(space: SearchSpace, params: Mapping[str, Any], spec: ModelSpec) -> ModelSpec:
    """Return the network of a sample with the widths and blocks of a network."""
    depths = {f"blocks_{number}": stage.blocks for number, stage in enumerate(spec.stages, 1)}
    return space.spec_of_widths({**params, **depths}, [stage.channels for stage in spec.stages], **IMAGE)


def networks_csv(networks: list[Network]) -> str:
    """Return the table of networks: sampled parameters, what they were fitted to, and closed-form costs."""
    rows = [
        {
            "network": number,
            **params,
            "widths": "-".join(str(stage.channels) for stage in spec.stages),
            "depths": "-".join(str(stage.blocks) for stage in spec.stages),
            **spec.cost._asdict(),
            "blocks": sum(stage.blocks for stage in spec.stages),
            "digest": spec.digest[:16],
        }
        for number, (params, spec) in enumerate(networks)
    ]
    return csv_text(rows)


def order(study: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield every training as network and seed.

    First one seed of the networks that are repeated, then their other seeds, network by network; then the rest with one
    seed. So the table is of use early: after a fifth of the trainings accuracies can be compared with costs, from then
    on each network with all seeds adds one to those on which a search can be replayed.
    """
    first, *others = study["seeds"]
    repeated, count = study["repeated"], study["networks"]
    yield from ((number, first) for number in range(repeated))
    yield from ((number, seed) for number in range(repeated) for seed in others)
    yield from ((number, first) for number in range(repeated, count))


def train_missing(
    study: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: TrainingData, out: Path
) -> None:
    """Train what has no row yet; a row is written before the files of its training are deleted."""
    table, runs = out / "trainings.csv", out / "unfinished"
    rows = read_csv(table) if table.exists() else []
    known = {(int(row["network"]), int(row["seed"])) for row in rows}
    planned = list(order(study))
    missing = [each for each in planned if each not in known]
    began = time.monotonic()
    for done, (number, seed) in enumerate(missing, 1):
        start = time.monotonic()
        record = train(networks[number].spec, data, recipe, seed=seed, out=runs)
        rows.append(training_row(number, seed, record))
        write_text(table, csv_text(rows))
        shutil.rmtree(runs)
        now = time.monotonic()
        left = timedelta(seconds=(now - began) / done * (len(missing) - done))
        total = len(planned)
        print(
            f"{total - len(missing) + done}/{total}: network {number}, seed {seed}: {record.result.status}, accuracy "
            f"{rows[-1][f'accuracy_{recipe.epochs}'] or 'none'}, {now - start:.1f} s, "
            f"end expected {datetime.now() + left:%d %b %H:%M}",
            flush=True,
        )


def training_row(number: int, seed: int, record: RunRecord) -> dict[str, Any]:
    """Return the row of a training; epochs after one whose loss was not finite are empty."""
    epochs = range(1, record.identity.recipe.epochs + 1)
    curves = {epoch.epoch: epoch for epoch in record.curves}
    return {
        "network": number,
        "seed": seed,
        "status": record.result.status,
        **{f"accuracy_{each}": f"{curves[each].validation_accuracy:.4f}" if each in curves else "" for each in epochs},
        **{f"loss_{each}": f"{curves[each].validation_loss:.4f}" if each in curves else "" for each in epochs},
        "pflop": f"{record.train_flops / 1e15:.6f}",
        "seconds": f"{record.result.seconds:.2f}",
    }


def keep_networks(path: Path, text: str) -> None:
    """Write the table of networks, or check that it begins with those that are there."""
    if path.exists() and not text.startswith(path.read_text()):
        raise SystemExit(f"{path}: has other networks; use another --out")
    write_text(path, text)


def keep_facts(path: Path, recipe: Recipe, data: TrainingData) -> None:
    """Write what all trainings have in common, or check that it is the same as before."""
    same = {"recipe": recipe.to_mapping(), "data": data.record.fingerprint, "split": data.record.split_fingerprint}
    if path.exists() and {name: read_mapping(path)[name] for name in same} != same:
        raise SystemExit(f"{path}: is of another recipe or other images; use another --out")
    if not path.exists():
        about = {**same, "images": data.record.provenance, "environment": describe_environment(torch.device("cpu"))}
        write_json(path, about)


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Return rows as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def print_summary(folder: Path, study: Mapping[str, Any]) -> None:
    """Print what a folder has, as a table in Markdown."""
    networks, rows = read_csv(folder / "networks.csv"), read_csv(folder / "trainings.csv")
    for name, value in summary(networks, rows, seeds=list(map(str, study["seeds"]))).items():
        print(f"| {name} | {value} |")


def summary(networks: list[dict[str, Any]], rows: list[dict[str, Any]], *, seeds: list[str]) -> dict[str, str]:
    """Return how much is there, the spread of accuracies, and how well some things tell the order of networks."""
    last = max(int(name.removeprefix("accuracy_")) for name in rows[0] if name.startswith("accuracy_"))
    complete = {(row["network"], row["seed"]): row for row in rows if row["status"] == "complete"}

    def at(epoch: int, seed: str) -> dict[str, float]:
        return {number: float(row[f"accuracy_{epoch}"]) for (number, own), row in complete.items() if own == seed}

    first, *others = seeds
    final = at(last, first)
    accuracies, pflop = [100 * value for value in final.values()], [float(row["pflop"]) for row in rows]
    found = {
        "networks with a training": str(len({row["network"] for row in rows})),
        "networks with all seeds": str(sum(all((number, seed) in complete for seed in others) for number in final)),
        "trainings": str(len(rows)),
        "trainings that diverged": str(len(rows) - len(complete)),
        "PFLOP of all trainings": f"{sum(pflop):.3f}",
        "seconds of a training": f"{mean(float(row['seconds']) for row in rows):.1f}",
        f"accuracy, %, seed {first}: mean": f"{mean(accuracies):.2f}",
        f"accuracy, %, seed {first}: range": f"{min(accuracies):.2f} to {max(accuracies):.2f}",
    }
    pairs = [tau(at(last, one), at(last, other)) for one, other in combinations(seeds, 2)]
    found["Kendall's tau between two seeds (noise ceiling)"] = f"{mean(pairs):.3f}"
    counts = {
        name: {row["network"]: float(row[name]) for row in networks} for name in ("macs", "activations", "blocks")
    }
    told = {f"epoch {epoch}": at(epoch, first) for epoch in (1, 3)} | counts
    for name, values in told.items():
        found[f"Kendall's tau of {name} with accuracy, seed {first}"] = f"{tau(values, final):.3f}"
    return found


def tau(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return Kendall's tau over the networks of both; NaN with fewer than three."""
    both = [number for number in one if number in other]
    if len(both) < 3:
        return math.nan
    return float(kendalltau([one[number] for number in both], [other[number] for number in both]).statistic)


if __name__ == "__main__":
    main()
