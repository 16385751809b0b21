"""Each option of a step against the same arithmetic written by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from support import TINY, enlarged, tiny_recipe
from torch import Tensor

from budgetnet.data import DataSet
from budgetnet.data.batches import Feed
from budgetnet.data.on_device import resident
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, Mixing, Policy
from budgetnet.runs.recipe import Recipe
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, Learner

EVERYTHING = Augmentation(crop_padding=1, policy=Policy(), cutout=2, mixing=Mixing(), alternating_flip=True)


def learner_of(
    dataset: DataSet,
    recipe: Recipe,
    *,
    spec: ModelSpec = TINY,
    count: int = 72,
    device: str = "cpu",
    precision: str = "float32",
    execution: Execution | None = None,
    sides: dict[int, int] | None = None,
) -> Learner:
    chosen = np.arange(count)
    data = resident(
        dataset.train_images, dataset.train_labels, chosen, device=device, mean=dataset.mean, std=dataset.std
    )
    side = sides.__getitem__ if sides else None
    feed = Feed(data, recipe.augmentation, batch_size=recipe.batch_size, seed=2, side=side)
    network = initialise(spec, 1).to(device).to(memory_format=torch.channels_last)
    return Learner(network, feed, recipe, precision=PRECISIONS[precision], execution=execution or Execution())


def losses(learner: Learner, epochs: int, *, rate: float = 0.05) -> list[float]:
    found = []
    for number in range(1, epochs + 1):
        learner.begin(number, rates=[rate / step for step in range(1, len(learner.feed.sizes) + 1)])
        for size in learner.feed.sizes:
            learner.learn(size)
        found.append(learner.totals()[0])
    return found


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}


def log_shares(logits: Tensor) -> Tensor:
    doubled = logits.detach().double()
    return doubled - doubled.exp().sum(dim=1, keepdim=True).log()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixing", [None, Mixing(alpha=0.7), Mixing(kind="cutmix")])
def test_the_loss_is_the_cross_entropy_with_the_smoothed_and_mixed_labels(
    digits: DataSet, smoothing: float, mixing: Mixing | None
) -> None:
    augmentation = Augmentation(crop_padding=0, flip=False, mixing=mixing)
    recipe = tiny_recipe(batch_size=72, label_smoothing=smoothing, augmentation=augmentation)
    learner = learner_of(digits, recipe)
    batch = learner.feed.batch(torch.tensor(0), size=72)
    logits = learner.network.train()(batch.inputs)
    targets = torch.nn.functional.one_hot(batch.labels, 10).double()
    if batch.mixed_in is not None and batch.share is not None:
        share = batch.share.double()
        targets = share * targets + (1 - share) * torch.nn.functional.one_hot(batch.mixed_in, 10)
    targets = (1 - smoothing) * targets + smoothing / 10
    expected = -(targets * log_shares(logits)).sum(dim=1).mean()
    assert losses(learner_of(digits, recipe), 1) == pytest.approx([expected.item()], rel=1e-5)


def test_nesterovs_step_looks_ahead_along_the_momentum(digits: DataSet) -> None:
    settings: dict[str, Any] = {"batch_size": 72, "momentum": 0.8, "weight_decay": 0.01}
    learner = learner_of(digits, tiny_recipe(nesterov=True, **settings))
    network = learner_of(digits, tiny_recipe(**settings)).network.train()
    velocity = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    for number in (1, 2, 3):
        learner.begin(number, rates=[0.05])
        batch = learner.feed.batch(torch.tensor(0), size=72)
        network.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(batch.inputs), batch.labels))
        learner.learn(72)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                slope = parameter.grad + 0.01 * parameter
                velocity[name] = 0.8 * velocity[name] + slope
                parameter.sub_(0.05 * (slope + 0.8 * velocity[name]))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(weights(learner)[name], parameter.detach(), rtol=1e-3, atol=1e-5)


def test_the_average_moves_by_its_decay_after_every_step_faster_at_first(digits: DataSet) -> None:
    learner = learner_of(digits, tiny_recipe(weight_average=0.3))
    assert learner.average is not None
    expected = {name: tensor.clone().double() for name, tensor in learner.network.state_dict().items()}
    for number in (1, 2):
        learner.begin(number, rates=[0.05] * 5)
        for step, size in enumerate(learner.feed.sizes, 5 * (number - 1) + 1):
            learner.learn(size)
            decay = min(0.3, (1 + step) / (10 + step))
            for name, tensor in learner.network.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    assert len(learner.feed.sizes) == 5
    assert (1 + 1) / (10 + 1) < 0.3 < (1 + 10) / (10 + 10), "the case must reach the decay"
    for name, tensor in learner.average.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert not any(parameter.requires_grad for parameter in learner.average.parameters())


def test_steps_use_the_rates_in_their_order(digits: DataSet) -> None:
    """With the first rates at zero the weights stand still, and move with the last."""
    learner = learner_of(digits, tiny_recipe(momentum=0.0, weight_decay=0.0))
    learner.begin(1, rates=[0.0, 0.0, 0.0, 0.0, 0.05])
    before = weights(learner)
    for step, size in enumerate(learner.feed.sizes):
        learner.learn(size)
        moved = any(not torch.equal(tensor, before[name]) for name, tensor in weights(learner).items())
        assert moved == (step == 4)


def test_steps_of_another_size_are_another_recording(digits: DataSet) -> None:
    """Recorded work is of images of one size, so that another size begins with plain steps again."""
    learner = learner_of(enlarged(digits), tiny_recipe(), sides={1: 8, 2: 12, 3: 12, 4: 16})
    steps = []
    for number in range(1, 5):
        learner.begin(number, rates=[0.05] * 5)
        steps.append(learner.full_step)
        learner.learn(16)
    assert [one is other for one, other in pairwise(steps)] == [False, True, False]
    assert steps[0].refused == steps[1].refused == "released"


def test_bfloat16_gives_nearly_the_losses_of_float32(digits: DataSet) -> None:
    spec = ModelSpec.resnet(channels=[16, 32], input_shape=(1, 8, 8))
    recipe = tiny_recipe(batch_size=32)
    found = {name: losses(learner_of(digits, recipe, spec=spec, precision=name, count=512), 3) for name in PRECISIONS}
    assert found["bfloat16"] != found["float32"], "or nothing was computed in bfloat16"
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.03)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_losses(digits: DataSet) -> None:
    recipe = tiny_recipe()
    plain = losses(learner_of(digits, recipe), 2)
    assert losses(learner_of(digits, recipe, execution=Execution(compile=True)), 2) == pytest.approx(plain, rel=1e-4)


def on_gpu(
    digits: DataSet,
    recipe: Recipe,
    *,
    precision: str = "float32",
    record: bool = True,
    sides: dict[int, int] | None = None,
) -> Learner:
    spec = ModelSpec.resnet(channels=[16, 32], block="preact", input_shape=(1, 8, 8))
    execution = Execution(record=record, autotune=False)
    return learner_of(
        digits, recipe, spec=spec, count=520, device="cuda", precision=precision, execution=execution, sides=sides
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_recorded_steps_give_the_losses_of_plain_ones(
    digits: DataSet, precision: str, augmentation: Augmentation
) -> None:
    recipe = tiny_recipe(batch_size=32, augmentation=augmentation, nesterov=True, weight_average=0.9)
    recorded, plain = (on_gpu(digits, recipe, precision=precision, record=record) for record in (True, False))
    assert losses(recorded, 3) == pytest.approx(losses(plain, 3), rel=1e-3 if precision == "float32" else 0.02)
    assert recorded.full_step.replays
    assert not plain.full_step.replays
    assert recorded.updates == plain.updates == 3 * 17


@pytest.mark.gpu
def test_steps_are_recorded_anew_for_images_of_another_size(digits: DataSet) -> None:
    recipe = tiny_recipe(batch_size=32, augmentation=EVERYTHING)
    learners = [on_gpu(enlarged(digits), recipe, record=record, sides={1: 8, 2: 12, 3: 12}) for record in (True, False)]
    recorded, plain = (losses(learner, 3) for learner in learners)
    assert recorded == pytest.approx(plain, rel=1e-3)
    assert learners[0].full_step.replays


@pytest.mark.gpu
def test_the_gpu_gives_the_losses_of_the_cpu(digits: DataSet) -> None:
    """Without chance, whose streams differ from device to device: all images in one batch."""
    recipe = tiny_recipe(batch_size=72)
    found = {device: losses(learner_of(digits, recipe, device=device), 4) for device in ("cpu", "cuda")}
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_waits_for_the_device(digits: DataSet) -> None:
    recipe = tiny_recipe(batch_size=32, augmentation=EVERYTHING, weight_average=0.9)
    learner = on_gpu(digits, recipe, record=False)
    losses(learner, 1)
    learner.begin(2, rates=[0.05] * 17)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for size in learner.feed.sizes:
            learner.learn(size)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def without_norms(learner: Learner) -> Learner:
    """The learner with fixed scales in place of batch norm, so that an image's loss hangs on no other image."""
    for module in learner.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda *_, norm=module: norm  # type: ignore[method-assign]
            module.training = False
    return learner


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_gradients_of_parts_add_up_to_those_of_the_batch(digits: DataSet, parts: int) -> None:
    mixed = Augmentation(crop_padding=0, flip=False, mixing=Mixing(kind="cutmix"))
    # Batches of 16 and a last one of 8: neither is divided evenly by 3 or 7.
    recipe = tiny_recipe(batch_size=16, label_smoothing=0.1, augmentation=mixed)
    whole = without_norms(learner_of(digits, recipe))
    cut = without_norms(learner_of(digits, recipe, execution=Execution(parts=parts)))
    assert losses(cut, 2) == pytest.approx(losses(whole, 2), rel=1e-5)
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert cut.totals()[1] == whole.totals()[1]


def test_a_batch_is_cut_into_parts_that_batch_norm_can_take(digits: DataSet) -> None:
    batch = learner_of(digits, tiny_recipe(batch_size=5, augmentation=Augmentation(mixing=Mixing()))).feed.batch(
        torch.tensor(0), size=5
    )
    assert [len(part.labels) for part in batch.parts(2)] == [3, 2]
    assert [len(part.labels) for part in batch.parts(4)] == [3, 2], "a part of one image has no variance"
    assert batch.parts(1) == [batch]
    first, second = batch.parts(2)
    assert torch.equal(torch.cat([first.inputs, second.inputs]), batch.inputs)
    assert torch.equal(torch.cat([first.labels, second.labels]), batch.labels)
    assert first.mixed_in is not None
    assert second.mixed_in is not None
    assert batch.mixed_in is not None
    assert torch.equal(torch.cat([first.mixed_in, second.mixed_in]), batch.mixed_in)
