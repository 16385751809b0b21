"""Named search spaces."""

from __future__ import annotations

from budgetnet.common.documents import look_up
from budgetnet.common.files import is_file_path
from budgetnet.study.choices import NO_SPACE
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
    # Inverted bottlenecks with depthwise or grouped convolutions, linear or with an activation at their end (Sandler et
    # al. 2018, MobileNetV2; Tan et al. 2019, MnasNet).
    "mobile": SearchSpace.from_mapping(
        {
            "name": "mobile",
            "stages": [3, 6],
            "channels": [8, 48],
            "channel_step": 8,
            "growth": [1.0, 1.5, 2.0],
            "blocks": [1, 4],
            "full_size_stages": [1, 2],
            "first_kernel_sizes": [3, 5],
            "second_kernel_sizes": [3],
            "block_kinds": ["bottleneck"],
            "bottleneck_ratios": [2.0, 3.0, 4.0, 6.0],
            "group_widths": [1, 8, 16],
            "squeeze_excitation_ratios": [0.0, 0.25],
            "shortcuts": ["identity", "projection"],
            "activations": ["relu", "silu"],
            "heads": [{}, {"channels": 256}, {"channels": 512}],
            "fixed": {
                "block_activation": False,
                "bottleneck_ratio_of": "input",
                "squeeze_excitation": {"place": "inner", "ratio_of": "input"},
            },
        }
    ),
    # Radosavovic et al. 2020, "Designing Network Design Spaces": RegNetX and RegNetY, with bottlenecks as wide inside
    # as outside.
    "regnet": SearchSpace.from_mapping(
        {
            "name": "regnet",
            "stages": [1, 4],
            "channels": [16, 96],
            "channel_step": 8,
            "growth": [1.0],
            "blocks": [1, 1],
            "full_size_stages": [1, 2],
            "first_kernel_sizes": [3],
            "second_kernel_sizes": [3],
            "block_kinds": ["bottleneck"],
            "bottleneck_ratios": [1.0],
            "group_widths": [8, 16, 24, 32],
            "squeeze_excitation_ratios": [0.0, 0.25],
            "regnet": {
                "depth": [4, 20],
                "slopes": [0.25, 0.5, 0.75, 1.0, 1.5, 2.0],
                "multipliers": [1.5, 2.0, 2.5, 3.0],
            },
            "fixed": {"squeeze_excitation": {"place": "inner", "ratio_of": "input"}},
        }
    ),
}


def named_space(name: str) -> SearchSpace:
    """Return the search space of that name.

    Raises:
        InputError: no space has that name.
    """
    return look_up(name, NAMED, field="space", missing=NO_SPACE)


def find_space(text: str) -> SearchSpace:
    """Return the search space of that name, or in that YAML or JSON file.

    Raises:
        InputError: no such name or file, or a file that breaks a rule.
    """
    return SearchSpace.load(text) if text not in NAMED and is_file_path(text) else named_space(text)


def describe_space(space: SearchSpace) -> str:
    """Return a space's name, unless it has none or that of another, named space."""
    known = NAMED.get(space.name, space)
    return space.name if space.name and known == space else "from a file"
