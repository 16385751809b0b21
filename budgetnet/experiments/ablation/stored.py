"""Configs of ablations, stored in the folder of their runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.config import AblationConfig
from budgetnet.experiments.ablation.study import AblationStudy

_NAME = "ablation-{digest}.json"


class StoredAblation(Document):
    """Config of an ablation and its resolved study."""

    document_kind: ClassVar[str] = "stored ablation"

    schema_version: Literal[1] = 1
    """Version of this format."""
    config: AblationConfig
    """Options of the ablation."""
    file_digest: str
    """Digest of the study as read from its file."""
    study: AblationStudy
    """The study with the config's changes."""


def store_ablation(config: AblationConfig) -> None:
    """Store the config of an ablation in its folder of runs; it replaces an earlier one of the same study."""
    study = config.changed_study
    stored = StoredAblation(config=config, file_digest=config.file.digest, study=study)
    path = config.out / _NAME.format(digest=study.digest[:10])
    # An unchanged file keeps its modification time.
    if not path.exists() or _read(path) != stored:
        config.out.mkdir(parents=True, exist_ok=True)
        stored.save(path)


def stored_ablations(folder: Path) -> list[StoredAblation]:
    """Return the readable stored ablations in a folder of runs, the latest first."""
    paths = sorted(folder.glob(_NAME.format(digest="*")), key=lambda path: (path.stat().st_mtime, path), reverse=True)
    return [stored for path in paths if (stored := _read(path)) is not None]


def _read(path: Path) -> StoredAblation | None:
    try:
        return StoredAblation.load(path)
    except InputError:
        return None
