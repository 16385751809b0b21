"""Batch loader with example filtering: yields only the selected images of each batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from budgetnet.data.batches import Batch, BatchLoader
from budgetnet.data.on_device import OnDeviceImages
from budgetnet.runs.augmentation import Augmentation, ExampleFilter


class FilteredBatchLoader(BatchLoader):
    """Batch loader that returns the selected images of each batch of an unfiltered loader.

    The images are identical to those of an unfiltered loader with the same settings and seed.
    """

    def __init__(
        self,
        data: OnDeviceImages,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        example_filter: ExampleFilter,
        side: Callable[[int], int] | None = None,
    ) -> None:
        """Prepare the first epoch, whose images are selected by `choose`.

        Args:
            data: see `BatchLoader`.
            augmentation: see `BatchLoader`.
            batch_size: size of the unfiltered batches.
            seed: see `BatchLoader`.
            example_filter: options that give the number of selected images per batch.
            side: see `BatchLoader`.
        """
        super().__init__(data, augmentation, batch_size=batch_size, seed=seed, side=side)
        self._unfiltered_size = batch_size
        self.batch_size = example_filter.kept(batch_size)
        self.sizes = [example_filter.kept(size) for size in self.sizes]
        self._selected = torch.zeros((len(self.sizes), self.sizes[0]), dtype=torch.int64, device=self.device)

    def choose(self, places: Tensor) -> None:
        """Set the selected images of the current epoch.

        Args:
            places: int64 (steps, selected images of the first step): positions in each unfiltered batch, counted from
                0; surplus values in steps with fewer images are ignored.
        """
        self._selected.copy_(places)

    def batch(self, step: Tensor, *, size: int) -> Batch:
        """Return the selected images of one step.

        Args:
            step: int64 () on the device: step of the epoch, counted from 0.
            size: number of selected images, as in `sizes`.
        """
        first = step * self._unfiltered_size
        selected = self._selected.index_select(0, step.view(1))[0, :size]
        if not self.augmentation.mixing:
            return self._batch(first + selected, step)
        # Mixing needs the unfiltered batch. Rows beyond the last image repeat it: as the last row of the batch it is
        # mixed into the first image, as in a smaller last batch.
        rows = (first + self._positions).clamp(max=len(self.data) - 1)
        unfiltered = self._batch(rows, step)
        inputs = unfiltered.inputs.index_select(0, selected).contiguous(memory_format=torch.channels_last)
        mixed_labels = None if unfiltered.mixed_labels is None else unfiltered.mixed_labels.index_select(0, selected)
        return Batch(inputs, unfiltered.labels.index_select(0, selected), mixed_labels, unfiltered.share)
