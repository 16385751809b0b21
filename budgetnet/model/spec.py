"""Declarative specification of a residual network: validated, immutable and independent of torch.

`budgetnet.model.plan` lowers a specification to layers, from which networks are built and summaries printed;
`budgetnet.model.cost` computes its cost in closed form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import MAX_CHANNELS, Channels, Document, Positive, Real, whole_number
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from budgetnet.model.cost import Cost
    from budgetnet.model.summary import Summary

BlockKind = Literal["basic", "preact", "bottleneck"]
Activation = Literal["relu", "leaky_relu", "silu", "gelu"]
ShortcutKind = Literal["projection", "average-pool", "padding", "none"]
Downsampling = Literal["stride", "max-pool"]


def _odd_kernel(value: object) -> int:
    size = whole_number(value)
    if size < 1 or size > 31 or size % 2 == 0:
        raise ValueError("must be an odd kernel size from 1 to 31, so that padding keeps the map's size")
    return size


def _pair(value: object) -> object:
    """Accept a single kernel size for both convolutions."""
    return value if isinstance(value, (list, tuple)) else (value, value)


# The bounds are repeated for the JSON schema; the validator has the error message.
KernelSize = Annotated[
    int, BeforeValidator(_odd_kernel), Field(ge=1, le=31, json_schema_extra={"not": {"multipleOf": 2}})
]
KernelSizes = Annotated[tuple[KernelSize, KernelSize], BeforeValidator(_pair)]
Stride = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=64)]
ImageSide = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=4096)]
ImageChannels = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=1024)]

DEFAULT_BOTTLENECK_RATIO = 0.25
"""Default inner width of a bottleneck, as a share of its output width."""

PER_STAGE = {"channels": "channels", "blocks": "blocks", "strides": "stride", "kernel_sizes": "kernel_sizes"}
"""Arguments of `ModelSpec.resnet` with one entry for each stage, and the field of `Stage` that each sets."""


class Stem(Document):
    """The first convolution, followed by batch norm and activation except before pre-activation blocks.

    It may be preceded by a whitening convolution: 2 x channels x side^2 filters, unpadded, with a bias, followed by the
    activation. Its weights are computed from patches of the training images before training and then frozen (Page 2018,
    "How to Train Your ResNet"; Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"); they count as
    parameters.
    """

    channels: Channels = 64
    """Output channels."""
    kernel_size: KernelSize = 3
    """Side of the square kernel, in pixels; odd."""
    stride: Stride = 1
    """Stride of the convolution, in pixels."""
    whitening: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=8)] | None = None
    """Side of the whitening convolution's kernel, in pixels; null for none."""

    def whitening_filters(self, image_channels: int) -> int:
        """Return the whitening convolution's output channels, two for each principal component; 0 without it."""
        return 0 if self.whitening is None else 2 * image_channels * self.whitening**2


class Stage(Document):
    """A sequence of residual blocks of the same width and resolution."""

    channels: Channels
    """Output channels of every block of the stage."""
    blocks: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=256)] = 1
    """Number of residual blocks."""
    stride: Stride = 1
    """Stride of the first block, in pixels: 2 halves the map's side."""
    kernel_sizes: KernelSizes = (3, 3)
    """Kernel sizes of a block's two convolutions; equal for bottlenecks, which have one spatial convolution."""


class Shortcut(Document):
    """The shortcut of blocks that change the shape; other blocks have an identity shortcut."""

    kind: ShortcutKind = "projection"
    """``projection``: strided convolution. ``average-pool``: pooling, then a convolution (ResNet-D). ``padding``:
    subsampling and zero channels, without parameters (option A of He et al. 2015). ``none``: no shortcut in any
    block."""
    kernel_size: KernelSize = 1
    """Side of the convolution's kernel, for ``projection`` and ``average-pool``."""

    @property
    def kernel_area(self) -> int:
        """Kernel area of the convolution, in pixels; 0 for kinds without one."""
        return self.kernel_size**2 if self.kind in ("projection", "average-pool") else 0


