"""Parts of a specification: stem, stages with their blocks, shortcuts, squeeze-and-excitation, and head."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from budgetnet.common.documents import Channels, Document, Flag, Positive, Real, whole_number
from budgetnet.common.errors import InputError

BlockKind = Literal["basic", "preact", "bottleneck", "preact-bottleneck"]
Activation = Literal["relu", "relu6", "leaky_relu", "silu", "gelu"]
ShortcutKind = Literal["projection", "average-pool", "padding", "identity", "none"]


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
_Pair = tuple[KernelSize, KernelSize]
KernelSizes = Annotated[_Pair, BeforeValidator(_pair, json_schema_input_type=_Pair | KernelSize)]
Stride = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=64)]
Dropout = Annotated[Real, Field(ge=0, lt=1)]
BottleneckRatio = Annotated[Real, Field(gt=0, le=8)]
SqueezeRatio = Annotated[Real, Field(gt=0, le=1)]
OptionalSqueezeRatio = Annotated[Real, Field(ge=0, le=1)]


def _number(minimum: int, maximum: int) -> Any:
    """Return the metadata of a whole number with bounds."""
    return BeforeValidator(whole_number), Field(ge=minimum, le=maximum)


class SqueezeExcitation(Document):
    """How squeeze-and-excitation is computed, where `squeeze_excitation_ratio` asks for it (Hu et al. 2018)."""

    ratio_of: Literal["output", "input", "inner"] = "output"
    """Width that the ratio refers to: the block's output, its input (RegNet, EfficientNet), or, for bottlenecks, their
    inner width (MobileNetV3)."""
    place: Literal["output", "inner"] = "output"
    """``output``: after the block's last convolution. ``inner``: after a bottleneck's spatial convolution, its norm and
    activation (RegNet, EfficientNet, MobileNetV3)."""
    rounding: Literal["nearest", "down", "multiple-of-8"] = "nearest"
    """Rounding of the hidden width, which is at least 1. ``multiple-of-8``: the nearest multiple of 8, at least 8."""
    bias: Flag = True
    """Whether its two convolutions have biases."""

    def hidden(self, width: int, ratio: float) -> int:
        """Return the hidden width for a ratio of a width; 0 for a ratio of 0."""
        if not ratio:
            return 0
        if self.rounding == "multiple-of-8":
            return max(8, int(width * ratio / 8 + 0.5) * 8)
        return max(1, int(width * ratio) if self.rounding == "down" else round(width * ratio))


class Stem(Document):
    """The first convolutions, each followed by batch norm and activation; then max pooling, if it is set.

    They may be preceded by a whitening convolution: 2 x channels x side^2 filters, unpadded, with a bias, followed by
    the activation. Its weights are computed from patches of the training images before training and then frozen (Page
    2018, "How to Train Your ResNet"; Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"); they count as
    parameters.
    """

    channels: Channels = 64
    """Output channels."""
    kernel_size: KernelSize = 3
    """Side of the square kernels, in pixels; odd."""
    stride: Stride = 1
    """Stride of the first convolution, in pixels."""
    whitening: Annotated[int, *_number(1, 8)] | None = None
    """Side of the whitening convolution's kernel, in pixels; null for none."""
    inner_channels: Annotated[tuple[Channels, ...], Field(max_length=8)] = ()
    """Output channels of further convolutions before the last one, as in ResNet-D: [32, 32] for three convolutions."""
    bias: Flag = False
    """Whether the convolutions have biases."""
    norm: Flag | None = None
    """Whether the last convolution is followed by batch norm and activation; null: unless the first stage's blocks are
    pre-activation blocks, which begin with both."""
    squeeze_excitation_ratio: SqueezeRatio | None = None
    """Hidden width of squeeze-and-excitation after the stem's convolutions as a share of their width; null for none."""
    pool_size: Annotated[int, *_number(2, 31)] | None = None
    """Side of the windows of max pooling after all else, in pixels: odd, or equal to its stride; null for none."""
    pool_stride: Annotated[int, *_number(1, 64)] = 2
    """Stride of the max pooling, in pixels."""

    @model_validator(mode="after")
    def _windows_fit(self) -> Stem:
        if self.pool_size is None and self.pool_stride != 2:
            raise InputError("pool_stride", self.pool_stride, "must be omitted without pool_size")
        if self.pool_size is not None and self.pool_size % 2 == 0 and self.pool_size != self.pool_stride:
            raise InputError("pool_size", self.pool_size, f"must be odd or equal to pool_stride ({self.pool_stride})")
        return self

    def whitening_filters(self, image_channels: int) -> int:
        """Return the whitening convolution's output channels, two for each principal component; 0 without it."""
        return 0 if self.whitening is None else 2 * image_channels * self.whitening**2


class Shortcut(Document):
    """The shortcut of blocks that change the shape; other blocks have an identity shortcut."""

    kind: ShortcutKind = "projection"
    """``projection``: strided convolution. ``average-pool``: pooling, then a convolution (ResNet-D). ``padding``:
    subsampling and zero channels, without parameters (option A of He et al. 2015). ``identity``: none in blocks that
    change the shape (MobileNetV2). ``none``: no shortcut in any block."""
    kernel_size: KernelSize = 1
    """Side of the convolution's kernel, for ``projection`` and ``average-pool``."""
    norm: Flag | None = None
    """Whether the convolution is followed by batch norm; null: unless the block is a pre-activation block."""
    bias: Flag | None = None
    """Whether the convolution has a bias; null: as the block's convolutions."""

    @property
    def has_conv(self) -> bool:
        """Whether the kind has a convolution."""
        return self.kind in ("projection", "average-pool")

    @property
    def kernel_area(self) -> int:
        """Kernel area of the convolution, in pixels; 0 for kinds without one."""
        return self.kernel_size**2 if self.has_conv else 0

    @model_validator(mode="after")
    def _has_what_it_sets(self) -> Shortcut:
        if not self.has_conv:
            for field, default in (("kernel_size", 1), ("norm", None), ("bias", None)):
                if (value := getattr(self, field)) != default:
                    what = "kernel" if field == "kernel_size" else "convolution"
                    raise InputError(field, value, f"the {self.kind} shortcut has no {what}")
        return self


def _shortcut(value: object) -> object:
    """Accept a kind of shortcut in place of all its fields."""
    return {"kind": value} if isinstance(value, str) else value


ShortcutField = Annotated[Shortcut, BeforeValidator(_shortcut, json_schema_input_type=Shortcut | ShortcutKind)]


class Stage(Document):
    """A sequence of residual blocks of the same width and resolution.

    Fields that are null have the network's value of the same name.
    """

    channels: Channels
    """Output channels of every block of the stage."""
    blocks: Annotated[int, *_number(1, 256)] = 1
    """Number of residual blocks."""
    stride: Stride = 1
    """Stride of the first block, in pixels: 2 halves the map's side."""
    kernel_sizes: KernelSizes = (3, 3)
    """Kernel sizes of a block's two convolutions; equal for bottlenecks, which have one spatial convolution."""
    block: BlockKind | None = None
    """Kind of block of this stage."""
    bottleneck_ratio: BottleneckRatio | None = None
    """Inner width of this stage's bottlenecks."""
    groups: Positive | None = None
    """Groups of this stage's spatial convolutions."""
    group_width: Channels | None = None
    """Channels of each group of this stage's spatial convolutions."""
    squeeze_excitation_ratio: OptionalSqueezeRatio | None = None
    """Hidden width of this stage's squeeze-and-excitation; 0 for none."""
    squeeze_excitation: SqueezeExcitation | None = None
    """How this stage's squeeze-and-excitation is computed."""
    shortcut: ShortcutField | None = None
    """Shortcut of this stage's blocks that change the shape."""
    activation: Activation | None = None
    """Activation function of this stage."""
    block_dropout: Dropout | None = None
    """Dropout probability in this stage's blocks."""
    conv_bias: Flag | None = None
    """Whether this stage's convolutions have biases."""

    @model_serializer(mode="wrap")
    def _without_inherited(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is the network's, so that a stage is as short as its author wrote it."""
        return {name: value for name, value in serialise(self).items() if value is not None}


STAGE_OVERRIDES = tuple(name for name, field in Stage.model_fields.items() if field.default is None)
"""Fields of a stage that are the network's where the stage does not set them."""


class Head(Document):
    """Pooling, dropout and the linear classifier."""

    pooling: Literal["average", "max"] = "average"
    """Pooling of the last map: global, or in windows of `pool_size`."""
    dropout: Dropout = 0.0
    """Dropout probability of the pooled features."""
    scale: Annotated[Real, Field(ge=1e-6, le=100)] = 1.0
    """Factor of the logits. A small factor lets the linear layer train at the high learning rate of the convolutions
    (Page 2018; Jordan 2024)."""
    norm: Flag | None = None
    """Whether batch norm and activation come first; null: only behind pre-activation blocks, which end without."""
    channels: Channels | None = None
    """Output channels of a 1x1 convolution with batch norm and activation before the pooling; null for none."""
    pool_size: Annotated[int, *_number(1, 4096)] | None = None
    """Side of the pooling's windows, in pixels; partial windows at the border are dropped, and what is left is
    flattened. Null: global pooling."""
