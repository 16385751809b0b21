"""Predicted memory of training steps against the tensors of real ones."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given
from strategies import examples, specs
from support import tiny_recipe
from torch import Tensor

from budgetnet.data.batches import BatchLoader
from budgetnet.data.on_device import OnDeviceImages
from budgetnet.model import zoo
from budgetnet.model.kept_maps import Precision
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.training_memory import TrainingMemory, training_memory
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep

IMAGES = 8
SMALL: dict[str, Any] = {"channels": [16, 24, 32], "blocks": [1, 2, 1], "input_shape": (3, 17, 17)}
PLAIN: dict[str, Any] = {"batch_size": IMAGES}


def step_of(spec: ModelSpec, recipe: Recipe, precision: Precision, *, parts: int = 1) -> TrainingStep:
    """A training step of a network on random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * IMAGES, *spec.input_shape), dtype=torch.uint8, generator=generator)
    channels = spec.input_shape[0]
    data = OnDeviceImages(
        images=images,
        labels=torch.arange(len(images)) % spec.num_classes,
        mean=torch.full((channels,), 0.5),
        std=torch.full((channels,), 0.25),
    )
    loader = BatchLoader(data, recipe.augmentation, batch_size=IMAGES, seed=0)
    network = initialise(spec, 0).to(memory_format=torch.channels_last)
    execution = Execution(parts=parts)
    step = TrainingStep(network, loader, recipe, precision=PRECISIONS[precision], execution=execution)
    step.begin(1, rates=[0.01] * len(loader.sizes))
    return step