class Head(Document):
    """Global pooling, dropout and the linear classifier."""

    pooling: Literal["average", "max"] = "average"
    """Global pooling of the last map."""
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the pooled features."""
    scale: Annotated[Real, Field(ge=1e-6, le=100)] = 1.0
    """Factor of the logits. A small factor lets the linear layer train at the high learning rate of the convolutions
    (Page 2018; Jordan 2024)."""


class ModelSpec(Document):
    """Specification of a residual network for image classification.

    Raises:
        InputError: a field is unknown or invalid, groups do not divide a width, a stride would shrink a map below one
            pixel, or a padding shortcut would reduce the number of channels.
    """

    document_kind: ClassVar[str] = "spec"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """Label; not part of the network's identity."""
    input_shape: tuple[ImageChannels, ImageSide, ImageSide] = (3, 32, 32)
    """Image shape (channels, height, width), in pixels."""
    num_classes: Annotated[int, BeforeValidator(whole_number), Field(ge=2, le=1_000_000)] = 10
    """Number of classes."""
    stem: Stem = Stem()
    """First convolution."""
    block: BlockKind = "basic"
    """``basic``: conv, norm, activation, conv, norm, add, activation (He et al. 2015). ``preact``: norm, activation and
    conv, twice, then add (He et al. 2016). ``bottleneck``: 1x1, spatial, 1x1."""
    bottleneck_ratio: Annotated[Real, Field(gt=0, le=8)] | None = None
    """Inner width of a bottleneck as a share of its output width; default: 0.25. Only for bottleneck blocks."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)]
    """Stages from input to output."""
    groups: Positive = 1
    """Groups of the blocks' spatial convolutions (Xie et al. 2017)."""
    squeeze_excitation_ratio: Annotated[Real, Field(gt=0, le=1)] | None = None
    """Hidden width of squeeze-and-excitation as a share of the block's width (Hu et al. 2018); default: no
    squeeze-and-excitation."""
    shortcut: Shortcut = Shortcut()
    """Shortcut of blocks that change the shape."""
    activation: Activation = "relu"
    """Activation function."""
    downsampling: Downsampling = "stride"
    """How a block with a stride reduces the map. ``stride``: its first spatial convolution is strided. ``max-pool``:
    that convolution runs at full resolution and is followed by max pooling, with the stride as side and stride (Page
    2018, "How to Train Your ResNet"; Jordan 2024). Shortcuts and stem are strided in both cases."""
    head: Head = Head()
    """Pooling and classifier."""

    @model_validator(mode="after")
    def _fields_are_consistent(self) -> Self:
        if self.block != "bottleneck" and self.bottleneck_ratio is not None:
            rule = f"is only for bottleneck blocks, not {self.block}"
            raise InputError("bottleneck_ratio", self.bottleneck_ratio, rule)
        if self.shortcut.kind in ("padding", "none") and self.shortcut.kernel_size != 1:
            rule = f"the {self.shortcut.kind} shortcut has no kernel"
            raise InputError("shortcut.kernel_size", self.shortcut.kernel_size, rule)
        width = self.stem.channels
        for index, stage in enumerate(self.stages):
            self._check_stage(index, stage, width)
            width = stage.channels
        feature_sizes(self)
        return self

    def _check_stage(self, index: int, stage: Stage, width: int) -> None:
        """Check a stage against its input width and the network's settings."""
        path = f"stages[{index}]"
        if self.block == "bottleneck":
            if stage.kernel_sizes[0] != stage.kernel_sizes[1]:
                rule = "must be equal for bottleneck blocks, which have one spatial convolution"
                raise InputError(f"{path}.kernel_sizes", list(stage.kernel_sizes), rule)
            inner = self.inner_channels(stage.channels)
            if inner % self.groups:
                rule = f"must divide the {inner} inner channels of the bottleneck in {path}"
                raise InputError("groups", self.groups, rule)
        elif width % self.groups:
            raise InputError("groups", self.groups, f"must divide the {width} input channels of {path}")
        elif stage.channels % self.groups:
            raise InputError("groups", self.groups, f"must divide {path}.channels = {stage.channels}")
        if self.shortcut.kind == "padding" and stage.channels < width:
            rule = f"must be at least the {width} input channels with a padding shortcut"
            raise InputError(f"{path}.channels", stage.channels, rule)

    def inner_channels(self, width: int) -> int:
        """Return the width of the spatial convolutions in a stage; for bottlenecks, the inner width."""
        return max(1, round(width * self._ratio)) if self.block == "bottleneck" else width

    def squeeze_channels(self, width: int) -> int:
        """Return the hidden width of squeeze-and-excitation in a stage of a given width; 0 without it."""
        ratio = self.squeeze_excitation_ratio
        return 0 if ratio is None else max(1, round(width * ratio))

    @property
    def _ratio(self) -> float:
        return DEFAULT_BOTTLENECK_RATIO if self.bottleneck_ratio is None else self.bottleneck_ratio

    @classmethod
    def resnet(
        cls,
        *,
        channels: Sequence[int],
        blocks: Sequence[int] | int = 1,
        strides: Sequence[int] | int | None = None,
        kernel_sizes: Sequence[Any] | int = (3, 3),
        stem: Stem | int | None = None,
        **settings: Any,
    ) -> Self:
        """Create a specification from lists with one entry for each stage.

        Args:
            channels: width of each stage.
            blocks: number of residual blocks of each stage, or one number for all.
            strides: stride of each stage, or one number for all; default: 1 in the first stage, 2 in all others.
            kernel_sizes: kernel sizes of the two convolutions, for all stages or as one pair for each stage.
            stem: first convolution, or only its width; default: as wide as the first stage.
            settings: any other field of `ModelSpec`, such as ``block="preact"``.

        Raises:
            InputError: the lists have different lengths, or a field is unknown or invalid.
        """
        channels = _sequence("channels", channels)
        count = len(channels)
        if strides is None:
            strides = [1 if index == 0 else 2 for index in range(count)]
        lists = {"channels": channels, "blocks": blocks, "strides": strides, "kernel_sizes": kernel_sizes}
        stages: list[dict[str, Any]] = [{} for _ in range(count)]
        spread_over_stages(stages, lists)
        mapping = {"stages": stages, **settings}
        if isinstance(stem, (Stem, dict)):
            mapping["stem"] = stem
        elif stem is not None or (count and channels[0] in range(1, MAX_CHANNELS + 1)):
            # If the first stage's width is invalid, the error names the stage and not the stem.
            mapping["stem"] = {"channels": channels[0] if stem is None else stem}
        return cls.from_mapping(mapping)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with changed fields and, unless given, an empty name.

        Args:
            changes: fields of `ModelSpec`; also ``channels``, ``blocks``, ``strides``, ``kernel_sizes`` as in `resnet`.

        Raises:
            InputError: a field is unknown or invalid.
        """
        lists = {key: changes.pop(key) for key in PER_STAGE if key in changes}
        mapping = {**self.model_dump(exclude={"name"}), **changes}
        if lists:
            stages = [stage if isinstance(stage, dict) else stage.model_dump() for stage in mapping["stages"]]
            spread_over_stages(stages, lists)
            mapping["stages"] = stages
        return type(self).from_mapping(mapping)

    def adapted(self, *, input_shape: tuple[int, int, int], num_classes: int) -> Self:
        """Return the network for other images and classes, with its name; unchanged if they are its own.

        Args:
            input_shape: image shape (channels, height, width).
            num_classes: number of classes.

        Raises:
            InputError: a stride would shrink a map below one pixel at this image size.
        """
        if (self.input_shape, self.num_classes) == (input_shape, num_classes):
            return self
        return self.replace(input_shape=input_shape, num_classes=num_classes, name=self.name)

    @property
    def digest(self) -> str:
        """Identity of the network: hexadecimal SHA-256 of all fields except the name."""
        fields = self.model_dump(mode="json", exclude={"name"})
        # An omitted ratio and its default value describe the same network.
        fields["bottleneck_ratio"] = self._ratio if self.block == "bottleneck" else None
        # Fields that were added later must not change the digests of older specifications.
        if self.stem.whitening is None:
            del fields["stem"]["whitening"]
        if self.head.scale == 1:
            del fields["head"]["scale"]
        if self.downsampling == "stride":
            del fields["downsampling"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def label(self) -> str:
        """The name or, if it is empty, block kind, widths and depths: ``preact-64x2-128x2``."""
        shape = "-".join(f"{stage.channels}x{stage.blocks}" for stage in self.stages)
        return self.name or f"{self.block}-{shape}"

    @property
    def params(self) -> int:
        """Number of parameters, including frozen ones, in closed form."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and the linear layer for one image, in closed form."""
        return self.cost.macs

    @property
    def frozen_params(self) -> int:
        """Number of frozen parameters: the weights of the whitening convolution, without its bias."""
        return self.stem.whitening_filters(self.input_shape[0]) * self.input_shape[0] * (self.stem.whitening or 0) ** 2

    @property
    def activations(self) -> int:
        """Output elements of convolutions and the linear layer for one image, in closed form."""
        return self.cost.activations

    @property
    def cost(self) -> Cost:
        """Parameters, MACs and activations, in closed form."""
        from budgetnet.model.cost import cost_of

        return cost_of(self)

    def summary(self, *, input_size: int | None = None) -> Summary:
        """Summarise all layers with output shapes and costs, as a text table or an HTML table in notebooks.

        Args:
            input_size: side of a square image, in pixels; default: the specification's.
        """
        from budgetnet.model.summary import summarise

        return summarise(self, input_size=input_size)

    def build(self) -> nn.Module:
        """Build the network as a torch module, initialised from torch's global random generator."""
        from budgetnet.model.network import build

        return build(self)

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import spec_html

        return spec_html(self)


