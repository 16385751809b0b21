"""Training step: forward pass, loss, backward pass and optimiser update of one batch, and the state between epochs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from budgetnet.common import cpu
from budgetnet.data.batches import Batch, BatchLoader
from budgetnet.model.network import set_stochastic_depth
from budgetnet.runs.recipe import Recipe
from budgetnet.training.cuda_graph import GraphedCallable
from budgetnet.training.optimizers import Optimizer, SlowWeights
from budgetnet.training.validation import autocast, loss_accumulator

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of convolutions and matrix products by their names in run records."""


class Execution(NamedTuple):
    """Execution settings: results are equal up to rounding, except with different ``parts``."""

    record: bool = True
    """Whether steps are captured as CUDA graphs, on CUDA devices."""
    compile: bool = False
    """Whether the network is compiled by torch.compile: minutes of compilation for faster steps."""
    autotune: bool = True
    """Whether cuDNN benchmarks its algorithms and uses the fastest."""
    parts: int = 1
    """Number of parts of each batch, processed one after the other with accumulated gradients, to save memory; batch
    norm then uses the statistics of a part, not of the batch."""


@contextmanager
def cudnn_settings(execution: Execution) -> Iterator[None]:
    """Set cuDNN's autotuning and disable TensorFloat-32 within a ``with`` block."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    # TensorFloat-32 has a mantissa of 10 bits, float32 of 23.
    cudnn.benchmark, cudnn.allow_tf32 = execution.autotune, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


class TrainingStep:
    """Training of a network on the batches of a loader, one step at a time.

    Within an epoch nothing synchronises with the device: learning rates, loss, number of correct predictions and step
    number are tensors on it, so that a step can be captured as a CUDA graph.
    """

    def __init__(
        self, network: nn.Module, loader: BatchLoader, recipe: Recipe, *, precision: torch.dtype, execution: Execution
    ) -> None:
        """Create the optimiser and all state on the device.

        Args:
            network: on the loader's device, its weights changed in place.
            loader: loader of training batches.
            recipe: its optimiser, label smoothing, class weights and weight average are used.
            precision: precision of convolutions and matrix products.
            execution: execution settings.
        """
        cpu.prepare()
        self.network, self.loader, self.recipe, self.precision = network, loader, recipe, precision
        self._parts = execution.parts
        self._class_weights = balanced_weights(loader.data.labels) if recipe.class_weights else None
        self.device = loader.device
        self.average: nn.Module | None = None
        """Exponential moving average of the network's weights, if the recipe has one."""
        self.updates = 0
        """Number of steps since the beginning of the run."""
        self._averaged: tuple[list[Tensor], list[Tensor]] = [], []
        """Tensors of the average, and those of the network."""
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe.norm_momentum
        set_stochastic_depth(network, recipe.stochastic_depth)
        if recipe.weight_average is not None:
            self.average = copy.deepcopy(network).requires_grad_(requires_grad=False)
            for average, value in zip(_values(self.average), _values(network), strict=True):
                if average.is_floating_point():
                    self._averaged[0].append(average)
                    self._averaged[1].append(value)
        self._forward = torch.compile(network) if execution.compile else network
        self._rate = torch.zeros((), dtype=torch.float32, device=self.device)
        self.optimizer = Optimizer(network, recipe)
        self.slow_weights: SlowWeights | None = None
        """Slow weights of Lookahead, if the recipe has it."""
        if recipe.lookahead:
            values = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
            self.slow_weights = SlowWeights(values, recipe.lookahead, steps=recipe.epochs * len(loader.sizes))
        self._rates = torch.zeros(len(loader.sizes), dtype=torch.float32, device=self.device)
        self._step = torch.zeros((), dtype=torch.int64, device=self.device)
        self._loss = loss_accumulator(self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._record = execution.record and len(loader.sizes) > 1
        self._side = loader.side
        self.full_step = self._graphed_step()

    def begin(self, epoch: int, *, rates: list[float]) -> None:
        """Start an epoch.

        Args:
            epoch: counted from 1.
            rates: learning rate of each step.
        """
        self.loader.begin(epoch)
        if self.loader.side != self._side:
            # A CUDA graph is captured for one image size; sizes only change between epochs.
            self.full_step.release()
            self._side, self.full_step = self.loader.side, self._graphed_step()
        self.network.train()
        self._rates.copy_(torch.tensor(rates, dtype=torch.float32))
        for counter in (self._step, self._loss, self._correct):
            counter.zero_()

    def train_batch(self, size: int) -> None:
        """Train on the next batch.

        Args:
            size: number of images in the batch.
        """
        if size == self.loader.batch_size:
            self.full_step()
        else:
            self._train_batch(size)
        self.updates += 1
        if self.slow_weights is not None:
            self.slow_weights.update(self.updates)
        if self.average is not None:
            self._update_average()

    def release(self) -> None:
        """Free the memory of CUDA graphs; the object cannot be used afterwards."""
        self.full_step.release()

    def state(self) -> dict[str, Tensor]:
        """Return all tensors needed to resume after the last epoch, by name."""
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state |= self.optimizer.state()
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        if self.slow_weights is not None:
            state |= {f"lookahead.{name}": tensor for name, tensor in self.slow_weights.average.items()}
        return state

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore a state in place.

        Raises:
            KeyError: the names are not those of `state`.
            RuntimeError: a tensor has a different shape.
        """
        state = self.state()
        if tensors.keys() != state.keys():
            raise KeyError
        for name, tensor in state.items():
            tensor.copy_(tensors[name])

    def totals(self) -> tuple[float, float]:
        """Return mean loss in nats and accuracy since the start of the epoch; synchronises with the device."""
        return self._loss.item() / self.loader.images, self._correct.item() / self.loader.images

    def _graphed_step(self) -> GraphedCallable:
        """Return a step on a full batch, captured as a CUDA graph if possible."""
        return GraphedCallable(
            lambda: self._train_batch(self.loader.batch_size), device=self.device, record=self._record
        )

    def _train_batch(self, size: int) -> None:
        batch = self.loader.batch(self._step, size=size)
        self._rate.copy_(self._rates.index_select(0, self._step.view(1))[0])
        self.optimizer.zero_grad()
        # torch.compile would compile again for the size of the last batch, for one step per epoch.
        forward = self._forward if size == self.loader.batch_size else self.network
        for part in batch.parts(self._parts):
            with autocast(self.device, self.precision):
                logits = forward(part.inputs)
            # The mean over the batch is the mean of its parts weighted by their sizes; so is its gradient.
            loss = self._mean_loss(logits.float(), part) * (len(part.labels) / size)
            torch.autograd.backward(loss)
            self._loss += loss.detach() * size
            self._correct += (logits.detach().argmax(dim=1) == part.labels).sum()
        self.optimizer.step(self._rate)
        self._step += 1

    def _mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return self._cross_entropy(logits, batch, reduction="mean")

    def _cross_entropy(self, logits: Tensor, batch: Batch, *, reduction: Literal["mean", "none"]) -> Tensor:
        """Return the loss with smoothed and mixed labels and class weights: mean over the batch, or of each image."""
        loss = self._loss_for(logits, batch.labels, reduction)
        if batch.mixed_labels is None or batch.share is None:
            return loss
        return batch.share * loss + (1 - batch.share) * self._loss_for(logits, batch.mixed_labels, reduction)

    def _loss_for(self, logits: Tensor, labels: Tensor, reduction: Literal["mean", "none"]) -> Tensor:
        smoothing, weights = self.recipe.label_smoothing, self._class_weights
        if weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction=reduction)
        # Torch's own weights divide by their sum in the batch, so that the parts of a batch would not add up.
        losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none") * weights[labels]
        return losses if reduction == "none" else losses.mean()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Update the moving average; in the first steps its decay is smaller, so that initial weights count less."""
        decay = min(self.recipe.weight_average or 0.0, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(*self._averaged, self.updates)  # type: ignore[no-untyped-call]


def balanced_weights(labels: Tensor) -> Tensor:
    """Return the weight n / (k n_c) of each class c: float32 (k,), with mean 1 over the images.

    Args:
        labels: int64 (n,), with every class from 0 to k - 1.
    """
    counts = torch.bincount(labels)
    return (len(labels) / (len(counts) * counts.double())).float()


def _values(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
