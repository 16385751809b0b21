"""Configs of reproductions, stored in the folder of their runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import SerializeAsAny

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError
from budgetnet.experiments.reproduction.config import ReproductionConfig
from budgetnet.experiments.reproduction.running import KINDS

_KINDS = {kind.command: kind for kind in KINDS.values()}
_NAME = "reproduction-{digest}.json"


class StoredReproduction(Document):
    """Config of a reproduction and its command."""

    document_kind: ClassVar[str] = "stored reproduction"

    schema_version: Literal[1] = 1
    """Version of this format."""
    command: str
    """Name of the command below ``budgetnet``."""
    config: SerializeAsAny[ReproductionConfig]
    """Options of the reproduction."""

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """Build the document from plain data, as read from a file.

        Raises:
            InputError: a field is unknown, missing or breaks its rule.
        """
        kind = _KINDS.get(str(mapping.get("command")))
        if kind is None:
            raise InputError("command", mapping.get("command"), f"must be one of {', '.join(_KINDS)}")
        config = mapping.get("config")
        read = kind.from_mapping(config) if isinstance(config, dict) else config
        return cls(**{**mapping, "config": read})


def store_reproduction(config: ReproductionConfig) -> None:
    """Store the config of a reproduction in its folder of runs; an existing file is kept."""
    stored = StoredReproduction(command=config.command, config=config)
    content = json.dumps(stored.to_mapping(), sort_keys=True)
    path = config.out / _NAME.format(digest=hashlib.sha256(content.encode()).hexdigest()[:10])
    if not path.exists():
        config.out.mkdir(parents=True, exist_ok=True)
        stored.save(path)


def stored_reproductions(folder: Path) -> list[ReproductionConfig]:
    """Return the readable stored configs of reproductions in a folder of runs, the oldest first."""
    paths = sorted(folder.glob(_NAME.format(digest="*")), key=lambda path: (path.stat().st_mtime, path))
    return [config for path in paths if (config := _read(path)) is not None]


def _read(path: Path) -> ReproductionConfig | None:
    try:
        return StoredReproduction.load(path).config
    except InputError:
        return None
