"""The study of latency, at a size for a test."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import kendalltau
from support import child_environment

from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec

STUDY = Path(__file__).parents[2] / "studies" / "latency"
SMALL = "--space paper --minutes 0.001 --networks 3 --proposals 3 --timed 2 --limit 50 --judged 4 --sampled 30"


@pytest.mark.slow
def test_the_study_runs_and_resumes(tmp_path: Path) -> None:
    command = [sys.executable, str(STUDY / "measure_latency.py"), "--out", str(tmp_path), *SMALL.split()]

    def run() -> str:
        done = subprocess.run(
            [*command, "--even-if-busy"], capture_output=True, text=True, check=False, env=child_environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "held-out networks" in run()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["held-out networks"] == 3
    assert results["proposals timed"] == 2
    assert results["share over the limit"] in (0, 0.5, 1)
    before = (tmp_path / "networks.csv").read_text()
    with (tmp_path / "networks.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(float(row["predicted_ms"]) > 0 and float(row["measured_ms"]) > 0 for row in rows)
    # Nothing is timed again.
    run()
    assert (tmp_path / "networks.csv").read_text() == before


def test_the_documented_numbers_follow_from_the_records() -> None:
    with (STUDY / "results" / "networks.csv").open(newline="") as stream:
        rows = [
            {name: float(row[name]) for name in ("predicted_ms", "measured_ms", "macs")}
            for row in csv.DictReader(stream)
        ]
    with (STUDY / "results" / "proposals.csv").open(newline="") as stream:
        proposals = [float(row["measured_ms"]) for row in csv.DictReader(stream)]
    errors = [abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows]
    within = {share: 100 * sum(error <= share / 100 for error in errors) / len(rows) for share in (5, 10)}
    measured = [row["measured_ms"] for row in rows]
    taus = [float(kendalltau([row[name] for row in rows], measured).statistic) for name in ("predicted_ms", "macs")]
    text = (STUDY / "README.md").read_text()
    for line in (
        f"within 10 % of the prediction | {within[10]:.1f} % |",
        f"within 5 % | {within[5]:.1f} % |",
        f"predicted and measured latency | {taus[0]:.3f} |",
        f"MACs and measured latency | {taus[1]:.3f} |",
        f"took longer | {sum(each > 2 for each in proposals)} of {len(proposals)} [0, 7.1 %] |",
        f"the median error is {100 * statistics.median(errors):.1f} %",
    ):
        assert line in text
    docs = (STUDY.parents[1] / "docs" / "devices.md").read_text()
    for part in (
        f"within 5 % for {within[5]:.0f} %",
        f"within 10 % for {within[10]:.0f} %",
        f"is {taus[0]:.3f}, that of MACs {taus[1]:.3f}",
    ):
        assert part in " ".join(docs.split())


def test_edits_are_found_beyond_widths_that_the_devices_file_lacks() -> None:
    budget = Budget(max_latency_ms=1.175, device_file=STUDY / "results" / "device.yaml")
    widths = [48, 96, 192, 256]
    expected = set()
    for place, width in enumerate(widths):
        below = range(width - 1, 0, -1)
        for other in [each for each in below if each % 8 == 0] + [each for each in below if each % 8]:
            edited = ModelSpec.resnet(channels=[*widths[:place], other, *widths[place + 1 :]], stem=48)
            if budget.needs(edited)["latency_ms"] <= 1.175:
                expected.add(f"stage {place + 1}: {width} -> {other} channels")
                break
    edits = budget.check(ModelSpec.resnet(channels=widths)).edits
    assert {edit.description for edit in edits if "channels" in edit.description} == expected
    assert "stage 1: 48 -> 16 channels" in expected
