"""Settings of a network in words, as tables and notes show them."""

from __future__ import annotations

from collections.abc import Callable

from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.parts import Shortcut
from budgetnet.model.spec import ModelSpec


def settings_in_words(spec: ModelSpec) -> list[str]:
    """Return what characterises a network besides its widths, depths, strides and kernel sizes.

    A value that differs between stages is given for each: ``basic/preact blocks``.
    """

    def each(value: Callable[[BlockSettings], str]) -> str:
        values = [value(settings) for settings in spec.block_settings]
        return values[0] if len(set(values)) == 1 else "/".join(values)

    words = [
        f"{each(lambda own: own.kind)} blocks",
        each(lambda own: own.activation.replace("_", " ")),
        f"{each(lambda own: _shortcut(own.shortcut))} shortcuts",
    ]
    if any(own.bottleneck for own in spec.block_settings):
        ratio = each(lambda own: f"{own.ratio:g}" if own.bottleneck else "none")
        words.append(f"bottleneck ratio {ratio}{' of the input' if spec.bottleneck_ratio_of == 'input' else ''}")
    if not spec.equal_expansion:
        words.append("no expansion to the input's width")
    if (groups := each(lambda own: str(own.groups))) != "1":
        words.append(f"{groups} groups")
    if (group_width := each(lambda own: str(own.group_width or "none"))) != "none":
        words.append(f"group width {group_width}")
    if (squeeze := each(lambda own: f"{own.squeeze_ratio:g}")) != "0":
        words.append(f"squeeze-and-excitation {squeeze}")
    if (dropout := each(lambda own: f"{own.dropout:g}")) != "0":
        words.append(f"dropout in blocks {dropout}")
    if any(own.bias for own in spec.block_settings):
        words.append(f"convolution biases {each(lambda own: 'yes' if own.bias else 'no')}".removesuffix(" yes"))
    if not spec.block_activation:
        words.append("no activation after the addition")
    if spec.downsampling != "stride":
        words.append(f"downsampling by {spec.downsampling}")
    return [*words, *_stem(spec), *_head(spec)]


def _shortcut(shortcut: Shortcut) -> str:
    return (
        f"{shortcut.kind} {shortcut.kernel_size}x{shortcut.kernel_size}" if shortcut.kernel_size > 1 else shortcut.kind
    )


def _stem(spec: ModelSpec) -> list[str]:
    stem, words = spec.stem, []
    if stem.whitening:
        words.append(f"whitening of {stem.whitening}x{stem.whitening} patches")
    if stem.inner_channels:
        words.append(f"stem of {'-'.join(map(str, (*stem.inner_channels, stem.channels)))} channels")
    if stem.squeeze_excitation_ratio:
        words.append(f"squeeze-and-excitation {stem.squeeze_excitation_ratio:g} after the stem")
    if stem.pool_size:
        words.append(f"max pooling {stem.pool_size}x{stem.pool_size} with stride {stem.pool_stride} after the stem")
    return words


def _head(spec: ModelSpec) -> list[str]:
    head, words = spec.head, []
    if head.channels:
        words.append(f"{head.channels} channels in the head")
    if head.pool_size:
        words.append(f"{head.pooling} pooling {head.pool_size}x{head.pool_size}, flattened")
    elif head.pooling != "average":
        words.append(f"global {head.pooling} pooling")
    if head.dropout:
        words.append(f"dropout {head.dropout:g}")
    if head.scale != 1:
        words.append(f"logits x {head.scale:.3g}")
    return words
