"""Documents for contradictions within a publication or between it and its code."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Channels, Document, Positive
from budgetnet.common.errors import InputError
from budgetnet.model.published.result import Text


class Layout(Document):
    """The reference network with other widths or depths."""

    channels: Annotated[tuple[Channels, ...], Field(min_length=1)]
    """Width of each stage."""
    blocks: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Residual blocks of each stage."""
    params: Positive
    """Number of parameters of this network."""


class Statement(Document):
    """A statement in one part of the publication."""

    where: Text
    """Location: a section, a table or the notebook's code."""
    says: Text
    """The statement, paraphrased."""
    layout: Layout | None = None
    """The described network, if it differs from the reference."""


class Contradiction(Document):
    """A point on which statements of one publication differ."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]+$")]
    """Short name."""
    point: Text
    """Subject of the statements."""
    statements: Annotated[tuple[Statement, ...], Field(min_length=2)]
    """The contradictory statements."""
    followed: Text
    """The statement that budgetnet follows, and why."""


class Contradictions(Document):
    """A file of contradictions.

    Raises:
        InputError: a field is unknown or invalid, or two contradictions have the same name.
    """

    document_kind: ClassVar[str] = "contradictions"

    schema_version: Literal[1] = 1
    """Version of this format."""
    source: Text
    """The publication."""
    contradictions: tuple[Contradiction, ...]
    """The contradictions."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [each.name for each in self.contradictions]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise InputError(f"contradictions[{index}].name", name, "must be unique")
        return self
