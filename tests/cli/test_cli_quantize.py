"""`budgetnet quantize`: files, output, errors and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from evaluation_support import Runs
from support import RunCommand, finished, snapshot


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_both_accuracies_and_sizes(runs: Runs, folder: Path) -> None:
    runs("good0", out=folder / "runs")
    done = finished("quantize", "runs/good0", "--calibration-images", "32", "--seed", "3", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"runs", "good0-int8.onnx"}
    size = (folder / "good0-int8.onnx").stat().st_size
    (text,) = [each.value for each in onnx.load("good0-int8.onnx").metadata_props if each.key == "quantization"]
    facts = json.loads(text)
    lines = done.stdout.splitlines()
    assert lines[0] == f"good0-int8.onnx: {size:,} bytes"
    assert lines[1].strip() == "by ONNX Runtime on 40 validation images"
    rows = {cells[1].strip(): cells for line in lines if len(cells := line.split("│")) == 6}
    for name, each in (("float32", facts["float32"]), ("int8", {**facts["int8"], "size": size})):
        accuracy, weights, file = (cell.strip() for cell in rows[name][2:5])
        assert accuracy.startswith(f"{100 * each['accuracy']:.0f} [{100 * each['interval'][0]:.0f}, ")
        assert (weights, file) == (f"{each['weight_bytes']:,}", f"{each['size']:,}")
    low, high = facts["interval"]
    assert lines[-2].startswith(
        f"int8 - float32: {100 * facts['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] percentage points"
    )
    assert lines[-1] == "calibrated by MinMax on 32 training images, seed 3"


def test_json_is_what_the_metadata_hold(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0", out=folder / "runs")
    told = json.loads(tell("quantize", "runs/good0", "-o", "deep/er/net.onnx", "--json").out)
    assert told["calibration"] == {"images": 64, "seed": 0, "method": "MinMax"}
    assert told.pop("path") == "deep/er/net.onnx"
    assert told["int8"].pop("size") == (folder / "deep" / "er" / "net.onnx").stat().st_size
    model = onnx.load("deep/er/net.onnx")
    facts = json.loads({each.key: each.value for each in model.metadata_props}["quantization"])
    assert told.items() <= facts.items()


def test_errors_give_one_line(runs: Runs, tell: RunCommand, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverged, bare, _, _ = runs("diverged", "good1", "leaking", "good0", out=folder / "runs")
    (bare.folder / "best.safetensors").unlink()
    (folder / "file").write_text("")
    before = snapshot(folder)
    good = "runs/good0"
    for arguments, message in [
        ([str(diverged.folder)], "has no result: the loss was not finite"),
        ([str(bare.folder)], "contains no weights: best.safetensors is missing"),
        (["nowhere"], "no such folder"),
        (["runs/leaking"], "error: run = 'runs/leaking': was trained on its validation images"),
        ([good, "--calibration-images", "0"], "--calibration-images = '0': must be a whole number of at least 1"),
        ([good, "--calibration-images", "1e4"], "--calibration-images = 10000: must be from 1 to 64, the number of"),
        ([good, "-o", "net.pt"], "--output = 'net.pt': must end in .onnx for ONNX, or be a folder"),
        ([good, "--data", "digit"], "did you mean digits?"),
        ([good, "--data", "folder:nowhere"], "nowhere"),
    ]:
        answer = tell("quantize", *arguments)
        assert (answer.code, answer.out) == (2, ""), arguments
        assert len(answer.err.splitlines()) == 1
        assert message in answer.err
    answer = tell("quantize", good, "-o", "file/net.onnx")
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    answer = tell("quantize", good)
    assert answer.code == 2
    assert answer.err.startswith(f"error: run = '{good}': needs onnxruntime, not installed; to install: pip install ")
    assert snapshot(folder) == before
