"""What the fields of a study's file may hold: changes, factors, options and networks as they are written, and files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from budgetnet.common.errors import InputError
from budgetnet.common.files import is_file_path
from budgetnet.experiments.ablation.design import ALL, BASE
from budgetnet.experiments.ablation.levels import level_key, read_document, read_level
from budgetnet.experiments.ablation.paths import DOCUMENTS
from budgetnet.model.zoo import ENTRIES
from budgetnet.runs.named_recipes import NAMED

NO_FACTORS = "must be a mapping of paths to lists of levels, or a list of paths"
"""What is said where a study varies nothing."""

_NETWORK_NAME = re.compile(r"[\w.+-]{1,30}")
_OPTION_NAME = re.compile(r"[\w.+=-]([\w .+=/-]{0,46}[\w.+=-])?")


def read_changes(value: object) -> dict[str, Any]:
    """Values by path."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of paths to values")
    return {str(path): read_level(str(path), level) for path, level in value.items()}


def read_factors(value: object) -> dict[str, tuple[Any, ...]]:
    """Levels by path; of a plain list of paths each is taken away."""
    if value and isinstance(value, list) and all(isinstance(path, str) for path in value):
        if len(set(value)) < len(value):
            raise ValueError("must not name a path twice")
        value = {path: [False] for path in value}
    if not isinstance(value, dict):
        raise ValueError(NO_FACTORS)
    return {str(path): _levels(str(path), levels) for path, levels in value.items()}


def _levels(path: str, levels: object) -> tuple[Any, ...]:
    if not isinstance(levels, (list, tuple)) or not levels:
        raise InputError(path, levels, "must be a list of levels")
    read = tuple(read_level(path, level) for level in levels)
    if len({level_key(level) for level in read}) < len(read):
        raise InputError(path, list(levels), "must not name a level twice")
    return read


def read_options(value: object) -> dict[str, dict[str, Any]]:
    """Values by path, by the names of the options that set them."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of names to mappings of paths to values")
    options = {str(name): settings for name, settings in value.items()}
    for name, settings in options.items():
        if name in (BASE, ALL):
            raise InputError(name, settings, "is a variant's name already: call the option something else")
        if not _OPTION_NAME.fullmatch(name):
            rule = "must have a name of 1 to 48 letters, digits, spaces and the characters . + = / _ -"
            raise InputError(repr(name), settings, rule)
        if not isinstance(settings, dict) or not settings:
            raise InputError(name, settings, "must be a mapping of paths to values")
    return {
        name: {str(path): _read_value(name, str(path), level) for path, level in settings.items()}
        for name, settings in options.items()
    }


def _read_value(name: str, path: str, level: object) -> Any:
    try:
        return read_level(path, level)
    except InputError as error:
        raise InputError(f"{name}.{error.field}", error.value, error.rule) from None


def read_networks(value: object) -> dict[str, Any]:
    """Networks by their short names."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of short names to networks")
    for name, network in value.items():
        if not _NETWORK_NAME.fullmatch(str(name)):
            rule = "must have a name of 1 to 30 letters, digits and the characters . + _ -"
            raise InputError(repr(str(name)), network, rule)
    return {str(name): _read_network(str(name), network) for name, network in value.items()}


def _read_network(name: str, network: object) -> Any:
    try:
        return read_document("spec", network)
    except InputError as error:
        raise InputError(f"{name}.{error.field}".rstrip("."), error.value, error.rule) from None


def with_files(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping of a study, with the documents in place of the files that it names.

    Raises:
        InputError: a file is missing or malformed, or what it holds breaks a rule.
    """

    def read(kind: str, value: Any) -> Any:
        known = ENTRIES if kind == "spec" else NAMED
        if isinstance(value, str) and value not in known and is_file_path(value, folder=folder):
            return DOCUMENTS[kind].load(folder / value)
        return value

    def read_inside(kind: str, value: Any) -> Any:
        """A mapping of paths, whose value at the path of a whole document may be a file, or a list of them."""
        if not isinstance(value, dict) or kind not in value:
            return value
        levels = value[kind]
        inside = [read(kind, each) for each in levels] if isinstance(levels, list) else read(kind, levels)
        return {**value, kind: inside}

    result = dict(mapping)
    for kind in DOCUMENTS:
        if kind in result:
            result[kind] = read(kind, result[kind])
        for field in ("changes", "factors"):
            if field in result:
                result[field] = read_inside(kind, result[field])
        if isinstance(options := result.get("options"), dict):
            result["options"] = {name: read_inside(kind, settings) for name, settings in options.items()}
    if isinstance(networks := result.get("networks"), dict):
        result["networks"] = {name: read("spec", network) for name, network in networks.items()}
    return result
