"""How well latency is predicted on this machine: one command of about 25 minutes; run again, it resumes.

    python studies/latency/measure_latency.py

It makes a device's file of the space resnet, times 200 networks of the space that the file has not seen, and some of
1,000 proposals under a limit of the latency. The machine must be idle. Everything is kept in --out: device.yaml,
networks.csv, proposals.csv, and results.json, from which the table is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from budgetnet.common.files import write_json
from budgetnet.common.formatting import duration
from budgetnet.devices.machine import obstacle, require_quiet
from budgetnet.devices.measure import Progress, measure
from budgetnet.devices.networks import LEAST_SHARE, Region, time_networks
from budgetnet.devices.runtimes import Runtime, runtime_of
from budgetnet.model.budget import Budget
from budgetnet.model.deployed.device_file import DeviceFile, load_device
from budgetnet.model.spec import ModelSpec
from budgetnet.statistics.intervals import wilson_interval
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.named import named_space

FIELDS = ("digest", "label", "params", "macs", "predicted_ms", "measured_ms")
GROUP = 10
"""Networks that are timed in turns, so that each of them is timed at several moments."""
ROUNDS = 4


def main() -> int:
    """Run what is missing, and print the table."""
    options = _options()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    path = out / "device.yaml"
    region = Region(named_space(options.space), (3, 32, 32), 10, max_params=5_000_000, max_macs=500_000_000)
    start = time.monotonic()
    runtime = runtime_of("onnxruntime", threads=1, batch=1)
    if not options.even_if_busy:
        require_quiet(runtime)
    if path.exists():
        device = load_device(path)
        if reason := obstacle(device):
            print(f"{path}: {reason}")
            return 2
    else:
        device = measure(
            region,
            runtime,
            path,
            minutes=options.minutes,
            judged=options.judged,
            sampled=options.sampled,
            even_if_busy=options.even_if_busy,
            progress=_told(),
        )
        write_json(out / "time.json", {"device_seconds": round(time.monotonic() - start)})
    print(f"device file after {duration(time.monotonic() - start)}")
    # Other networks than those of the file, whose seeds are 0 and 1.
    predicted = (
        spec for spec in region.networks(seed=2, least=LEAST_SHARE) if device.latency.seconds(spec) is not None
    )
    held_out = list(islice(predicted, options.networks))
    _time_all(out / "networks.csv", held_out, device, runtime)
    print(f"held-out networks after {duration(time.monotonic() - start)}")
    proposals = list(_proposals(region, path, limit_ms=options.limit, count=options.proposals))
    every = max(1, len(proposals) // options.timed)
    _time_all(out / "proposals.csv", proposals[::every][: options.timed], device, runtime)
    results = _results(out, device, limit_ms=options.limit)
    write_json(out / "results.json", results)
    for name, value in results.items():
        print(f"{name:<42}{value}")
    return 0


def _proposals(region: Region, path: Path, *, limit_ms: float, count: int) -> Iterator[ModelSpec]:
    """Yield random proposals that are fitted to a limit of the latency."""
    space, budget = region.space, Budget(max_latency_ms=limit_ms, device_file=str(path))
    columns = space.sample(count=count, generator=np.random.default_rng(3))
    for row in range(count):
        params = space.params_at(columns, row)
        image: dict[str, Any] = {"input_shape": region.input_shape, "num_classes": region.num_classes}
        spec = fit(space, params, budget=budget, sizing="fit", **image)
        if budget.admits(spec):
            yield spec


def _time_all(path: Path, specs: Sequence[ModelSpec], device: DeviceFile, runtime: Runtime) -> None:
    """Time networks whole, a group at a time, and append them to a table."""
    done = {row["digest"] for row in _rows(path)}
    due = [spec for spec in specs if spec.digest not in done]
    for place in range(0, len(due), GROUP):
        group = due[place : place + GROUP]
        seconds = time_networks(runtime, group, rounds=ROUNDS)
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, FIELDS)
            if new:
                writer.writeheader()
            for spec, measured in zip(group, seconds, strict=True):
                predicted = device.latency.predict(spec).seconds
                times = {"predicted_ms": f"{1e3 * predicted:.6g}", "measured_ms": f"{1e3 * measured:.6g}"}
                counts = {"params": spec.params, "macs": spec.macs}
                writer.writerow({"digest": spec.digest, "label": spec.label, **counts, **times})
        print(f"{path.stem}: {min(place + GROUP, len(due))} of {len(due)}", file=sys.stderr)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _results(out: Path, device: DeviceFile, *, limit_ms: float) -> dict[str, Any]:
    rows, proposals = _rows(out / "networks.csv"), _rows(out / "proposals.csv")
    predicted, measured, macs = (
        np.array([float(row[name]) for row in rows]) for name in ("predicted_ms", "measured_ms", "macs")
    )
    errors = np.abs(predicted / measured - 1)
    used = [float(row["measured_ms"]) / limit_ms for row in proposals]
    over = [each > 1 for each in used]
    interval = wilson_interval(sum(over), len(over))
    seconds = json.loads((out / "time.json").read_text())["device_seconds"] if (out / "time.json").exists() else None
    return {
        "device": str(device.hardware),
        "runtime": str(device.runtime),
        "seconds to make the device's file": seconds,
        "error that the file states (p95)": round(device.validation.p95_error, 4),
        "held-out networks": len(rows),
        "their times, ms": [round(float(each), 3) for each in np.quantile(measured, [0, 0.5, 1])],
        "share within 5 %": round(float((errors <= 0.05).mean()), 4),
        "share within 10 %": round(float((errors <= 0.10).mean()), 4),
        "median error": round(float(np.median(errors)), 4),
        "p95 error": round(float(np.quantile(errors, 0.95)), 4),
        "largest error": round(float(errors.max()), 4),
        "Kendall's tau of prediction": round(float(kendalltau(predicted, measured).statistic), 4),
        "Kendall's tau of MACs": round(float(kendalltau(macs, measured).statistic), 4),
        "limit of proposals, ms": limit_ms,
        "proposals timed": len(proposals),
        "share over the limit": round(sum(over) / max(1, len(over)), 4),
        "its 95 % interval": [round(interval.low, 4), round(interval.high, 4)],
        "median use of the limit": round(
            float(np.median([float(row["measured_ms"]) for row in proposals])) / limit_ms, 4
        ),
    }


def _told() -> Callable[[Progress], None]:
    last = ""

    def tell(progress: Progress) -> None:
        nonlocal last
        if progress.step != last:
            print(progress.step, file=sys.stderr)
            last = progress.step

    return tell


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--space", default="resnet")
    parser.add_argument("--minutes", type=float, default=12.0, help="for the operations of the device's file")
    parser.add_argument("--networks", type=int, default=200, help="held-out networks")
    parser.add_argument("--limit", type=float, default=2.0, help="limit of the latency of proposals, in ms")
    parser.add_argument("--proposals", type=int, default=1000)
    parser.add_argument("--timed", type=int, default=50, help="proposals that are timed")
    parser.add_argument("--judged", type=int, default=40)
    parser.add_argument("--sampled", type=int, default=3000)
    parser.add_argument("--even-if-busy", action="store_true", help="for tests")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
