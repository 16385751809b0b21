"""Example filtering: a small proxy network selects the hard images of each batch for training.

After Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU". Before each epoch the proxy processes all batches
of the epoch and stores the positions of the selected images in each batch; then the run's network is trained on those.
The selection depends on data, recipe, seed, precision, device and number of threads, but not on the run's network. It
is cached next to the run folders and shared by all runs with the same key:

    proxies/KEY/epoch-N.safetensors   positions of the selected images in each batch of epoch N
    proxies/KEY/state.safetensors     the proxy after the last epoch that it was trained for

Files are written atomically with a checksum; a damaged file is recomputed. A file lock keeps processes from computing
the same selection twice. Workers of a Ray cluster copy the files from and to the store of runs instead.
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
from budgetnet.common.files import remove_partial_files
from budgetnet.common.seeding import derive_seed
from budgetnet.data.batches import Batch, BatchLoader
from budgetnet.model.proxy import proxy_spec
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import ExampleFilter
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import RunIdentity
from budgetnet.training.checkpoint import load_tensors, save_tensors
from budgetnet.training.cuda_graph import GraphedCallable
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep
from budgetnet.training.validation import autocast

_log = logging.getLogger(__name__)

PROXIES = "proxies"
"""Name of the cache folder."""
_VERSION = 1
"""Version of the proxy and its files; to be increased by a change that selects different images."""
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
    "stochastic_depth",
}
"""Recipe fields that do not affect the proxy; the precision enters the key as chosen for the run."""


def proxy_key(identity: RunIdentity) -> str:
    """Return the cache key of a run's selection, 16 hexadecimal digits.

    Runs that differ only in their networks have the same key.
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
        # On a CPU, the last bits of the losses depend on the number of threads.
        "threads": torch.get_num_threads() if identity.device == "cpu" else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Proxy(TrainingStep):
    """Proxy network: computes the losses of every batch of an epoch, trains on some, and stores the hardest images."""

    def __init__(
        self,
        network: nn.Module,
        loader: BatchLoader,
        recipe: Recipe,
        example_filter: ExampleFilter,
        *,
        precision: torch.dtype,
        execution: Execution,
    ) -> None:
        """Create the proxy's training step.

        Args:
            network: on the loader's device, its weights changed in place.
            loader: loader of unfiltered batches.
            recipe: recipe of the run.
            example_filter: share of images to keep, and how often the proxy is trained.
            precision: precision of convolutions and matrix products.
            execution: execution settings; ``parts`` and ``compile`` are ignored.
        """
        without = {"weight_average": None, "lookahead": None, "example_filter": None, "stochastic_depth": 0.0}
        plain = recipe.model_copy(update=without)
        super().__init__(
            network, loader, plain, precision=precision, execution=execution._replace(parts=1, compile=False)
        )
        self._filter = example_filter
        shape = len(loader.sizes), example_filter.kept(loader.sizes[0])
        self._positions = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self._full_forward = self._graphed_forward()

    def choose(self, epoch: int, *, rates: list[float]) -> Tensor:
        """Process one epoch and select images.

        Args:
            epoch: counted from 1.
            rates: learning rate of each step.

        Returns:
            int64 (steps, images kept of the first batch), on the CPU: positions of the images with the highest loss in
            each batch, in ascending order; rows of smaller batches are padded with zeros.
        """
        previous_step = self.full_step
        self.begin(epoch, rates=rates)
        if self.full_step is not previous_step:
            self._full_forward.release()
            self._full_forward = self._graphed_forward()
        for step, size in enumerate(self.loader.sizes):
            if step % self._filter.backward_every == 0:
                self.train_batch(size)
            elif size == self.loader.batch_size:
                self._full_forward()
            else:
                self._forward_batch(size)
        return self._positions.cpu()

    def release(self) -> None:
        """Free the memory of CUDA graphs; the proxy cannot be used afterwards."""
        super().release()
        self._full_forward.release()

    def _graphed_forward(self) -> GraphedCallable:
        return GraphedCallable(
            lambda: self._forward_batch(self.loader.batch_size), device=self.device, record=self._record
        )

    @torch.no_grad()
    def _forward_batch(self, size: int) -> None:
        """Select images of the next batch without training on it."""
        batch = self.loader.batch(self._step, size=size)
        with autocast(self.device, self.precision):
            logits = self.network(batch.inputs)
        self._store_hardest(self._cross_entropy(logits.float(), batch, reduction="none"))
        self._step += 1

    def _mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = self._cross_entropy(logits, batch, reduction="none")
        self._store_hardest(losses.detach())
        return losses.mean()

    def _store_hardest(self, losses: Tensor) -> None:
        """Store the positions of a batch's highest losses."""
        hardest = losses.topk(self._filter.kept(len(losses)), sorted=False).indices.sort().values
        row = functional.pad(hardest, (0, self._positions.shape[1] - len(hardest)))
        self._positions.index_copy_(0, self._step.view(1), row[None])


