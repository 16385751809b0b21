"""Names of weights in checkpoints of other programs, and what they are called here.

Stages (I) are counted from 1 in them and from 0 here; blocks (J) from 0 in both. All of them have ``conv1, bn1`` for
the stem and ``layerI.J.convN, layerI.J.bnN`` in blocks. They differ in:

* shortcuts: ``downsample.0, .1`` in torchvision and timm (``.1, .2`` behind average pooling), ``shortcut.0, .1`` in the
  usual CIFAR code, ``residual.0, .1`` in the paper's;
* stems of several convolutions: ``conv1.0, conv1.1, conv1.3`` and so on, as in timm;
* squeeze-and-excitation: ``se.fc1, se.fc2``, ``se_module.fc1, se_module.fc2`` or ``fc1, fc2``;
* the classifier: ``fc``, ``linear`` or ``classifier``.

torchvision's RegNets have ``stem.0, stem.1`` and, after ``trunk_output.blockI.blockI-J``, ``f.a.0, .1`` with ``b`` and
``c`` for the further convolutions, ``f.se.fc1, .fc2`` and ``proj.0, .1``.

torchvision's MobileNetV2 counts stem, blocks and the head's convolution: ``features.K.0, .1``; in blocks
``features.K.conv.N.0, .1`` or, of the last convolution, ``conv.N`` and the next number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from budgetnet.model.lowering import lower
from budgetnet.model.plan import Layer, Plan
from budgetnet.model.spec import ModelSpec

PREFIXES = ("module.", "_orig_mod.", "model.")
"""Prefixes of wrappers: torch's DataParallel, its compiler, and Lightning."""

_TRUNK = "trunk_output."
_FEATURES = "features.0.0."
_SHORTCUTS = ("downsample", "shortcut", "residual")
_LINEARS = ("fc", "linear", "classifier", "head.fc", "classifier.1")
_EXCITATIONS = (("se.fc1", "se.fc2"), ("se_module.fc1", "se_module.fc2"), ("fc1", "fc2"), ("se.reduce", "se.expand"))


def without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Return names without the prefixes that all of them have, by the names as they are."""
    shown = {name: name for name in names}
    # Of no names at all, any prefix would be that of each.
    while shown and (
        prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in shown.values())), "")
    ):
        shown = {name: short.removeprefix(prefix) for name, short in shown.items()}
    return shown


def foreign_keys(spec: ModelSpec, names: Iterable[str]) -> dict[str, str] | None:
    """Map the names of another program's weights to those of a network.

    Args:
        spec: the network.
        names: names in the checkpoint, without prefixes.

    Returns:
        The network's name for each of the checkpoint's that is known; None where the checkpoint has the network's own
        names, or those of no known layout.
    """
    given = set(names)
    if not any(name.startswith(("layer1.", "conv1.", _TRUNK, _FEATURES)) for name in given):
        return None
    keys: dict[str, str] = {}
    plan = lower(spec)
    features = _features(plan)
    for layer in plan.layers():
        if layer.kind == "block":
            continue
        paths = [*_paths(spec, layer), features.get(layer.path)]
        path = next((each for each in paths if f"{each}.weight" in given), None)
        if path is None:
            continue
        own = ["weight"] + ["bias"] * (layer.bias or layer.kind == "norm")
        if layer.kind == "norm":
            own += ["running_mean", "running_var", "num_batches_tracked"]
        keys |= {f"{path}.{name}": f"{layer.path}.{name}" for name in own}
    return keys


def _paths(spec: ModelSpec, layer: Layer) -> Iterator[str]:
    """Yield what other programs call a layer."""
    section, _, rest = layer.path.partition(".")
    if section == "stages":
        stage, block, part = rest.split(".", maxsplit=2)
        settings = spec.block_settings[int(stage)]
        yield from (f"layer{int(stage) + 1}.{block}.{each}" for each in _in_block(part, settings.shortcut.kind))
        yield f"{_TRUNK}block{int(stage) + 1}.block{int(stage) + 1}-{block}.{_in_trunk(part)}"
    elif section == "head":
        yield from {"linear": _LINEARS, "norm": ("bn", "norm", "bn2", "final_bn")}.get(rest, ())
    elif rest == "norm":
        yield from ("bn1", "stem.1")
    elif rest == "conv":
        # A stem of several convolutions is a sequence of convolution, norm and activation.
        yield from (f"conv1.{3 * len(spec.stem.inner_channels)}" if spec.stem.inner_channels else "conv1", "stem.0")
    elif rest.startswith("inner."):
        _, index, part = rest.split(".")
        yield f"conv1.{3 * int(index) + (part == 'norm')}"


def _features(plan: Plan) -> dict[str, str]:
    """Return what torchvision's MobileNetV2 calls the layers of stem, blocks and head, by what they are called here."""
    blocks = [block for stage in plan.stages for block in stage]
    found = {"stem.conv": "0.0", "stem.norm": "0.1"}
    for place, block in enumerate(blocks, 1):
        last = len(block.convs) - 1
        for number, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
            pair = (f"{number}.0", f"{number}.1") if number < last else (f"{number}", f"{number + 1}")
            found |= {layer.path: f"{place}.conv.{each}" for layer, each in zip((conv, norm), pair, strict=True)}
    found |= {"head.conv": f"{len(blocks) + 1}.0", "head.conv_norm": f"{len(blocks) + 1}.1"}
    return {path: f"features.{each}" for path, each in found.items()}


def _in_block(part: str, shortcut: str) -> Iterator[str]:
    kind, _, inside = part.partition(".")
    if kind == "shortcut":
        # Pooling comes first in the sequence.
        place = (inside == "norm") + (shortcut == "average-pool")
        yield from (f"{each}.{place}" for each in _SHORTCUTS)
    elif kind == "squeeze_excitation":
        yield from (pair[inside == "expand"] for pair in _EXCITATIONS)
    else:
        yield part.replace("norm", "bn")


def _in_trunk(part: str) -> str:
    """Return what torchvision's RegNets call a layer of a block."""
    if part.startswith("squeeze_excitation."):
        return f"f.se.fc{1 + part.endswith('expand')}"
    place = int("norm" in part)
    return f"proj.{place}" if part.startswith("shortcut.") else f"f.{'abc'[int(part[-1]) - 1]}.{place}"
