"""A device's file: how long the operations of networks take there, and how well the time of a whole network follows."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Document, Positive, Real
from budgetnet.common.errors import InputError
from budgetnet.model.deployed.calls import Kernel, RuntimeName
from budgetnet.model.deployed.latency import Latency
from budgetnet.model.deployed.times import KernelTimes, Times
from budgetnet.model.spec import ModelSpec

SCHEMA_VERSION = 1
_ABSENT = "-"
"""Stands for a time that was not measured."""

Share = Annotated[Real, Field(ge=0)]


class Hardware(Document):
    """The machine that a file was made on."""

    cpu: Annotated[str, Field(max_length=200)]
    """Model name of the processor."""
    machine: Annotated[str, Field(max_length=100)]
    """Its architecture, such as x86_64."""
    system: Annotated[str, Field(max_length=100)]
    """Operating system."""
    cores: Positive
    """Cores that a process may use."""

    def __str__(self) -> str:
        return f"{self.cpu}, {self.machine}, {self.cores} core{'s' if self.cores > 1 else ''}, {self.system}"


class RuntimeSettings(Document):
    """What executes networks, and how."""

    name: RuntimeName
    version: Annotated[str, Field(max_length=100)]
    threads: Positive = 1
    """Threads of an operation."""
    batch: Positive = 1
    """Images that are classified at once; times are of the whole batch."""
    precision: Literal["float32"] = "float32"
    block: Positive = 1
    """Channels in a block of the runtime's layout of maps; 1 for none."""

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.name} {self.version}, {threads}, batch of {self.batch}, {self.precision}"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split()]


class OperationTimes(Document):
    """Times of one operation at a grid of channels, as text with spaces, which is read many times as fast as lists."""

    operation: Annotated[str, Field(max_length=200)]
    """The operation, its layout, and the sizes of its input and output."""
    inputs: str
    """Input channels, ascending."""
    outputs: str = ""
    """Output channels, ascending; empty where they are as many as the input's."""
    microseconds: tuple[str, ...]
    """A row for each number of input channels, with a time for each number of output channels, or a dash for none."""

    @model_validator(mode="after")
    def _is_a_grid(self) -> OperationTimes:
        try:
            inputs, outputs = _numbers(self.inputs), _numbers(self.outputs)
            rows = [[None if part == _ABSENT else float(part) for part in row.split()] for row in self.microseconds]
            Kernel.parse(self.operation)
        except ValueError:
            raise InputError("operation", self.operation, "must have numbers separated by spaces") from None
        ascending = all(each == sorted(set(each)) and min(each, default=1) > 0 for each in (inputs, outputs))
        if not inputs or not ascending:
            raise InputError("operation", self.operation, "must have ascending numbers of channels")
        if len(rows) != len(inputs) or any(len(row) != max(1, len(outputs)) for row in rows):
            raise InputError("operation", self.operation, "must have a time for each number of channels")
        return self

    @classmethod
    def of(cls, kernel: Kernel, times: Times) -> Self:
        """Return the document of a kernel's times."""
        rows = (" ".join(_ABSENT if value is None else f"{value * 1e6:.6g}" for value in row) for row in times.seconds)
        inputs, outputs = (" ".join(map(str, each)) for each in (times.inputs, times.outputs))
        return cls(operation=str(kernel), inputs=inputs, outputs=outputs, microseconds=tuple(rows))

    def times(self) -> Times:
        """Return the times in seconds."""
        rows = [[None if part == _ABSENT else float(part) * 1e-6 for part in row.split()] for row in self.microseconds]
        return Times(_numbers(self.inputs), _numbers(self.outputs), rows)


class Calibration(Document):
    """How the time of a network follows from those of its operations: fitted to the times of whole networks."""

    constant: Real
    """Microseconds that every network takes besides."""
    factor: Annotated[Real, Field(gt=0)]
    """Factor of the sum of the operations' times."""
    per_operation: Real
    """Microseconds that every operation takes besides."""


