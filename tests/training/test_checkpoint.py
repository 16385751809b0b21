"""Loading of checkpoints: the authors' one, rebuilt from their published network, and invalid ones."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec
from budgetnet.training.checkpoint import load_tensors, load_weights, save_tensors


class AuthorsBlock(nn.Module):
    """Convolutions of 5x5 and 3x3 with batch norm, and a projection called residual where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=5, stride=stride, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.residual = nn.Sequential()
        if stride != 1 or before != after:
            self.residual = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.residual(x))


class AuthorsNetwork(nn.Module):
    """Five layers of 64, 64, 128, 256 and 256 channels, 2, 2, 1, 1 and 1 blocks, 4x4 average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(AuthorsBlock(64, 64, 1), AuthorsBlock(64, 64, 1))
        self.layer2 = nn.Sequential(AuthorsBlock(64, 64, 1), AuthorsBlock(64, 64, 1))
        self.layer3 = nn.Sequential(AuthorsBlock(64, 128, 2))
        self.layer4 = nn.Sequential(AuthorsBlock(128, 256, 2))
        self.layer5 = nn.Sequential(AuthorsBlock(256, 256, 2))
        self.linear = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5):
            out = layer(out)
        out = nn.functional.avg_pool2d(out, 4)
        logits: Tensor = self.linear(out.flatten(1))
        return logits


@pytest.fixture(scope="module")
def authors() -> AuthorsNetwork:
    torch.manual_seed(0)
    network = AuthorsNetwork()
    with torch.no_grad():
        network(torch.rand(8, 3, 32, 32))  # In training mode, so that running statistics change from 0 and 1.
    return network.eval()


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def copy_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def save_torch(state: Any, path: Path) -> None:
    torch.save(state, path)


def save_safetensors(state: dict[str, Tensor], path: Path) -> None:
    save_file(state, path)


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("authors.pt", save_torch),
        ("authors.pth", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        ("wrapped.pt", lambda state, path: torch.save({"epoch": 81, "state_dict": state}, path)),
        ("parallel.pt", lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path)),
        ("authors.safetensors", save_safetensors),
    ],
)
def test_authors_weights_give_the_authors_logits(
    authors: AuthorsNetwork, tmp_path: Path, file: str, write: Callable[[dict[str, Tensor], Path], None]
) -> None:
    write(authors.state_dict(), tmp_path / file)
    network = zoo.get("reference").build()
    load_weights(network, tmp_path / file, spec=zoo.get("reference"))
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), authors(images))


TORCHVISION = {
    "regnetx-400mf": "regnet_x_400mf",
    "regnety-400mf": "regnet_y_400mf",
    "mobilenet-v2-224": "mobilenet_v2",
}
"""Names of torchvision that differ from ours."""


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        *itertools.product(["resnet18", "resnet50"], ["", "module.", "model.", "_orig_mod.", "module._orig_mod."]),
        *itertools.product(TORCHVISION, ["", "module."]),
    ],
)
def test_weights_of_torchvision_give_its_logits(tmp_path: Path, name: str, prefix: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, TORCHVISION.get(name, name))(num_classes=5).eval()
    torch.save({prefix + key: value for key, value in theirs.state_dict().items()}, tmp_path / "weights.pth")
    spec = zoo.get(name).replace(num_classes=5)
    ours = spec.build()
    load_weights(ours, tmp_path / "weights.pth", spec=spec)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images))


FOREIGN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "usual CIFAR code": (
        {"block": "preact", "squeeze_excitation_ratio": 0.5, "head": {"norm": False}},
        {
            "conv1": "stem.conv",
            "layer2.0.bn1": "stages.1.0.norm1",
            "layer2.0.conv2": "stages.1.0.conv2",
            "layer2.0.shortcut.0": "stages.1.0.shortcut.conv",
            "layer2.0.fc1": "stages.1.0.squeeze_excitation.reduce",
            "layer2.0.fc2": "stages.1.0.squeeze_excitation.expand",
            "linear": "head.linear",
        },
    ),
    "timm": (
        {
            "block": "bottleneck",
            "shortcut": "average-pool",
            "squeeze_excitation_ratio": 0.5,
            "stem": {"channels": 8, "inner_channels": [4, 6]},
        },
        {
            "conv1.0": "stem.inner.0.conv",
            "conv1.1": "stem.inner.0.norm",
            "conv1.3": "stem.inner.1.conv",
            "conv1.4": "stem.inner.1.norm",
            "conv1.6": "stem.conv",
            "bn1": "stem.norm",
            "layer2.0.conv3": "stages.1.0.conv3",
            "layer2.0.se.fc1": "stages.1.0.squeeze_excitation.reduce",
            "layer2.0.downsample.1": "stages.1.0.shortcut.conv",
            "layer2.0.downsample.2": "stages.1.0.shortcut.norm",
            "fc": "head.linear",
        },
    ),
}


@pytest.mark.parametrize("code", FOREIGN)
def test_names_of_other_programs_are_understood(tmp_path: Path, code: str) -> None:
    settings, names = FOREIGN[code]
    spec = ModelSpec.resnet(channels=[8, 16], **settings)
    source, target = build(spec), build(spec)
    theirs = {}
    for own, tensor in source.state_dict().items():
        path, _, leaf = own.rpartition(".")
        # The layers that are not listed have the names that all programs share.
        common = re.sub(r"^stages\.(\d+)", lambda found: f"layer{int(found[1]) + 1}", path).replace("norm", "bn")
        common = common.replace("shortcut.conv", "shortcut.0").replace("squeeze_excitation.reduce", "fc1")
        common = common.replace("shortcut.bn", "shortcut.1").replace("squeeze_excitation.expand", "fc2")
        theirs[f"{ {ours: name for name, ours in names.items()}.get(path, common) }.{leaf}"] = tensor
    if code == "timm":
        theirs = {
            name.replace(".shortcut.1", ".downsample.2").replace(".shortcut.0", ".downsample.1"): value
            for name, value in theirs.items()
        }
    torch.save(theirs, tmp_path / "x.pt")
    load_weights(target, tmp_path / "x.pt", spec=spec)
    assert same_weights(copy_of(source), copy_of(target))


def test_what_does_not_fit_is_called_by_a_name_of_the_file(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "x.pt")
    for spec, rule in [
        (zoo.get("resnet18").replace(num_classes=5), "module.fc.weight must have shape (5, 512), not (1000, 512)"),
        (zoo.get("resnet34"), "and 77 more; the file has 'module.conv1.weight', 'module.bn1.weight'"),
        (zoo.get("resnet18").replace(shortcut="none"), "unknown: 'module.layer2.0.downsample.0.weight'"),
    ]:
        with pytest.raises(InputError) as caught:
            load_weights(spec.build(), tmp_path / "x.pt", spec=spec)
        assert rule in caught.value.rule


SMALL = ModelSpec.resnet(channels=[4, 8], num_classes=3)


def test_a_checkpoint_without_batch_counters_is_loaded(tmp_path: Path) -> None:
    source, target = build(SMALL), build(SMALL)
    state = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pt")
    load_weights(target, tmp_path / "old.pt")
    assert same_weights(copy_of(source), copy_of(target))


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("head.linear", "classifier"): tensor for name, tensor in state.items()}


State = dict[str, Tensor]
BAD_STATES: dict[str, Callable[[State], Any]] = {
    "a missing tensor": lambda state: {name: state[name] for name in list(state)[1:]},
    "a surplus tensor": lambda state: {**state, "extra": torch.zeros(1)},
    "another name": renamed,
    "another shape": lambda state: {**state, "head.linear.weight": torch.zeros(4, 8)},
    "a flat weight": lambda state: {**state, "head.linear.weight": torch.zeros(24)},
    "no tensors at all": lambda _: {},
}


def rejected(path: Path) -> InputError:
    """Load into a network; this must raise and change no tensor."""
    network = build(SMALL)
    before = copy_of(network)
    with pytest.raises(InputError) as caught:
        load_weights(network, path)
    assert same_weights(before, copy_of(network))
    assert caught.value.field == "checkpoint"
    assert str(path) in str(caught.value.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("corrupt", BAD_STATES.values(), ids=BAD_STATES)
@pytest.mark.parametrize(("file", "write"), [("x.pt", save_torch), ("x.safetensors", save_safetensors)])
def test_tensors_that_do_not_match_the_network_are_rejected(
    tmp_path: Path, corrupt: Callable[[State], Any], file: str, write: Callable[[State, Path], None]
) -> None:
    write(corrupt(build(SMALL).state_dict()), tmp_path / file)
    rejected(tmp_path / file)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"weights": "text"},
        torch.zeros(3),
        {"state_dict": {"a": 1}},
        OrderedDict(a=[torch.zeros(1)]),
        {("stem", 1): torch.zeros(1)},
    ],
    ids=["list", "text", "tensor", "number", "nested list", "tuple as name"],
)
def test_other_content_than_a_state_dict_is_rejected(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    rejected(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (lambda state: {"ema": state, "epoch": 3}, "no tensors: 'ema', 'epoch'; looked for it under .+ under 'ema'$"),
        (
            lambda state: {**state, "accuracy": np.float64(0.5)},
            r"it has numpy values \(numpy.+scalar\), .+ save float",
        ),
        (lambda state: {**state, "accuracy": 0.5}, "no tensors: 'accuracy'$"),
        (lambda _: nn.Linear(2, 2), r"has an object of torch\.nn\.modules\.linear\.Linear.*: save module\.state_dict"),
        (lambda state: [state], "not list$"),
        (lambda state: {f"net.{name}": state[name] for name in state}, "missing: 'stem.+ more; unknown: 'net.stem"),
    ],
    ids=["another key", "numpy", "a number", "a module", "a list", "a prefix"],
)
def test_the_cause_and_the_names_there_are_named(tmp_path: Path, content: Callable[[State], Any], cause: str) -> None:
    torch.save(content(build(SMALL).state_dict()), tmp_path / "x.pt")
    assert re.search(cause, rejected(tmp_path / "x.pt").rule)


@pytest.mark.parametrize("file", ["x.pt", "x.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n")
    assert "git lfs pull" in rejected(tmp_path / file).rule


def test_the_shape_error_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    torch.save({**build(SMALL).state_dict(), "stem.conv.weight": torch.zeros(4, 3, 5, 5)}, tmp_path / "x.pt")
    assert rejected(tmp_path / "x.pt").rule == "stem.conv.weight must have shape (4, 3, 3, 3), not (4, 3, 5, 5)"


def test_two_names_for_one_parameter_are_rejected(tmp_path: Path) -> None:
    state = build(SMALL).state_dict()
    torch.save({**state, "module.head.linear.bias": torch.ones(3)}, tmp_path / "x.pt")
    rejected(tmp_path / "x.pt")
    torch.save({**state, "conv1.weight": state["stem.conv.weight"]}, tmp_path / "y.pt")
    with pytest.raises(InputError, match="two tensors for one parameter"):
        load_weights(build(SMALL), tmp_path / "y.pt", spec=SMALL)


@pytest.mark.parametrize("file", ["absent.pt", "absent.safetensors"])
def test_a_missing_file_is_reported(tmp_path: Path, file: str) -> None:
    assert rejected(tmp_path / file).rule == "no such file"


@pytest.mark.parametrize("file", ["folder.pt", "folder.safetensors"])
def test_a_folder_is_rejected(tmp_path: Path, file: str) -> None:
    (tmp_path / file).mkdir()
    rejected(tmp_path / file)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize(("file", "write"), [("x.pt", save_torch), ("x.safetensors", save_safetensors)])
def test_a_truncated_file_is_rejected(
    tmp_path: Path, share: float, file: str, write: Callable[[State, Path], None]
) -> None:
    write(build(SMALL).state_dict(), tmp_path / file)
    cut(tmp_path / file, share)
    rejected(tmp_path / file)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_loading_a_checkpoint_executes_no_code(tmp_path: Path, new_format: bool, nested: bool) -> None:
    trap: Any = Trap(tmp_path / "sprung")
    content = {**build(SMALL).state_dict(), "extra": trap} if nested else trap
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=new_format)
    rejected(tmp_path / "x.pt")
    assert not (tmp_path / "sprung").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the pickle must execute code if loaded without weights_only"


@pytest.fixture(scope="module")
def saved() -> dict[str, bytes]:
    """A small checkpoint in each format."""
    buffers = {name: io.BytesIO() for name in ("zip", "legacy")}
    state = build(ModelSpec.resnet(channels=[2], num_classes=2)).state_dict()
    torch.save(state, buffers["zip"])
    torch.save(state, buffers["legacy"], _use_new_zipfile_serialization=False)
    return {name: buffer.getvalue() for name, buffer in buffers.items()}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_damaged_file_loads_or_is_rejected_in_one_line(saved: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    generator = random.Random(0)
    network = build(ModelSpec.resnet(channels=[2], num_classes=2))
    path = tmp_path / "damaged.pt"
    rejections = 0
    for _ in range(150):
        content = bytearray(saved[kind])
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(min(len(content), 2500))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            load_weights(network, path)
        except InputError as error:
            rejections += 1
            assert "\n" not in str(error)
    assert rejections


def test_tensors_and_metadata_are_loaded_as_saved(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x.safetensors"
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.rand(2, requires_grad=True)}
    save_tensors(path, tensors, about={"epoch": 3, "word": "größer"})
    loaded, about = load_tensors(path)
    assert same_weights(loaded, {name: tensor.detach() for name, tensor in tensors.items()})
    assert about == {"epoch": 3, "word": "größer"}
    assert list(path.parent.iterdir()) == [path]


def test_metadata_that_is_not_json_is_rejected(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"about": "{"})
    with pytest.raises(InputError):
        load_tensors(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"about": json.dumps({"a": 1})})
    assert load_tensors(tmp_path / "x.safetensors")[1] == {"a": 1}


def test_a_full_disk_raises_oserror_and_keeps_the_old_file(tmp_path: Path) -> None:
    """A limit on file sizes simulates the full disk, in a subprocess, as the limit cannot be raised again."""
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"weight": torch.ones(4)}, about={})
    before = path.read_bytes()
    program = """
import resource, signal, sys
from pathlib import Path
import torch
from budgetnet.training.checkpoint import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_tensors(Path(sys.argv[1]), {"weight": torch.ones(1000)}, about={})
except OSError as error:
    print(error.filename)
"""
    process = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
