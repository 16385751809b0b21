"""Built networks against reference implementations in plain torch: the same weights give the same logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from export_support import randomise_batch_norm
from torch import Tensor, nn
from torch.nn import functional

from budgetnet.model import zoo
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec


def conv(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, padding=(size - 1) // 2, groups=groups, bias=False)


class PlainBasic(nn.Module):
    """Basic block (He et al. 2015) with a projection if the shape changes (option B)."""

    def __init__(self, before: int, after: int, stride: int, sizes: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        self.a, self.a_norm = conv(before, after, sizes[0], stride), nn.BatchNorm2d(after)
        self.b, self.b_norm = conv(after, after, sizes[1]), nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a_norm(self.a(x)))
        return torch.relu(self.b_norm(self.b(y)) + self.shortcut(x))


class PlainPreact(nn.Module):
    """Pre-activation block (He et al. 2016; Zagoruyko and Komodakis 2016) with a projection of the activated input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.a, self.a_norm = conv(before, after, 3, stride), nn.BatchNorm2d(before)
        self.b, self.b_norm = conv(after, after, 3), nn.BatchNorm2d(after)
        self.shortcut = conv(before, after, 1, stride) if stride != 1 or before != after else None

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.a_norm(x))
        y: Tensor = self.b(torch.relu(self.b_norm(self.a(activated))))
        return y + (x if self.shortcut is None else self.shortcut(activated))


class PlainBottleneck(nn.Module):
    """Bottleneck (He et al. 2015) with a strided, grouped spatial convolution (Xie et al. 2017)."""

    def __init__(self, before: int, after: int, stride: int, *, inner: int, groups: int) -> None:
        super().__init__()
        self.a, self.a_norm = conv(before, inner, 1), nn.BatchNorm2d(inner)
        self.b, self.b_norm = conv(inner, inner, 3, stride, groups), nn.BatchNorm2d(inner)
        self.c, self.c_norm = conv(inner, after, 1), nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a_norm(self.a(x)))
        y = torch.relu(self.b_norm(self.b(y)))
        return torch.relu(self.c_norm(self.c(y)) + self.shortcut(x))


class GlobalAveragePooling(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, 1).flatten(1)


def plain_reference() -> nn.Module:
    shape = [(64, 64, 1), (64, 64, 1), (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 256, 2)]
    blocks = [PlainBasic(before, after, stride, (5, 3)) for before, after, stride in shape]
    stem = [conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))


