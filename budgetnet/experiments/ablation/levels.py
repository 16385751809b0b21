"""Levels of a factor: what ``on``, ``off``, null and single words mean where they stand, and what people call them.

A level is any value that its field takes, and two more: ``off`` takes the component away, ``on`` is what the base has.
YAML reads both as booleans, so they are booleans here. Null is ``off`` wherever a component can be taken away, and else
the field's own null. Where a document has a kind, a single word is that kind, and the rest stays as it was.
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
"""The path whose removal takes an entry out of a list."""

REMOVED: dict[str, Any] = {
    STAGE: None,
    "spec.groups": 1,
    "spec.squeeze_excitation_ratio": None,
    "spec.shortcut": {"kind": "none"},
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
    },
    "recipe.augmentation.crop_padding": 0,
    "recipe.augmentation.flip": False,
    "recipe.augmentation.alternating_flip": False,
    "recipe.augmentation.policy": None,
    "recipe.augmentation.cutout": 0,
    "recipe.augmentation.mixing": None,
    "recipe.augmentation.padding_mode": "zeros",
    "recipe.weight_average": None,
    "recipe.test_time_flip": False,
    "recipe.norm_bias_rate": 1.0,
    "recipe.freeze_norm_scales": False,
    "recipe.lookahead": None,
    "recipe.muon": None,
    "spec.stem.whitening": None,
    "recipe.test_time_shifts": False,
    "recipe.resizing": None,
    "recipe.example_filter": None,
}
"""What is left where a component was taken away; of a document, the fields that change."""

_WORDS = {"on": True, "off": False}
_LONGEST = 48
"""Characters of a level in the name of a variant, beyond which it is cut and told apart by a digest."""


def read_level(path: str, level: Any) -> Any:
    """A level as a study keeps it: words for on and off as booleans, whole documents by their names or checked.

    Raises:
        InputError: a path that leads nowhere, a name that nothing has, or a document that breaks a rule.
    """
    require_path(path, level)
    if isinstance(level, str) and level in _WORDS:
        return _WORDS[level]
    if path not in DOCUMENTS:
        return level
    try:
        return read_document(path, level)
    except InputError as error:
        raise InputError(f"{path}.{error.field}".rstrip("."), error.value, error.rule) from None


def read_document(kind: str, value: Any) -> ModelSpec | Recipe:
    """A specification or a recipe that is given by its name, as plain data or as itself.

    Args:
        kind: ``spec`` or ``recipe``.
        value: what was given.

    Raises:
        InputError: nothing has that name, or the data breaks a rule; the field is the part behind ``kind``.
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
    """Whether a level takes a component away."""
    return pattern_of(path) in REMOVED and (level is None or level is False)


def meaning(path: str, level: Any, *, present: Any, own: Any) -> Any:
    """The plain value that a level sets; `is_removal` tells where a stage goes instead.

    Args:
        path: where.
        level: the level.
        present: the value that is there now.
        own: the base's own value.

    Raises:
        InputError: ``on`` for what the base has not, or on and off for what cannot be taken away.
    """
    place = PLACES[pattern_of(path)]
    if level is None and place.nullable:
        return None
    if isinstance(level, (ModelSpec, Recipe)):
        return level.to_mapping()
    if is_removal(path, level):
        return _without(path, present)
    if level is True and not place.boolean:
        if pattern_of(path) not in REMOVED:
            raise InputError(path, "on", "cannot be switched on: give a value")
        if own == _without(path, own):
            raise InputError(path, "on", "is not there in the base: give the value to set")
        return copy.deepcopy(own)
    if level is False or level is None:
        raise InputError(path, "off" if level is False else None, "cannot be taken away: give a value")
    if isinstance(level, str) and place.has_kind:
        return {**(present or {}), "kind": level}
    return copy.deepcopy(level)


def _without(path: str, present: Any) -> Any:
    removed = REMOVED[pattern_of(path)]
    return {**present, **removed} if isinstance(removed, dict) else removed


def kept_level(level: Any) -> Any:
    """A level as plain data: whole documents by their labels."""
    if isinstance(level, ModelSpec):
        return level.label
    return (level.name or f"recipe-{level.digest[:8]}") if isinstance(level, Recipe) else level


def setting_text(path: str, level: Any) -> str:
    """A level for people, short: ``kernel_sizes=5x3``, ``stages[4].channels=128``, ``without early_stopping``."""
    label = label_of(path)
    if is_removal(path, level):
        return f"without {label}"
    text = _text(kept_level(level), joint="x" if label.endswith("kernel_sizes") else "-")
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
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
    """A level as text that tells 1 from on, to find those named twice."""
    digest = {"document": level.digest} if isinstance(level, (ModelSpec, Recipe)) else level
    return json.dumps(digest, sort_keys=True, default=repr)