class ExampleSelection:
    """Selected images of each batch of a run, read from the cache or computed by a proxy and then cached."""

    def __init__(
        self,
        identity: RunIdentity,
        loader: BatchLoader,
        *,
        out: Path,
        network: Callable[[ModelSpec, int], nn.Module],
        rates: Callable[[int], list[float]],
        begin: Callable[[int], None],
        execution: Execution,
    ) -> None:
        """Create the selection; nothing is read or computed yet.

        Args:
            identity: identity of the run.
            loader: loader of unfiltered batches, with the images, settings and seed of the run.
            out: folder of run folders.
            network: builds an initialised network from a specification and a seed.
            rates: returns the learning rates of an epoch's steps.
            begin: prepares the training images of an epoch, if they change between epochs.
            execution: execution settings.

        Raises:
            InputError: the images are too small for the proxy.
        """
        self._identity, self._loader, self._network, self._execution = identity, loader, network, execution
        self._rates, self._begin = rates, begin
        self._filter = identity.recipe.example_filter or ExampleFilter()
        self._key = proxy_key(identity)
        self._folder = out / PROXIES / self._key
        self._shape = len(loader.sizes), self._filter.kept(loader.sizes[0])
        self._proxy: Proxy | None = None
        self._epoch = 0
        """Epochs that the proxy in memory has been trained for."""

    def positions(self, epoch: int) -> Tensor:
        """Return the positions of the selected images in each batch of an epoch.

        Args:
            epoch: counted from 1.

        Returns:
            int64 (steps, images kept of the first batch), see `Proxy.choose`.
        """
        found = self._read_positions(epoch)
        if found is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock"):
                # Another process may have computed it while this one waited for the lock.
                found = self._read_positions(epoch)
                if found is None:
                    remove_partial_files(self._folder)
                    found = self._choose(epoch)
        return found

    def release(self) -> None:
        """Free the proxy's memory, if there is one."""
        if self._proxy is not None:
            self._proxy.release()
            self._proxy, self._epoch = None, 0

    def _choose(self, epoch: int) -> Tensor:
        """Train the proxy up to an epoch, from its latest usable state, and cache the selection of every epoch."""
        if self._epoch >= epoch:
            self.release()
        proxy = self._proxy or self._create_proxy()
        stored = self._read(self._state) if self._epoch < epoch - 1 or self._proxy is None else None
        if stored is not None and self._epoch < stored[1]["epoch"] < epoch:
            proxy.restore(stored[0])
            self._epoch, proxy.updates = stored[1]["epoch"], stored[1]["updates"]
        self._proxy, positions = proxy, torch.empty(0)
        for number in range(self._epoch + 1, epoch + 1):
            self._begin(number)
            positions = proxy.choose(number, rates=self._rates(number))
            self._epoch = number
            if self._read_positions(number) is None:
                self._write(self._path(number), {"places": positions.to(torch.int32)}, epoch=number)
        if stored is None or stored[1]["epoch"] < epoch:
            self._write(self._state, proxy.state(), epoch=epoch, updates=proxy.updates)
        return positions

    def _create_proxy(self) -> Proxy:
        """Return an untrained proxy."""
        identity = self._identity
        spec = proxy_spec(input_shape=identity.spec.input_shape, num_classes=identity.spec.num_classes)
        network = self._network(spec, derive_seed(identity.seed, "proxy")).to(self._loader.device)
        return Proxy(
            network.to(memory_format=torch.channels_last),
            self._loader,
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

    def _read_positions(self, epoch: int) -> Tensor | None:
        """Return the cached selection of an epoch, or None if it is missing or damaged."""
        found = self._read(self._path(epoch))
        if found is None:
            return None
        positions = found[0]["places"].long()
        return positions if tuple(positions.shape) == self._shape else None

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and metadata of a cache file, or None if it is missing, damaged or of another key."""
        if not path.exists():
            return None
        try:
            tensors, about = load_tensors(path)
        except InputError as error:
            _log.warning("%s is damaged and will be recomputed: %s", path, error.rule)
            return None
        expected = {"key": self._key, "file": path.name, "checksum": _checksum(tensors, about)}
        if {**about, **expected} != about:
            _log.warning("%s is damaged or of another run, and will be recomputed", path)
            return None
        return tensors, about

    def _write(self, path: Path, tensors: dict[str, Tensor], **metadata: int) -> None:
        about = {"key": self._key, "file": path.name, **metadata}
        save_tensors(path, tensors, about={**about, "checksum": _checksum(tensors, about)})


def _checksum(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Return the hexadecimal SHA-256 of tensors and metadata, except the checksum in the metadata."""
    metadata = {name: value for name, value in about.items() if name != "checksum"}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
