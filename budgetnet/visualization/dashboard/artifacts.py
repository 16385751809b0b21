"""Artifacts of candidates in optuna-dashboard: contents in a folder, metadata in the storage.

Optuna rejects artifacts of finished trials. The dashboard also reads artifacts of trials from the attributes of the
study, which can be written at any time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from budgetnet.common.files import to_yaml, write_bytes
from budgetnet.visualization.dashboard.attributes import Attributes
from budgetnet.visualization.dashboard.candidates import Candidate
from budgetnet.visualization.dashboard.curves import curves_svg
from budgetnet.visualization.figures import outline_svg

ARTIFACTS = "dashboard:artifacts:"
"""Prefix of the attributes of a study in which optuna-dashboard looks for the artifacts of trials."""
_OURS = UUID("6f1d2f5e-27f0-4c1c-9d0e-5d0c5f0a7b11")
"""Namespace of the names of artifacts."""


class ArtifactFile(NamedTuple):
    """A file of a candidate."""

    name: str
    kind: str
    """Its MIME type."""
    content: bytes


def artifact_folder(out: Path) -> Path:
    """Return the folder of artifacts, as for ``optuna-dashboard --artifact-dir``."""
    return out / "artifacts"


def files_of(candidate: Candidate) -> list[ArtifactFile]:
    """Return learning curves, outline, specification and recipe of a candidate, as far as they are known."""
    files = []
    # The curves of a duplicate are with the trial that was trained.
    if candidate.record is not None and candidate.record.curves and candidate.duplicate_of is None:
        files.append(ArtifactFile("learning-curves.svg", "image/svg+xml", curves_svg(candidate.record).encode()))
    if candidate.spec is not None:
        files.append(ArtifactFile("outline.svg", "image/svg+xml", outline_svg(candidate.spec).encode()))
        files.append(_yaml("spec.yaml", candidate.spec.to_mapping()))
    if candidate.record is not None:
        files.append(_yaml("recipe.yaml", candidate.record.identity.recipe.to_mapping()))
    return files


def _yaml(name: str, mapping: dict[str, Any]) -> ArtifactFile:
    return ArtifactFile(name, "text/yaml", to_yaml(mapping).encode())


def keep_files(candidate: Candidate, attributes: Attributes, *, study_name: str, out: Path) -> None:
    """Write a candidate's files; their metadata are written by the attributes' `commit`.

    A file is named after its study, trial and network, so that writing it again replaces it.

    Args:
        candidate: the candidate.
        attributes: attributes of the study.
        study_name: name of the study.
        out: folder of run folders, which contains that of artifacts.
    """
    folder, trial = artifact_folder(out), candidate.trial
    for file in files_of(candidate):
        name = str(uuid5(_OURS, json.dumps([study_name, trial.number, trial.spec, file.name])))
        write_bytes(folder / name, file.content)
        facts = {"artifact_id": name, "filename": file.name, "mimetype": file.kind, "encoding": None}
        attributes.write(f"{ARTIFACTS}{candidate.trial_id}:{name}", json.dumps(facts))
