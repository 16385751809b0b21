"""Checkpoints: safetensors files written atomically, and third-party checkpoints loaded without executing code."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from budgetnet.common.errors import InputError, is_out_of_memory, short_repr
from budgetnet.common.files import atomic_write_path
from budgetnet.model.spec import ModelSpec
from budgetnet.training.foreign_weights import foreign_keys, without_prefixes

_SHOWN = 3
"""Names that an error lists."""


def save_tensors(path: Path, tensors: dict[str, Tensor], *, about: dict[str, Any]) -> None:
    """Write tensors and metadata atomically as a safetensors file.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    with atomic_write_path(path) as temporary:
        write_safetensors(temporary, tensors, metadata={"about": json.dumps(about)}, named=path)


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str], named: Path | None = None
) -> None:
    """Write tensors from any device and metadata to a file, not atomically.

    Args:
        path: file to write.
        tensors: tensors by name.
        metadata: strings by name.
        named: file name to use in an error, if ``path`` is a temporary file.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata=metadata)
    except SafetensorError as error:
        # safetensors wraps errors of the operating system and keeps only their text.
        raise OSError(errno.EIO, str(error), str(named or path)) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata written by `save_tensors`; the metadata of other safetensors files is empty.

    Raises:
        InputError: the file is missing or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            about = json.loads((stream.metadata() or {}).get("about", "{}"))
            if not isinstance(about, dict):
                raise ValueError("about in its metadata must be a mapping")
            return {name: stream.get_tensor(name) for name in stream.keys()}, about  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise InputError("checkpoint", str(path), "no such file") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        rule = _pointer(path) or f"must be a complete safetensors file: {error}"
        raise InputError("checkpoint", str(path), rule) from None


def load_weights(network: nn.Module, path: str | Path, *, spec: ModelSpec | None = None) -> None:
    """Load a checkpoint into a network; on an error no weight is changed.

    Args:
        network: network to load into, changed in place.
        path: a ``.safetensors`` file, or a state dict saved by torch; it is loaded with ``weights_only=True``, so no
            code in it is executed. Prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.``) are left out.
        spec: the network's specification; with it, checkpoints of torchvision, timm, the usual CIFAR code and the
            paper's authors are read too, by the names in `foreign_weights`.

    Raises:
        InputError: the file is missing or damaged, or its tensors do not match the network.
    """
    path = Path(path)
    tensors = load_tensors(path)[0] if path.suffix == ".safetensors" else _load_torch(path)
    state = network.state_dict()
    # Names as the file has them, by the network's.
    shown = {short: name for name, short in without_prefixes(tensors).items()}
    keys = foreign_keys(spec, shown) if spec is not None else None
    given = {(keys or {}).get(short, short): name for short, name in shown.items()}
    if len(given) < len(tensors):
        raise InputError("checkpoint", str(path), "contains two tensors for one parameter")
    # Old checkpoints lack this counter of batch norm, which inference does not use.
    needed = [name for name in state if name in given or not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in given]
    surplus = [name for own, name in given.items() if own not in state]
    if missing or surplus:
        listed = "; ".join(
            f"{word}: {_some(names)}" for word, names in (("missing", missing), ("unknown", surplus)) if names
        )
        if not surplus and tensors:
            listed += f"; the file has {_some(list(tensors))}"
        raise InputError("checkpoint", str(path), f"must hold the network's tensors; {listed}")
    for name in needed:
        found = tensors[given[name]]
        if found.shape != state[name].shape:
            rule = f"{given[name]} must have shape {tuple(state[name].shape)}, not {tuple(found.shape)}"
            raise InputError("checkpoint", str(path), rule)
    network.load_state_dict({**state, **{name: tensors[given[name]] for name in needed}})


_STATE_DICT = "must be a state dict of tensors, saved by torch"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys that training programs keep a state dict under."""


def _load_torch(path: Path) -> dict[str, Tensor]:
    """Read a state dict saved by torch, also if nested under a common key."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError("checkpoint", str(path), "no such file") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # On damaged files torch raises exceptions of many types, including AssertionError.
        rule = _pointer(path) or f"{_STATE_DICT}{_other_content(error)}"
        raise InputError("checkpoint", str(path), rule) from None
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise InputError("checkpoint", str(path), f"{_STATE_DICT}, not {type(loaded).__name__}")
    others = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        nested = [str(name) for name, value in loaded.items() if isinstance(value, dict)]
        hint = (
            f"; looked for it under {', '.join(_WRAPPERS)}, and there is a mapping under {_some(nested)}"
            if nested
            else ""
        )
        raise InputError("checkpoint", str(path), f"{_STATE_DICT}; no tensors: {_some(others)}{hint}")
    return {str(name): tensor for name, tensor in loaded.items()}


def _other_content(error: Exception) -> str:
    """Return which object torch refused to load, because loading it would execute code."""
    found = re.search(r"(?:GLOBAL|global|Global|class|type) `?([\w.]+\.[\w.]+)", str(error))
    if found is None:
        return ""
    name = found[1].rstrip(".")
    if name.startswith("numpy"):
        return f"; it has numpy values ({name}), which are not loaded: save float(value) instead"
    return f"; it has an object of {name}, which is not loaded as that would execute code: save module.state_dict()"


def _pointer(path: Path) -> str | None:
    """Return what to do about a file that Git LFS left in place of the weights, or None for other files."""
    try:
        with path.open("rb") as stream:
            is_pointer = stream.read(64).startswith(b"version https://git-lfs")
    except OSError:
        return None
    return "is only Git LFS's pointer to the weights: fetch them with git lfs pull" if is_pointer else None


def _some(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(short_repr, names[:_SHOWN])) + more
