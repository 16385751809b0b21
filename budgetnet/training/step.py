"""What learns: a network with its optimiser, its running counts and the step that moves them all."""

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
from budgetnet.data.batches import Batch, Feed
from budgetnet.runs.recipe import Recipe
from budgetnet.training.cuda_graph import Replay
from budgetnet.training.optimizers import Optimizer, SlowWeights
from budgetnet.training.validation import autocast, loss_accumulator

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of convolutions and matrix products, by the name that runs are recorded under."""


class Execution(NamedTuple):
    """How steps are carried out; the same numbers come out up to rounding, but for ``parts``."""

    record: bool = True
    """Whether steps are recorded as CUDA graphs and replayed, on a device that can."""
    compile: bool = False
    """Whether torch.compile turns the network into code of its own: minutes of preparation for faster steps."""
    autotune: bool = True
    """Whether cuDNN tries its algorithms on the first steps and keeps the fastest."""
    parts: int = 1
    """Parts of a batch that go through the network one after the other, their gradients added up, for a device without
    memory for the whole; batch norm then knows a part's statistics, not the batch's."""


@contextmanager
def cudnn_settings(execution: Execution) -> Iterator[None]:
    """Lets cuDNN try its algorithms, or not, and compute float32 as such; leaves its settings as they were."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    # TensorFloat-32 has 10 bits where float32 has 23; who asks for float32 shall get it.
    cudnn.benchmark, cudnn.allow_tf32 = execution.autotune, False
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


class Learner:
    """A network that learns from a feed by stochastic gradient descent, an epoch at a time.

    Nothing in an epoch waits for the device: learning rates are laid out on it beforehand, loss and right answers add
    up on it, and the number of the step lies on it, so that a step can be replayed.
    """

    def __init__(
        self, network: nn.Module, feed: Feed, recipe: Recipe, *, precision: torch.dtype, execution: Execution
    ) -> None:
        """Nothing is learned yet.

        Args:
            network: on the feed's device, its weights changed in place.
            feed: what to learn from.
            recipe: its optimiser, label smoothing and weight average are used.
            precision: of convolutions and matrix products.
            execution: how steps are carried out.
        """
        cpu.prepare()
        self.network, self.feed, self.recipe, self.precision = network, feed, recipe, precision
        self._parts = execution.parts
        self.device = feed.device
        self.average: nn.Module | None = None
        """The moving average of the network, where the recipe has one."""
        self.updates = 0
        """Steps behind the weights, since the beginning of the run."""
        self._moving: tuple[list[Tensor], list[Tensor]] = [], []
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe.norm_momentum
        if recipe.weight_average is not None:
            self.average = copy.deepcopy(network).requires_grad_(requires_grad=False)
            for theirs, ours in zip(_values(self.average), _values(network), strict=True):
                if theirs.is_floating_point():
                    self._moving[0].append(theirs)
                    self._moving[1].append(ours)
        self._forward = torch.compile(network) if execution.compile else network
        self._rate = torch.zeros((), dtype=torch.float32, device=self.device)
        self.optimizer = Optimizer(network, recipe)
        self.slow_weights: SlowWeights | None = None
        """The slow average of Lookahead, where the recipe has it."""
        if recipe.lookahead:
            values = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
            self.slow_weights = SlowWeights(values, recipe.lookahead, steps=recipe.epochs * len(feed.sizes))
        self._rates = torch.zeros(len(feed.sizes), dtype=torch.float32, device=self.device)
        self._step = torch.zeros((), dtype=torch.int64, device=self.device)
        self._loss = loss_accumulator(self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._record = execution.record and len(feed.sizes) > 1
        self._side = feed.side
        self.full_step = self._replay()

    def begin(self, epoch: int, *, rates: list[float]) -> None:
        """Goes to the start of an epoch.

        Args:
            epoch: counted from 1.
            rates: learning rate of each of its steps.
        """
        self.feed.begin(epoch)
        if self.feed.side != self._side:
            # A recording is of images of one size; that of another size is not needed any more.
            self.full_step.release()
            self._side, self.full_step = self.feed.side, self._replay()
        self.network.train()
        self._rates.copy_(torch.tensor(rates, dtype=torch.float32))
        for counter in (self._step, self._loss, self._correct):
            counter.zero_()

    def learn(self, size: int) -> None:
        """One step.

        Args:
            size: images in it.
        """
        if size == self.feed.batch_size:
            self.full_step()
        else:
            self._learn(size)
        self.updates += 1
        if self.slow_weights is not None:
            self.slow_weights.update(self.updates)
        if self.average is not None:
            self._update_average()

    def release(self) -> None:
        """Lets go of its memory: nothing can be learned any more."""
        self.full_step.release()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next epoch starts from, by name."""
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        state |= {f"momentum.{name}": tensor for name, tensor in self.optimizer.momenta.items()}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        if self.slow_weights is not None:
            state |= {f"lookahead.{name}": tensor for name, tensor in self.slow_weights.average.items()}
        return state

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes back to a state, in place.

        Raises:
            KeyError: the tensors are not those of `state`.
            RuntimeError: one has another shape.
        """
        state = self.state()
        if tensors.keys() != state.keys():
            raise KeyError
        for name, tensor in state.items():
            tensor.copy_(tensors[name])

    def totals(self) -> tuple[float, float]:
        """Mean loss, in nats, and share of right answers since the epoch began; waits for the device."""
        return self._loss.item() / self.feed.images, self._correct.item() / self.feed.images

    def _replay(self) -> Replay:
        """A step of a full batch, to be recorded where that is possible."""
        return Replay(lambda: self._learn(self.feed.batch_size), device=self.device, record=self._record)

    def _learn(self, size: int) -> None:
        batch = self.feed.batch(self._step, size=size)
        self._rate.copy_(self._rates.index_select(0, self._step.view(1))[0])
        self.optimizer.zero_grad()
        # Another size would have the network compiled once more, for a single step of an epoch.
        forward = self._forward if size == self.feed.batch_size else self.network
        for part in batch.parts(self._parts):
            with autocast(self.device, self.precision):
                logits = forward(part.inputs)
            # The mean over the batch is that of its parts by their sizes, and so is its gradient.
            loss = self._mean_loss(logits.float(), part) * (len(part.labels) / size)
            torch.autograd.backward(loss)
            self._loss += loss.detach() * size
            self._correct += (logits.detach().argmax(dim=1) == part.labels).sum()
        self.optimizer.step(self._rate)
        self._step += 1

    def _mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return self._cross_entropy(logits, batch, reduction="mean")

    def _cross_entropy(self, logits: Tensor, batch: Batch, *, reduction: Literal["mean", "none"]) -> Tensor:
        """The loss: its mean over the batch, or that of each image."""
        smoothing = self.recipe.label_smoothing
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing, reduction=reduction)
        if batch.mixed_in is None or batch.share is None:
            return loss
        other = functional.cross_entropy(logits, batch.mixed_in, label_smoothing=smoothing, reduction=reduction)
        return batch.share * loss + (1 - batch.share) * other

    @torch.no_grad()
    def _update_average(self) -> None:
        """Moves the average towards the weights; faster at first, so that it soon forgets where they started."""
        decay = min(self.recipe.weight_average or 0.0, (1 + self.updates) / (10 + self.updates))
        get_ema_multi_avg_fn(decay)(*self._moving, self.updates)  # type: ignore[no-untyped-call]


def _values(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
