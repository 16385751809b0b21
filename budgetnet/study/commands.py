"""Command lines that reproduce a study or one of its candidates, from the stored config."""

from __future__ import annotations

import shlex
from pathlib import Path

from budgetnet.common.passwords import without_password
from budgetnet.study.config import SearchConfig
from budgetnet.study.settings import StudySettings


def found_config(settings: StudySettings, study: str, *, out: Path, storage: str | None) -> SearchConfig:
    """Return the stored config of a study, with its current folder and storage.

    Args:
        settings: settings of the study.
        study: name of the study.
        out: folder of its run folders.
        storage: URL of its storage; None where that is the SQLite file in the folder.
    """
    return settings.config.replace(study=study, out=out, storage=storage)


def location_options(config: SearchConfig) -> list[str]:
    """Return the command-line options that locate a study."""
    storage = [] if config.storage is None else ["--storage", without_password(config.storage)]
    return ["--out", str(config.out), *storage]


def train_command(run: Path, settings: StudySettings, *, seed: int) -> str:
    """Return the command that trains the network of a run again, into another folder.

    Args:
        run: run folder with the network and the recipe.
        settings: settings of the study.
        seed: seed of the run.
    """
    config = settings.config
    words = ["budgetnet", "train", str(run / "spec.yaml"), "--recipe", str(run / "recipe.yaml")]
    words += ["--data", config.data, "--seed", str(seed), "--device", settings.device, "--out", "again"]
    for option, size in (("--train-size", config.train_size), ("--validation-size", config.validation_size)):
        words += [] if size is None else [option, str(size)]
    return shlex.join(words)
