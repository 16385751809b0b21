"""Settings of a stage's blocks: the stage's own and, where it has none, the network's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from budgetnet.model.parts import Activation, BlockKind, Shortcut, SqueezeExcitation, Stage

if TYPE_CHECKING:
    from budgetnet.model.spec import ModelSpec

Value = TypeVar("Value")

DEFAULT_BOTTLENECK_RATIO = 0.25
"""Default inner width of a bottleneck, as a share of its output width."""


class BlockSettings(NamedTuple):
    """What all blocks of a stage share, whatever their widths and sizes."""

    kind: BlockKind
    bottleneck: bool
    """Whether the kind has 1x1, spatial and 1x1 convolutions."""
    preact: bool
    """Whether norm and activation come before each convolution."""
    ratio: float
    """Inner width of a bottleneck, as a share of the width that `ratio_of_input` names."""
    ratio_of_input: bool
    equal_expansion: bool
    """Whether a bottleneck that is as wide inside as its input has its first 1x1 convolution."""
    groups: int
    group_width: int | None
    """Channels of each group, in place of the number of groups."""
    squeeze_ratio: float
    """Hidden width of squeeze-and-excitation; 0 without it."""
    squeeze_excitation: SqueezeExcitation
    shortcut: Shortcut
    shortcut_norm: bool
    shortcut_bias: bool
    activation: Activation
    dropout: float
    bias: bool
    linear: bool
    """Whether a block ends without an activation after the addition."""

    def inner(self, in_channels: int, width: int) -> int:
        """Return the width of a block's spatial convolutions; for bottlenecks, the inner width."""
        if not self.bottleneck:
            return width
        return max(1, round((in_channels if self.ratio_of_input else width) * self.ratio))

    def expands(self, in_channels: int, inner: int) -> bool:
        """Return whether a bottleneck of an inner width begins with a 1x1 convolution."""
        return self.equal_expansion or inner != in_channels

    def groups_of(self, inner: int) -> int:
        """Return the groups of a block's spatial convolutions of a width, which a group width must divide."""
        return self.groups if self.group_width is None else max(1, inner // self.group_width)

    def hidden(self, in_channels: int, width: int, inner: int) -> int:
        """Return the hidden width of a block's squeeze-and-excitation; 0 without it."""
        if not self.squeeze_ratio:
            return 0
        of = {"output": width, "input": in_channels, "inner": inner}[self.squeeze_excitation.ratio_of]
        return self.squeeze_excitation.hidden(of, self.squeeze_ratio)

    def allows_width(self, width: int) -> bool:
        """Return whether the groups divide the channels of blocks with as many input as output channels."""
        inner = self.inner(width, width)
        return inner % (self.groups if self.group_width is None else self.group_width) == 0

    def allows_input(self, in_channels: int) -> bool:
        """Return whether the groups divide what depends on the input channels of a first block."""
        if not self.bottleneck:
            return in_channels % self.groups == 0
        return not self.ratio_of_input or self.allows_width(in_channels)


def allows_width(settings: Sequence[BlockSettings], place: int, width: int) -> bool:
    """Return whether groups divide a width of the stem (place 0) or of a stage (counted from 1)."""
    own = place == 0 or settings[place - 1].allows_width(width)
    return own and (place == len(settings) or settings[place].allows_input(width))


def settings_of(spec: ModelSpec, stage: Stage) -> BlockSettings:
    """Return the settings of a stage's blocks."""
    kind = _own(stage.block, spec.block)
    shortcut = _own(stage.shortcut, spec.shortcut)
    bias, preact = _own(stage.conv_bias, spec.conv_bias), kind.startswith("preact")
    # A stage that sets one of both ways to say the groups replaces the other.
    group_width = stage.group_width if stage.groups is not None else _own(stage.group_width, spec.group_width)
    return BlockSettings(
        kind=kind,
        bottleneck=kind.endswith("bottleneck"),
        preact=preact,
        ratio=_own(_own(stage.bottleneck_ratio, spec.bottleneck_ratio), DEFAULT_BOTTLENECK_RATIO),
        ratio_of_input=spec.bottleneck_ratio_of == "input",
        equal_expansion=spec.equal_expansion,
        groups=1 if stage.group_width is not None else _own(stage.groups, spec.groups),
        group_width=group_width,
        squeeze_ratio=_own(stage.squeeze_excitation_ratio, spec.squeeze_excitation_ratio or 0.0),
        squeeze_excitation=_own(stage.squeeze_excitation, spec.squeeze_excitation),
        shortcut=shortcut,
        shortcut_norm=_own(shortcut.norm, not preact),
        shortcut_bias=_own(shortcut.bias, bias),
        activation=_own(stage.activation, spec.activation),
        dropout=_own(stage.block_dropout, spec.block_dropout),
        bias=bias,
        linear=preact or not spec.block_activation,
    )


def _own(value: Value | None, inherited: Value) -> Value:
    return inherited if value is None else value
