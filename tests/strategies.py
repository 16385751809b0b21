"""Hypothesis strategies that generate valid specifications without filtering."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from budgetnet.common.config import EngineName
from budgetnet.model.spec import ModelSpec

FAST_SHARE = 0.2
"""Share of each property's examples that the profile `fast` runs, which `make test` selects."""


def examples(count: int) -> settings:
    """Settings for a property of so many examples, or the share of them that the profile `fast` runs.

    The examples are the same every time, so that a failure on one machine is a failure on all; slow machines are no
    failure.
    """
    share = FAST_SHARE if settings.get_current_profile_name() == "fast" else 1
    return settings(
        max_examples=round(share * count),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=False,
    )


many_examples = examples(500)

ENGINE_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "engine": st.sampled_from(get_args(EngineName)),
    "workers": st.integers(1, 10**6),
    "per_gpu": st.integers(1, 10**6) | st.just("auto"),
    "store": st.just("s3://bucket/a folder"),
}
"""Values of the fields by which a config chooses its engine."""


def some_fields(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate some of the fields of a config with an engine; with a store, which is for clusters, always Ray, and no
    measured number of threads."""

    def consistent(given: dict[str, Any]) -> dict[str, Any]:
        if "max_weights" not in given:
            # Only weights that are limited have a precision.
            given = {name: value for name, value in given.items() if name != "weight_precision"}
        if not {"max_latency_ms", "device_file"} <= set(given):
            # Each needs the other.
            given = {name: value for name, value in given.items() if name not in ("max_latency_ms", "device_file")}
        if "store" in given:
            given = {**given, "engine": "ray"}
        if given.get("engine") == "ray" and given.get("threads") == "auto":
            given = {**given, "threads": 1}
        return given

    return st.fixed_dictionaries({}, optional=fields).map(consistent)


kernels = st.sampled_from([1, 3, 5, 7])
names = st.text(st.sampled_from("abzABZ019_.+-éß中"), max_size=8)


@st.composite
def strides_for(draw: st.DrawFn, height: int, width: int, *, count: int) -> list[int]:
    """Generate strides of the stem and of each stage, none larger than its input map."""
    strides = []
    for _ in range(count + 1):
        stride = draw(st.integers(1, min(3, height, width)))
        strides.append(stride)
        height, width = -(-height // stride), -(-width // stride)
    return strides


maybe_flag = st.sampled_from([None, None, True, False])
squeeze_ratios = st.sampled_from([None, 0.0625, 0.25, 0.7, 1.0])


def squeeze_excitations(*, inner: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Generate settings of squeeze-and-excitation, for bottlenecks also those that refer to the inner width."""
    some = ["output", "inner"] if inner else ["output"]
    return st.fixed_dictionaries(
        {},
        optional={
            "ratio_of": st.sampled_from([*some, "input"]),
            "place": st.sampled_from(some),
            "rounding": st.sampled_from(["nearest", "down", "multiple-of-8"]),
            "bias": st.booleans(),
        },
    )


@st.composite
def shortcuts(draw: st.DrawFn, *, kinds: list[str]) -> dict[str, Any]:
    """Generate shortcuts of some kinds; those with a convolution in all their forms."""
    kind = draw(st.sampled_from(kinds))
    if kind not in ("projection", "average-pool"):
        return {"kind": kind}
    return {"kind": kind, "kernel_size": draw(kernels), "norm": draw(maybe_flag), "bias": draw(maybe_flag)}


FAMILIES = [["basic", "preact"], ["bottleneck", "preact-bottleneck"]]
"""Kinds of block that may stand in for each other in a network, whatever its kernels and widths."""


@st.composite
def stage_overrides(draw: st.DrawFn, *, block: str, kinds: list[str]) -> dict[str, Any]:
    """Generate fields of a stage that replace those of the network, which has blocks with or without inner widths."""
    alike = next(family for family in FAMILIES if block in family)
    inner = block.endswith("bottleneck")
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                "block": st.sampled_from(alike),
                "squeeze_excitation_ratio": st.sampled_from([0.0, 0.25, 1.0]),
                "squeeze_excitation": squeeze_excitations(inner=inner),
                "shortcut": shortcuts(kinds=kinds),
                "activation": st.sampled_from(["relu", "gelu"]),
                "block_dropout": st.sampled_from([0.0, 0.5]),
                "conv_bias": st.booleans(),
            },
        )
    )


