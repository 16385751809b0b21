"""Exported networks give the same logits as the run's network, without budgetnet."""

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
from export_support import (
    SPECS,
    create_run,
    expected_logits,
    images_of,
    odd_sized_dataset,
    random_dataset,
    run_module,
    spec_of,
)
from hypothesis import Phase, given, settings
from safetensors import safe_open
from safetensors.torch import load_file
from strategies import examples, specs
from support import TINY, tiny_recipe
from torch import Tensor

import budgetnet
from budgetnet.common.errors import BudgetnetError, DataError, InputError, RecordError
from budgetnet.common.files import read_mapping
from budgetnet.data import DataSet, load_dataset
from budgetnet.data.dataset import make_dataset
from budgetnet.exporting import verification
from budgetnet.exporting.exporting import export
from budgetnet.exporting.formats import FORMATS, SUFFIXES, Format
from budgetnet.exporting.metadata import PIXELS
from budgetnet.exporting.output import writing
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.records import DataRecord
from budgetnet.runs.run_files import RUN_FILES
from budgetnet.runs.store import RunFolder
from budgetnet.training.checkpoint import write_safetensors

SHARED = Path(os.environ.get("BUDGETNET_SHARED_DATA", "no-such-folder"))


@pytest.fixture(scope="module")
def odd() -> DataSet:
    return odd_sized_dataset()


