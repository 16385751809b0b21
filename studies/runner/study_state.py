"""What has become of each study, in one file that is replaced atomically: `status.json`."""

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
    """What has become of one study."""

    state: StateName
    """A study that is not listed is pending."""
    commit: str
    """Commit of the code that ran it last."""
    started: AwareDatetime
    """When it was started last."""
    ended: AwareDatetime | None = None
    """When it ended; null while it runs."""
    exit_code: int | None = None
    """Exit code of the command that ended it, as the shell has it; null while it runs or was interrupted."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """Why it failed, in words."""


class Status(Document):
    """The state of all studies that were started."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    data: str
    """The data set, with an absolute path."""
    declare: str | None = None
    """What the data were declared to be."""
    studies: dict[Name, StudyState] = Field(default_factory=dict)
    """By name."""

    def save_to(self, place: Path) -> None:
        """Write the file."""
        write_json(place, self.to_mapping())

    def with_study(self, name: str, state: StudyState) -> Status:
        """Give the status with another state of one study."""
        return self.model_copy(update={"studies": {**self.studies, name: state}})


def now() -> datetime:
    """Give the time, to the second, with its zone."""
    return datetime.now(UTC).replace(microsecond=0)
