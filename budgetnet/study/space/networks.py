"""Networks of samples: from parameters and widths to specifications."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from budgetnet.common.errors import InputError
from budgetnet.model.block_settings import DEFAULT_BOTTLENECK_RATIO
from budgetnet.model.parts import Shortcut, Stem
from budgetnet.model.sizes import feature_sizes
from budgetnet.model.spec import ModelSpec
from budgetnet.model.stage_lists import PER_STAGE
from budgetnet.study.space.structure import strides_of

if TYPE_CHECKING:
    from budgetnet.study.space.document import SearchSpace

OPTIONAL = {
    "bottleneck_ratios": "bottleneck_ratio",
    "group_widths": "group_width",
    "shortcut_kernel_sizes": "shortcut_kernel_size",
    "activations": "activation",
    "block_dropouts": "block_dropout",
    "conv_biases": "conv_bias",
    "stems": "stem",
    "heads": "head",
}
"""Fields of a space that list choices of a parameter, which is sampled only where they are not the default."""

_SAMPLED = {
    "input_shape": "is that of the data",
    "num_classes": "is that of the data",
    "name": "is a label and changes nothing",
    "schema_version": "is that of the format",
    **dict.fromkeys(("stages", *PER_STAGE), "is sampled"),
    "stem": "belongs in stems",
    "head": "belongs in heads",
    "block": "belongs in block_kinds",
    "groups": "belongs in groups",
    "group_width": "belongs in group_widths",
    "bottleneck_ratio": "belongs in bottleneck_ratios",
    "squeeze_excitation_ratio": "belongs in squeeze_excitation_ratios",
    "shortcut": "belongs in shortcuts",
    "activation": "belongs in activations",
    "block_dropout": "belongs in block_dropouts",
    "conv_bias": "belongs in conv_biases",
}
"""Fields of a specification that a space cannot fix, and why."""


_LARGEST = [3, 4096, 4096]
"""Shape of images for checks, as that of the data is not known: no stem and no head is too large for it."""


def choice_text(choice: Any) -> Any:
    """Return a choice as a sampler takes it: documents as text, all else as it is."""
    return json.dumps(choice, sort_keys=True) if isinstance(choice, dict) else choice


@functools.cache
def document_of(text: str) -> dict[str, Any]:
    """Return a document from its text."""
    read: dict[str, Any] = json.loads(text)
    return read


def check_documents(space: SearchSpace) -> None:
    """Check stems, heads and fixed fields.

    Raises:
        InputError: one has an unknown or invalid field, or one that is sampled.
    """
    for name in space.fixed:
        if name in _SAMPLED:
            raise InputError(f"fixed.{name}", space.fixed[name], f"cannot be fixed: it {_SAMPLED[name]}")
    for index, stem in enumerate(space.stems):
        if "channels" in stem:
            rule = "must be omitted: the stem is as wide as the first stage"
            raise InputError(f"stems[{index}].channels", stem["channels"], rule)
        _prefixed(f"stems[{index}]", "stem", {"stem": stem, "input_shape": _LARGEST})
    for index, head in enumerate(space.heads):
        _prefixed(f"heads[{index}]", "head", {"head": head, "input_shape": _LARGEST})
    squeeze = max(space.squeeze_excitation_ratios) or None
    for kind in space.block_kinds:
        own = {"block": kind, "squeeze_excitation_ratio": squeeze}
        _prefixed("fixed", "", {**fixed_fields(space, kind), **own})


def _prefixed(path: str, inside: str, mapping: dict[str, Any]) -> None:
    try:
        ModelSpec.from_mapping({"stages": [{"channels": 64}], **mapping})
    except InputError as error:
        field = error.field.removeprefix(inside).lstrip(".")
        raise InputError(f"{path}.{field}".rstrip("."), error.value, error.rule) from None


def fixed_fields(space: SearchSpace, kind: str) -> dict[str, Any]:
    """Return the fixed fields that networks with a kind of block have."""
    omitted = {"block_activation"} if kind.startswith("preact") else set()
    if not kind.endswith("bottleneck"):
        omitted |= {"bottleneck_ratio_of", "equal_expansion"}
    return {name: value for name, value in space.fixed.items() if name not in omitted}


@functools.lru_cache(maxsize=1024)
def stem_output(stem: str, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return (height, width) of the maps after a stem, given as text, in pixels.

    Raises:
        InputError: the images are too small for the stem.
    """
    document = document_of(stem)
    try:
        spec = ModelSpec(stages=({"channels": 1},), stem=Stem(**document), input_shape=input_shape)
    except InputError as error:
        height, width = input_shape[1:]
        rule = f"{error.field.removeprefix('stem.')} {error.rule}, on images of {height}x{width} pixels"
        raise InputError("stems", document, rule) from None
    return feature_sizes(spec)[0]


def spec_of_widths(
    space: SearchSpace,
    params: Mapping[str, Any],
    channels: list[int],
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> ModelSpec:
    """Return the network of a complete sample with the given widths, see `SearchSpace.spec_of_widths`."""
    count, kind = len(channels), params["block"]
    bottleneck = kind.endswith("bottleneck")
    after = stem_output(params["stem"], input_shape)
    strides = strides_of(count, params["full_size_stages"], min(after))
    head = dict(document_of(params["head"]))
    if (head.get("pool_size") or 0) > last_side(min(after), strides):
        del head["pool_size"]
    first = params["first_kernel_size"]
    shortcut: dict[str, Any] = {"kind": params["shortcut"]}
    if Shortcut(kind=params["shortcut"]).has_conv:
        shortcut["kernel_size"] = params["shortcut_kernel_size"]
    ratio, group_width = params["bottleneck_ratio"], params["group_width"]
    return ModelSpec.from_mapping(
        {
            **fixed_fields(space, kind),
            "input_shape": input_shape,
            "num_classes": num_classes,
            "stem": {**document_of(params["stem"]), "channels": channels[0]},
            "block": kind,
            # A default that is given and one that is omitted are the same network.
            "bottleneck_ratio": ratio if bottleneck and ratio != DEFAULT_BOTTLENECK_RATIO else None,
            "stages": [
                {
                    "channels": width,
                    "blocks": params[f"blocks_{number}"],
                    "stride": stride,
                    # A bottleneck has one spatial convolution.
                    "kernel_sizes": (first, first if bottleneck else params["second_kernel_size"]),
                }
                for number, (width, stride) in enumerate(zip(channels, strides, strict=True), 1)
            ],
            "groups": params["groups"],
            "group_width": group_width if bottleneck else None,
            "squeeze_excitation_ratio": params["squeeze_excitation_ratio"] or None,
            "shortcut": shortcut,
            "activation": params["activation"],
            "block_dropout": params["block_dropout"],
            "conv_bias": params["conv_bias"],
            "head": head,
        }
    )


def last_side(side: int, strides: list[int]) -> int:
    """Return the smaller side of the last map, in pixels."""
    for stride in strides:
        side = -(-side // stride)
    return side