def feature_sizes(spec: ModelSpec, *, input_size: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Return (height, width) of the maps after the stem and after each stage, in pixels.

    All kernels except the unpadded whitening convolution's are odd and padded by half their size, so a stride of s
    reduces a side of n to ceil(n / s).

    Raises:
        InputError: a stride is larger than its input map, or the whitening kernel is larger than the image.
    """
    height, width = whitened_size(spec, input_size=input_size)
    sizes: list[tuple[int, int]] = []
    for stride in [spec.stem.stride, *[stage.stride for stage in spec.stages]]:
        # Called for every computed cost, so the path is formatted only for an error.
        if stride > 1:
            if stride > height or stride > width:
                path = f"stages[{len(sizes) - 1}]" if sizes else "stem"
                raise InputError(f"{path}.stride", stride, f"would shrink the {height}x{width} map below 1")
            height, width = -(-height // stride), -(-width // stride)
        sizes.append((height, width))
    return sizes


def whitened_size(spec: ModelSpec, *, input_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (height, width) after the whitening convolution, in pixels; the image's without one.

    Raises:
        InputError: the whitening kernel is larger than the image.
    """
    height, width = input_size or spec.input_shape[1:]
    side = spec.stem.whitening
    if side is None:
        return height, width
    if side > min(height, width):
        raise InputError("stem.whitening", side, f"must be at most the side of the {height}x{width} image")
    return height - side + 1, width - side + 1


def _sequence(field: str, value: object) -> Sequence[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InputError(field, value, "must be a list with one entry for each stage")
    return list(value)


def spread_over_stages(stages: list[dict[str, Any]], lists: dict[str, Any]) -> None:
    """Set fields of stages from lists with one entry for each stage, or from one value for all stages.

    Args:
        stages: fields of each stage, updated in place.
        lists: lists or single values by the names of `PER_STAGE`.

    Raises:
        InputError: the length of a list differs from the number of stages.
    """
    for field, value in lists.items():
        single = not isinstance(value, Iterable)
        entries = [value] * len(stages) if single else _sequence(field, value)
        if field == "kernel_sizes" and not single and not any(isinstance(entry, Iterable) for entry in entries):
            entries = [entries] * len(stages)
        if len(entries) != len(stages):
            raise InputError(field, value, f"must have one entry for each of the {len(stages)} stages")
        for stage, entry in zip(stages, entries, strict=True):
            stage[PER_STAGE[field]] = entry
