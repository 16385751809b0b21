"""Levels of a factor: the meaning of ``on``, ``off``, null and names, and the labels of levels.

A level is any value of its field, or ``off``, which removes the component, or ``on``, which is the value of the base.
YAML reads both as booleans, so they are booleans here. Null means ``off`` where a component can be removed, else the
null of the field. For a document with a field ``kind``, a string sets the kind and keeps the other fields.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.paths import DOCUMENTS, PLACES, label_of, pattern_of, require_path
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import Recipe

STAGE = "spec.stages[]"
"""Path whose removal deletes an entry of a list."""

REMOVED: dict[str, Any] = {
    STAGE: None,
    "spec.groups": 1,
    "spec.block_dropout": 0.0,
    "spec.conv_bias": False,
    "spec.squeeze_excitation_ratio": None,
    "spec.shortcut": {"kind": "none"},
    "spec.stem.inner_channels": [],
    "spec.stem.squeeze_excitation_ratio": None,
    "spec.stem.pool_size": None,
    "spec.head.channels": None,
    "spec.head.pool_size": None,
    "spec.head.dropout": 0.0,
    "spec.head.scale": 1.0,
    "recipe.momentum": 0.0,
    "recipe.weight_decay": 0.0,
    "recipe.nesterov": False,
    "recipe.label_smoothing": 0.0,
    "recipe.schedule": {"kind": "constant"},
    "recipe.schedule.minimum": 0.0,
    "recipe.schedule.warmup_fraction": 0.0,
    "recipe.early_stopping": None,
    "recipe.augmentation": {
        "crop_padding": 0,
        "flip": False,
        "alternating_flip": False,
        "policy": None,
        "cutout": 0,
        "mixing": None,
        "padding_mode": "zeros",
        "color_jitter": None,
    },
    "recipe.augmentation.crop_padding": 0,
    "recipe.augmentation.flip": False,
    "recipe.augmentation.alternating_flip": False,
    "recipe.augmentation.policy": None,
    "recipe.augmentation.cutout": 0,
    "recipe.augmentation.mixing": None,
    "recipe.augmentation.padding_mode": "zeros",
    "recipe.augmentation.color_jitter": None,
    "recipe.weight_average": None,
    "recipe.test_time_flip": False,
    "recipe.norm_bias_rate": 1.0,
    "recipe.freeze_norm_scales": False,
    "recipe.lookahead": None,
    "recipe.muon": None,
    "spec.stem.whitening": None,
    "spec.downsampling": "stride",
    "recipe.test_time_shifts": False,
    "recipe.resizing": None,
    "recipe.example_filter": None,
    "recipe.class_weights": None,
    "recipe.gradient_clipping": None,
    "recipe.stochastic_depth": 0.0,
}
"""Values of removed components; of a document, the fields that change."""

_SWITCHES = {"on": True, "off": False}
_MAX_LABEL = 48
"""Characters of a level in the name of a variant; a longer one is cut and ends in a digest."""


def read_level(path: str, level: Any) -> Any:
    """Return a level as a study stores it: on and off as booleans, whole documents read and validated.

    Raises:
        InputError: the path or the name does not exist, or a document breaks a rule.
    """
    require_path(path, level)
    if isinstance(level, str) and level in _SWITCHES:
        return _SWITCHES[level]
    if path not in DOCUMENTS:
        return level
    try:
        return read_document(path, level)
    except InputError as error:
        raise InputError(f"{path}.{error.field}".rstrip("."), error.value, error.rule) from None


def read_document(kind: str, value: Any) -> ModelSpec | Recipe:
    """Return a specification or a recipe from its name, plain data or the document itself.

    Args:
        kind: ``spec`` or ``recipe``.
        value: name, mapping or document.

    Raises:
        InputError: the name does not exist, or the data breaks a rule; the field is relative to the document.
    """
    document = DOCUMENTS[kind]
    if isinstance(value, document):
        return value
    if isinstance(value, str):
        try:
            return get(value) if kind == "spec" else named_recipe(value)
        except InputError as error:
            raise InputError("", error.value, error.rule) from None
    if not isinstance(value, dict):
        raise InputError("", value, "must be a name, or a mapping of fields")
    return document.from_mapping(value)


def is_removal(path: str, level: Any) -> bool:
    """Return whether a level removes a component."""
    return pattern_of(path) in REMOVED and (level is None or level is False)


def meaning(path: str, level: Any, *, present: Any, own: Any) -> Any:
    """Return the plain value that a level sets, unless `is_removal` deletes a stage.

    Args:
        path: path of the value.
        level: the level.
        present: current value.
        own: value of the base.

    Raises:
        InputError: ``on`` for a component that the base does not have, or on or off for one that cannot be removed.
    """
    place = PLACES[pattern_of(path)]
    if (level is None and place.nullable) or (isinstance(level, bool) and place.boolean):
        return level
    if isinstance(level, (ModelSpec, Recipe)):
        return level.to_mapping()
    if is_removal(path, level):
        return _without(path, present)
    if level is True:
        if pattern_of(path) not in REMOVED:
            raise InputError(path, "on", "cannot be switched on: give a value")
        if own == _without(path, own):
            raise InputError(path, "on", "is not in the base: give the value to set")
        return copy.deepcopy(own)
    if level is False or level is None:
        raise InputError(path, "off" if level is False else None, "cannot be removed: give a value")
    if isinstance(level, str) and place.has_kind:
        return {**(present or {}), "kind": level}
    return copy.deepcopy(level)


def _without(path: str, present: Any) -> Any:
    removed = REMOVED[pattern_of(path)]
    return {**present, **removed} if isinstance(removed, dict) and isinstance(present, dict) else removed


def plain_level(level: Any) -> Any:
    """Return a level as plain data, with whole documents by their labels."""
    if isinstance(level, ModelSpec):
        return level.label
    return (level.name or f"recipe-{level.digest[:8]}") if isinstance(level, Recipe) else level


def setting_text(path: str, level: Any) -> str:
    """Return a short label of a level: ``kernel_sizes=5x3``, ``stages[4].channels=128``, ``without early_stopping``."""
    label = label_of(path)
    if is_removal(path, level):
        return f"without {label}"
    text = _text(plain_level(level), joint="x" if label.endswith("kernel_sizes") else "-")
    if len(text) > _MAX_LABEL:
        text = f"{text[: _MAX_LABEL - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"{label}={text}"


def _text(value: Any, *, joint: str) -> str:
    if isinstance(value, Mapping):
        fields = (f"{key}: {_text(entry, joint='x' if key == 'kernel_sizes' else '-')}" for key, entry in value.items())
        return f"{{{', '.join(fields)}}}"
    if isinstance(value, (list, tuple)):
        nested = any(isinstance(entry, (list, tuple)) for entry in value)
        return ("-" if nested else joint).join(_text(entry, joint=joint) for entry in value)
    if value is None:
        return "null"
    return ("off", "on")[value] if isinstance(value, bool) else " ".join(str(value).split())


def level_key(level: Any) -> str:
    """Return a level as text to find duplicates; 1 and on differ."""
    digest = {"document": level.digest} if isinstance(level, (ModelSpec, Recipe)) else level
    return json.dumps(digest, sort_keys=True, default=repr)
