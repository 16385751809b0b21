"""Command lines that make a study, or a candidate of it, again: from the config that is stored with the study."""

from __future__ import annotations

import shlex
from pathlib import Path

from budgetnet.common.config import without_password
from budgetnet.study.config import SearchConfig
from budgetnet.study.settings import StudySettings


def found_config(settings: StudySettings, study: str, *, out: Path, storage: str | None) -> SearchConfig:
    """Return the config of a study's search, with the places at which the study was found.

    Args:
        settings: the study's question and config.
        study: name of the study.
        out: folder of its run folders.
        storage: URL of its storage; None where that is the SQLite file in the folder.
    """
    return settings.config.replace(study=study, out=out, storage=storage)


def place_of(config: SearchConfig) -> list[str]:
    """Return the options by which other commands find a study."""
    storage = [] if config.storage is None else ["--storage", without_password(config.storage)]
    return ["--out", str(config.out), *storage]


def train_command(run: Path, settings: StudySettings, *, seed: int) -> str:
    """Return the command that trains the network of a run again, into a folder of its own.

    Args:
        run: the run's folder, with the network and the recipe in it.
        settings: the study's question and config.
        seed: of the run.
    """
    config = settings.config
    words = ["budgetnet", "train", str(run / "spec.yaml"), "--recipe", str(run / "recipe.yaml")]
    words += ["--data", config.data, "--seed", str(seed), "--device", settings.device, "--out", "again"]
    for option, size in (("--train-size", config.train_size), ("--validation-size", config.validation_size)):
        words += [] if size is None else [option, str(size)]
    return shlex.join(words)
