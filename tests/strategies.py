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


many_examples = examples(300)

ENGINE_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "engine": st.sampled_from(get_args(EngineName)),
    "workers": st.integers(1, 10**6),
    "per_gpu": st.integers(1, 10**6),
    "store": st.just("s3://bucket/a folder"),
}
"""Values of the fields by which a config chooses its engine."""


def some_fields(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate some of the fields of a config with an engine; with a store, which is for clusters, always Ray."""
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda given: given | {"engine": "ray"} if "store" in given else given
    )


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


@st.composite
def specs(draw: st.DrawFn, *, max_side: int = 11, max_multiple: int = 4, max_blocks: int = 2) -> ModelSpec:
    """Generate networks with all kinds of blocks, shortcuts, kernels, activations and heads; by default small ones."""
    block = draw(st.sampled_from(["basic", "preact", "bottleneck"]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kind = draw(st.sampled_from(["projection", "average-pool", "padding", "none"]))
    count = draw(st.integers(1, 3))
    ratio = draw(st.sampled_from([None, 0.25, 0.5, 0.6, 1.0, 2.0])) if block == "bottleneck" else None
    if block == "bottleneck":
        # As in ModelSpec: rounded half to even, and at least 1.
        inner = {width: max(1, round(width * (ratio or 0.25))) for width in range(1, 16 * max_multiple)}
        allowed = [width for width in inner if inner[width] % groups == 0][: 4 * max_multiple]
    else:
        allowed = [groups * multiple for multiple in range(1, max_multiple + 1)]
    widths = draw(st.lists(st.sampled_from(allowed), min_size=count + 1, max_size=count + 1))
    if kind == "padding":
        widths.sort()
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    whitening = draw(st.sampled_from([None, None, *range(1, min(3, height, width) + 1)]))
    border = 0 if whitening is None else whitening - 1
    strides = draw(strides_for(height - border, width - border, count=count))
    stages: list[dict[str, Any]] = []
    for channels, stride in zip(widths[1:], strides[1:], strict=True):
        first = draw(kernels)
        second = first if block == "bottleneck" else draw(kernels)
        blocks = draw(st.integers(1, max_blocks))
        stages.append({"channels": channels, "blocks": blocks, "stride": stride, "kernel_sizes": [first, second]})
    mapping: dict[str, Any] = {
        "name": draw(names),
        "input_shape": [draw(st.integers(1, 4)), height, width],
        "num_classes": draw(st.integers(2, 7)),
        "stem": {"channels": widths[0], "kernel_size": draw(kernels), "stride": strides[0], "whitening": whitening},
        "block": block,
        "bottleneck_ratio": ratio,
        "stages": stages,
        "groups": groups,
        "squeeze_excitation_ratio": draw(st.sampled_from([None, 0.0625, 0.25, 0.7, 1.0])),
        "shortcut": {"kind": kind, "kernel_size": 1 if kind in ("padding", "none") else draw(kernels)},
        "activation": draw(st.sampled_from(["relu", "leaky_relu", "silu", "gelu"])),
        "downsampling": draw(st.sampled_from(["stride", "max-pool"])),
        "head": {
            "pooling": draw(st.sampled_from(["average", "max"])),
            "dropout": draw(st.floats(0, 0.99)),
            "scale": draw(st.sampled_from([1.0, 0.125])),
        },
    }
    return ModelSpec.from_mapping(mapping)
