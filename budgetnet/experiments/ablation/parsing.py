"""Parsers of the fields of a study file: changes, factors, options, networks and paths of files."""

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
"""Error of a study without factors."""

_NETWORK_NAME = re.compile(r"[\w.+-]{1,30}")
OPTION_NAME = re.compile(r"[\w.+=-]([\w .+=/-]{0,46}[\w.+=-])?")
"""Names of options."""


def read_changes(value: object) -> dict[str, Any]:
    """Return changes as values by path."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of paths to values")
    return {str(path): read_level(str(path), level) for path, level in value.items()}


def read_factors(value: object) -> dict[str, tuple[Any, ...]]:
    """Return factors as levels by path; a list of paths removes each of them."""
    if value and isinstance(value, list) and all(isinstance(path, str) for path in value):
        if len(set(value)) < len(value):
            raise ValueError("must not have a path twice")
        value = {path: [False] for path in value}
    if not isinstance(value, dict):
        raise ValueError(NO_FACTORS)
    return {str(path): _levels(str(path), levels) for path, levels in value.items()}


def _levels(path: str, levels: object) -> tuple[Any, ...]:
    if not isinstance(levels, (list, tuple)) or not levels:
        raise InputError(path, levels, "must be a list of levels")
    read = tuple(read_level(path, level) for level in levels)
    if len({level_key(level) for level in read}) < len(read):
        raise InputError(path, list(levels), "must not have a level twice")
    return read


def read_options(value: object) -> dict[str, dict[str, Any]]:
    """Return options as values by path, by the name of the option."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of names to mappings of paths to values")
    options = {str(name): settings for name, settings in value.items()}
    for name, settings in options.items():
        if name in (BASE, ALL):
            raise InputError(name, settings, "is the name of a variant: choose another name")
        if not OPTION_NAME.fullmatch(name):
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
    """Return networks by their short names."""
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
    """Return the mapping of a study, with documents in place of file names.

    Raises:
        InputError: a file is missing or malformed, or what it holds breaks a rule.
    """

    def read(kind: str, value: Any) -> Any:
        known = ENTRIES if kind == "spec" else NAMED
        if isinstance(value, str) and value not in known and is_file_path(value, folder=folder):
            return DOCUMENTS[kind].load(folder / value)
        return value

    def read_inside(kind: str, value: Any) -> Any:
        """Return a mapping of paths with the files of whole documents read."""
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
