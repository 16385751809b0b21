"""Checkpoints as they are saved and loaded, and invalid ones."""

from __future__ import annotations

import io
import json
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
from safetensors.torch import save_file
from support import Trap, same_weights, save_safetensors, save_torch
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.model.network import build
from budgetnet.model.spec import ModelSpec
from budgetnet.training.checkpoint import load_tensors, load_weights, save_tensors

State = dict[str, Tensor]
SMALL = ModelSpec.resnet(channels=[4, 8], num_classes=3)


def copy_of(network: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_checkpoint_without_batch_counters_is_loaded(tmp_path: Path) -> None:
    source, target = build(SMALL), build(SMALL)
    state = {name: tensor for name, tensor in source.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pt")
    load_weights(target, tmp_path / "old.pt")
    assert same_weights(source.state_dict(), target.state_dict())


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def renamed(state: State) -> State:
    return {name.replace("head.linear", "classifier"): tensor for name, tensor in state.items()}


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
        (
            lambda state: {**state, "stem.conv.weight": torch.zeros(4, 3, 5, 5)},
            r"^stem\.conv\.weight must have shape \(4, 3, 3, 3\), not \(4, 3, 5, 5\)$",
        ),
    ],
    ids=["another key", "numpy", "a number", "a module", "a list", "a prefix", "another shape"],
)
def test_the_cause_and_the_names_there_are_named(tmp_path: Path, content: Callable[[State], Any], cause: str) -> None:
    torch.save(content(build(SMALL).state_dict()), tmp_path / "x.pt")
    assert re.search(cause, rejected(tmp_path / "x.pt").rule)


@pytest.mark.parametrize("file", ["x.pt", "x.safetensors"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n")
    assert "git lfs pull" in rejected(tmp_path / file).rule


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


def test_metadata_that_is_no_mapping_is_rejected(tmp_path: Path) -> None:
    for about in ("{", "[]", "3", "null", "[" * 100_000):
        save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"about": about})
        with pytest.raises(InputError, match="must be a complete safetensors file"):
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
