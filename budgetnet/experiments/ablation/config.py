"""The config of an ablation: the options of ``budgetnet ablate`` that decide what is trained and compared."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, model_validator

from budgetnet.common.config import (
    DeviceName,
    EngineOptions,
    OnCommandLine,
    OptionalCount,
    OptionalData,
    Trackers,
    Url,
    several,
)
from budgetnet.common.documents import path_as_text
from budgetnet.common.errors import InputError, named
from budgetnet.common.files import exists, parse_text
from budgetnet.experiments.ablation.study import MAX_SEEDS, AblationStudy
from budgetnet.experiments.ablation.winner import SearchWinner, winner_study
from budgetnet.model.zoo import find_spec
from budgetnet.runs.named_recipes import find_recipe

STUDY_FILE = "study.yaml"
"""The file that a study's folder is read from."""

DEFAULT_BASE = "reference"
"""Network to which the factors of a search's winner are set back."""

Method = Literal["t", "bootstrap"]
"""How intervals and p-values are computed."""


def _read_study(value: object) -> object:
    if isinstance(value, Mapping):
        return AblationStudy.from_mapping(dict(value))
    text = path_as_text(value)
    if text is not None and not isinstance(text, (str, AblationStudy)):
        raise ValueError("must be a file, a folder or a study")
    return text


def _read_winner(value: object) -> object:
    if isinstance(value, Mapping):
        return SearchWinner.from_mapping(dict(value))
    if value is not None and not isinstance(value, (str, SearchWinner)):
        raise ValueError("must be the name of a search, or its winner")
    return value


def _winner_text(value: str | SearchWinner) -> str:
    return value.name if isinstance(value, SearchWinner) else value


class AblationConfig(EngineOptions):
    """Options of an ablation: of a study's file, or of the winner of a search.

    Raises:
        InputError: on construction, when a field is unknown or breaks its rule.
    """

    document_kind: ClassVar[str] = "ablation config"
    command: ClassVar[str] = "ablate"

    study: Annotated[
        str | AblationStudy | None,
        BeforeValidator(_read_study, json_schema_input_type=str | AblationStudy | None),
        OnCommandLine("STUDY", argument=True),
    ] = None
    """Ablation study: a YAML or JSON file, or a folder with a study.yaml. Omitted with of."""
    of: Annotated[
        str | SearchWinner | None,
        BeforeValidator(_read_winner, json_schema_input_type=str | SearchWinner | None),
        OnCommandLine("SEARCH", _winner_text),
    ] = None
    """Search whose best network is ablated, one factor at a time: the name of its study, best for the latest,
    SEARCH#3 for the network of trial 3, or '#3' for that of the latest search."""
    base: Annotated[str, BeforeValidator(path_as_text), OnCommandLine("SPEC")] = DEFAULT_BASE
    """Network to which factors are set back, with of: a name, a file or a run, such as SEARCH#3 or '#3'."""
    storage: Url = None
    """Storage of the search, with of, as any SQLAlchemy URL. Default: the SQLite file in the folder of run folders."""
    data: OptionalData = None
    """Data set: digits, cifar10, cifar100, mnist, fashion-mnist, kmnist, svhn, stl10, NAME:PATH for one of these in a
    folder, folder:PATH or arrays:PATH.npz. Default: the study's, else digits."""
    change: Annotated[tuple[str, ...], BeforeValidator(several), OnCommandLine("PATH=VALUE")] = ()
    """Value to set in the base, such as recipe.epochs=30 or spec=resnet20; again for more."""
    seeds: OptionalCount = None
    """Number of seeds, from 0 on, in place of the study's."""
    epochs: OptionalCount = None
    """Epochs in place of the recipes'; the schedule is stretched to end with the last one."""
    train_size: OptionalCount = None
    """Number of training images to use. Default: the study's, else all."""
    validation_size: OptionalCount = None
    """Number of held-out images to validate on. Default: the study's, else all."""
    interval: Method = "t"
    """How intervals and p-values are computed: t, or bootstrap for many seeds."""
    out: Annotated[Path, OnCommandLine("DIR")] = Path("runs")
    """Folder of run folders."""
    device: DeviceName = "auto"
    """Device to train on: auto, cuda, mps or cpu."""
    track: Trackers = ()
    """Tracker of runs: tensorboard[:FOLDER] or mlflow[:URI]; again for more. Default place: in the folder of runs."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.of is None:
            if self.study is None:
                raise InputError("study", None, "must be a study's file or folder, unless of names a search")
            for field, default in (("base", DEFAULT_BASE), ("storage", None)):
                if (value := getattr(self, field)) != default:
                    raise InputError(field, value, "is for the winner of a search: must be given with of")
        elif self.study is not None:
            raise InputError("of", _winner_text(self.of), "must not be given with a study's file")
        elif self.change:
            rule = "must not be given with of: the winner is ablated as it was trained"
            raise InputError("change", self.change[0], rule)
        return self

    @functools.cached_property
    def file(self) -> AblationStudy:
        """Study as read from its file, or made from the winner of a search.

        Raises:
            InputError: the file is missing or breaks a rule, or the winner cannot be compared with the base.
        """
        if isinstance(self.of, SearchWinner):
            with named("base"):
                base = find_spec(self.base)
            return winner_study(self.of, base)
        if isinstance(self.study, AblationStudy):
            return self.study
        if self.study is None:
            raise InputError("of", self.of, "must be read from its search first, as budgetnet.ablate does")
        path = Path(self.study)
        return AblationStudy.load(path / STUDY_FILE if exists(path) and path.is_dir() else path)

    @functools.cached_property
    def changed_study(self) -> AblationStudy:
        """Study with the changes, epochs and seeds of this config.

        Raises:
            InputError: the file is missing or breaks a rule, alone or with the changes.
        """
        study = self.file
        changes = dict(_read_change(text) for text in self.change)
        if changes:
            study = study.from_mapping({**study.to_mapping(), "changes": {**study.changes, **changes}})
        if self.epochs is not None:
            study = study.with_epochs(self.epochs)
        if self.seeds is None:
            return study
        if self.seeds > MAX_SEEDS:
            raise InputError("seeds", self.seeds, f"must be at most {MAX_SEEDS:,}")
        return study.from_mapping({**study.to_mapping(), "seeds": self.seeds})

    @property
    def data_name(self) -> str:
        """Name of the data set to load."""
        return self.data or self.file.data or "digits"

    @property
    def sizes(self) -> dict[str, int | None]:
        """Numbers of training and validation images, as `budgetnet.engines.batch.Batch` takes them."""
        return {name: getattr(self, name) or getattr(self.file, name) for name in ("train_size", "validation_size")}

    @property
    def changes(self) -> list[str]:
        """Changes that the config makes in the study, as text."""
        return [*self.change, *(f"epochs={self.epochs}" for _ in range(self.epochs is not None))]


def _read_change(text: str) -> tuple[str, Any]:
    path, sign, value = text.partition("=")
    path = path.strip()
    if not sign or not path:
        raise InputError("change", text, "must be PATH=VALUE, such as recipe.epochs=30")
    if path == "spec":
        return path, find_spec(value).to_mapping()
    if path == "recipe":
        return path, find_recipe(value).to_mapping()
    return path, parse_text(value, kind="YAML", field="change", name=text)
