"""Int8 models: what is in the file, how accurate it is, and what it was calibrated on."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import onnxruntime.quantization
import pytest
import torch
from evaluation_support import Runs
from export_support import SPECS, create_run, images_of, odd_sized_dataset, spec_of
from support import TINY, prepare, snapshot, tiny_recipe

import budgetnet
from budgetnet.common.errors import BudgetnetError, DataError, InputError, RecordError
from budgetnet.data import DataSet, split
from budgetnet.exporting.exporting import export
from budgetnet.exporting.quantizing import ModelFile, Quantized, quantize
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.metrics import Scores
from budgetnet.runs.records import RunRecord
from budgetnet.statistics import compare_predictions
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.trainer import train

SPEC = ModelSpec.resnet(channels=[16, 32], blocks=[1, 1], strides=[1, 2], input_shape=(1, 8, 8))
TRAIN, VALIDATION = 1100, 280


@pytest.fixture(scope="module")
def trained(digits: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run that has learned the digits, averaged over mirror images, which are not part of a model."""
    recipe = tiny_recipe(epochs=4, test_time_flip=True)
    data = prepare(digits, recipe, train_size=TRAIN, validation_size=VALIDATION)
    return train(SPEC, data, recipe, seed=0, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def quantized(trained: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    return quantize(trained.folder, to=tmp_path_factory.mktemp("int8") / "digits.onnx")


def parts_of(digits: DataSet, record: RunRecord) -> Any:
    recipe = record.identity.recipe
    return split(
        digits.train_labels,
        validation_fraction=recipe.validation_fraction,
        seed=recipe.split_seed,
        train_size=TRAIN,
        validation_size=VALIDATION,
    )


def logits_of(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: npt.NDArray[np.float32] = session.run(None, {"images": images.astype(np.float32) / 255})[0]
    return logits


def constant_bytes(path: Path) -> int:
    sizes = {"FLOAT": 4, "INT32": 4, "INT64": 8, "INT8": 1}
    constants = onnx.load(path).graph.initializer
    return sum(math.prod(each.dims) * sizes[onnx.TensorProto.DataType.Name(each.data_type)] for each in constants)


def metadata_of(path: Path) -> dict[str, Any]:
    return {each.key: json.loads(each.value) for each in onnx.load(path).metadata_props}


def test_accuracies_are_those_of_onnx_runtime_on_the_validation_images(
    trained: RunRecord, quantized: Quantized, digits: DataSet, tmp_path: Path
) -> None:
    rows = parts_of(digits, trained).validation
    images, labels = digits.train_images[rows], digits.train_labels[rows]
    float32 = tmp_path / "float32.onnx"
    export(trained.folder, format="onnx", to=float32)
    logits = {"float32": logits_of(float32, images), "int8": logits_of(quantized.path, images)}
    right = {name: each.argmax(axis=1) == labels for name, each in logits.items()}
    told = quantized.to_mapping()
    assert told["images"] == VALIDATION
    for name, path in (("float32", float32), ("int8", quantized.path)):
        assert told[name]["correct"] == right[name].sum()
        assert told[name]["accuracy"] == right[name].mean()
        assert (told[name]["size"], told[name]["weight_bytes"]) == (path.stat().st_size, constant_bytes(path))
    assert right["float32"].mean() > 0.8
    assert right["int8"].mean() > 0.8
    assert told["only_int8"] == (right["int8"] & ~right["float32"]).sum()
    assert told["only_float32"] == (right["float32"] & ~right["int8"]).sum()
    assert told["difference"] == pytest.approx(right["int8"].mean() - right["float32"].mean())
    paired = compare_predictions(right["int8"], right["float32"])
    assert (told["interval"], told["p"]) == (list(paired.interval), paired.mcnemar.p_value)
    # Rounded to 8 bits, but of the same network.
    difference = np.abs(logits["int8"] - logits["float32"]).max()
    assert 0 < difference < 0.2 * logits["float32"].std()


def test_the_difference_is_that_of_int8_minus_float32() -> None:
    def model(right: list[bool]) -> ModelFile:
        sure = np.where(np.array(right)[:, None], [0.9, 0.1], [0.1, 0.9])
        return ModelFile(Scores(probabilities=sure, labels=np.zeros(len(right), dtype=np.int64)), 1, 1)

    float32, int8 = model([True] * 7 + [False] * 3), model([True] * 3 + [False] * 6 + [True])
    told = Quantized(Path("x.onnx"), float32, int8, 1, 0).to_mapping()
    assert (told["float32"]["correct"], told["int8"]["correct"]) == (7, 4)
    assert (told["difference"], told["only_int8"], told["only_float32"]) == (-0.3, 1, 4)
    # The sign test of one in five.
    assert told["p"] == pytest.approx(2 * (1 + 5) / 2**5)
    assert told["interval"][0] < -0.3 < told["interval"][1]


def test_weights_are_int8_with_a_scale_for_each_channel(quantized: Quantized) -> None:
    model = onnx.load(quantized.path)
    onnx.checker.check_model(model, full_check=True)
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    weights = 0
    for layer in layers:
        values, scales, zeros = (constants[name] for name in producers[layer.input[1]].input)
        assert [each.dtype.name for each in (values, scales, zeros)] == ["int8", "float32", "int8"]
        assert not zeros.any()
        if layer.op_type == "Conv":
            assert scales.shape == (values.shape[0],)
            assert (np.abs(values.reshape(len(values), -1).astype(int)).max(axis=1) >= 126).all()
        # Activations are int8 too.
        assert constants[producers[layer.input[0]].input[2]].dtype == np.int8
        weights += values.size
    assert len(layers) == 7
    assert weights == sum(parameter.numel() for parameter in SPEC.build().parameters() if parameter.ndim > 1)
    # What is left as floating point are scales, and the constants of the normalisation.
    assert max(each.size for each in constants.values() if each.dtype == np.float32) == 32
    assert quantized.int8.weight_bytes < 0.3 * quantized.float32.weight_bytes
    assert quantized.int8.size < 0.6 * quantized.float32.size


def test_the_input_is_the_one_of_an_exported_model(quantized: Quantized) -> None:
    (images,), (logits,) = onnx.load(quantized.path).graph.input, onnx.load(quantized.path).graph.output
    for value, name, shape in ((images, "images", [1, 8, 8]), (logits, "logits", [10])):
        first, *others = value.type.tensor_type.shape.dim
        assert (value.name, first.dim_param, [each.dim_value for each in others]) == (name, "batch", shape)


def test_metadata_is_complete_and_holds_no_path_of_this_machine(trained: RunRecord, quantized: Quantized) -> None:
    metadata = metadata_of(quantized.path)
    assert ModelSpec.from_mapping(metadata["spec"]) == SPEC
    assert metadata["class_names"] == list("0123456789")
    assert (metadata["run"], metadata["budgetnet"]) == (trained.identity.digest, budgetnet.__version__)
    assert "normalises them itself" in metadata["input"]
    told = quantized.to_mapping()
    del told["path"], told["int8"]["size"]
    settings = {"format": "QDQ, int8 weights per channel, int8 activations", "onnxruntime": onnxruntime.__version__}
    assert metadata["quantization"] == {**told, **settings}
    assert told["calibration"] == {"images": 256, "seed": 0, "method": "MinMax"}
    content = quantized.path.read_bytes()
    here = (Path(budgetnet.__file__).parent, trained.folder.parent, quantized.path.parent)
    assert not [place for place in here if os.fsencode(place) in content]
    assert [each.name for each in quantized.path.parent.iterdir()] == ["digits.onnx"]


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (300, 1), (TRAIN, 0)])
def test_calibration_images_are_of_the_training_split(
    trained: RunRecord, digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, seed: int
) -> None:
    read: list[npt.NDArray[np.float32]] = []
    original = onnxruntime.quantization.quantize_static

    def recording(source: Path, target: Path, reader: Any, **options: Any) -> None:
        class Recorder:
            def get_next(self) -> Any:
                inputs = reader.get_next()
                if inputs is not None:
                    (name,) = inputs
                    assert name == "images"
                    read.append(inputs[name])
                return inputs

        original(source, target, Recorder(), **options)

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", recording)
    done = quantize(trained.folder, to=tmp_path, calibration_images=count, seed=seed)
    assert (done.calibration_images, done.seed) == (count, seed)
    images = np.concatenate(read)
    assert images.shape == (count, 1, 8, 8)
    parts = parts_of(digits, trained)
    of_training, of_validation = (
        {(each.astype(np.float32) / 255).tobytes() for each in digits.train_images[rows]}
        for rows in (parts.train, parts.validation)
    )
    seen = {each.tobytes() for each in images}
    assert seen <= of_training
    # The digits have no two equal images, so these were drawn without replacement and none is a validation image.
    assert len(seen) == count
    assert not seen & of_validation
    assert count < TRAIN or seen == of_training


def test_the_seed_chooses_the_images(trained: RunRecord, tmp_path: Path) -> None:
    first, again, other = (
        onnx.load(quantize(trained.folder, to=tmp_path / f"{number}.onnx", calibration_images=8, seed=seed).path)
        for number, seed in enumerate((0, 0, 1))
    )
    scales = [
        [onnx.numpy_helper.to_array(each).tolist() for each in model.graph.initializer]
        for model in (first, again, other)
    ]
    assert scales[0] == scales[1] != scales[2]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("preact", "bottleneck-inverted", "mixed-pooled") else pytest.mark.slow)
        for name in SPECS
    ],
)
def test_every_kind_of_block_is_quantised(tmp_path: Path, name: str) -> None:
    odd = odd_sized_dataset()
    record = create_run(spec_of(name), odd, tmp_path / "runs")
    done = quantize(record.folder, to=tmp_path, load=lambda _: odd)
    assert done.path == tmp_path / f"{record.folder.name}-int8.onnx"
    assert done.calibration_images == 64
    # Half of the weights of such small networks are scales and biases.
    assert done.int8.weight_bytes < 0.7 * done.float32.weight_bytes
    assert {each.data_type for each in onnx.load(done.path).graph.initializer} >= {onnx.TensorProto.INT8}
    images = images_of(odd, 40).mul(255).byte().numpy()
    assert np.isfinite(logits_of(done.path, images)).all()
    agreeing = done.int8.scores.predictions == done.float32.scores.predictions
    assert agreeing.mean() > 0.8


