"""`quantize`: writes the network of a run as an int8 ONNX model and measures what that costs in accuracy.

This is ONNX Runtime's static quantisation: int8 weights and activations with QuantizeLinear and DequantizeLinear nodes
(QDQ), the first choice of its documentation, and one scale for each output channel of the weights, which it advises for
residual networks. Activations are calibrated by MinMax, the default: their range is that on the calibration images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from budgetnet.common.errors import BudgetnetError, InputError, is_lack_of_resources
from budgetnet.common.extras import require_extra
from budgetnet.common.files import replace_atomically
from budgetnet.data import DataSet, load_dataset
from budgetnet.data.on_device import OnDeviceImages
from budgetnet.evaluation.inference import trained_network
from budgetnet.evaluation.run_data import DataSets, EvaluationRequest, class_names, read_runs, recreate_split
from budgetnet.exporting import verification
from budgetnet.exporting.job import Job
from budgetnet.exporting.metadata import PIXELS, as_json_strings
from budgetnet.exporting.onnx_model import write_onnx
from budgetnet.exporting.output import output_path, writing
from budgetnet.runs.metrics import Scores
from budgetnet.statistics import PredictionComparison, compare_predictions
from budgetnet.statistics.checks import check_integer
from budgetnet.study.run_names import run_path
from budgetnet.training.devices import choose_device

CALIBRATION_IMAGES = 256
"""Default number of calibration images; fewer if a run has fewer training images."""
METHOD = "MinMax"
"""ONNX Runtime's name of the calibration."""


class ModelFile(NamedTuple):
    """An ONNX model, and the accuracy that ONNX Runtime gives it on the validation images."""

    scores: Scores
    """Probabilities of the validation images, without test-time augmentation."""
    size: int
    """Bytes of the file."""
    weight_bytes: int
    """Bytes of the constants in the file: weights, biases, scales and zero points."""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data; the accuracy is from 0 to 1."""
        scores = self.scores
        return {
            "correct": scores.correct,
            "accuracy": scores.accuracy,
            "interval": list(scores.interval),
            "size": self.size,
            "weight_bytes": self.weight_bytes,
        }


class Quantized(NamedTuple):
    """File written by `quantize`, and its accuracy beside that of the float32 model."""

    path: Path
    float32: ModelFile
    """The model that `export` writes as ``onnx``; it is not kept."""
    int8: ModelFile
    """The written model."""
    calibration_images: int
    """Number of training images from which the ranges of the activations were taken."""
    seed: int
    """Seed with which these were drawn."""

    @property
    def comparison(self) -> PredictionComparison:
        """Int8 compared with float32, on the same validation images."""
        return compare_predictions(self.int8.scores.right, self.float32.scores.right)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data; the difference is the accuracy of int8 minus that of float32, from -1 to 1."""
        comparison = self.comparison
        return {
            "path": str(self.path),
            "calibration": {"images": self.calibration_images, "seed": self.seed, "method": METHOD},
            "images": comparison.images,
            "float32": self.float32.to_mapping(),
            "int8": self.int8.to_mapping(),
            "difference": comparison.difference,
            "interval": list(comparison.interval),
            "only_int8": comparison.mcnemar.only_first,
            "only_float32": comparison.mcnemar.only_second,
            "p": comparison.mcnemar.p_value,
        }


def quantize(
    run: str | Path,
    *,
    to: str | Path | None = None,
    calibration_images: int | None = None,
    seed: int = 0,
    data: str | None = None,
    load: Callable[[str], DataSet] = load_dataset,
) -> Quantized:
    """Write a trained network as an int8 ONNX model, and measure its accuracy beside the float32 model's.

    Activations are calibrated on training images. Both accuracies are those of ONNX Runtime on the run's validation
    images, without test-time augmentation; they and the calibration are in the metadata of the file, under
    ``quantization``. Like an exported ONNX model, it takes images from 0 to 1 and normalises them itself.

    Args:
        run: the run folder, or the name of a run, such as ``best`` or ``#3``.
        to: the file or its folder, which need not exist; an existing file is replaced. Default: named after the
            run, with ``-int8``, in the current folder.
        calibration_images: number of training images to calibrate on. Default: 256, or all if there are fewer.
        seed: seed with which these are drawn.
        data: name of the run's data set if it has moved, such as ``folder:PATH``. Default: as recorded.
        load: loads a data set by name.

    Raises:
        InputError: a missing package, a number of images that is not from 1 to that of the training images, a run
            that was trained on its validation images, a file name with another suffix, or `data` is not the data set
            that the run was trained on.
        DataError: the data set cannot be loaded.
        RecordError: the folder holds no run, or one that is unfinished, has no result or no weights, or its split
            cannot be recreated.
        BudgetnetError: the float32 model differs from the run's network, or the int8 model does not work.
        OSError: the file cannot be written.
    """
    require_extra("export", "onnx", "onnxruntime", "onnxscript", field="run", value=str(run))
    seed = check_integer("seed", seed, least=0)
    if calibration_images is not None:
        calibration_images = check_integer("calibration_images", calibration_images, least=1)
    (record,) = read_runs([run_path(run)])
    if record.identity.recipe.leaks:
        rule = "was trained on its validation images, so they cannot show what int8 costs in accuracy"
        raise InputError("run", str(run), rule)
    path = output_path(to, name=f"{record.folder.resolve().name}-int8", suffix=".onnx", form="ONNX")
    load_once = cache(load)
    network = trained_network(record, choose_device("cpu")).eval()
    dataset = DataSets(EvaluationRequest(data=data), load_once).of(record)
    parts = recreate_split(record, dataset, torch.device("cpu"))
    calibration = _calibration_images(parts.train, calibration_images, seed=seed)
    sample = verification.sample_images(record, data=data, load=load_once)
    names = class_names(record, load=load_once)
    with writing(path) as temporary:
        job = Job(record, network, sample, names, temporary.with_suffix(".float32.onnx"))
        quantized_path = temporary.with_suffix(".int8.onnx")
        logits = write_onnx(job)
        expected = verification.predict(job.with_normalisation(network), sample.batches)
        verification.largest_difference(expected, logits)
        _quantize(job.path, quantized_path, calibration)
        float32, int8 = (_measured(each, parts.validation) for each in (job.path, quantized_path))
        quantized = Quantized(path, float32, int8, len(calibration), seed)
        _write_with_metadata(temporary, quantized_path, job, quantized)
        size = temporary.stat().st_size
        replace_atomically(temporary, path)
    return quantized._replace(int8=int8._replace(size=size))


