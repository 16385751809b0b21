"""The config of an ablation: the options of ``budgetnet ablate`` that decide what is trained and compared."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator

from budgetnet.common.config import (
    DeviceName,
    EngineOptions,
    OnCommandLine,
    OptionalCount,
    OptionalData,
    Threads,
    Trackers,
    path_as_text,
    several,
)
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.study import MAX_SEEDS, AblationStudy
from budgetnet.model.zoo import find_spec
from budgetnet.runs.named_recipes import find_recipe

STUDY_FILE = "study.yaml"
"""The file that a study's folder is read from."""

Method = Literal["t", "bootstrap"]
"""How intervals and p-values are computed."""


def _read_study(value: object) -> object:
    if isinstance(value, Mapping):
        return AblationStudy.from_mapping(dict(value))
    text = path_as_text(value)
    if not isinstance(text, (str, AblationStudy)):
        raise ValueError("must be a file, a folder or a study")
    return text


class AblationConfig(EngineOptions):
    """Options of an ablation.

    Raises:
        InputError: on construction, when a field is unknown or breaks its rule.
    """

    document_kind: ClassVar[str] = "ablation config"
    command: ClassVar[str] = "ablate"

    study: Annotated[
        str | AblationStudy,
        BeforeValidator(_read_study, json_schema_input_type=str | AblationStudy),
        OnCommandLine("STUDY", argument=True),
    ]
    """Ablation study: a YAML or JSON file, or a folder with a study.yaml."""
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
    threads: Threads = None
    """Threads of torch on a CPU; auto takes one or all, by a few measured steps. Default: all."""
    track: Trackers = ()
    """Tracker of runs: tensorboard[:FOLDER] or mlflow[:URI]; again for more. Default place: in the folder of runs."""

    @functools.cached_property
    def file(self) -> AblationStudy:
        """Study as read from its file.

        Raises:
            InputError: the file is missing or breaks a rule.
        """
        if isinstance(self.study, AblationStudy):
            return self.study
        path = Path(self.study)
        return AblationStudy.load(path / STUDY_FILE if path.is_dir() else path)

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
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError("change", text, "must have a value in YAML") from None