def test_runs_that_cannot_be_quantised_raise(runs: Runs, tmp_path: Path) -> None:
    diverged, bare, leaking, good = runs("diverged", "good1", "leaking", "good0")
    (bare.folder / "best.safetensors").unlink()
    for record, error, message in (
        (diverged, RecordError, "has no result: the loss was not finite"),
        (bare, RecordError, "contains no weights: best.safetensors is missing"),
        (leaking, InputError, "was trained on its validation images, so they cannot show what int8 costs"),
    ):
        with pytest.raises(error, match=message):
            quantize(record.folder, to=tmp_path / "x.onnx")
    options: list[tuple[dict[str, Any], str]] = [
        ({"calibration_images": 0}, "calibration_images = 0: must be at least 1"),
        ({"calibration_images": 2.5}, "calibration_images = 2.5: must be a whole number"),
        ({"calibration_images": 65}, "calibration_images = 65: must be from 1 to 64, the number of training images"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
        ({"to": tmp_path / "x.pt"}, "must end in .onnx for ONNX, or be a folder"),
    ]
    for arguments, message in options:
        with pytest.raises(InputError, match=message):
            quantize(good.folder, **{"to": tmp_path / "x.onnx", **arguments})

    def missing(name: str) -> DataSet:
        raise DataError("data", name, "no such file")

    # Unlike an export, it cannot do without the images.
    with pytest.raises(DataError, match="no such file; good0 was trained on it: give its location with --data"):
        quantize(good.folder, to=tmp_path / "x.onnx", load=missing)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["diverged", "good0", "good1", "leaking"]


def test_weights_that_are_not_finite_leave_no_file(digits: DataSet, tmp_path: Path) -> None:
    record = create_run(TINY, digits, tmp_path / "runs")
    tensors, about = load_tensors(record.folder / "best.safetensors")
    tensors["head.linear.bias"][0] = torch.nan
    save_tensors(record.folder / "best.safetensors", tensors, about=about)
    with pytest.raises(BudgetnetError, match=r"x\.onnx: not written, because its logits differ .* by up to nan"):
        quantize(record.folder, to=tmp_path / "x.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


def test_an_int8_model_that_gives_no_numbers_does_not_replace_the_file(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_run(TINY, digits, tmp_path / "runs")
    (tmp_path / "x.onnx").write_bytes(b"before")
    before = snapshot(tmp_path)
    original = onnxruntime.quantization.quantize_static

    def damaging(source: Path, target: Path, reader: Any, **options: Any) -> None:
        original(source, target, reader, **options)
        model = onnx.load(target)
        scale = next(each for each in model.graph.initializer if each.name == "logits_scale")
        scale.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, dtype=np.float32), scale.name))
        onnx.save(model, target)

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", damaging)
    with pytest.raises(BudgetnetError, match=r"x\.onnx: not written, because its logits are not all finite"):
        quantize(record.folder, to=tmp_path / "x.onnx")
    assert snapshot(tmp_path) == before


def test_an_error_of_the_library_leaves_no_file(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_run(TINY, digits, tmp_path / "runs")
    original = onnxruntime.quantization.quantize_static

    def after_the_disk_is_full(source: Path, *rest: Any, **options: Any) -> None:
        source.write_bytes(source.read_bytes()[:2000])
        original(source, *rest, **options)

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", after_the_disk_is_full)
    with pytest.raises(
        BudgetnetError, match=r"x\.onnx: not written, because ONNX Runtime could not quantise it .*: \w+: "
    ):
        quantize(record.folder, to=tmp_path / "x.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]
