"""Named search spaces."""

from __future__ import annotations

from budgetnet.common.documents import look_up
from budgetnet.study.config import NO_SPACE
from budgetnet.study.space import SearchSpace

NAMED: dict[str, SearchSpace] = {
    # Everything that a specification can say and that is worth trying on small images. Cutout is left out: its square
    # is measured in pixels, and what is mild for one size of image hides another.
    "resnet": SearchSpace.from_mapping(
        {
            "name": "resnet",
            "stages": [3, 5],
            "channels": [16, 128],
            "channel_step": 8,
            "growth": [1.0, 1.5, 2.0],
            "blocks": [1, 4],
            "full_size_stages": [1, 2],
            "first_kernel_sizes": [3, 5, 7],
            "second_kernel_sizes": [3, 5],
            "block_kinds": ["basic", "preact", "bottleneck"],
            "squeeze_excitation_ratios": [0.0, 0.0625, 0.25],
            "groups": [1, 2, 4],
            "shortcuts": ["projection", "average-pool"],
            "recipe": {
                "learning_rate": {"low": 0.01, "high": 0.2, "log": True},
                "weight_decay": {"low": 1e-4, "high": 2e-3, "log": True},
                "batch_size": [64, 128, 256],
                "label_smoothing": [0.0, 0.1],
            },
        }
    ),
    # What the paper varied on the way to its model: layers, their widths, blocks and the sizes of both kernels.
    "paper": SearchSpace.from_mapping(
        {
            "name": "paper",
            "stages": [3, 5],
            "channels": [32, 96],
            "channel_step": 8,
            "growth": [1.0, 2.0],
            "blocks": [1, 2],
            "full_size_stages": [1, 2],
            "first_kernel_sizes": [3, 5],
            "second_kernel_sizes": [3, 5],
            "block_kinds": ["basic"],
            "squeeze_excitation_ratios": [0.0],
        }
    ),
}


def named_space(name: str) -> SearchSpace:
    """Return the search space of that name.

    Raises:
        InputError: no space has that name.
    """
    return look_up(name, NAMED, field="space", missing=NO_SPACE)