def plain_wide_resnet_16_4() -> nn.Module:
    shape = [(16, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    blocks = [PlainPreact(*block) for block in shape]
    return nn.Sequential(
        conv(3, 16, 3), *blocks, nn.BatchNorm2d(256), nn.ReLU(), GlobalAveragePooling(), nn.Linear(256, 10)
    )


def plain_resnext_29() -> nn.Module:
    blocks = []
    before = 64
    for after, inner, stride in ((256, 128, 1), (512, 256, 2), (1024, 512, 2)):
        for position in range(3):
            blocks.append(PlainBottleneck(before, after, 1 if position else stride, inner=inner, groups=32))
            before = after
    stem = [conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, GlobalAveragePooling(), nn.Linear(1024, 10))


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy weights in registration order, independently of parameter names."""
    for sources, targets in ((source.parameters(), target.parameters()), (source.buffers(), target.buffers())):
        for source_tensor, target_tensor in zip(sources, targets, strict=True):
            target_tensor.data.copy_(source_tensor.data)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("reference", plain_reference),
        ("wrn-16-4", plain_wide_resnet_16_4),
        ("resnext-29-32x4d", plain_resnext_29),
    ],
)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_logits_match_the_reference_implementation(name: str, plain: Callable[[], nn.Module], training: bool) -> None:
    torch.manual_seed(0)
    reference = plain().double()
    randomise_batch_norm(reference)
    network = build(zoo.get(name)).double()
    copy_in_order(reference, network)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = reference.train(training)(images)
        actual = network.train(training)(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def block_of(spec: ModelSpec) -> nn.Module:
    """Return the first block of a network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(1)
    network = build(spec).double().eval()
    randomise_batch_norm(network)
    return network.get_submodule("stages.0.0")


def batch_norm(module: nn.Module, x: Tensor) -> Tensor:
    """Compute batch norm in evaluation mode by its formula."""
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    columns = [
        tensor[None, :, None, None] for tensor in (module.running_mean, module.running_var, module.weight, module.bias)
    ]
    mean, variance, scale, shift = columns
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def weight(module: nn.Module, path: str) -> Tensor:
    return module.get_parameter(path)


def test_padding_shortcut_subsamples_and_adds_zero_channels() -> None:
    spec = ModelSpec.resnet(channels=[7], stem=4, strides=[2], shortcut={"kind": "padding"})
    block = block_of(spec)
    for path in ("conv1.weight", "conv2.weight"):
        weight(block, path).data.zero_()
    weight(block, "norm2.bias").data.zero_()
    block.get_buffer("norm2.running_mean").zero_()
    maps = torch.rand(2, 4, 5, 6, dtype=torch.float64)
    output = block(maps)
    assert torch.equal(output[:, :4], maps[:, :, ::2, ::2])
    assert output.shape == (2, 7, 3, 3)
    assert not output[:, 4:].any()


def test_average_pool_shortcut_averages_partial_windows() -> None:
    spec = ModelSpec.resnet(channels=[6], stem=4, strides=[3], shortcut={"kind": "average-pool", "kernel_size": 3})
    block = block_of(spec)
    maps = torch.rand(2, 4, 7, 5, dtype=torch.float64)
    pooled = torch.empty(2, 4, 3, 2, dtype=torch.float64)
    for row in range(3):
        for column in range(2):
            window = maps[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            pooled[:, :, row, column] = window.mean(dim=(2, 3))
    expected = functional.conv2d(pooled, weight(block, "shortcut.conv.weight"), padding=1)
    expected = batch_norm(block.get_submodule("shortcut.norm"), expected)
    torch.testing.assert_close(block.get_submodule("shortcut")(maps), expected)


@pytest.mark.parametrize("kind", ["basic", "preact", "bottleneck"])
def test_no_shortcut_leaves_only_the_convolutions(kind: str) -> None:
    spec = ModelSpec.resnet(channels=[8], block=kind, shortcut={"kind": "none"})
    block = block_of(spec)
    last = "conv3.weight" if kind == "bottleneck" else "conv2.weight"
    weight(block, last).data.zero_()
    first, second = (block(torch.rand(1, 8, 4, 4, dtype=torch.float64)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("relu6", lambda x: x.clamp(min=0, max=6)),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    ],
)
def test_squeeze_excitation_scales_the_branch_before_the_addition(
    activation: str, function: Callable[[Tensor], Tensor]
) -> None:
    spec = ModelSpec.resnet(channels=[6], squeeze_excitation_ratio=0.5, activation=activation)
    block = block_of(spec)
    maps = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    branch = function(
        batch_norm(block.get_submodule("norm1"), functional.conv2d(maps, weight(block, "conv1.weight"), padding=1))
    )
    branch = batch_norm(
        block.get_submodule("norm2"), functional.conv2d(branch, weight(block, "conv2.weight"), padding=1)
    )
    pooled = branch.mean(dim=(2, 3))
    squeeze, excite = (f"squeeze_excitation.{part}" for part in ("reduce", "expand"))
    hidden = function(pooled @ weight(block, f"{squeeze}.weight").flatten(1).T + weight(block, f"{squeeze}.bias"))
    assert hidden.shape == (2, 3)
    gate = 1 / (
        1 + torch.exp(-(hidden @ weight(block, f"{excite}.weight").flatten(1).T + weight(block, f"{excite}.bias")))
    )
    expected = function(branch * gate[:, :, None, None] + maps)
    torch.testing.assert_close(block(maps), expected)


def max_of_windows(maps: Tensor, side: int) -> Tensor:
    """Take the maximum of each window, partial windows at the border included, one window at a time."""
    rows, columns = (range(0, size, side) for size in maps.shape[2:])
    pooled = [[maps[:, :, y : y + side, x : x + side].amax(dim=(2, 3)) for x in columns] for y in rows]
    return torch.stack([torch.stack(row, dim=2) for row in pooled], dim=2)


@pytest.mark.parametrize("kind", ["basic", "preact", "bottleneck"])
def test_max_pool_follows_a_convolution_at_full_resolution(kind: str) -> None:
    spec = ModelSpec.resnet(
        channels=[8],
        strides=[2],
        block=kind,
        downsampling="max-pool",
        shortcut={"kind": "none"},
        input_shape=(3, 5, 7),
    )
    block = block_of(spec)
    norms = [block.get_submodule(name) for name in ("norm1", "norm2", *(["norm3"] if kind == "bottleneck" else []))]
    weights = [weight(block, f"conv{number}.weight") for number in range(1, len(norms) + 1)]

    def conv(maps: Tensor, number: int) -> Tensor:
        return functional.conv2d(maps, weights[number], padding=weights[number].shape[-1] // 2)

    maps = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    if kind == "preact":
        branch = max_of_windows(conv(batch_norm(norms[0], maps).relu(), 0), 2)
        expected = conv(batch_norm(norms[1], branch).relu(), 1)
    elif kind == "basic":
        branch = batch_norm(norms[0], max_of_windows(conv(maps, 0), 2)).relu()
        expected = batch_norm(norms[1], conv(branch, 1)).relu()
    else:
        branch = batch_norm(norms[0], conv(maps, 0)).relu()
        branch = batch_norm(norms[1], max_of_windows(conv(branch, 1), 2)).relu()
        expected = batch_norm(norms[2], conv(branch, 2)).relu()
    assert expected.shape == (2, 8, 3, 4)
    torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize(("pooling", "reduce"), [("average", Tensor.mean), ("max", Tensor.amax)])
def test_head_pools_the_whole_map(pooling: str, reduce: Callable[..., Tensor]) -> None:
    network = build(ModelSpec.resnet(channels=[5], head={"pooling": pooling}, num_classes=4)).eval()
    maps = torch.rand(3, 5, 4, 6)
    head = network.get_submodule("head")
    pooled = reduce(maps, dim=(2, 3))
    torch.testing.assert_close(head(maps), pooled @ weight(head, "linear.weight").T + weight(head, "linear.bias"))


def test_dropout_is_active_in_training_only() -> None:
    network = build(ModelSpec.resnet(channels=[64], head={"dropout": 0.5}))
    head = network.get_submodule("head")
    maps = torch.rand(1, 64, 2, 2)
    assert torch.equal(head.eval()(maps), head(maps))
    head.train()
    assert not torch.equal(head(maps), head(maps))


def test_weights_depend_only_on_the_global_generator() -> None:
    spec = ModelSpec.resnet(channels=[4])
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(torch.cat([parameter.flatten() for parameter in build(spec).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_head_scale_multiplies_the_logits() -> None:
    plain = ModelSpec.resnet(channels=[8], input_shape=(3, 8, 8))
    network, scaled = plain.build().eval(), plain.replace(head={"scale": 0.125}).build().eval()
    scaled.load_state_dict(network.state_dict())
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(scaled(images), network(images) * 0.125)
    assert plain.replace(head={"scale": 0.125}).cost == plain.cost
    assert plain.replace(head={"scale": 1}).digest == plain.digest != plain.replace(head={"scale": 0.125}).digest
