"""Options of the training step against the same arithmetic in the test."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from support import TINY, enlarged, tiny_recipe
from torch import Tensor

from budgetnet.data import DataSet
from budgetnet.data.batches import BatchLoader
from budgetnet.data.on_device import to_device
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.augmentation import Augmentation, ColorJitter, Mixing, Policy
from budgetnet.runs.optimizer import OptimizerChoice
from budgetnet.runs.recipe import Recipe
from budgetnet.training.initialisation import initialise
from budgetnet.training.step import PRECISIONS, Execution, TrainingStep

JITTER = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
EVERYTHING = Augmentation(
    crop_padding=1, color_jitter=JITTER, policy=Policy(), cutout=2, mixing=Mixing(), alternating_flip=True
)


def make_training_step(
    dataset: DataSet,
    recipe: Recipe,
    *,
    spec: ModelSpec = TINY,
    count: int = 72,
    device: str = "cpu",
    precision: str = "float32",
    execution: Execution | None = None,
    sides: dict[int, int] | None = None,
) -> TrainingStep:
    chosen = np.arange(count)
    data = to_device(
        dataset.train_images, dataset.train_labels, chosen, device=device, mean=dataset.mean, std=dataset.std
    )
    side = sides.__getitem__ if sides else None
    loader = BatchLoader(data, recipe.augmentation, batch_size=recipe.batch_size, seed=2, side=side)
    network = initialise(spec, 1).to(device).to(memory_format=torch.channels_last)
    return TrainingStep(network, loader, recipe, precision=PRECISIONS[precision], execution=execution or Execution())


def losses(training_step: TrainingStep, epochs: int, *, rate: float = 0.05) -> list[float]:
    found = []
    for number in range(1, epochs + 1):
        training_step.begin(number, rates=[rate / step for step in range(1, len(training_step.loader.sizes) + 1)])
        for size in training_step.loader.sizes:
            training_step.train_batch(size)
        found.append(training_step.totals()[0])
    return found


def weights(training_step: TrainingStep) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in training_step.network.named_parameters()}


def log_probabilities(logits: Tensor) -> Tensor:
    doubled = logits.detach().double()
    return doubled - doubled.exp().sum(dim=1, keepdim=True).log()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixing", [None, Mixing(alpha=0.7), Mixing(kind="cutmix")])
def test_the_loss_is_the_cross_entropy_with_smoothed_and_mixed_labels(
    digits: DataSet, smoothing: float, mixing: Mixing | None
) -> None:
    augmentation = Augmentation(crop_padding=0, flip=False, mixing=mixing)
    recipe = tiny_recipe(batch_size=72, label_smoothing=smoothing, augmentation=augmentation)
    training_step = make_training_step(digits, recipe)
    batch = training_step.loader.batch(torch.tensor(0), size=72)
    logits = training_step.network.train()(batch.inputs)
    targets = torch.nn.functional.one_hot(batch.labels, 10).double()
    if batch.mixed_labels is not None and batch.share is not None:
        share = batch.share.double()
        targets = share * targets + (1 - share) * torch.nn.functional.one_hot(batch.mixed_labels, 10)
    targets = (1 - smoothing) * targets + smoothing / 10
    expected = -(targets * log_probabilities(logits)).sum(dim=1).mean()
    assert losses(make_training_step(digits, recipe), 1) == pytest.approx([expected.item()], rel=1e-5)


def test_nesterov_update_matches_its_formula(digits: DataSet) -> None:
    settings: dict[str, Any] = {"batch_size": 72, "momentum": 0.8, "weight_decay": 0.01}
    training_step = make_training_step(digits, tiny_recipe(nesterov=True, **settings))
    network = make_training_step(digits, tiny_recipe(**settings)).network.train()
    velocity = {name: torch.zeros_like(parameter) for name, parameter in network.named_parameters()}
    for number in (1, 2, 3):
        training_step.begin(number, rates=[0.05])
        batch = training_step.loader.batch(torch.tensor(0), size=72)
        network.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(batch.inputs), batch.labels))
        training_step.train_batch(72)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                slope = parameter.grad + 0.01 * parameter
                velocity[name] = 0.8 * velocity[name] + slope
                parameter.sub_(0.05 * (slope + 0.8 * velocity[name]))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(weights(training_step)[name], parameter.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("limit", [0.05, 0.2, 10.0])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_above_the_norm_are_scaled_to_it(digits: DataSet, limit: float, parts: int) -> None:
    """With a learning rate of 1 and plain SGD, the weights change by the gradient."""
    changes = []
    for clipping in (None, limit):
        recipe = tiny_recipe(batch_size=72, momentum=0.0, weight_decay=0.0, gradient_clipping=clipping)
        training_step = make_training_step(digits, recipe, execution=Execution(parts=parts))
        before = weights(training_step)
        losses(training_step, 1, rate=1.0)
        changes.append(torch.cat([(before[name] - each).flatten() for name, each in weights(training_step).items()]))
    free, clipped = (change.double() for change in changes)
    norm = free.square().sum().sqrt().item()
    assert 0.2 < norm < 10, "the test needs limits on both sides"
    torch.testing.assert_close(clipped, free * min(1.0, limit / norm), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixing", [None, Mixing(alpha=0.7)])
def test_class_weights_multiply_the_loss_of_each_image(
    digits: DataSet, smoothing: float, mixing: Mixing | None
) -> None:
    augmentation = Augmentation(crop_padding=0, flip=False, mixing=mixing)
    recipe = tiny_recipe(batch_size=72, label_smoothing=smoothing, augmentation=augmentation, class_weights="balanced")
    training_step = make_training_step(digits, recipe)
    classes = list(range(10))
    weights = compute_class_weight("balanced", classes=np.array(classes), y=digits.train_labels[:72])
    assert max(weights) > 1.3 * min(weights), "the images are not balanced"
    batch = training_step.loader.batch(torch.tensor(0), size=72)
    scores = log_probabilities(training_step.network.train()(batch.inputs)).numpy()
    share = 1.0 if batch.share is None else float(batch.share)
    mixed = batch.labels if batch.mixed_labels is None else batch.mixed_labels
    expected = 0.0
    for row, first, second in zip(scores, batch.labels.tolist(), mixed.tolist(), strict=True):
        for label, part in ((first, share), (second, 1 - share)):
            smooth = -(1 - smoothing) * row[label] - smoothing * row.mean()
            expected += part * weights[label] * smooth / 72
    assert losses(training_step, 1) == pytest.approx([expected], rel=1e-5)


def test_class_weights_do_not_depend_on_the_parts_of_a_batch(digits: DataSet) -> None:
    recipe = tiny_recipe(batch_size=72, class_weights="balanced")
    whole, parts = (make_training_step(digits, recipe, execution=Execution(parts=count)) for count in (1, 3))
    for step in (whole, parts):
        step.network.eval()
    batch = whole.loader.batch(torch.tensor(0), size=72)
    with torch.no_grad():
        total = sum(parts._mean_loss(parts.network(each.inputs), each) * len(each.labels) for each in batch.parts(3))
        expected = whole._mean_loss(whole.network(batch.inputs), batch)
    torch.testing.assert_close(total / 72, expected)


def test_the_moving_average_matches_its_formula(digits: DataSet) -> None:
    training_step = make_training_step(digits, tiny_recipe(weight_average=0.3))
    assert training_step.average is not None
    expected = {name: tensor.clone().double() for name, tensor in training_step.network.state_dict().items()}
    for number in (1, 2):
        training_step.begin(number, rates=[0.05] * 5)
        for step, size in enumerate(training_step.loader.sizes, 5 * (number - 1) + 1):
            training_step.train_batch(size)
            decay = min(0.3, (1 + step) / (10 + step))
            for name, tensor in training_step.network.state_dict().items():
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    assert len(training_step.loader.sizes) == 5
    assert (1 + 1) / (10 + 1) < 0.3 < (1 + 10) / (10 + 10), "the test must cover both branches of the minimum"
    for name, tensor in training_step.average.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
    assert not any(parameter.requires_grad for parameter in training_step.average.parameters())


def test_steps_use_the_learning_rates_in_order(digits: DataSet) -> None:
    """With learning rates of zero except the last, only the last step changes the weights."""
    training_step = make_training_step(digits, tiny_recipe(momentum=0.0, weight_decay=0.0))
    training_step.begin(1, rates=[0.0, 0.0, 0.0, 0.0, 0.05])
    before = weights(training_step)
    for step, size in enumerate(training_step.loader.sizes):
        training_step.train_batch(size)
        moved = any(not torch.equal(tensor, before[name]) for name, tensor in weights(training_step).items())
        assert moved == (step == 4)


def test_a_different_image_size_uses_a_new_graph(digits: DataSet) -> None:
    """A CUDA graph is captured for one image size; a new size starts again with direct calls."""
    training_step = make_training_step(enlarged(digits), tiny_recipe(), sides={1: 8, 2: 12, 3: 12, 4: 16})
    steps = []
    for number in range(1, 5):
        training_step.begin(number, rates=[0.05] * 5)
        steps.append(training_step.full_step)
        training_step.train_batch(16)
    assert [one is other for one, other in pairwise(steps)] == [False, True, False]
    assert steps[0].fallback_reason == steps[1].fallback_reason == "released"


def test_losses_in_bfloat16_are_close_to_float32(digits: DataSet) -> None:
    spec = ModelSpec.resnet(channels=[16, 32], input_shape=(1, 8, 8))
    recipe = tiny_recipe(batch_size=32)
    found = {
        name: losses(make_training_step(digits, recipe, spec=spec, precision=name, count=512), 3) for name in PRECISIONS
    }
    assert found["bfloat16"] != found["float32"], "equal losses would mean that bfloat16 is not used"
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.03)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_losses(digits: DataSet) -> None:
    recipe = tiny_recipe()
    plain = losses(make_training_step(digits, recipe), 2)
    assert losses(make_training_step(digits, recipe, execution=Execution(compile=True)), 2) == pytest.approx(
        plain, rel=1e-4
    )


def on_gpu(
    digits: DataSet,
    recipe: Recipe,
    *,
    precision: str = "float32",
    record: bool = True,
    sides: dict[int, int] | None = None,
) -> TrainingStep:
    spec = ModelSpec.resnet(channels=[16, 32], block="preact", input_shape=(1, 8, 8))
    execution = Execution(record=record, autotune=False)
    return make_training_step(
        digits, recipe, spec=spec, count=520, device="cuda", precision=precision, execution=execution, sides=sides
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_graphed_steps_give_the_same_losses_as_direct_calls(
    digits: DataSet, precision: str, augmentation: Augmentation, optimizer: Any
) -> None:
    options: dict[str, Any] = (
        {"nesterov": True} if optimizer == "sgd" else {"optimizer": OptimizerChoice(kind=optimizer)}
    )
    options |= {"learning_rate": 0.05, "augmentation": augmentation, "weight_average": 0.9, "gradient_clipping": 1.0}
    recipe = tiny_recipe(batch_size=32, **options)
    graphed, plain = (on_gpu(digits, recipe, precision=precision, record=record) for record in (True, False))
    assert losses(graphed, 3) == pytest.approx(losses(plain, 3), rel=1e-3 if precision == "float32" else 0.02)
    assert graphed.full_step.captured
    assert not plain.full_step.captured
    assert graphed.updates == plain.updates == 3 * 17


@pytest.mark.gpu
def test_steps_are_captured_again_for_a_different_image_size(digits: DataSet) -> None:
    recipe = tiny_recipe(batch_size=32, augmentation=EVERYTHING)
    training_steps = [
        on_gpu(enlarged(digits), recipe, record=record, sides={1: 8, 2: 12, 3: 12}) for record in (True, False)
    ]
    graphed, plain = (losses(training_step, 3) for training_step in training_steps)
    assert graphed == pytest.approx(plain, rel=1e-3)
    assert training_steps[0].full_step.captured


@pytest.mark.gpu
def test_losses_on_gpu_and_cpu_are_equal(digits: DataSet) -> None:
    """All images in one batch, as random streams differ between devices."""
    recipe = tiny_recipe(batch_size=72)
    found = {device: losses(make_training_step(digits, recipe, device=device), 4) for device in ("cpu", "cuda")}
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_synchronises_with_the_device(digits: DataSet, optimizer: Any) -> None:
    options: dict[str, Any] = {"augmentation": EVERYTHING, "weight_average": 0.9, "gradient_clipping": 1.0}
    options["stochastic_depth"] = 0.2
    recipe = tiny_recipe(batch_size=32, optimizer=OptimizerChoice(kind=optimizer), **options)
    training_step = on_gpu(digits, recipe, record=False)
    losses(training_step, 1)
    training_step.begin(2, rates=[0.05] * 17)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for size in training_step.loader.sizes:
            training_step.train_batch(size)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def without_norms(training_step: TrainingStep) -> TrainingStep:
    """Put batch norm into evaluation mode, so that an image's loss does not depend on other images."""
    for module in training_step.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda *_, norm=module: norm  # type: ignore[method-assign]
            module.training = False
    return training_step


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_gradients_of_parts_sum_to_the_gradient_of_the_batch(digits: DataSet, parts: int) -> None:
    mixed = Augmentation(crop_padding=0, flip=False, mixing=Mixing(kind="cutmix"))
    # Batches of 16 and a last one of 8: neither is divided evenly by 3 or 7.
    recipe = tiny_recipe(batch_size=16, label_smoothing=0.1, augmentation=mixed)
    whole = without_norms(make_training_step(digits, recipe))
    cut = without_norms(make_training_step(digits, recipe, execution=Execution(parts=parts)))
    assert losses(cut, 2) == pytest.approx(losses(whole, 2), rel=1e-5)
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], expected, rtol=1e-4, atol=1e-6, msg=name)
    assert cut.totals()[1] == whole.totals()[1]


def test_a_batch_is_divided_into_parts_of_at_least_two_images(digits: DataSet) -> None:
    batch = make_training_step(
        digits, tiny_recipe(batch_size=5, augmentation=Augmentation(mixing=Mixing()))
    ).loader.batch(torch.tensor(0), size=5)
    assert [len(part.labels) for part in batch.parts(2)] == [3, 2]
    assert [len(part.labels) for part in batch.parts(4)] == [3, 2], "batch norm needs two images"
    assert batch.parts(1) == [batch]
    first, second = batch.parts(2)
    assert torch.equal(torch.cat([first.inputs, second.inputs]), batch.inputs)
    assert torch.equal(torch.cat([first.labels, second.labels]), batch.labels)
    assert first.mixed_labels is not None
    assert second.mixed_labels is not None
    assert batch.mixed_labels is not None
    assert torch.equal(torch.cat([first.mixed_labels, second.mixed_labels]), batch.mixed_labels)
