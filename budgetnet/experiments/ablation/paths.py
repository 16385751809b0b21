"""Dotted paths into a specification or a recipe, such as ``spec.stages[4].channels`` or ``recipe.schedule``.

A path begins with the name of the document, ``spec`` or ``recipe``, which alone is the whole document. Fields of the
document follow, with ``[i]`` for an entry of a list, counted from 0. ``spec.channels``, ``spec.blocks``,
``spec.strides``, ``spec.kernel_sizes`` and fields of the network that stages have too, such as ``spec.activation``, set
all stages at once, as in `ModelSpec.replace`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from budgetnet.common.documents import Document, document_type, field_path
from budgetnet.common.errors import InputError
from budgetnet.model.spec import ModelSpec
from budgetnet.model.stage_lists import PER_STAGE
from budgetnet.runs.recipe import Recipe

DOCUMENTS: dict[str, type[ModelSpec] | type[Recipe]] = {"spec": ModelSpec, "recipe": Recipe}
"""Documents by the first part of a path."""


class Place(NamedTuple):
    """Kind of value at a path."""

    boolean: bool = False
    """Whether it is a boolean."""
    nullable: bool = False
    """Whether it may be null."""
    has_kind: bool = False
    """Whether it is a document with a field ``kind``."""


def _places(prefix: str, document: type[Document]) -> Iterator[tuple[str, Place]]:
    for name, field in document.model_fields.items():
        path, annotation = f"{prefix}.{name}", field.annotation
        inner = document_type(annotation)
        is_list = get_origin(annotation) is tuple
        has_kind = inner is not None and not is_list and "kind" in inner.model_fields
        yield path, Place(_is_boolean(annotation), NoneType in get_args(annotation), has_kind)
        if is_list:
            path += "[]"
            yield path, Place()
        if inner:
            yield from _places(path, inner)


def _is_boolean(annotation: Any) -> bool:
    """Return whether an annotation is that of a boolean, also of one that may be null."""
    alone = get_origin(annotation) in (Annotated, Union, UnionType)
    return annotation is bool or (alone and any(map(_is_boolean, get_args(annotation))))


_FIXED = {
    "name": "is a label and changes nothing",
    "schema_version": "is that of the format",
    "input_shape": "is that of the data",
    "num_classes": "is that of the data",
}
"""Fields that cannot be varied, with the reason."""

PLACES: dict[str, Place] = {
    **{name: Place() for name in DOCUMENTS},
    **{path: place for name, document in DOCUMENTS.items() for path, place in _places(name, document)},
    **{f"spec.{name}": Place() for name in PER_STAGE},
}
"""All paths, with ``[]`` for any entry of a list."""

_INDEX = re.compile(r"\[(0|[1-9]\d{0,8})\]")
_PART = re.compile(r"\w+|\[\d+\]")


def pattern_of(path: str) -> str:
    """Return the path as a key of `PLACES`: ``spec.stages[4].channels`` is ``spec.stages[].channels``."""
    return _INDEX.sub("[]", path)


def parts_of(path: str) -> list[str | int]:
    """Return the fields and indexes of a path: spec, stages, 4 and channels for ``spec.stages[4].channels``."""
    return [int(part[1:-1]) if part.startswith("[") else part for part in _PART.findall(path)]


def require_path(path: str, value: object) -> None:
    """Require a path to a value that a study can vary.

    Args:
        path: the path.
        value: value to set, for the error.

    Raises:
        InputError: the field does not exist or cannot be varied.
    """
    pattern = pattern_of(path)
    root, _, field = pattern.partition(".")
    if root in DOCUMENTS and field.partition("[")[0] in _FIXED:
        raise InputError(path, value, f"cannot be varied: it {_FIXED[field.partition('[')[0]]}")
    if pattern in PLACES:
        return
    near = difflib.get_close_matches(pattern, [known for known in PLACES if not _is_fixed(known)], n=1)
    if near:
        hint = f"did you mean {_with_indexes(near[0], path)}?"
    else:
        hint = "a path is spec or recipe and their fields, as in spec.stages[4].channels"
    raise InputError(field_path((path,)) or repr(path), value, f"unknown field; {hint}")


def _with_indexes(pattern: str, path: str) -> str:
    """Return a pattern with the indexes of a path, or 0 where it has too few."""
    indexes = iter(_INDEX.findall(path))
    return re.sub(r"\[\]", lambda _: f"[{next(indexes, 0)}]", pattern)


def _is_fixed(pattern: str) -> bool:
    return pattern.partition(".")[2].partition("[")[0] in _FIXED


def label_of(path: str) -> str:
    """Return the path without the document, as in ``stages[4].channels``; the documents share no field."""
    return path.partition(".")[2] or path


def value_at(documents: Any, path: str, *, level: object = None) -> Any:
    """Return the value at a path.

    Args:
        documents: plain data by ``spec`` and ``recipe``.
        path: the path, of a single value.
        level: value to set, for the error.

    Raises:
        InputError: the path does not exist: a list is too short, or a component on the way is null.
    """
    value, passed = documents, ""
    for part in parts_of(path):
        if isinstance(part, int):
            if not isinstance(value, list) or part >= len(value):
                there = f"has {len(value)} entries, counted from 0" if isinstance(value, list) else "is not a list"
                raise InputError(path, level, f"does not exist: {passed} {there}")
            value = value[part]
        elif not isinstance(value, dict):
            reason = "is null" if value is None else "has no fields"
            raise InputError(path, level, f"does not exist: {passed} {reason}")
        else:
            value = value.get(part)
        passed = f"{passed}[{part}]" if isinstance(part, int) else f"{passed}.{part}".lstrip(".")
    return value