def _calibration_images(train: OnDeviceImages, wanted: int | None, *, seed: int) -> Tensor:
    """Return training images, drawn at random without replacement: uint8 (n, channels, height, width).

    Raises:
        InputError: there are fewer.
    """
    count = min(CALIBRATION_IMAGES, len(train)) if wanted is None else wanted
    if count > len(train):
        raise InputError("calibration_images", count, f"must be from 1 to {len(train)}, the number of training images")
    chosen = np.random.default_rng(seed).choice(len(train), size=count, replace=False)
    return train.images[torch.from_numpy(chosen)]


class _Reader:
    """Batches of calibration images, as ONNX Runtime reads them."""

    def __init__(self, images: Tensor) -> None:
        self._batches = verification.scaled_batches(images)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Return the next input of the model, or None after the last one."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}


def _quantize(source: Path, target: Path, calibration: Tensor) -> None:
    """Write an ONNX model as an int8 one, calibrated on images (n, channels, height, width), uint8.

    Raises:
        BudgetnetError: ONNX Runtime could not do it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    try:
        # Infers shapes and folds batch norm into convolutions, as the documentation advises.
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            target,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[METHOD],
        )
    except Exception as error:
        if is_lack_of_resources(error):
            raise
        # It writes some of its steps unchecked, so a full disk gives errors of protobuf and of its own.
        reason = (str(error).splitlines() or [""])[0]
        message = f"ONNX Runtime could not quantise it (is the disk full?): {type(error).__name__}: {reason}"
        raise BudgetnetError(message) from None


def _measured(path: Path, images: OnDeviceImages) -> ModelFile:
    """Return the predictions of an ONNX model for all images, and its sizes.

    Raises:
        BudgetnetError: a logit is not finite.
    """
    import onnx

    logits = torch.cat(verification.predict_with_onnx_runtime(path, verification.scaled_batches(images.images)))
    if not logits.isfinite().all():
        raise BudgetnetError("its logits are not all finite")
    scores = Scores(probabilities=logits.double().softmax(dim=1).numpy(), labels=images.labels.numpy())
    constants = onnx.load(path).graph.initializer
    return ModelFile(
        scores, path.stat().st_size, sum(onnx.numpy_helper.to_array(constant).nbytes for constant in constants)
    )


def _write_with_metadata(path: Path, source: Path, job: Job, quantized: Quantized) -> None:
    """Write an ONNX model with the metadata of the run and of its quantisation, and check that it works as before.

    Raises:
        BudgetnetError: its logits differ.
    """
    import onnx
    import onnxruntime

    facts = quantized.to_mapping()
    # Where it was written is no matter of those who read it, and its size is what they see.
    del facts["path"], facts["int8"]["size"]
    facts |= {"format": "QDQ, int8 weights per channel, int8 activations", "onnxruntime": onnxruntime.__version__}
    model = onnx.load(source)
    model.doc_string = onnx.load(job.path).doc_string
    onnx.helper.set_model_props(model, as_json_strings({**job.metadata(PIXELS), "quantization": facts}))
    onnx.save(model, path)
    before, after = (verification.predict_with_onnx_runtime(each, job.sample.batches) for each in (source, path))
    if not torch.equal(torch.cat(before), torch.cat(after)):
        raise BudgetnetError("its logits differ from those before its metadata was added")
