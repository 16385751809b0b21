"""The study of latency, at a size for a test."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import child_environment

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
