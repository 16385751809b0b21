"""Every measurement that needs a GPU, in one command of under ten minutes; started again, it goes on where it stopped.

    python studies/gpu-speed/measure.py --data arrays:cifar10.npz --out gpu-speed

Each part is a command of budgetnet, run as a user would run it; its output lies in a file of its own under --out, and
summary.md puts them together. The parts come in order of importance. What does not fit into --minutes is named as not
run. --small runs the same parts at sizes that a CPU does in a few minutes, to see that all of them work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

SEEDS = (0, 1, 2)
RECIPES = ("modern", "paper")
BUDGETNET = [sys.executable, "-m", "budgetnet"]


class Sizes(NamedTuple):
    """How much is measured."""

    networks: tuple[str, ...]
    """What is trained by both recipes."""
    speed: list[str]
    growth: list[str]
    workers: list[str]
    check: list[str]
    search: list[str]
    training: list[str]
    seeds: tuple[int, ...]


FULL = Sizes(
    networks=("reference", "preact-resnet-20x4"),
    speed=["--seconds", "12", "--batch", "128"],
    growth=["--seconds", "0.5"],
    workers=["--workers", "1,2,4", "--params", "0.3M,1M,5M", "--seconds", "3"],
    check=["--seconds", "4"],
    search=["--trials", "3", "--epochs", "5", "--max-params", "1M"],
    training=["--epochs", "60"],
    seeds=SEEDS,
)
SMALL = Sizes(
    networks=("resnet20",),
    speed=["--seconds", "1", "--batch", "4"],
    growth=["--seconds", "0.01", "--params", "0.1M", "--batches", "4,8", "--images", "16"],
    workers=["--workers", "1,2", "--params", "0.1M", "--seconds", "0.2", "--batch", "4"],
    check=["--seconds", "0.5"],
    search=["--trials", "1", "--max-params", "100k"],
    training=["--epochs", "1", "--train-size", "200", "--validation-size", "100"],
    seeds=SEEDS[:2],
)


class Part(NamedTuple):
    """One measurement."""

    name: str
    command: list[str]


def parts(sizes: Sizes, *, data: str, device: str, out: Path) -> list[Part]:
    """Measurements in order of importance, but for the training by recipes, which takes the time that is left."""
    on = ["--device", device, "--json"]
    first, *others = sizes.networks
    found = [Part("train " + first, ["bench", "train", first, *sizes.speed, *on])]
    if device == "cuda":
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
        found.append(Part("tests of the GPU against the CPU", tests))
    found.append(Part("start", ["bench", "start", first, "--data", data, *on]))
    found += [Part(f"train {name}", ["bench", "train", name, *sizes.speed, *on]) for name in others]
    found.append(Part("profile", ["bench", "profile", first, *on]))
    found.append(Part("workers", ["bench", "workers", *sizes.workers, *on]))
    found.append(Part("growth", ["bench", "growth", *sizes.growth, "--plot", str(out / "growth.html"), *on]))
    found.append(Part("search", ["bench", "search", *sizes.search, "--data", data, *on]))
    found.append(Part("check", ["bench", "check", *sizes.check, "--json"]))
    if device == "cuda":
        found.append(Part("without autotuning", ["bench", "train", first, *sizes.speed, "--no-autotune", *on]))
        found.append(Part("compiled", ["bench", "train", first, *sizes.speed, "--compile", *on]))
    return found


def trainings(sizes: Sizes, *, data: str, device: str, out: Path) -> list[Part]:
    """Both recipes on each network, seed by seed, so that a study broken off compares what it has."""
    common = ["--data", data, "--device", device, "--json", *sizes.training]
    return [
        Part(
            f"{network}, {recipe}, seed {seed}",
            ["train", network, "--recipe", recipe, "--seed", str(seed), "--out", str(out / "runs"), *common],
        )
        for seed in sizes.seeds
        for network in sizes.networks
        for recipe in RECIPES
    ]


def run(part: Part, *, out: Path, deadline: float) -> dict[str, Any] | str:
    """Runs a measurement, or reads it where it was made before; gives why there is none instead."""
    path = out / (part.name.replace(", ", "-").replace(" ", "-") + ".json")
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    left = deadline - time.monotonic()
    if left < 1:
        return "not run: no time left"
    command = part.command if part.command[0] == sys.executable else [*BUDGETNET, *part.command]
    began = time.monotonic()
    try:
        # Tests that find no GPU shall fail here, not be skipped.
        surroundings = {**os.environ, "BUDGETNET_GPU": "required"}
        done = subprocess.run(  # noqa: S603 - our own
            command, capture_output=True, text=True, timeout=left, check=False, env=surroundings
        )
    except subprocess.TimeoutExpired:
        return f"not finished in the {left:.0f} s that were left; goes on where it stopped if it can"
    seconds = time.monotonic() - began
    print(f"{part.name}: {seconds:.0f} s, exit code {done.returncode}", flush=True)
    if done.returncode:
        # Tests say at the end of their output why they failed, everything else on standard error.
        told = (done.stdout, done.stderr) if "pytest" in command else (done.stderr, done.stdout)
        lines = next((text.strip().splitlines() for text in told if text.strip()), ["without a word"])
        return f"failed: {lines[-1][:300]}"
    result = {"result": done.stdout.strip().splitlines()[-1]} if "pytest" in command else json.loads(done.stdout)
    result["command_seconds"] = seconds
    part_file = path.with_suffix(".part")
    part_file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    part_file.replace(path)
    return dict(result)


def sentence(name: str, found: dict[str, Any] | str) -> list[str]:
    """What a measurement showed, in a few lines of Markdown."""
    if isinstance(found, str):
        return [f"- {name}: {found}"]
    kind = found.get("benchmark")
    lines = [f"- {name} ({found['command_seconds']:.0f} s)" + (f": {found['result']}" if "result" in found else "")]
    if kind == "train":
        for row in found["rows"]:
            times, memory = row["seconds_per_step"], row["peak_memory"]
            ratio = found["ratios"].get(row["variant"])
            lines.append(
                f"  - {row['variant']}, batch {row['batch_size']}: {1e3 * times['median']:.2f} ms a step"
                f" [{1e3 * times['minimum']:.2f}, {1e3 * times['maximum']:.2f}],"
                f" {row['images_per_second']:,.0f} images/s, {100 * row['share_of_peak']:.1f} % of peak, "
                + ("memory unknown" if memory is None else f"{memory / 1e9:.2f} GB")
                + (f", {ratio:.2f} times the plain loop" if ratio else "")
            )
    elif kind == "profile":
        for row in found["rows"]:
            lines.append(f"  - {row['work']}: {1e3 * row['seconds_per_step']:.2f} ms, {100 * row['share']:.1f} %")
    for goal in found.get("goals", []):
        met = "met" if goal["met"] else "not met"
        lines.append(f"  - {met}: {goal['goal']}: {goal['measured']:.4g} {goal['unit']} (goal {goal['limit']:.4g})")
    return lines


def accuracies(sizes: Sizes, results: dict[str, dict[str, Any] | str]) -> list[str]:
    """Validation accuracy of each recipe on each network, over the seeds that were trained."""
    lines = ["| network | recipe | n | mean, % | sd | seconds of training, median |", "|---|---|---|---|---|---|"]
    for network in sizes.networks:
        for recipe in RECIPES:
            runs = [results.get(f"{network}, {recipe}, seed {seed}") for seed in sizes.seeds]
            made = [run for run in runs if isinstance(run, dict)]
            scores = [100 * run["validation_accuracy"] for run in made]
            spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
            mean = f"{statistics.mean(scores):.2f}" if scores else "not run"
            seconds = f"{statistics.median(run['seconds'] for run in made):.0f}" if made else "-"
            lines.append(f"| {network} | {recipe} | {len(scores)} | {mean} | {spread} | {seconds} |")
    return lines


def write(out: Path, sizes: Sizes, results: dict[str, dict[str, Any] | str], device: str) -> str:
    """Writes and gives the summary."""
    made = [found for found in results.values() if isinstance(found, dict)]
    environment: dict[str, Any] = next((found["environment"] for found in made if "environment" in found), {})
    machine = environment.get("gpu", {}).get("name") or environment.get("processor", "unknown")
    packages = environment.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "budgetnet") if name in packages)
    lines = [f"# Speed on {device}: {machine}", "", versions, ""]
    for name, found in results.items():
        if not name.startswith(tuple(f"{network}, " for network in sizes.networks)):
            lines += sentence(name, found)
        elif isinstance(found, str):
            lines.append(f"- {name}: {found}")
    text = "\n".join([*lines, "", *accuracies(sizes, results), ""])
    (out / "summary.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """Measures what is missing, in the time there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as budgetnet names data; cifar10 unless told")
    parser.add_argument("--out", type=Path, default=Path("gpu-speed"), help="folder of what is measured; gpu-speed")
    parser.add_argument("--device", default="cuda", help="cuda unless told")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts together; 9")
    parser.add_argument("--at-once", type=int, default=2, help="runs trained at once, when recipes are compared")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU does in minutes")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    sizes: Sizes = SMALL if options.small else FULL
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = {"data": options.data, "device": options.device, "out": options.out}
    results: dict[str, dict[str, Any] | str] = {}
    # Alone on the machine, as the time from command to verdict is measured with it.
    first, *others = trainings(sizes, **arguments)
    measurements = parts(sizes, **arguments)
    for part in [measurements[0], first, *measurements[1:]]:
        results[part.name] = run(part, out=options.out, deadline=deadline)
    with ThreadPoolExecutor(max_workers=options.at_once) as pool:
        jobs = {part.name: pool.submit(run, part, out=options.out, deadline=deadline) for part in others}
        for name, job in jobs.items():
            results[name] = job.result()
    print(write(options.out, sizes, results, options.device))


if __name__ == "__main__":
    main()
