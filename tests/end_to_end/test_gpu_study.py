"""Script that runs all GPU measurements, with small sizes on the CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "studies" / "gpu-speed" / "measure.py"


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("measure", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def measured(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--data", "digits", "--device", "cpu", "--out", str(out), "--small"]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_every_part_runs_once_and_is_in_the_summary(tmp_path: Path) -> None:
    first = measured(tmp_path)
    assert first.returncode == 0, first.stderr
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary in first.stdout
    assert "failed" not in summary
    assert "not run" not in summary
    parts = {path.stem for path in tmp_path.glob("*.json")}
    assert {"train-resnet20", "start", "profile", "workers", "growth", "search", "check"} <= parts
    assert len(parts) == 7 + 4, "and two recipes with two seeds"
    rows = json.loads((tmp_path / "train-resnet20.json").read_text())["rows"]
    assert all(f"{row['images_per_second']:,.0f} images/s" in summary for row in rows)
    runs = [json.loads((tmp_path / f"resnet20-paper-seed-{seed}.json").read_text()) for seed in (0, 1)]
    mean = sum(100 * run["validation_accuracy"] for run in runs) / 2
    assert f"| resnet20 | paper | 2 | {mean:.2f} |" in summary
    again = measured(tmp_path)
    assert again.returncode == 0
    assert again.stdout.strip() == summary.strip(), "nothing is measured twice"


def test_result_of_another_command_is_measured_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    module, allowed = script(), {"out": tmp_path, "deadline": time.monotonic() + 120}

    def limit(size: str) -> int:
        part = module.Part("check", ["check", "resnet20", "--max-params", size, "--json"])
        found = module.run(part, **allowed)
        assert isinstance(found, dict), found
        return int(found["limits"][0]["allowed"])

    assert limit("300k") == 300_000
    assert limit("5M") == 5_000_000, "not the limit of the first command, whose result has the same name"
    assert limit("5M") == 5_000_000
    assert capfd.readouterr().out.count("exit code 0") == 2, "the third time its saved result is read"


def test_without_time_nothing_is_run_and_the_summary_says_so(tmp_path: Path) -> None:
    process = measured(tmp_path, "--minutes", "0")
    assert process.returncode == 0
    assert process.stdout.count("not run: no time left") == 11
    assert "| resnet20 | modern | 0 | not run | - | - |" in process.stdout
    assert not list(tmp_path.glob("*.json"))