def bytes_of(*tensors: Tensor) -> int:
    """Bytes of the storages of tensors, each counted once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())


def measured(spec: ModelSpec, recipe: Recipe, precision: Precision) -> TrainingMemory:
    """The memory of a real step: of all tensors that exist after it, and that autograd kept in its forward pass."""
    step = step_of(spec, recipe, precision)
    own = [*step.network.parameters(), *step.network.buffers()]
    # Kept alive, so that no storage is used again.
    known, kept = {each.untyped_storage().data_ptr() for each in own}, []
    batch = step.loader.batch(torch.tensor(0), size=IMAGES)
    step.loader.batch = lambda *_, **__: batch  # type: ignore[method-assign]
    known.add(batch.inputs.untyped_storage().data_ptr())

    def pack(saved: Tensor) -> Tensor:
        if saved.untyped_storage().data_ptr() not in known:
            kept.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        step._train_batch(IMAGES)
    average = [] if step.average is None else [*step.average.parameters(), *step.average.buffers()]
    slow = [] if step.slow_weights is None else list(step.slow_weights.average.values())
    return TrainingMemory(
        weights=bytes_of(*own),
        copies=bytes_of(*average) + bytes_of(*slow),
        optimizer=sum(each.numel() * 4 for name, each in step.optimizer.state().items() if name != "steps"),
        gradients=sum(4 * each.numel() for each in step.network.parameters() if each.grad is not None),
        kept=bytes_of(*kept),
        images=bytes_of(batch.inputs),
    )


def require_equal(spec: ModelSpec, recipe: Recipe, precision: Precision) -> None:
    """Only numbers for each image of the batch, and for the batch, may be missing from what autograd keeps."""
    predicted, real = training_memory(spec, recipe, precision=precision), measured(spec, recipe, precision)
    assert predicted._replace(kept=0) == real._replace(kept=0)
    assert 0 <= real.kept - predicted.kept <= 64 * IMAGES


def small(**settings: Any) -> ModelSpec:
    return ModelSpec.resnet(**{**SMALL, **settings})


def with_stem(**settings: Any) -> ModelSpec:
    return ModelSpec.from_mapping({**small().to_mapping(), "stem": {**small().stem.to_mapping(), **settings}})


def with_head(**settings: Any) -> ModelSpec:
    return ModelSpec.from_mapping({**small().to_mapping(), "head": {**small().head.to_mapping(), **settings}})


NETWORKS = {
    "basic": small(),
    "preact": small(block="preact"),
    "bottleneck": small(block="bottleneck"),
    "preact bottleneck": small(block="preact-bottleneck", activation="silu"),
    "inverted": zoo.get("mobilenet-v2"),
    "squeeze-and-excitation": small(squeeze_excitation_ratio=0.25),
    "gelu": small(activation="gelu"),
    "relu6": small(activation="relu6"),
    "max pooling": small(downsampling="max-pool", squeeze_excitation_ratio=0.25, activation="gelu"),
    "padding": small(shortcut="padding"),
    "no shortcut": small(shortcut="none"),
    "average pooling": small(shortcut="average-pool"),
    "identity": small(shortcut="identity"),
    "block dropout": small(block_dropout=0.1),
    "whitening": with_stem(whitening=2),
    "stem of several": with_stem(inner_channels=[8, 8], stride=2, pool_size=3, pool_stride=2),
    "stem with attention": with_stem(squeeze_excitation_ratio=0.5, pool_size=2, pool_stride=2),
    "largest pixel": with_head(pooling="max", dropout=0.1),
    "windows": with_head(pool_size=2, channels=40, scale=0.5),
    "largest of windows": with_head(pooling="max", pool_size=2),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd without momentum": {"momentum": 0},
    "muon": {"momentum": 0, "muon": {}, "freeze_norm_scales": True},
    "adam": {"optimizer": {"kind": "adam"}, "weight_average": 0.9},
    "adamw with muon": {"optimizer": {"kind": "adamw"}, "muon": {}, "lookahead": {}},
    "mixing": {"augmentation": {"mixing": {}}, "label_smoothing": 0.1},
    "stochastic depth": {"stochastic_depth": 0.3, "class_weights": "balanced"},
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_kind_of_network_needs_what_was_predicted(network: str, precision: Precision) -> None:
    require_equal(NETWORKS[network], tiny_recipe(**PLAIN), precision)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_of_the_optimiser_is_counted(options: str) -> None:
    require_equal(with_stem(whitening=2), tiny_recipe(**{**PLAIN, **OPTIONS[options]}), "bfloat16")


@examples(60)
@given(specs())
def test_any_network_needs_what_was_predicted(spec: ModelSpec) -> None:
    require_equal(spec, tiny_recipe(**PLAIN), "float32")


def peak_of(spec: ModelSpec, recipe: Recipe, precision: Precision) -> int:
    """The most bytes that torch's allocator holds at once in a step, by torch's profiler."""
    step = step_of(spec, recipe, precision)
    step._train_batch(IMAGES)
    step.optimizer.zero_grad()
    own = [*step.network.parameters(), *step.network.buffers(), *step.optimizer.state().values()]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step._train_batch(IMAGES)
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return bytes_of(*own) + max(accumulate(int(event.nbytes()) for event in events))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", ["reference", "resnet20", "mobilenet-v2"])
def test_the_sum_is_near_the_peak_of_the_allocator(network: str, precision: Precision) -> None:
    spec, recipe = zoo.get(network), tiny_recipe(**PLAIN)
    predicted = training_memory(spec, recipe, precision=precision).total
    assert 0.95 < predicted / peak_of(spec, recipe, precision) < 1.15


def test_a_batch_in_parts_keeps_less() -> None:
    spec, recipe = NETWORKS["basic"], tiny_recipe(**PLAIN)
    whole, half, most = (training_memory(spec, recipe, precision="float32", parts=parts) for parts in (1, 2, 100))
    assert half.kept < 0.6 * whole.kept
    assert most.kept > whole.kept / 5, "batch norm needs two images"
    assert whole._replace(kept=0) == half._replace(kept=0)


def test_examples_that_are_filtered_out_are_not_counted() -> None:
    spec = NETWORKS["basic"]
    recipe = tiny_recipe(**PLAIN, example_filter={"keep": 0.5})
    half = tiny_recipe(batch_size=IMAGES // 2)
    assert training_memory(spec, recipe, precision="float32") == training_memory(spec, half, precision="float32")
