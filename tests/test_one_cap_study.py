"""The study of networks at one cap: what it draws, that it goes on after being killed, and what its README says."""

from __future__ import annotations

import csv
import importlib.util
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau
from support import child_environment

from budgetnet.bench.quality import one_cap
from budgetnet.common.files import read_mapping, write_yaml
from budgetnet.study.space import SearchSpace

FOLDER = Path(__file__).parents[1] / "studies" / "one-cap"
SCRIPT = FOLDER / "train_networks.py"
IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("train_networks", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_drawn_networks_are_at_the_cap_different_and_come_again() -> None:
    study, module = read_mapping(FOLDER / "study.yaml"), script()
    networks = [each.spec for each in module.draw({**study, "networks": 60})]
    assert len({spec.digest for spec in networks}) == 60
    assert all(294_000 <= spec.params <= 300_000 for spec in networks)
    assert max(spec.macs for spec in networks) <= 6_000_000
    assert max(spec.macs for spec in networks) / min(spec.macs for spec in networks) > 5
    assert [each.spec.digest for each in module.draw({**study, "networks": 20})] == [
        spec.digest for spec in networks[:20]
    ], "a larger table begins with the smaller one"


def test_networks_with_three_seeds_are_complete_one_after_another() -> None:
    order = list(script().order({"seeds": [0, 1, 2], "repeated": 3, "networks": 5}))
    assert order == [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 0), (4, 0)]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_with_the_rows_of_an_undisturbed_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{part}_images": generator.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8) for part in ("train", "test")
    }
    arrays |= {f"{part}_labels": np.arange(200) % 10 for part in ("train", "test")}
    np.savez(tmp_path / "images.npz", **arrays)
    study = read_mapping(FOLDER / "study.yaml")
    study |= {"networks": 3, "repeated": 1, "train_size": 60, "validation_size": 40}
    study["recipe"] |= {"batch_size": 20, "precision": "float32"}
    write_yaml(tmp_path / "study.yaml", study)

    def command(out: str) -> list[str]:
        return [sys.executable, str(SCRIPT), "--study", "study.yaml", "--data", "arrays:images.npz", "--out", out]

    options: dict[str, Any] = {"cwd": tmp_path, "env": child_environment(), "text": True}
    with subprocess.Popen(command("killed"), stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("1/5: network 0, seed 0: complete")
        process.send_signal(signal.SIGKILL)
    before = read(tmp_path / "killed" / "trainings.csv")
    assert 1 <= len(before) < 5
    for out in ("killed", "whole"):
        done = subprocess.run(command(out), capture_output=True, check=True, timeout=300, **options)
        assert f"{1 + len(before)}/5: " in done.stdout or out == "whole"
        assert "| trainings | 5 |" in done.stdout
        assert sorted(path.name for path in (tmp_path / out).iterdir()) == [
            "about.json",
            "networks.csv",
            "study.yaml",
            "trainings.csv",
        ], "neither weights nor partial files are kept"
    killed, whole = (read(tmp_path / out / "trainings.csv") for out in ("killed", "whole"))
    assert killed[: len(before)] == before
    for row in (*killed, *whole):
        del row["seconds"]
    assert killed == whole
    assert [(row["network"], row["seed"]) for row in whole] == [
        ("0", "0"),
        ("0", "1"),
        ("0", "2"),
        ("1", "0"),
        ("2", "0"),
    ]
    # A larger study adds to the table; other networks do not go into it.
    write_yaml(tmp_path / "study.yaml", {**study, "networks": 4})
    subprocess.run(command("killed"), capture_output=True, check=True, timeout=300, **options)
    assert len(read(tmp_path / "killed" / "trainings.csv")) == 6
    write_yaml(tmp_path / "study.yaml", {**study, "draw_seed": 1})
    refused = subprocess.run(command("killed"), capture_output=True, check=False, timeout=300, **options)
    assert (refused.returncode, refused.stderr) == (1, "killed/networks.csv: has other networks; use another --out\n")


needs_table = pytest.mark.skipif(not (FOLDER / "trainings.csv").is_file(), reason="the study has not been run")


@pytest.mark.skipif((FOLDER / "trainings.csv").is_file(), reason="the study has been run")
def test_without_a_table_the_readme_has_no_results() -> None:
    text = (FOLDER / "README.md").read_text().partition("## Results")[2].partition("## Files")[0]
    assert "Not run yet." in text
    assert not [line for line in text.splitlines() if line.startswith("|")]


@needs_table
def test_the_committed_networks_are_those_that_the_table_says() -> None:
    study, rows = read_mapping(FOLDER / "study.yaml"), read(FOLDER / "networks.csv")
    space, proposed = SearchSpace.from_mapping(study["space"]), SearchSpace.from_mapping(study["space"]).proposed("fit")
    assert len(rows) == len({row["digest"] for row in rows}) == study["networks"]
    for number, row in enumerate(rows):
        params = {
            name: next(each for each in choices(where) if str(each) == row[name]) for name, where in proposed.items()
        }
        widths, depths = ([int(part) for part in row[name].split("-")] for name in ("widths", "depths"))
        params |= {f"blocks_{stage}": depth for stage, depth in enumerate(depths, 1)}
        spec = space.spec_of_widths(params, widths, **IMAGE)
        assert (int(row["network"]), row["digest"]) == (number, spec.digest[:16])
        assert {name: int(row[name]) for name in ("params", "macs", "activations")} == spec.cost._asdict()
        assert 294_000 <= spec.params <= 300_000
    macs = [int(row["macs"]) for row in rows]
    assert max(macs) > 10 * min(macs)
    trainings = read(FOLDER / "trainings.csv")
    planned = list(script().order(study))
    assert [(int(row["network"]), int(row["seed"])) for row in trainings] == planned[: len(trainings)]
    for row in trainings:
        if row["status"] == "complete":
            # 10,000 images make 39 whole batches and one of 16.
            flops = 6 * int(rows[int(row["network"])]["macs"]) * 10_000 * 7
            assert float(row["pflop"]) == pytest.approx(flops / 1e15, abs=1e-6)
    one_cap.load(FOLDER)
    size = sum((FOLDER / name).stat().st_size for name in ("networks.csv", "trainings.csv"))
    assert size < 5_000_000


def choices(where: Any) -> list[Any]:
    return list(where.choices) if hasattr(where, "choices") else list(range(where.low, where.high + 1))


@needs_table
def test_the_readme_has_the_numbers_of_the_table() -> None:
    text = (FOLDER / "README.md").read_text()
    networks = {row["network"]: row for row in read(FOLDER / "networks.csv")}
    rows = read(FOLDER / "trainings.csv")
    complete = [row for row in rows if row["status"] == "complete"]
    final: dict[str, dict[str, float]] = {"0": {}, "1": {}, "2": {}}
    for row in complete:
        final[row["seed"]][row["network"]] = 100 * float(row["accuracy_7"])
    base = final["0"]

    def tau(one: dict[str, float], other: dict[str, float]) -> float:
        both = sorted(one.keys() & other.keys())
        return float(kendalltau([one[each] for each in both], [other[each] for each in both]).statistic)

    ceiling = np.mean([tau(final[one], final[other]) for one, other in combinations("012", 2)])
    expected = {
        "networks with a training": f"{len({row['network'] for row in rows})}",
        "networks with all seeds": f"{len(base.keys() & final['1'].keys() & final['2'].keys())}",
        "trainings": f"{len(rows)}",
        "trainings that diverged": f"{len(rows) - len(complete)}",
        "PFLOP of all trainings": f"{sum(float(row['pflop']) for row in rows):.3f}",
        "seconds of a training": f"{np.mean([float(row['seconds']) for row in rows]):.1f}",
        "accuracy, %, seed 0: mean": f"{np.mean(list(base.values())):.2f}",
        "accuracy, %, seed 0: range": f"{min(base.values()):.2f} to {max(base.values()):.2f}",
        "Kendall's tau between two seeds (noise ceiling)": f"{ceiling:.3f}",
    }
    for epoch in (1, 3):
        early = {row["network"]: float(row[f"accuracy_{epoch}"]) for row in complete if row["seed"] == "0"}
        expected[f"Kendall's tau of epoch {epoch} with accuracy, seed 0"] = f"{tau(early, base):.3f}"
    for name in ("macs", "activations", "blocks"):
        counts = {number: float(row[name]) for number, row in networks.items()}
        expected[f"Kendall's tau of {name} with accuracy, seed 0"] = f"{tau(counts, base):.3f}"
    for name, value in expected.items():
        assert f"| {name} | {value} |" in text
