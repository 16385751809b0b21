"""Identity of a network: the digest of its specification."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from budgetnet.model.block_settings import BlockSettings
from budgetnet.model.parts import STAGE_OVERRIDES, SqueezeExcitation

if TYPE_CHECKING:
    from budgetnet.model.spec import ModelSpec


def digest_of(spec: ModelSpec) -> str:
    """Return the hexadecimal SHA-256 of all fields except the name.

    Values given for every stage and for the network have the same digest, as have a default value and its omission.
    """
    content = json.dumps(_canonical(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


_LATER: dict[str, Any] = {
    "downsampling": "stride",
    "bottleneck_ratio_of": "output",
    "equal_expansion": True,
    "group_width": None,
    "squeeze_excitation": None,
    "block_dropout": 0.0,
    "conv_bias": False,
    "block_activation": True,
}
"""Fields of the network that were added later, with the values at which they do not change older digests."""
_LATER_IN_STEM: dict[str, Any] = {
    "whitening": None,
    "inner_channels": [],
    "bias": False,
    "norm": None,
    "squeeze_excitation_ratio": None,
    "pool_size": None,
}
_LATER_IN_HEAD: dict[str, Any] = {"scale": 1.0, "norm": None, "channels": None, "pool_size": None}


def _canonical(spec: ModelSpec) -> dict[str, Any]:
    fields = spec.model_dump(mode="json", exclude={"name"})
    stages = [_canonical_stage(each) for each in spec.block_settings]
    # The activation of stem and head is the network's; all else of a block concerns the stages alone.
    network = {**stages[0], "activation": spec.activation}
    for document, own in zip(fields["stages"], stages, strict=True):
        for name in STAGE_OVERRIDES:
            document.pop(name, None)
            if own[name] != network[name]:
                document[name] = own[name]
    fields |= network
    stem, head = fields["stem"], fields["head"]
    if spec.stem.pool_size is None:
        del stem["pool_stride"]
    for part, name, default in (
        (stem, "norm", not spec.block_settings[0].preact),
        (head, "norm", spec.block_settings[-1].preact),
    ):
        if part[name] == default:
            part[name] = None
    for part, later in ((fields, _LATER), (stem, _LATER_IN_STEM), (head, _LATER_IN_HEAD)):
        for name, default in later.items():
            if part[name] == default:
                del part[name]
    return fields


def _canonical_stage(settings: BlockSettings) -> dict[str, Any]:
    """Return the values of a stage's blocks by the names of the fields that set them."""
    excitation = settings.squeeze_excitation
    # What has no effect, or is the default, is left out.
    has_own = bool(settings.squeeze_ratio) and excitation != SqueezeExcitation()
    shortcut = settings.shortcut.model_dump(mode="json")
    if shortcut["norm"] == (not settings.preact):
        shortcut["norm"] = None
    if shortcut["bias"] == settings.bias:
        shortcut["bias"] = None
    return {
        "block": settings.kind,
        "bottleneck_ratio": settings.ratio if settings.bottleneck else None,
        "groups": settings.groups,
        "group_width": settings.group_width,
        "squeeze_excitation_ratio": settings.squeeze_ratio or None,
        "squeeze_excitation": excitation.model_dump(mode="json") if has_own else None,
        "shortcut": {name: value for name, value in shortcut.items() if value is not None},
        "activation": settings.activation,
        "block_dropout": settings.dropout,
        "conv_bias": settings.bias,
    }
