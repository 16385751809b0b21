"""Lists with one entry for each stage, which set a field of all stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from pydantic import BaseModel

from budgetnet.common.errors import InputError
from budgetnet.model.parts import STAGE_OVERRIDES, Stage

PER_STAGE = {"channels": "channels", "blocks": "blocks", "strides": "stride", "kernel_sizes": "kernel_sizes"}
"""Arguments of `ModelSpec.resnet` with one entry for each stage, and the field of `Stage` that each sets."""


def is_list(value: object) -> bool:
    """Return whether a value has entries in an order: a list, a tuple, an array, an iterator."""
    return isinstance(_plain(value), Iterable) and not isinstance(value, (str, bytes, Mapping, Set, BaseModel))


def entries_of(field: str, value: object) -> list[Any]:
    """Return the entries of a list.

    Raises:
        InputError: it is none.
    """
    plain = _plain(value)
    if not is_list(plain):
        raise InputError(field, value, "must be a list with one entry for each stage")
    return list(plain)


def _plain(value: Any) -> Any:
    """Return a number or an array of numpy as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def stage_mappings(stages: object) -> list[dict[str, Any]] | None:
    """Return the fields of each stage; None for what are no stages."""
    if not is_list(stages):
        return None
    every = [each.model_dump() if isinstance(each, Stage) else each for each in entries_of("stages", stages)]
    return [dict(each) for each in every] if all(isinstance(each, Mapping) for each in every) else None


def spread_over_stages(stages: list[dict[str, Any]], lists: Mapping[str, Any]) -> None:
    """Set fields of stages from lists with one entry for each stage, or from one value for all stages.

    Args:
        stages: fields of each stage, updated in place.
        lists: lists or single values by the names of `PER_STAGE`; lists by those of `STAGE_OVERRIDES`.

    Raises:
        InputError: the length of a list differs from the number of stages.
    """
    for field, value in lists.items():
        single = isinstance(value, BaseModel) or not isinstance(_plain(value), Iterable)
        entries = [value] * len(stages) if single else entries_of(field, value)
        if field == "kernel_sizes" and not single and not any(map(is_list, entries)):
            if len(entries) != 2:
                rule = f"must be one pair for all stages, or one for each of the {len(stages)}"
                raise InputError(field, value, rule)
            entries = [entries] * len(stages)
        if len(entries) != len(stages):
            raise InputError(field, value, f"must have one entry for each of the {len(stages)} stages")
        for stage, entry in zip(stages, entries, strict=True):
            stage[PER_STAGE.get(field, field)] = entry


def with_lists_spread(data: Any) -> Any:
    """Return the fields of a specification with its lists for all stages moved to the stages.

    Raises:
        InputError: a field belongs in the stages, the length of a list differs from their number, or a stage has a
            value of its own too.
    """
    if not isinstance(data, Mapping):
        return data
    for name, field in PER_STAGE.items():
        if name in data:
            raise InputError(name, data[name], f"unknown field; each of the stages has its own, stages[0].{field}")
    lists = {name: data[name] for name in STAGE_OVERRIDES if is_list(data.get(name))}
    if not lists:
        return data
    others = {name: value for name, value in data.items() if name not in lists}
    stages = stage_mappings(data.get("stages"))
    # Without stages, or with invalid ones, the error is theirs.
    if stages is None:
        return others
    spread: list[dict[str, Any]] = [{} for _ in stages]
    spread_over_stages(spread, lists)
    for index, (stage, own) in enumerate(zip(stages, spread, strict=True)):
        for name, value in own.items():
            if value is not None and stage.get(name) is not None:
                rule = "must not be given where the network has a list for all stages"
                raise InputError(f"stages[{index}].{name}", stage[name], rule)
        stage.update({name: value for name, value in own.items() if value is not None})
    return {**others, "stages": stages}


_ABOUT = ("title", "description", "default")
"""Keywords of a JSON schema that say nothing about values."""


def schema_with_list(field: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a field that may also be a list with one entry for each stage.

    Args:
        field: schema of the network's field.
        entry: schema of the stage's field.
    """
    value, items = ({key: each[key] for key in each if key not in _ABOUT} for each in (field, entry))
    options = [*value.get("anyOf", [value]), {"type": "array", "items": items}]
    return {**{key: field[key] for key in _ABOUT if key in field}, "anyOf": options}
