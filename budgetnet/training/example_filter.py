"""Filtering of easy examples: a small proxy network chooses what a run's own network trains on.

After Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", whose fastest trainings choose examples so. Here
the proxy passes through a whole epoch first and writes down the places of the chosen images in each batch; then the
run's network trains on those. The choice depends on data, recipe, seed, precision, device and number of threads. It is
kept in a folder beside the run folders, so that one proxy serves every network that is trained by the same recipe:

    proxies/KEY/epoch-N.safetensors   places of the chosen images in each batch of epoch N
    proxies/KEY/state.safetensors     the proxy after the last epoch that it was trained for

Every file is replaced atomically and holds a checksum; one that is damaged is made again. Processes that need the same
choices take turns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.common.errors import InputError
from budgetnet.common.seeding import derive_seed
from budgetnet.data.batches import Batch, Feed
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import ExampleFilter
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunIdentity
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.cuda_graph import Replay
from budgetnet.training.step import PRECISIONS, Execution, Learner
from budgetnet.training.validation import autocast

_log = logging.getLogger(__name__)

PROXIES = "proxies"
"""The folder among the run folders that holds choices."""
_VERSION = 1
"""Version of the proxy and of its files; a change that chooses other images raises it."""
_WITHOUT_EFFECT = {
    "name",
    "early_stopping",
    "weight_average",
    "lookahead",
    "initialisation",
    "test_time_flip",
    "test_time_shifts",
    "precision",
    "augmented_validation",
}
"""Fields of a recipe that do not change the proxy's training; precision counts as it was chosen for the run."""


