"""All GPU benchmarks in one command of under ten minutes; run again, it resumes.

    python studies/gpu-speed/measure.py --data arrays:cifar10.npz --out gpu-speed

Each part is a budgetnet command; its output is saved to a file under --out, and summary.md summarises them. Parts are
sorted by importance; those that do not fit into --minutes are listed as not run. --small runs the same parts at sizes
for a CPU, as a test, in a few minutes.
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
    """Networks and options of each part."""

    networks: tuple[str, ...]
    """Networks that both recipes train."""
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
    """Return the benchmarks by importance; training by recipes follows them."""
    common = ["--device", device, "--json"]
    first, *others = sizes.networks
    benchmarks = [Part("train " + first, ["bench", "train", first, *sizes.speed, *common])]
    if device == "cuda":
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
        benchmarks.append(Part("tests of the GPU against the CPU", tests))
    benchmarks.append(Part("start", ["bench", "start", first, "--data", data, *common]))
    benchmarks += [Part(f"train {name}", ["bench", "train", name, *sizes.speed, *common]) for name in others]
    benchmarks.append(Part("profile", ["bench", "profile", first, *common]))
    benchmarks.append(Part("workers", ["bench", "workers", *sizes.workers, *common]))
    benchmarks.append(Part("growth", ["bench", "growth", *sizes.growth, "--plot", str(out / "growth.html"), *common]))
    benchmarks.append(Part("search", ["bench", "search", *sizes.search, "--data", data, *common]))
    benchmarks.append(Part("check", ["bench", "check", *sizes.check, "--json"]))
    if device == "cuda":
        benchmarks.append(Part("without autotuning", ["bench", "train", first, *sizes.speed, "--no-autotune", *common]))
        benchmarks.append(Part("compiled", ["bench", "train", first, *sizes.speed, "--compile", *common]))
    return benchmarks


def trainings(sizes: Sizes, *, data: str, device: str, out: Path) -> list[Part]:
    """Return runs of both recipes on each network, by seed, so that an interrupted study compares equal seeds."""
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
    """Run a part, or read the saved result of its command; return a text with the reason if there is no result."""
    path = out / (part.name.replace(", ", "-").replace(" ", "-") + ".json")
    if path.exists():
        saved = dict(json.loads(path.read_text(encoding="utf-8")))
        # The part of that name may have been measured on another device, or at small sizes.
        if saved.get("command") == part.command:
            return saved
    remaining = deadline - time.monotonic()
    if remaining < 1:
        return "not run: no time left"
    command = part.command if part.command[0] == sys.executable else [*BUDGETNET, *part.command]
    start = time.monotonic()
    try:
        # Tests fail without a GPU instead of being skipped.
        environment = {**os.environ, "BUDGETNET_GPU": "required"}
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, timeout=remaining, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"not finished within the remaining {remaining:.0f} s; run again to resume"
    seconds = time.monotonic() - start
    print(f"{part.name}: {seconds:.0f} s, exit code {done.returncode}", flush=True)
    if done.returncode:
        # pytest reports failures at the end of its output, all others on standard error.
        outputs = (done.stdout, done.stderr) if "pytest" in command else (done.stderr, done.stdout)
        lines = next((text.strip().splitlines() for text in outputs if text.strip()), ["no output"])
        return f"failed: {lines[-1][:300]}"
    result = {"result": done.stdout.strip().splitlines()[-1]} if "pytest" in command else json.loads(done.stdout)
    result |= {"command": part.command, "command_seconds": seconds}
    part_file = path.with_suffix(".part")
    part_file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    part_file.replace(path)
    return dict(result)


def summary_lines(name: str, found: dict[str, Any] | str) -> list[str]:
    """Return the result of a part as Markdown list items."""
    if isinstance(found, str):
        return [f"- {name}: {found}"]
    kind = found.get("benchmark")
    lines = [f"- {name} ({found['command_seconds']:.0f} s)" + (f": {found['result']}" if "result" in found else "")]
    if kind == "train":
        for row in found["rows"]:
            times, memory = row["seconds_per_step"], row["peak_memory"]
            ratio = found["ratios"].get(row["variant"])
            lines.append(
                f"  - {row['variant']}, batch {row['batch_size']}: {1e3 * times['median']:.2f} ms per step"
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


def accuracy_table(sizes: Sizes, results: dict[str, dict[str, Any] | str]) -> list[str]:
    """Return validation accuracy by network and recipe, over all finished seeds, as a Markdown table."""
    lines = ["| network | recipe | n | mean, % | sd | seconds of training, median |", "|---|---|---|---|---|---|"]
    for network in sizes.networks:
        for recipe in RECIPES:
            runs = [results.get(f"{network}, {recipe}, seed {seed}") for seed in sizes.seeds]
            finished = [run for run in runs if isinstance(run, dict)]
            scores = [100 * run["validation_accuracy"] for run in finished]
            spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
            mean = f"{statistics.mean(scores):.2f}" if scores else "not run"
            seconds = f"{statistics.median(run['seconds'] for run in finished):.0f}" if finished else "-"
            lines.append(f"| {network} | {recipe} | {len(scores)} | {mean} | {spread} | {seconds} |")
    return lines


def write_summary(out: Path, sizes: Sizes, results: dict[str, dict[str, Any] | str], device: str) -> str:
    """Write the summary and return it."""
    measured = [found for found in results.values() if isinstance(found, dict)]
    environment: dict[str, Any] = next((found["environment"] for found in measured if "environment" in found), {})
    machine = environment.get("gpu", {}).get("name") or environment.get("processor", "unknown")
    packages = environment.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "budgetnet") if name in packages)
    lines = [f"# Speed on {device}: {machine}", "", versions, ""]
    for name, found in results.items():
        if not name.startswith(tuple(f"{network}, " for network in sizes.networks)):
            lines += summary_lines(name, found)
        elif isinstance(found, str):
            lines.append(f"- {name}: {found}")
    text = "\n".join([*lines, "", *accuracy_table(sizes, results), ""])
    (out / "summary.md").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """Run all parts that have no result yet, until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="data set, as for budgetnet train (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu-speed"), help="folder for results (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit for all parts (default: %(default)s)")
    parser.add_argument(
        "--at-once",
        type=int,
        default=2,
        help="number of concurrent training runs when recipes are compared (default: %(default)s)",
    )
    parser.add_argument("--small", action="store_true", help="small sizes, for a test on a CPU")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    sizes: Sizes = SMALL if options.small else FULL
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = {"data": options.data, "device": options.device, "out": options.out}
    results: dict[str, dict[str, Any] | str] = {}
    # The first run trains alone, because its duration is reported.
    first, *others = trainings(sizes, **arguments)
    measurements = parts(sizes, **arguments)
    for part in [measurements[0], first, *measurements[1:]]:
        results[part.name] = run(part, out=options.out, deadline=deadline)
    with ThreadPoolExecutor(max_workers=options.at_once) as pool:
        jobs = {part.name: pool.submit(run, part, out=options.out, deadline=deadline) for part in others}
        for name, job in jobs.items():
            results[name] = job.result()
    print(write_summary(options.out, sizes, results, options.device))


if __name__ == "__main__":
    main()
