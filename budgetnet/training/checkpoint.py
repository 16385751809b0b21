"""Weights on disk: safetensors written atomically, and foreign checkpoints read without executing anything in them."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from budgetnet.common.errors import InputError
from budgetnet.common.files import replacing_file
from budgetnet.model.plan import lower
from budgetnet.model.spec import ModelSpec


def save_tensors(path: Path, tensors: dict[str, Tensor], *, about: dict[str, Any]) -> None:
    """Writes tensors and a few facts about them, atomically, as safetensors.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    with replacing_file(path) as temporary:
        write_safetensors(temporary, tensors, metadata={"about": json.dumps(about)}, named=path)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str], named: Path | None = None
) -> None:
    """Writes tensors from any device, and texts about them, into a file that nobody reads yet.

    Args:
        path: the file.
        tensors: by name.
        metadata: texts by name.
        named: what to call the file in an error, where it is to become another one.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata=metadata)
    except SafetensorError as error:
        # What the system said comes wrapped up, in words only.
        raise OSError(errno.EIO, str(error), str(named or path)) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_tensors` wrote, or any safetensors file, whose facts are then empty.

    Raises:
        InputError: the file is missing, or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            about = json.loads((stream.metadata() or {}).get("about", "{}"))
            return {name: stream.get_tensor(name) for name in stream.keys()}, about  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise InputError("checkpoint", str(path), "no such file") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError("checkpoint", str(path), f"must be a whole safetensors file: {error}") from None


def authors_keys(spec: ModelSpec) -> dict[str, str]:
    """Where each tensor of the paper's authors' checkpoint belongs in the network built from ``spec``.

    Their names on the left, ours on the right, for weights and running statistics alike:

        conv1, bn1                          stem.conv, stem.norm
        layerI.J.conv1, layerI.J.bn1        stages.(I-1).J.conv1, stages.(I-1).J.norm1
        layerI.J.conv2, layerI.J.bn2        stages.(I-1).J.conv2, stages.(I-1).J.norm2
        layerI.J.residual.0, .residual.1    stages.(I-1).J.shortcut.conv, stages.(I-1).J.shortcut.norm
        linear                              head.linear

    Stages (I) are counted from 1 in their names, from 0 in ours; blocks (J) from 0 in both.

    Raises:
        InputError: the network has blocks or parts that their code had no names for.
    """
    if spec.block != "basic":
        raise InputError("block", spec.block, "the authors' checkpoint knows basic blocks only")
    if spec.squeeze_excitation_ratio is not None:
        rule = "the authors' checkpoint knows no squeeze-and-excitation"
        raise InputError("squeeze_excitation_ratio", spec.squeeze_excitation_ratio, rule)
    if spec.stem.whitening is not None:
        rule = "the authors' checkpoint knows no whitening convolution"
        raise InputError("stem.whitening", spec.stem.whitening, rule)
    parts = {"conv1": "conv1", "norm1": "bn1", "conv2": "conv2", "norm2": "bn2"}
    parts |= {"shortcut.conv": "residual.0", "shortcut.norm": "residual.1"}
    keys: dict[str, str] = {}
    for layer in lower(spec).layers():
        if layer.kind == "block":
            continue
        place, _, rest = layer.path.partition(".")
        if place == "stem":
            theirs = {"conv": "conv1", "norm": "bn1"}[rest]
        elif place == "head":
            theirs = "linear"
        else:
            stage, block, part = rest.split(".", maxsplit=2)
            theirs = f"layer{int(stage) + 1}.{block}.{parts[part]}"
        names = ["weight"] + ["bias"] * (layer.bias or layer.kind == "norm")
        if layer.kind == "norm":
            names += ["running_mean", "running_var", "num_batches_tracked"]
        keys |= {f"{theirs}.{name}": f"{layer.path}.{name}" for name in names}
    return keys


def load_weights(network: nn.Module, path: str | Path, *, keys: dict[str, str] | None = None) -> None:
    """Loads a checkpoint into a built network, whole or not at all.

    Args:
        network: the network, changed in place.
        path: a ``.safetensors`` file, or a state dict saved by torch, which is read with ``weights_only``, so that
            nothing in it can execute.
        keys: their names to ours, such as `authors_keys`; the names are taken as they are if left out.

    Raises:
        InputError: the file is missing or damaged, or its tensors are not those of the network.
    """
    path = Path(path)
    tensors = load_tensors(path)[0] if path.suffix == ".safetensors" else _load_torch(path)
    ours = network.state_dict()
    found = {(keys or {}).get(name, name): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise InputError("checkpoint", str(path), "holds two tensors for one place of the network")
    # Checkpoints older than this counter lack it; it does not enter inference.
    needed = [name for name in ours if name in found or not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in found]
    surplus = [name for name in found if name not in ours]
    if missing or surplus:
        rule = f"must hold the network's tensors: {len(missing)} missing, {len(surplus)} unknown, such as "
        raise InputError("checkpoint", str(path), rule + (missing + surplus)[0])
    for name in needed:
        if found[name].shape != ours[name].shape:
            rule = f"{name} must have shape {tuple(ours[name].shape)}, not {tuple(found[name].shape)}"
            raise InputError("checkpoint", str(path), rule)
    network.load_state_dict({**ours, **{name: found[name] for name in needed}})


def _load_torch(path: Path) -> dict[str, Tensor]:
    """A state dict saved by torch, also where it lies under a usual key or was saved from a parallel wrapper."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError("checkpoint", str(path), "no such file") from None
    except Exception:
        # Damaged bytes lead torch's readers to errors of any kind, assertions among them.
        raise InputError("checkpoint", str(path), "must be a state dict of tensors, saved by torch") from None
    for wrapper in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InputError("checkpoint", str(path), "must be a state dict of tensors, saved by torch")
    names = [str(name) for name in loaded]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in zip(names, loaded.values(), strict=True)}