def run_onnx(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def run_program(path: Path, images: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(path).module()(images)
    return logits


def run_weights(path: Path, images: Tensor) -> Tensor:
    """Return logits, using nothing but the file and its metadata."""
    with safe_open(path, framework="pt") as stream:
        metadata = {name: json.loads(text) for name, text in stream.metadata().items()}
    network = ModelSpec.from_mapping(metadata["spec"]).build().eval()
    network.load_state_dict(load_file(path))
    mean, std = (torch.tensor(metadata[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        logits: Tensor = network((images - mean) / std)
    return logits


RUN: dict[Format, Callable[[Path, Tensor], Tensor]] = {
    "safetensors": run_weights,
    "onnx": run_onnx,
    "torch-export": run_program,
    "python": run_module,
}


TRACED_FIRST = (
    *("basic-max-pool", "basic-plain", "preact-padded"),
    *("preact-bottleneck", "bottleneck-inverted", "mixed-pooled"),
)
"""Networks that torch traces in the first tier of tests, a second each: all kinds of blocks, shortcuts and pooling."""


def forms_and_networks() -> list[Any]:
    """Return all pairs of a form and a network."""
    return [
        pytest.param(form, name, marks=() if form == "safetensors" or name in TRACED_FIRST else pytest.mark.slow)
        for form in ("safetensors", "onnx", "torch-export")
        for name in SPECS
    ]


@pytest.mark.parametrize(("form", "name"), forms_and_networks())
def test_exported_network_gives_the_same_logits(odd: DataSet, tmp_path: Path, name: str, form: Format) -> None:
    record = create_run(spec_of(name), odd, tmp_path)
    done = export(record.folder, format=form, to=tmp_path, load=lambda _: odd)
    (path,) = done.paths
    assert (done.images, done.compared_on, done.size) == (40, "validation images", path.stat().st_size)
    for count in (1, 7):
        images = images_of(odd, count)
        expected = expected_logits(record, images)
        assert count == 1 or expected.std(dim=0).min() > 0.01
        torch.testing.assert_close(RUN[form](path, images).double(), expected, rtol=0, atol=1e-4)


def test_an_export_replaces_no_file_of_a_run(odd: DataSet, tmp_path: Path) -> None:
    record = create_run(TINY, odd, tmp_path / "runs")
    before = {path.name: path.read_bytes() for path in record.folder.iterdir()}
    with pytest.raises(InputError, match="must not be a file of a run, which would be lost"):
        export(record.folder, format="safetensors", to=record.folder / "best.safetensors", load=lambda _: odd)
    assert {path.name: path.read_bytes() for path in record.folder.iterdir()} == before
    assert {name for name in before if not name.startswith(".")} <= RUN_FILES
    # Elsewhere the name may be had, and in the folder of the run another.
    for to in (tmp_path / "best.safetensors", record.folder / "network.safetensors"):
        assert export(record.folder, format="safetensors", to=to, load=lambda _: odd).paths == (to,)


def test_a_run_can_be_trained_beside_an_export_into_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with writing(run.path / "network.onnx") as file:
        file.touch()
        with run.locked():
            assert file.exists()


@pytest.mark.slow
@settings(examples(50), phases=[Phase.generate])
@given(spec=specs(max_side=9))
def test_random_networks_give_the_same_logits_in_every_form(spec: ModelSpec, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("random")
    dataset = random_dataset(*spec.input_shape, classes=spec.num_classes)
    record = create_run(spec, dataset, folder)
    images = images_of(dataset, 5)
    expected = expected_logits(record, images)
    for form in ("onnx", "python"):
        done = export(record.folder, format=form, to=folder, load=lambda _: dataset)
        exported = RUN[form](next(each for each in done.paths if each.suffix in (".onnx", ".py")), images)
        torch.testing.assert_close(exported.double(), expected, rtol=1e-4, atol=1e-4)


def read_metadata(path: Path, form: Format) -> dict[str, Any]:
    if form == "torch-export":
        extra_files = {"budgetnet.json": ""}
        torch.export.load(path, extra_files=extra_files)
        found: dict[str, Any] = json.loads(extra_files["budgetnet.json"])
        return found
    if form == "onnx":
        texts = {each.key: each.value for each in onnx.load(path).metadata_props}
    else:
        with safe_open(path, framework="pt") as stream:
            texts = stream.metadata()
    return {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_metadata_is_complete_and_holds_no_path_of_this_machine(odd: DataSet, tmp_path: Path, form: Format) -> None:
    record = create_run(spec_of("basic"), odd, tmp_path / "runs")
    done = export(record.folder, format=form, to=tmp_path / "shared" / f"net{SUFFIXES[form]}", load=lambda _: odd)
    metadata = read_metadata(done.paths[-1], form)
    identity = record.identity
    assert ModelSpec.from_mapping(metadata["spec"]) == identity.spec
    assert (metadata["class_names"], metadata["input_shape"]) == (list(odd.class_names), [3, 7, 10])
    assert (metadata["mean"], metadata["std"]) == (list(odd.mean), list(odd.std))
    assert (metadata["run"], metadata["budgetnet"]) == (identity.digest, budgetnet.__version__)
    assert (metadata["data"]["fingerprint"], metadata["data"]["kind"]) == (odd.fingerprint, "arrays")
    assert ("normalises them itself" in metadata["input"]) == (form in ("onnx", "torch-export"))
    # No temporary file is left.
    assert sorted(done.paths[0].parent.iterdir()) == sorted(done.paths)
    here = [os.fsencode(path) for path in (Path(budgetnet.__file__).parent, tmp_path, Path("/home/somebody"))]
    for path in done.paths:
        content = path.read_bytes()
        assert not [place for place in here if place in content]


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ([[1.0, 2.0], [3.0, 1.0002]], "differ from those of the run's network by up to 2.0e-04"),
        ([[1.0, 2.0], [float("nan"), 1.0]], r"by up to nan \(tolerance 1e-04\), and 0 of 2 predictions"),
        ([[1.0, 2.0]], r"returns logits of shape \(1, 2\), not \(2, 2\)"),
    ],
)
def test_differing_logits_raise(exported: list[list[float]], message: str) -> None:
    ours = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])]
    with pytest.raises(BudgetnetError, match=message):
        verification.largest_difference(ours, [torch.tensor(exported)])
    assert verification.largest_difference(ours, [torch.cat(ours) - 0.5e-4]) == pytest.approx(0.5e-4, rel=1e-2)


def test_a_differing_prediction_raises_even_if_logits_are_close() -> None:
    ours, theirs = torch.tensor([[1.0, 1.00001]]), torch.tensor([[1.00001, 1.0]])
    with pytest.raises(BudgetnetError, match="1 of 1 predictions differ"):
        verification.largest_difference([ours], [theirs])


def test_a_differing_network_does_not_replace_the_file(
    odd: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_run(spec_of("basic"), odd, tmp_path)
    target = tmp_path / "net.safetensors"
    target.write_bytes(b"before")
    original = write_safetensors

    def write_wrong_bias(path: Path, tensors: Any, **rest: Any) -> None:
        original(path, {**tensors, "head.linear.bias": tensors["head.linear.bias"] + 0.01}, **rest)

    monkeypatch.setattr("budgetnet.exporting.exporting.write_safetensors", write_wrong_bias)
    with pytest.raises(BudgetnetError, match=r"net.safetensors: not written, because its logits differ") as caught:
        export(record.folder, format="safetensors", to=target, load=lambda _: odd)
    assert caught.value.exit_code == 1
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([record.folder.name, "net.safetensors"])


def missing_dataset(name: str) -> DataSet:
    raise DataError("data", name, "no such file")


def test_export_without_the_data_set_compares_on_noise(odd: DataSet, tmp_path: Path) -> None:
    record = create_run(spec_of("preact"), odd, tmp_path, class_names=None)
    done = export(record.folder, format="safetensors", to=tmp_path, load=missing_dataset)
    assert done.compared_on == "images of seeded noise (the run's data set is not available)"
    assert done.images == 256
    assert read_metadata(done.paths[0], "safetensors")["class_names"] == ["0", "1", "2"]
    # Replaces the first file.
    named = export(record.folder, format="safetensors", to=tmp_path, load=lambda _: odd)
    assert named.paths == done.paths
    assert named.compared_on == "validation images"
    assert read_metadata(named.paths[0], "safetensors")["class_names"] == list(odd.class_names)
    # A data set that is given must load and be the one that the run was trained on.
    with pytest.raises(DataError, match="no such file"):
        export(record.folder, format="safetensors", to=tmp_path, data="folder:lost", load=missing_dataset)
    with pytest.raises(InputError, match="is not the data set"):
        export(record.folder, format="safetensors", to=tmp_path, data="arrays:other", load=lambda _: other_dataset(odd))


def other_dataset(odd: DataSet) -> DataSet:
    return make_dataset(
        name="arrays:other",
        train_images=np.zeros((250, 7, 10, 3), dtype=np.uint8),
        train_labels=np.arange(250) % 3,
        test_images=np.zeros((9, 7, 10, 3), dtype=np.uint8),
        test_labels=np.arange(9) % 3,
        provenance="made for a test",
    )


def test_export_never_downloads_data(odd: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGETNET_DATA", str(tmp_path))

    def never(name: str) -> DataSet:
        raise AssertionError(name)

    record = create_run(spec_of("basic"), odd, tmp_path, name="cifar10")
    assert "noise" in export(record.folder, format="safetensors", to=tmp_path, load=never).compared_on


def test_a_run_trained_on_cuda_is_exported_on_a_cpu(digits: DataSet, tmp_path: Path) -> None:
    record = create_run(TINY, digits, tmp_path, device="cuda")
    assert record.identity.device == "cuda"
    done = export(record.folder, format="safetensors", to=tmp_path)
    images = images_of(digits, 7)
    torch.testing.assert_close(
        run_weights(done.paths[0], images).double(), expected_logits(record, images), rtol=0, atol=1e-4
    )


def test_test_time_flip_is_not_exported(digits: DataSet, tmp_path: Path) -> None:
    record = create_run(TINY, digits, tmp_path, recipe=tiny_recipe(test_time_flip=True))
    done = export(record.folder, format="torch-export", to=tmp_path)
    images = images_of(digits, 7)
    logits = run_program(done.paths[0], images).double()
    torch.testing.assert_close(logits, expected_logits(record, images), rtol=0, atol=1e-4)
    assert (logits - run_program(done.paths[0], images.flip(3)).double()).abs().max() > 1e-3


def test_a_pruned_run_is_exported(runs: Runs, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = runs(STOPPED, out=tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    done = export(record.folder, format="onnx")
    assert done.paths == (Path(f"{STOPPED}.onnx"),)
    images = images_of(digits, 7)
    torch.testing.assert_close(
        run_onnx(tmp_path / done.paths[0], images).double(), expected_logits(record, images), rtol=0, atol=1e-4
    )


def test_runs_without_weights_cannot_be_exported(runs: Runs, tmp_path: Path) -> None:
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


def test_onnx_requires_the_export_extra(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = create_run(TINY, digits, tmp_path)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        InputError,
        match=r"needs onnxscript, not installed; to install: pip install 'onnx>=1.17' 'onnxruntime>=1.20' 'onnxscript",
    ):
        export(record.folder, format="onnx", to=tmp_path)
    assert export(record.folder, format="safetensors", to=tmp_path).difference == 0.0


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "unpack.py").is_file(), reason="BUDGETNET_SHARED_DATA names no CIFAR-10 sheets")
@pytest.mark.parametrize("name", ["reference", "wrn-16-4", "resnext-29-32x4d"])
def test_named_networks_give_the_same_logits_on_cifar10(tmp_path: Path, name: str) -> None:
    subprocess.run([sys.executable, str(SHARED / "unpack.py"), str(tmp_path / "sheets.npz")], check=True)
    sheets = load_dataset(f"arrays:{tmp_path / 'sheets.npz'}")
    record = create_run(zoo.get(name), sheets, tmp_path)
    for form in FORMATS:
        done = export(record.folder, format=form, to=tmp_path, load=lambda _: sheets)
        assert (done.images, done.compared_on) == (40, "validation images")
        images = images_of(sheets, 3)
        logits = RUN[form](done.paths[0], images).double()
        torch.testing.assert_close(logits, expected_logits(record, images), rtol=0, atol=1e-4)


def test_class_names_are_not_part_of_the_run_digest(digits: DataSet, tmp_path: Path) -> None:
    named = create_run(TINY, digits, tmp_path)
    assert named.identity.data.class_names == tuple("0123456789")
    assert read_mapping(named.folder / "run.json")["data"]["class_names"] == list("0123456789")
    for name in ("\x1b[2J", " ", "a\nb"):
        with pytest.raises(InputError, match=r"class_names\[1\] = .*: must be printable text"):
            DataRecord(**{**named.identity.data.to_mapping(), "class_names": ["0", name]})
    bare = named.identity.model_copy(update={"data": named.identity.data.model_copy(update={"class_names": None})})
    assert bare.digest == named.identity.digest


def test_onnx_says_what_it_is_and_a_missing_folder_is_made(digits: DataSet, tmp_path: Path) -> None:
    record = create_run(TINY, digits, tmp_path)
    (path,) = export(record.folder, format="onnx", to=tmp_path / "new" / "folder").paths
    assert path == tmp_path / "new" / "folder" / f"{record.folder.name}.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        first, *others = value.type.tensor_type.shape.dim
        assert (first.dim_param, [each.dim_param for each in others]) == ("batch", [""] * len(others))
    assert model.doc_string == f"{TINY.label}, trained on digits; input: {PIXELS}"
    onnx.checker.check_model(model, full_check=True)