class Validation(Document):
    """Predictions compared with the times of whole networks that the calibration has not seen."""

    networks: Positive
    """Number of networks."""
    median_error: Share
    """Median of the relative errors."""
    p95_error: Share
    """Error that 95 % of the networks stay below."""
    worst_error: Share
    within_5_percent: Share
    """Share of the networks whose error is at most 5 %."""
    within_10_percent: Share
    kendall_tau: Real
    """Rank correlation of predicted and measured times."""
    kendall_tau_macs: Real
    """That of MACs and measured times."""


class Anchor(Document):
    """A network whose time tells whether a device is still as it was measured."""

    spec: ModelSpec
    microseconds: Annotated[Real, Field(gt=0)]


class DeviceFile(Document):
    """Times of operations on a device, made by ``budgetnet device measure``.

    Raises:
        InputError: a field is unknown or invalid, or the digest is not that of the other fields.
    """

    document_kind: ClassVar[str] = "device_file"

    schema_version: Literal[1]
    """Version of this format."""
    hardware: Hardware
    runtime: RuntimeSettings
    space: Annotated[str, Field(max_length=100)]
    """Name of the search space whose operations were measured."""
    input_shape: tuple[Positive, Positive, Positive]
    """Images as (channels, height, width)."""
    num_classes: Positive
    calibration: Calibration
    validation: Validation
    anchors: tuple[Anchor, ...]
    operations: Annotated[tuple[OperationTimes, ...], Field(min_length=1)]
    digest: str
    """SHA-256 of the other fields; a file that was edited has another."""

    @model_validator(mode="before")
    @classmethod
    def _is_of_this_version(cls, data: Any) -> Any:
        # Before all else: another version may have other fields.
        if isinstance(data, dict) and data.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            rule = (
                f"must be {SCHEMA_VERSION}: the file was made by another version of budgetnet; measure the device again"
            )
            raise InputError("schema_version", data["schema_version"], rule)
        return data

    @model_validator(mode="after")
    def _is_unchanged(self) -> DeviceFile:
        if self.digest != digest_of(self.model_dump(mode="json", exclude={"digest"})):
            raise InputError(
                "digest", self.digest, "is not that of the file's content, which was changed after it was made"
            )
        return self

    @classmethod
    def signed(cls, **fields: Any) -> Self:
        """Return a file of this version with the digest of its fields."""
        unsigned = cls.model_construct(**{**fields, "schema_version": SCHEMA_VERSION, "digest": ""})
        content = unsigned.model_dump(mode="json", exclude={"digest"})
        return cls.from_mapping({**content, "digest": digest_of(content)})

    @functools.cached_property
    def latency(self) -> Latency:
        """Prediction of the time of networks."""
        calibration, settings = self.calibration, self.runtime
        return Latency(
            KernelTimes({Kernel.parse(each.operation): each.times() for each in self.operations}),
            runtime=settings.name,
            block=settings.block,
            constant=calibration.constant * 1e-6,
            factor=calibration.factor,
            per_call=calibration.per_operation * 1e-6,
            error=self.validation.p95_error,
            images=f"{'x'.join(map(str, self.input_shape))} and {self.num_classes} classes",
        )


def digest_of(content: dict[str, Any]) -> str:
    """Return the digest of a file's fields, as plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@functools.lru_cache(maxsize=16)
def _loaded(path: Path, _changed: tuple[int, int]) -> DeviceFile:
    return DeviceFile.load(path)


def load_device(path: str | Path) -> DeviceFile:
    """Read a device's file, once as long as it does not change.

    Raises:
        InputError: the file is missing, cut short or not YAML, of another version, or was changed after it was made.
    """
    try:
        state = Path(path).stat()
    except (OSError, ValueError):
        return DeviceFile.load(path)
    return _loaded(Path(path).absolute(), (state.st_mtime_ns, state.st_size))
