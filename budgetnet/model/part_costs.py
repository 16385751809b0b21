"""Costs of one network at many widths, each part counted once for each of its widths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from budgetnet.model.cost import Cost, further_block_cost, stage_cost, stem_and_head_cost
from budgetnet.model.sizes import feature_sizes, pooled_positions
from budgetnet.model.spec import ModelSpec

Part = tuple[int, int, int]
"""Parameters, MACs and activations."""


class PartCosts:
    """Costs of a network's parts; what widths do not change is computed once."""

    def __init__(self, spec: ModelSpec) -> None:
        """Prepare to count.

        Args:
            spec: the network; its widths are not read.
        """
        self._spec = spec
        sizes = feature_sizes(spec)
        self._pixels = [height * width for height, width in sizes]
        self._pairs = list(pairwise(self._pixels))
        self._positions = pooled_positions(spec, sizes[-1])
        self._ends: dict[tuple[int, int], Part] = {}
        self._stages: list[dict[tuple[int, int], Part]] = [{} for _ in spec.stages]

    def ends(self, stem: int, last: int) -> Part:
        """Return the cost of stem and head together, at the widths of the stem and of the last stage."""
        if (known := self._ends.get((stem, last))) is not None:
            return known
        spec, pixels = self._spec, self._pixels[-1]
        part = stem_and_head_cost(
            spec, stem=stem, last=last, hidden=spec.stem_hidden(stem), pixels=pixels, positions=self._positions
        )
        self._ends[stem, last] = part
        return part

    def stage(self, index: int, in_channels: int, width: int) -> Part:
        """Return the cost of a stage, counted from 0, at the widths of its input and its output."""
        key, known = (in_channels, width), self._stages[index]
        if key not in known:
            known[key] = stage_cost(self._spec, index, key, self._pairs[index])
        return known[key]

    def further_block(self, index: int, width: int) -> Part:
        """Return what one block more costs in a stage, counted from 0, at a width."""
        return further_block_cost(self._spec, index, width, self._pixels[index + 1])

    def whole(self, widths: Sequence[int]) -> Cost:
        """Return the cost of the network at the widths of its stem and of each stage."""
        params, macs, activations = self.ends(widths[0], widths[-1])
        for index, (in_channels, width) in enumerate(pairwise(widths)):
            part = self.stage(index, in_channels, width)
            params += part[0]
            macs += part[1]
            activations += part[2]
        return Cost(params, macs, activations)
