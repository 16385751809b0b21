"""Declarative specification of a residual network: validated, immutable and independent of torch.

`budgetnet.model.lowering` lowers a specification to layers, from which networks are built and summaries printed;
`budgetnet.model.cost` computes its cost in closed form.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from budgetnet.common.documents import MAX_CHANNELS, Channels, Document, Flag, Positive, did_you_mean, whole_number
from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import BlockSettings, settings_of
from budgetnet.model.consistency import check_consistency
from budgetnet.model.parts import (
    STAGE_OVERRIDES,
    Activation,
    BlockKind,
    BottleneckRatio,
    Dropout,
    Head,
    Shortcut,
    ShortcutField,
    SqueezeExcitation,
    SqueezeRatio,
    Stage,
    Stem,
)
from budgetnet.model.stage_lists import (
    PER_STAGE,
    entries_of,
    is_list,
    schema_with_list,
    spread_over_stages,
    stage_mappings,
    with_lists_spread,
)

if TYPE_CHECKING:
    from torch import nn

    from budgetnet.model.cost import Cost
    from budgetnet.model.summary import Summary

Downsampling = Literal["stride", "max-pool"]
ImageSide = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=4096)]
ImageChannels = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=1024)]


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
    conv, twice, then add (He et al. 2016). ``bottleneck``: 1x1, spatial, 1x1. ``preact-bottleneck``: the same with norm
    and activation before each convolution."""
    bottleneck_ratio: BottleneckRatio | None = None
    """Inner width of a bottleneck as a share of its output width; default: 0.25. Only for bottleneck blocks; above 1
    they are inverted bottlenecks (MobileNetV2)."""
    bottleneck_ratio_of: Literal["output", "input"] = "output"
    """Width that `bottleneck_ratio` refers to: of the block's output, or of its input, as in MobileNetV2."""
    equal_expansion: Flag = True
    """Whether a bottleneck that is as wide inside as its input begins with a 1x1 convolution too; false for MobileNetV2
    and V3, whose blocks that expand nothing begin with the spatial one."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)]
    """Stages from input to output."""
    groups: Positive = 1
    """Groups of the blocks' spatial convolutions (Xie et al. 2017)."""
    group_width: Channels | None = None
    """Channels of each group of the blocks' spatial convolutions, in place of `groups`: 1 for depthwise convolutions
    (RegNet, MobileNetV2). It must divide the convolution's channels."""
    squeeze_excitation_ratio: SqueezeRatio | None = None
    """Hidden width of squeeze-and-excitation as a share of the block's width (Hu et al. 2018); default: no
    squeeze-and-excitation."""
    squeeze_excitation: SqueezeExcitation = SqueezeExcitation()
    """How squeeze-and-excitation is computed, where there is one."""
    shortcut: ShortcutField = Shortcut()
    """Shortcut of blocks that change the shape."""
    activation: Activation = "relu"
    """Activation function, also of stem and head; theirs is relu where this is a list."""
    block_activation: Flag = True
    """Whether basic and bottleneck blocks apply the activation after the addition; false for the linear bottlenecks of
    MobileNetV2."""
    block_dropout: Dropout = 0.0
    """Dropout probability before the last convolution of a block (Zagoruyko and Komodakis 2016)."""
    conv_bias: Flag = False
    """Whether the blocks' convolutions have biases."""
    downsampling: Downsampling = "stride"
    """How a block with a stride reduces the map. ``stride``: its first spatial convolution is strided. ``max-pool``:
    that convolution runs at full resolution and is followed by max pooling, with the stride as side and stride (Page
    2018, "How to Train Your ResNet"; Jordan 2024). Shortcuts and stem are strided in both cases."""
    head: Head = Head()
    """Pooling and classifier."""

    @model_validator(mode="before")
    @classmethod
    def _spread_lists(cls, data: Any) -> Any:
        """Move lists given for the whole network to the stages."""
        return with_lists_spread(data)

    @model_validator(mode="after")
    def _fields_are_consistent(self) -> Self:
        check_consistency(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        fields = handler.resolve_ref_schema(schema)["properties"]
        of_stages = handler.resolve_ref_schema(fields["stages"]["items"])["properties"]
        fields |= {name: schema_with_list(fields[name], of_stages[name]) for name in STAGE_OVERRIDES}
        return schema

    # Cached, as costs need them; copies with other widths, depths and kernels have the same.
    @functools.cached_property
    def block_settings(self) -> tuple[BlockSettings, ...]:
        """Settings of each stage's blocks: the stage's own and, where it has none, the network's."""
        return tuple(settings_of(self, stage) for stage in self.stages)

    @functools.cached_property
    def stem_norm(self) -> bool:
        """Whether the stem's last convolution is followed by batch norm and activation."""
        return not self.block_settings[0].preact if self.stem.norm is None else self.stem.norm

    @functools.cached_property
    def head_norm(self) -> bool:
        """Whether the head begins with batch norm and activation."""
        # Pre-activation blocks end without.
        return self.block_settings[-1].preact if self.head.norm is None else self.head.norm

    def stem_hidden(self, width: int) -> int:
        """Return the hidden width of squeeze-and-excitation after a stem of a given width; 0 without it."""
        ratio = self.stem.squeeze_excitation_ratio
        return 0 if ratio is None else max(1, round(width * ratio))

    @classmethod
    def resnet(
        cls,
        *,
        channels: Sequence[int],
        blocks: Sequence[int] | int = 1,
        strides: Sequence[int] | int | None = None,
        kernel_sizes: Sequence[Any] | int = (3, 3),
        stem: Stem | Mapping[str, Any] | int | None = None,
        **settings: Any,
    ) -> Self:
        """Create a specification from lists with one entry for each stage.

        Args:
            channels: width of each stage.
            blocks: number of residual blocks of each stage, or one number for all.
            strides: stride of each stage, or one number for all; default: 1 in the first stage, 2 in all others.
            kernel_sizes: kernel sizes of the two convolutions, for all stages or as one pair for each stage.
            stem: first convolution, or only its width; default: as wide as the first stage.
            settings: any other field of `ModelSpec`, such as ``block="preact"``; fields that a stage has too may be
                lists with one entry for each stage, such as ``groups=[1, 2, 4]``.

        Raises:
            InputError: the lists have different lengths, or a field is unknown or invalid.
        """
        _require_known(cls, settings)
        channels = entries_of("channels", channels)
        count = len(channels)
        if strides is None:
            strides = [1 if index == 0 else 2 for index in range(count)]
        lists = {"channels": channels, "blocks": blocks, "strides": strides, "kernel_sizes": kernel_sizes}
        stages: list[dict[str, Any]] = [{} for _ in range(count)]
        spread_over_stages(stages, lists)
        mapping = {"stages": stages, **settings}
        if isinstance(stem, (Stem, Mapping)):
            # A stem without channels is as wide as the first stage, as where there is none.
            own = stem if isinstance(stem, Stem) or not count else {"channels": channels[0], **stem}
            mapping["stem"] = own
        elif stem is not None or (count and channels[0] in range(1, MAX_CHANNELS + 1)):
            # If the first stage's width is invalid, the error names the stage and not the stem.
            mapping["stem"] = {"channels": channels[0] if stem is None else stem}
        return cls.from_mapping(mapping)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with changed fields and, unless given, an empty name.

        Args:
            changes: fields of `ModelSpec`; also ``channels``, ``blocks``, ``strides``, ``kernel_sizes`` and other lists
                as in `resnet`. Unless ``stages`` are given too, they replace what stages have of their own.

        Raises:
            InputError: a field is unknown or invalid.
        """
        _require_known(type(self), changes)
        named = [name for name in STAGE_OVERRIDES if name in changes and "stages" not in changes]
        spread = [*(name for name in PER_STAGE if name in changes), *(name for name in named if is_list(changes[name]))]
        lists = {name: changes.pop(name) for name in spread}
        mapping = {**self.model_dump(exclude={"name"}), **changes}
        # Invalid stages are left to the validation.
        if (stages := stage_mappings(mapping["stages"])) is not None:
            mapping["stages"] = [{key: stage[key] for key in stage if key not in named} for stage in stages]
            spread_over_stages(mapping["stages"], lists)
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
        from budgetnet.model.spec_digest import digest_of

        return digest_of(self)

    @property
    def label(self) -> str:
        """The name or, if it is empty, block kind, widths and depths: ``preact-64x2-128x2``."""
        shape = "-".join(f"{stage.channels}x{stage.blocks}" for stage in self.stages)
        kinds = "+".join(dict.fromkeys(each.kind for each in self.block_settings))
        return self.name or f"{kinds}-{shape}"

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


def _require_known(document: type[ModelSpec], settings: Mapping[str, Any]) -> None:
    known = (*document.model_fields, *PER_STAGE)
    for name, value in settings.items():
        if name not in known:
            raise InputError(name, value, f"unknown field{did_you_mean(name, known)}")
