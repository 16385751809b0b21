"""`budgetnet export`: files, output, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_support import Runs
from export_support import create_run, expected_logits, images_of
from PIL import Image
from safetensors.torch import load_file
from support import TINY, RunCommand, child_environment, finished, snapshot

from budgetnet.data import DataSet

WITHOUT_BUDGETNET = """
import runpy, sys
sys.modules["budgetnet"] = None
try:
    import budgetnet
except ImportError:
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a file as a program behind a wall that is tried first."""


pytestmark = pytest.mark.usefixtures("folder")


def test_files_are_named_after_the_run(runs: Runs, tell: RunCommand, folder: Path) -> None:
    (record,) = runs("good0", out=folder / "runs")
    answer = tell("export", "runs/good0", "--format", "torch-export")
    assert (answer.code, answer.err) == (0, "")
    size = (folder / "good0.pt2").stat().st_size
    first, second = answer.out.splitlines()
    assert first == f"good0.pt2: {size:,} bytes"
    assert "verified on 40 validation images: the same predictions" in second
    told = json.loads(tell("export", "runs/good0", "--format", "safetensors", "--json").out)
    assert told == {
        "paths": ["good0.safetensors"],
        "size": (folder / "good0.safetensors").stat().st_size,
        "images": 40,
        "compared_on": "validation images",
        "difference": 0.0,
    }
    weights = load_file(folder / "good0.safetensors")
    best = load_file(record.folder / "best.safetensors")
    assert weights.keys() == best.keys()
    assert all(torch.equal(weights[name], best[name]) for name in best)
    assert {path.name for path in folder.iterdir()} == {"runs", "good0.pt2", "good0.safetensors"}


def test_a_python_file_classifies_pictures_as_predict_does(tell: RunCommand, digits: DataSet, folder: Path) -> None:
    record = create_run(TINY, digits, folder / "runs")
    record.folder.rename(folder / "3-good.run")
    assert tell("export", "3-good.run", "--format", "python").code == 0
    # Called so that it can be imported.
    assert (folder / "_3_good_run.py").exists()
    image = digits.train_images[0, 0]
    Image.fromarray(image).save("same.png")
    Image.fromarray(np.kron(image, np.ones((3, 5), dtype=np.uint8))).convert("RGBA").save("large.png")
    Image.fromarray(image).save("same.gif")
    pictures = ["same.png", "large.png", "same.gif"]
    command = [sys.executable, "-I", "-c", WITHOUT_BUDGETNET, "_3_good_run.py", *pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
    assert done.returncode == 0, done.stderr
    said = json.loads(tell("predict", "3-good.run", *pictures, "--device", "cpu", "--json").out)["images"]
    lines = [
        ", ".join(f"{entry['class']} {entry['probability']:.2%}" for entry in each["predictions"]) for each in said
    ]
    assert done.stdout.splitlines() == [f"{picture}: {line}" for picture, line in zip(pictures, lines, strict=True)]
    expected = expected_logits(record._replace(folder=folder / "3-good.run"), images_of(digits, 1)).softmax(dim=1)[0]
    assert lines[0] == lines[2]
    assert lines[0].startswith(f"{digits.class_names[int(expected.argmax())]} {expected.max():.2%}, ")
    assert lines[1] != lines[0]


def test_export_errors_give_one_line(
    runs: Runs, tell: RunCommand, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged, unfinished, bare, good = runs("diverged", "good0", "good1", "good2", out=folder / "runs")
    (unfinished.folder / "result.json").unlink()
    (bare.folder / "best.safetensors").unlink()
    (folder / "file").write_text("")
    before = snapshot(folder)
    run, form = str(good.folder), ["--format", "safetensors"]
    for arguments, message in [
        ([str(diverged.folder), *form], "has no result: the loss was not finite"),
        ([str(unfinished.folder), *form], "is unfinished: result.json is missing"),
        ([str(bare.folder), *form], "contains no weights: best.safetensors is missing"),
        (["nowhere", *form], "no such folder"),
        ([run, "--format", "tflite"], "--format = 'tflite': must be one of safetensors, onnx, torch-export, python"),
        ([run], "Missing option '--format'"),
        (
            [run, *form, "-o", "net.bin"],
            "--output = 'net.bin': must end in .safetensors for safetensors, or be a folder",
        ),
        ([run, "--format", "python", "-o", "net.pt"], "must end in .py for python"),
        ([run, *form, "--data", "digit"], "did you mean digits?"),
    ]:
        answer = tell("export", *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert len(answer.err.splitlines()) == 1
        assert message in answer.err
    answer = tell("export", run, *form, "-o", "file/net.safetensors")
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert (
        "--format = 'onnx': needs onnx, not installed; to install: pip install 'onnx>=1.17'"
        in tell("export", run, "--format", "onnx").err
    )
    assert snapshot(folder) == before


def test_export_with_other_predictions_exits_with_1(
    runs: Runs, tell: RunCommand, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("good0", out=folder / "runs")
    (folder / "good0.py").write_text("before")
    before = snapshot(folder)
    monkeypatch.setattr("budgetnet.exporting.exporting.python_source", lambda *_, **__: "raise SystemExit('no')\n")
    answer = tell("export", "runs/good0", "--format", "python")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: good0.py: not written, because it does not run without budgetnet: no\n"
    assert snapshot(folder) == before


def test_only_the_result_is_printed(runs: Runs, folder: Path) -> None:
    runs("good0", out=folder / "runs")
    done = finished("export", "runs/good0", "--format", "onnx", "-o", "deep/er/net.onnx", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("deep/er/net.onnx: ")
    assert second.startswith("verified on 40 validation images")
