"""State of the studies, in `status.json`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field
from study_order import Name

from budgetnet.common.documents import Document
from budgetnet.common.files import write_json

StateName = Literal["running", "interrupted", "finished", "failed"]


class StudyState(Document):
    """State of one study."""

    state: StateName
    """Studies that are not listed are pending."""
    commit: str
    """Commit of the code of its last run."""
    started: AwareDatetime
    """Start of its last run."""
    ended: AwareDatetime | None = None
    """End of its last run; null while it runs."""
    exit_code: int | None = None
    """Exit code of its last command; null while it runs or after an interruption."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """Why it failed."""


class Status(Document):
    """State of all studies that have been started."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    data: str
    """Data set, with an absolute path."""
    declare: str | None = None
    """Value of ``--declare``."""
    studies: dict[Name, StudyState] = Field(default_factory=dict)
    """By name."""

    def save_to(self, path: Path) -> None:
        """Write the file."""
        write_json(path, self.to_mapping())

    def with_study(self, name: str, state: StudyState) -> Status:
        """Return a copy with another state of one study."""
        return self.model_copy(update={"studies": {**self.studies, name: state}})


def now() -> datetime:
    """Return the current UTC time, without fractions of a second."""
    return datetime.now(UTC).replace(microsecond=0)
