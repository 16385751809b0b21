"""Exported networks say what the run's network says, and need nothing of budgetnet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from evaluation_support import STOPPED, Runs
from export_support import SPECS, images_of, logits_by_hand, made_run, odd_images, run_module, spec_of
from safetensors import safe_open
from safetensors.torch import load_file
from support import TINY, tiny_recipe
from torch import Tensor

import budgetnet
from budgetnet.common.errors import BudgetnetError, DataError, InputError, RecordError
from budgetnet.common.files import read_mapping
from budgetnet.data import DataSet, load_dataset
from budgetnet.data.dataset import make_dataset
from budgetnet.export import FORMATS, SUFFIXES, Format, export, verification
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import DataRecord
from budgetnet.training.checkpoint import write_safetensors

SHARED = Path(os.environ.get("BUDGETNET_SHARED_DATA", "no-such-folder"))


@pytest.fixture(scope="module")
def odd() -> DataSet:
    return odd_images()


def run_onnx(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_program(path: Path, images: Tensor) -> Tensor:
    said: Tensor = torch.export.load(path).module()(images)
    return said


def run_weights(path: Path, images: Tensor) -> Tensor:
    """With nothing but what the file says of itself."""
    with safe_open(path, framework="pt") as stream:
        facts = {name: json.loads(text) for name, text in stream.metadata().items()}
    network = ModelSpec.from_mapping(facts["spec"]).build().eval()
    network.load_state_dict(load_file(path))
    mean, std = (torch.tensor(facts[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        said: Tensor = network((images - mean) / std)
    return said


ASK: dict[Format, Callable[[Path, Tensor], Tensor]] = {
    "safetensors": run_weights,
    "onnx": run_onnx,
    "torch-export": run_program,
    "python": run_module,
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("form", ["safetensors", "onnx", "torch-export"])
def test_every_kind_of_network_says_the_same(odd: DataSet, tmp_path: Path, name: str, form: Format) -> None:
    record = made_run(spec_of(name), odd, tmp_path)
    done = export(record.folder, format=form, to=tmp_path, load=lambda _: odd)
    (path,) = done.paths
    assert (done.images, done.compared_on, done.size) == (40, "validation images", path.stat().st_size)
    for count in (1, 7):
        images = images_of(odd, count)
        expected = logits_by_hand(record, images)
        assert count == 1 or expected.std(dim=0).min() > 0.01
        torch.testing.assert_close(ASK[form](path, images).double(), expected, rtol=0, atol=1e-4)


def facts_in(path: Path, form: Format) -> dict[str, Any]:
    if form == "torch-export":
        kept = {"budgetnet.json": ""}
        torch.export.load(path, extra_files=kept)
        found: dict[str, Any] = json.loads(kept["budgetnet.json"])
        return found
    if form == "onnx":
        texts = {each.key: each.value for each in onnx.load(path).metadata_props}
    else:
        with safe_open(path, framework="pt") as stream:
            texts = stream.metadata()
    return {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_says_what_it_is_and_not_where_it_was_made(odd: DataSet, tmp_path: Path, form: Format) -> None:
    record = made_run(spec_of("basic"), odd, tmp_path / "runs")
    done = export(record.folder, format=form, to=tmp_path / "shared" / f"net{SUFFIXES[form]}", load=lambda _: odd)
    facts = facts_in(done.paths[-1], form)
    identity = record.identity
    assert ModelSpec.from_mapping(facts["spec"]) == identity.spec
    assert (facts["class_names"], facts["input_shape"]) == (list(odd.class_names), [3, 7, 10])
    assert (facts["mean"], facts["std"]) == (list(odd.mean), list(odd.std))
    assert (facts["run"], facts["budgetnet"]) == (identity.digest, budgetnet.__version__)
    assert (facts["data"]["fingerprint"], facts["data"]["kind"]) == (odd.fingerprint, "arrays")
    assert ("normalises them by itself" in facts["input"]) == (form in ("onnx", "torch-export"))
    # Nothing is left beside it.
    assert sorted(done.paths[0].parent.iterdir()) == sorted(done.paths)
    here = [os.fsencode(path) for path in (Path(budgetnet.__file__).parent, tmp_path, Path("/home/somebody"))]
    for path in done.paths:
        content = path.read_bytes()
        assert not [place for place in here if place in content]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([[1.0, 2.0], [3.0, 1.0002]], "differ by up to 2.0e-04"),
        ([[1.0, 2.0], [float("nan"), 1.0]], "differ by up to nan, where 1e-04 is rounding, and 0 of 2 predictions"),
        ([[1.0, 2.0]], r"gives logits of shape \(1, 2\), not \(2, 2\)"),
    ],
)
def test_other_logits_are_no_rounding(said: list[list[float]], message: str) -> None:
    ours = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])]
    with pytest.raises(BudgetnetError, match=message):
        verification.largest_difference(ours, [torch.tensor(said)])
    assert verification.largest_difference(ours, [torch.cat(ours) - 0.5e-4]) == pytest.approx(0.5e-4, rel=1e-2)


def test_another_prediction_is_no_rounding_however_near() -> None:
    ours, theirs = torch.tensor([[1.0, 1.00001]]), torch.tensor([[1.00001, 1.0]])
    with pytest.raises(BudgetnetError, match="1 of 1 predictions differ"):
        verification.largest_difference([ours], [theirs])


def test_what_says_something_else_is_not_put_in_place(
    odd: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made_run(spec_of("basic"), odd, tmp_path)
    target = tmp_path / "net.safetensors"
    target.write_bytes(b"before")
    write = write_safetensors

    def slip(path: Path, tensors: Any, **rest: Any) -> None:
        write(path, {**tensors, "head.linear.bias": tensors["head.linear.bias"] + 0.01}, **rest)

    monkeypatch.setattr("budgetnet.export.exporting.write_safetensors", slip)
    with pytest.raises(BudgetnetError, match=r"net.safetensors: was not written, as it says something else") as caught:
        export(record.folder, format="safetensors", to=target, load=lambda _: odd)
    assert caught.value.exit_code == 1
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([record.folder.name, "net.safetensors"])


def gone(name: str) -> DataSet:
    raise DataError("data", name, "no such file")


def test_without_its_data_set_a_network_is_compared_on_noise(odd: DataSet, tmp_path: Path) -> None:
    record = made_run(spec_of("preact"), odd, tmp_path, class_names=None)
    done = export(record.folder, format="safetensors", to=tmp_path, load=gone)
    assert done.compared_on == "images of seeded noise, as the run's own are not to be had here"
    assert done.images == 256
    assert facts_in(done.paths[0], "safetensors")["class_names"] == ["0", "1", "2"]
    # In place of what lies there.
    named = export(record.folder, format="safetensors", to=tmp_path, load=lambda _: odd)
    assert named.paths == done.paths
    assert named.compared_on == "validation images"
    assert facts_in(named.paths[0], "safetensors")["class_names"] == list(odd.class_names)
    # Asked for by name, it must be there, and be the one.
    with pytest.raises(DataError, match="no such file"):
        export(record.folder, format="safetensors", to=tmp_path, data="folder:lost", load=gone)
    with pytest.raises(InputError, match="is not the data set"):
        export(record.folder, format="safetensors", to=tmp_path, data="arrays:other", load=lambda _: other(odd))


def other(odd: DataSet) -> DataSet:
    return make_dataset(
        name="arrays:other",
        train_images=np.zeros((250, 7, 10, 3), dtype=np.uint8),
        train_labels=np.arange(250) % 3,
        test_images=np.zeros((9, 7, 10, 3), dtype=np.uint8),
        test_labels=np.arange(9) % 3,
        provenance="made for a test",
    )


def test_nothing_is_downloaded_to_compare_on(odd: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGETNET_DATA", str(tmp_path))

    def never(name: str) -> DataSet:
        raise AssertionError(name)

    record = made_run(spec_of("basic"), odd, tmp_path, name="cifar10")
    assert "noise" in export(record.folder, format="safetensors", to=tmp_path, load=never).compared_on


def test_a_run_of_another_device_is_exported_on_this_one(digits: DataSet, tmp_path: Path) -> None:
    record = made_run(TINY, digits, tmp_path, device="cuda")
    assert record.identity.device == "cuda"
    done = export(record.folder, format="safetensors", to=tmp_path)
    images = images_of(digits, 7)
    torch.testing.assert_close(
        run_weights(done.paths[0], images).double(), logits_by_hand(record, images), rtol=0, atol=1e-4
    )


def test_what_is_exported_of_a_run_that_mirrors_is_the_plain_network(digits: DataSet, tmp_path: Path) -> None:
    record = made_run(TINY, digits, tmp_path, recipe=tiny_recipe(test_time_flip=True))
    done = export(record.folder, format="torch-export", to=tmp_path)
    images = images_of(digits, 7)
    said = run_program(done.paths[0], images).double()
    torch.testing.assert_close(said, logits_by_hand(record, images), rtol=0, atol=1e-4)
    assert (said - run_program(done.paths[0], images.flip(3)).double()).abs().max() > 1e-3


def test_a_trained_network_that_a_search_stopped_is_exported(
    runs: Runs, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = runs(STOPPED, out=tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    done = export(record.folder, format="onnx")
    assert done.paths == (Path(f"{STOPPED}.onnx"),)
    images = images_of(digits, 7)
    torch.testing.assert_close(
        run_onnx(tmp_path / done.paths[0], images).double(), logits_by_hand(record, images), rtol=0, atol=1e-4
    )


def test_runs_without_a_network_cannot_be_exported(runs: Runs, tmp_path: Path) -> None:
    diverged, unfinished, bare = runs("diverged", "good0", "good1")
    (unfinished.folder / "result.json").unlink()
    (bare.folder / "best.safetensors").unlink()
    for record, message in (
        (diverged, "has no result: the loss was not finite"),
        (unfinished, "is unfinished"),
        (bare, "contains no weights: best.safetensors is missing"),
    ):
        with pytest.raises(RecordError, match=message):
            export(record.folder, format="safetensors", to=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_onnx_needs_its_extra(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made_run(TINY, digits, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the extra budgetnet\[export\], of which onnxscript is not installed"):
        export(record.folder, format="onnx", to=tmp_path)
    assert export(record.folder, format="safetensors", to=tmp_path).difference == 0.0


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "unpack.py").is_file(), reason="BUDGETNET_SHARED_DATA names no CIFAR-10 sheets")
@pytest.mark.parametrize("name", ["reference", "wrn-16-4", "resnext-29-32x4d"])
def test_known_networks_say_the_same_of_cifar10s_images(tmp_path: Path, name: str) -> None:
    subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(tmp_path / "sheets.npz")], check=True)
    sheets = load_dataset(f"arrays:{tmp_path / 'sheets.npz'}")
    record = made_run(zoo.get(name), sheets, tmp_path)
    for form in FORMATS:
        done = export(record.folder, format=form, to=tmp_path, load=lambda _: sheets)
        assert (done.images, done.compared_on) == (40, "validation images")
        images = images_of(sheets, 3)
        said = ASK[form](done.paths[0], images).double()
        torch.testing.assert_close(said, logits_by_hand(record, images), rtol=0, atol=1e-4)


def test_names_of_classes_are_no_part_of_a_runs_identity(digits: DataSet, tmp_path: Path) -> None:
    named = made_run(TINY, digits, tmp_path)
    assert named.identity.data.class_names == tuple("0123456789")
    assert read_mapping(named.folder / "run.json")["data"]["class_names"] == list("0123456789")
    for name in ("\x1b[2J", " ", "a\nb"):
        with pytest.raises(InputError, match=r"class_names\[1\] = .*: must be printable text"):
            DataRecord(**{**named.identity.data.to_mapping(), "class_names": ["0", name]})
    bare = named.identity.model_copy(update={"data": named.identity.data.model_copy(update={"class_names": None})})
    assert bare.digest == named.identity.digest