def proxy_key(identity: RunIdentity) -> str:
    """Returns what tells the choices for one run from those for another: 16 hexadecimal digits.

    Runs whose networks differ, and nothing else that matters to the proxy, have the same key.
    """
    recipe = identity.recipe.model_dump(mode="json", exclude=_WITHOUT_EFFECT, exclude_defaults=True)
    content = {
        "version": _VERSION,
        "trainer": identity.trainer,
        "recipe": recipe,
        "data": identity.data.key,
        "input_shape": identity.spec.input_shape,
        "num_classes": identity.spec.num_classes,
        "seed": identity.seed,
        "device": identity.device,
        "precision": identity.precision,
        # On a CPU the last bits of the proxy's losses depend on it.
        "threads": torch.get_num_threads() if identity.device == "cpu" else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Proxy(Learner):
    """The small network: looks at every batch of an epoch, learns from some and notes which images are hard."""

    def __init__(
        self,
        network: nn.Module,
        feed: Feed,
        recipe: Recipe,
        example_filter: ExampleFilter,
        *,
        precision: torch.dtype,
        execution: Execution,
    ) -> None:
        """Nothing is learned yet.

        Args:
            network: on the feed's device, its weights changed in place.
            feed: whole batches.
            recipe: how the run's own network is trained.
            example_filter: which images are noted, and how often the proxy learns.
            precision: of convolutions and matrix products.
            execution: how steps are carried out; always with whole batches, without compilation.
        """
        plain = recipe.model_copy(update={"weight_average": None, "lookahead": None, "example_filter": None})
        super().__init__(
            network, feed, plain, precision=precision, execution=execution._replace(parts=1, compile=False)
        )
        self._filter = example_filter
        shape = len(feed.sizes), example_filter.kept(feed.sizes[0])
        self._places = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self._full_look = self._new_look()

    def choose(self, epoch: int, *, rates: list[float]) -> Tensor:
        """Passes through an epoch.

        Args:
            epoch: counted from 1.
            rates: learning rate of each of its steps.

        Returns:
            int64 (steps, images kept of the first batch), on the CPU: places of the images with the highest loss in
            each batch, in ascending order; zeros after those of a smaller batch.
        """
        recorded = self.full_step
        self.begin(epoch, rates=rates)
        if self.full_step is not recorded:
            self._full_look.release()
            self._full_look = self._new_look()
        for step, size in enumerate(self.feed.sizes):
            if step % self._filter.backward_every == 0:
                self.learn(size)
            elif size == self.feed.batch_size:
                self._full_look()
            else:
                self._look(size)
        return self._places.cpu()

    def release(self) -> None:
        """Lets go of its memory: nothing can be chosen any more."""
        super().release()
        self._full_look.release()

    def _new_look(self) -> Replay:
        return Replay(lambda: self._look(self.feed.batch_size), device=self.device, record=self._record)

    @torch.no_grad()
    def _look(self, size: int) -> None:
        """One step without learning."""
        batch = self.feed.batch(self._step, size=size)
        with autocast(self.device, self.precision):
            logits = self.network(batch.inputs)
        self._note(self._cross_entropy(logits.float(), batch, reduction="none"))
        self._step += 1

    def _mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = self._cross_entropy(logits, batch, reduction="none")
        self._note(losses.detach())
        return losses.mean()

    def _note(self, losses: Tensor) -> None:
        """Notes the places of a batch's highest losses."""
        hardest = losses.topk(self._filter.kept(len(losses)), sorted=False).indices.sort().values
        row = functional.pad(hardest, (0, self._places.shape[1] - len(hardest)))
        self._places.index_copy_(0, self._step.view(1), row[None])


class Choices:
    """Which images of each batch a run trains on: read where they are kept, else chosen by a proxy and then kept."""

    def __init__(
        self,
        identity: RunIdentity,
        feed: Feed,
        *,
        out: Path,
        network: Callable[[ModelSpec, int], nn.Module],
        rates: Callable[[int], list[float]],
        begin: Callable[[int], None],
        execution: Execution,
    ) -> None:
        """Nothing is read or chosen yet.

        Args:
            identity: of the run.
            feed: whole batches, with the images, settings and seed that the run is trained with.
            out: folder of run folders.
            network: makes an initialised network from a specification and a seed.
            rates: gives the learning rate of each step of an epoch.
            begin: prepares the training images of an epoch, where they change.
            execution: how steps are carried out.

        Raises:
            InputError: the images are too small for the proxy.
        """
        self._identity, self._feed, self._network, self._execution = identity, feed, network, execution
        self._rates, self._begin = rates, begin
        self._filter = identity.recipe.example_filter or ExampleFilter()
        self._key = proxy_key(identity)
        self._folder = out / PROXIES / self._key
        self._shape = len(feed.sizes), self._filter.kept(feed.sizes[0])
        self._proxy: Proxy | None = None
        self._epoch = 0
        """Epochs that the proxy in memory has been trained for."""

    def places(self, epoch: int) -> Tensor:
        """The places of the chosen images in each batch of an epoch.

        Args:
            epoch: counted from 1.

        Returns:
            int64 (steps, images kept of the first batch), see `Proxy.choose`.
        """
        found = self._read_places(epoch)
        if found is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock"):
                # Another process may have been faster.
                found = self._read_places(epoch)
                if found is None:
                    for part in self._folder.glob(".*.part"):
                        part.unlink(missing_ok=True)
                    found = self._choose(epoch)
        return found

    def release(self) -> None:
        """Lets go of the proxy's memory, if there is one."""
        if self._proxy is not None:
            self._proxy.release()
            self._proxy, self._epoch = None, 0

    def _choose(self, epoch: int) -> Tensor:
        """Trains the proxy up to an epoch, from the nearest state that is known, and keeps what it chose on the way."""
        if self._epoch >= epoch:
            self.release()
        proxy = self._proxy or self._make()
        kept = self._read(self._state) if self._epoch < epoch - 1 or self._proxy is None else None
        if kept is not None and self._epoch < kept[1]["epoch"] < epoch:
            proxy.restore(kept[0])
            self._epoch, proxy.updates = kept[1]["epoch"], kept[1]["updates"]
        self._proxy, places = proxy, torch.empty(0)
        for number in range(self._epoch + 1, epoch + 1):
            self._begin(number)
            places = proxy.choose(number, rates=self._rates(number))
            self._epoch = number
            if self._read_places(number) is None:
                self._write(self._path(number), {"places": places.to(torch.int32)}, epoch=number)
        if kept is None or kept[1]["epoch"] < epoch:
            self._write(self._state, proxy.state(), epoch=epoch, updates=proxy.updates)
        return places

    def _make(self) -> Proxy:
        """A proxy that has learned nothing."""
        identity = self._identity
        spec = proxy_spec(input_shape=identity.spec.input_shape, num_classes=identity.spec.num_classes)
        network = self._network(spec, derive_seed(identity.seed, "proxy")).to(self._feed.device)
        return Proxy(
            network.to(memory_format=torch.channels_last),
            self._feed,
            identity.recipe,
            self._filter,
            precision=PRECISIONS[identity.precision],
            execution=self._execution,
        )

    @property
    def _state(self) -> Path:
        return self._folder / "state.safetensors"

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch}.safetensors"

    def _read_places(self, epoch: int) -> Tensor | None:
        """The kept choice of an epoch, none where it is missing or damaged."""
        found = self._read(self._path(epoch))
        if found is None:
            return None
        places = found[0]["places"].long()
        return places if tuple(places.shape) == self._shape else None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a file of this folder holds, none where it is missing, damaged or of another key."""
        if not path.exists():
            return None
        try:
            tensors, about = load_tensors(path)
        except InputError as error:
            _log.warning("%s is damaged and is made again: %s", path, error.rule)
            return None
        ours = {"key": self._key, "file": path.name, "checksum": _checksum(tensors, about)}
        if {**about, **ours} != about:
            _log.warning("%s is damaged or of another run, and is made again", path)
            return None
        return tensors, about

    def _write(self, path: Path, tensors: dict[str, Tensor], **facts: int) -> None:
        about = {"key": self._key, "file": path.name, **facts}
        save_tensors(path, tensors, about={**about, "checksum": _checksum(tensors, about)})


def _checksum(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Hexadecimal SHA-256 over tensors and facts, but for the checksum among these."""
    facts = {name: value for name, value in about.items() if name != "checksum"}
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
