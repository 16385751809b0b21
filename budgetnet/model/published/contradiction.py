"""Where a publication contradicts itself or its code, as documents."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Channels, Document, Positive
from budgetnet.common.errors import InputError
from budgetnet.model.published.result import Text


class Layout(Document):
    """The reference with other widths or depths, and what it would count."""

    channels: Annotated[tuple[Channels, ...], Field(min_length=1)]
    """Width of each stage."""
    blocks: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Residual blocks of each stage."""
    params: Positive
    """Trainable parameters of that network."""


class Statement(Document):
    """What one place says."""

    where: Text
    """The place: a section, a table, the notebook's code."""
    says: Text
    """What it says, in our words."""
    layout: Layout | None = None
    """The network that it describes, where it describes another one than the rest."""


class Contradiction(Document):
    """A point on which places of one publication differ."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]+$")]
    """A short name."""
    point: Text
    """What they differ on."""
    statements: Annotated[tuple[Statement, ...], Field(min_length=2)]
    """What each of them says."""
    followed: Text
    """What budgetnet goes by, and why."""


class Contradictions(Document):
    """A file of contradictions.

    Raises:
        InputError: a field is unknown or breaks its rule, or two contradictions have one name.
    """

    document_kind: ClassVar[str] = "contradictions"

    schema_version: Literal[1] = 1
    """Version of this format."""
    source: Text
    """The publication."""
    contradictions: tuple[Contradiction, ...]
    """The points."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [each.name for each in self.contradictions]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise InputError(f"contradictions[{index}].name", name, "stands twice")
        return self
