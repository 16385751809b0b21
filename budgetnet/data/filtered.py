"""Training images of which only chosen ones of each batch are learned from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from budgetnet.data.batches import Batch, Feed
from budgetnet.data.on_device import ResidentImages
from budgetnet.runs.augmentation import Augmentation, ExampleFilter


class FilteredFeed(Feed):
    """A feed that gives, of each batch of a plain feed, the images at the places that were chosen for the epoch.

    An image is the same, pixel for pixel, as in the batch of the plain feed with the same settings and seed.
    """

    def __init__(
        self,
        data: ResidentImages,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int,
        example_filter: ExampleFilter,
        side: Callable[[int], int] | None = None,
    ) -> None:
        """Prepares the first epoch; nothing is chosen for it yet.

        Args:
            data: as for `Feed`.
            augmentation: likewise.
            batch_size: images in a whole batch, before some are chosen.
            seed: as for `Feed`.
            example_filter: says how many images of a batch are chosen.
            side: as for `Feed`.
        """
        super().__init__(data, augmentation, batch_size=batch_size, seed=seed, side=side)
        self._whole_size = batch_size
        self.batch_size = example_filter.kept(batch_size)
        self.sizes = [example_filter.kept(size) for size in self.sizes]
        self._places = torch.zeros((len(self.sizes), self.sizes[0]), dtype=torch.int64, device=self.device)

    def choose(self, places: Tensor) -> None:
        """Takes the places for the epoch that has begun, in place of another's.

        Args:
            places: int64 (steps, images of the first step): of the chosen images in each whole batch, counted from 0;
                what stands after those of a step with fewer images is ignored.
        """
        self._places.copy_(places)

    def batch(self, step: Tensor, *, size: int) -> Batch:
        """The chosen images of one step.

        Args:
            step: int64, a single number on the device: the step, counted from 0.
            size: images in it, as in `sizes`.
        """
        first = step * self._whole_size
        places = self._places.index_select(0, step.view(1))[0, :size]
        if not self.augmentation.mixing:
            return self._batch(first + places, step)
        # Images are mixed with others of the whole batch. Rows beyond the last image repeat it: as the batch's last
        # one it is then mixed into the first, which is what a batch of its own size does.
        rows = (first + self._positions).clamp(max=len(self.data) - 1)
        whole = self._batch(rows, step)
        inputs = whole.inputs.index_select(0, places).contiguous(memory_format=torch.channels_last)
        mixed_in = None if whole.mixed_in is None else whole.mixed_in.index_select(0, places)
        return Batch(inputs, whole.labels.index_select(0, places), mixed_in, whole.share)