@st.composite
def stems(draw: st.DrawFn, *, channels: int, stride: int, whitening: int | None, pool: int | None) -> dict[str, Any]:
    """Generate stems of one or several convolutions, with or without what may come after them."""
    stem: dict[str, Any] = {
        "channels": channels,
        "stride": stride,
        "whitening": whitening,
        "kernel_size": draw(kernels),
    }
    if draw(st.booleans()):
        stem["inner_channels"] = draw(st.lists(st.integers(1, 5), max_size=2))
        stem |= {
            "bias": draw(st.booleans()),
            "norm": draw(maybe_flag),
            "squeeze_excitation_ratio": draw(squeeze_ratios),
        }
    return stem if pool is None else stem | {"pool_size": draw(st.sampled_from([pool, 3, 5])), "pool_stride": pool}


@st.composite
def heads(draw: st.DrawFn, *, side: int) -> dict[str, Any]:
    """Generate heads for a last map of a side, in pixels."""
    return {
        "pooling": draw(st.sampled_from(["average", "max"])),
        "dropout": draw(st.floats(0, 0.99)),
        "scale": draw(st.sampled_from([1.0, 0.125])),
        "norm": draw(maybe_flag),
        "channels": draw(st.sampled_from([None, None, 3, 20])),
        "pool_size": draw(st.none() | st.integers(1, side)),
    }


@st.composite
def specs(draw: st.DrawFn, *, max_side: int = 11, max_multiple: int = 4, max_blocks: int = 2) -> ModelSpec:
    """Generate networks with all that a specification can say; by default small ones."""
    block = draw(st.sampled_from([kind for family in FAMILIES for kind in family]))
    inner = block.endswith("bottleneck")
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    group_width = draw(st.sampled_from([None, None, 1, 2])) if inner and groups == 1 else None
    count = draw(st.integers(1, 3))
    ratio = draw(st.sampled_from([None, 0.25, 0.5, 0.6, 1.0, 2.0])) if inner else None
    if inner:
        # As in ModelSpec: rounded half to even, and at least 1.
        widths_inside = {width: max(1, round(width * (ratio or 0.25))) for width in range(1, 16 * max_multiple)}
        divisor = group_width or groups
        allowed = [width for width in widths_inside if widths_inside[width] % divisor == 0][: 4 * max_multiple]
    else:
        allowed = [groups * multiple for multiple in range(1, max_multiple + 1)]
    widths = draw(st.lists(st.sampled_from(allowed), min_size=count + 1, max_size=count + 1))
    kinds = ["projection", "average-pool", "identity", "none"]
    if draw(st.booleans()):
        # A padding shortcut cannot narrow.
        widths.sort()
        kinds.append("padding")
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    whitening = draw(st.sampled_from([None, None, *range(1, min(3, height, width) + 1)]))
    border = 0 if whitening is None else whitening - 1
    strides = draw(strides_for(height - border, width - border, count=count + 1))
    stages: list[dict[str, Any]] = []
    for channels, stride in zip(widths[1:], strides[2:], strict=True):
        first = draw(kernels)
        second = first if inner else draw(kernels)
        blocks = draw(st.integers(1, max_blocks))
        stage = {"channels": channels, "blocks": blocks, "stride": stride, "kernel_sizes": [first, second]}
        stages.append(stage | (draw(stage_overrides(block=block, kinds=kinds)) if draw(st.booleans()) else {}))
    side = min(height, width) - border
    for stride in strides:
        side = -(-side // stride)
    mapping: dict[str, Any] = {
        "name": draw(names),
        "input_shape": [draw(st.integers(1, 4)), height, width],
        "num_classes": draw(st.integers(2, 7)),
        "stem": draw(
            stems(
                channels=widths[0],
                stride=strides[0],
                whitening=whitening,
                pool=strides[1] if strides[1] > 1 else None,
            )
        ),
        "block": block,
        "bottleneck_ratio": ratio,
        "bottleneck_ratio_of": draw(st.sampled_from(["output", "input"])) if inner else "output",
        "stages": stages,
        "groups": groups,
        "group_width": group_width,
        "squeeze_excitation_ratio": draw(squeeze_ratios),
        "squeeze_excitation": draw(squeeze_excitations(inner=inner)),
        "shortcut": draw(shortcuts(kinds=kinds)),
        "activation": draw(st.sampled_from(["relu", "relu6", "leaky_relu", "silu", "gelu"])),
        "block_dropout": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "conv_bias": draw(st.booleans()),
        "downsampling": draw(st.sampled_from(["stride", "max-pool"])),
        "head": draw(heads(side=side)),
    }
    ends = {stage.get("block", block) for stage in stages}
    mapping["block_activation"] = all(kind.startswith("preact") for kind in ends) or draw(st.booleans())
    mapping["equal_expansion"] = draw(st.booleans()) if inner else True
    return ModelSpec.from_mapping(mapping)
