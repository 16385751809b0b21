"""Recipes, spaces and networks as fields of a config: given as documents, by their names or by their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from budgetnet.common.config import OnCommandLine, several
from budgetnet.common.documents import Document, look_up, path_as_text
from budgetnet.common.errors import InputError
from budgetnet.common.files import exists, is_file_path
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import ENTRIES, get
from budgetnet.runs.named_recipes import NAMED as RECIPES
from budgetnet.runs.recipe import Recipe
from budgetnet.study.objectives import ObjectiveName, read_objectives

SPACES = ("resnet", "paper", "mobile", "regnet")
"""Names of search spaces."""
NO_SPACE = "no such space, and no such file"


def require_space_name(text: str) -> None:
    """Check a text that is not a file, without loading the space.

    Raises:
        InputError: there is no space of this name.
    """
    if not is_file_path(text):
        look_up(text, dict.fromkeys(SPACES), field="space", missing=NO_SPACE)


def _read_recipe(value: object) -> object:
    """Accept a recipe, its name or its file; a named recipe is stored by its name."""
    if isinstance(value, Mapping):
        value = Recipe.from_mapping(dict(value))
    if isinstance(value, Recipe):
        return value.name if value.name in RECIPES and RECIPES[value.name].digest == value.digest else value
    return None if value is None else _text(value, what="recipe")


def _read_networks(value: object) -> object:
    return tuple(map(_read_network, several(value)))


def _read_network(value: object) -> object:
    """Accept a network, its name or its file; a named network is stored by its name."""
    if isinstance(value, Mapping):
        value = ModelSpec.from_mapping(dict(value))
    if isinstance(value, ModelSpec):
        return value.name if value.name in ENTRIES and get(value.name) == value else value
    # Not looked up here, as a stored config must be readable without what it names.
    return _text(value, what="specification")


def _may_name_run(text: str) -> bool:
    return ("#" in text or Path(text).name == "best") and not exists(Path(text))


def path_of_enqueued(text: str, *, out: Path, storage: str | None) -> str:
    """Return the path of a run to enqueue that a text names, such as ``STUDY#3``; another text as it is.

    Args:
        text: name, path, or anything else.
        out: folder of the search's runs, where the study is looked for.
        storage: URL of the search's storage. Default: the SQLite file in the folder.

    Raises:
        InputError: there is no such run, or the name means one of the most recent study.
        RecordError: there is no such study.
    """
    if _may_name_run(text) and Path(text).name.split("#")[0] in ("", "best"):
        # The same command would name another network as soon as this search is the most recent study.
        rule = "names a run of the most recent study, which will be this one; write STUDY#best or STUDY#3"
        raise InputError("", text, rule)
    return path_of_run(text, out=out, storage=storage)


def path_of_run(text: str, *, out: Path = Path("runs"), storage: str | None = None) -> str:
    """Return the path of the run that a text names, such as ``STUDY#3``; another text as it is.

    Args:
        text: name, path, or anything else.
        out: folder of runs, where the study is looked for.
        storage: URL of the study's storage. Default: the SQLite file in the folder.

    Raises:
        InputError: there is no such run.
        RecordError: there is no such study.
    """
    if not _may_name_run(text):
        return text
    # Imports Optuna, which takes a second that other names can save.
    from budgetnet.study.run_names import is_run_name, run_path

    return str(run_path(text, out=out, storage=storage)) if is_run_name(text) else text


def _read_space(value: object) -> object:
    """Accept a space, its name or its file; a named space is stored by its name, others as plain data."""
    if isinstance(value, Mapping):
        from budgetnet.study.space import SearchSpace

        value = SearchSpace.from_mapping(dict(value))
    if not isinstance(value, Document):
        return _text(value, what="space")
    from budgetnet.study.space.named import NAMED as SPACES

    return next((name for name, space in SPACES.items() if space == value), None) or value.to_mapping()


def _text(value: object, *, what: str) -> str:
    text = path_as_text(value)
    if not isinstance(text, str):
        raise ValueError(f"must be a name, a file or a {what}")
    return text


RecipeChoice = Annotated[
    str | Recipe | None,
    BeforeValidator(_read_recipe, json_schema_input_type=str | Recipe | None),
    OnCommandLine("RECIPE"),
]
# Plain data, because the document class imports Optuna, which takes a second that other commands can save.
SpaceChoice = Annotated[
    str | dict[str, Any],
    BeforeValidator(_read_space, json_schema_input_type=str | dict[str, Any]),
    OnCommandLine("SPACE"),
]
Networks = Annotated[
    tuple[str | ModelSpec, ...],
    BeforeValidator(_read_networks, json_schema_input_type=tuple[str | ModelSpec, ...] | str),
    OnCommandLine("SPEC"),
]
Objectives = Annotated[
    tuple[ObjectiveName, ...],
    BeforeValidator(read_objectives, json_schema_input_type=tuple[ObjectiveName, ...] | str),
    OnCommandLine("NAME,...", ",".join, joined=True),
]
