"""Document for a published result: the claimed accuracy and the source of each fact."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Positive, Real, whole_number
from budgetnet.common.errors import InputError

Claim = Literal["test-accuracy", "validation-accuracy", "ensemble-accuracy"]
"""``test-accuracy``: accuracy of one network on the test images. ``validation-accuracy``: of one network on validation
images. ``ensemble-accuracy``: of the averaged predictions of several networks."""

Fact = Literal["spec", "recipe", "params", "accuracy", "images", "loss", "training_accuracy", "epoch", "runs", "data"]
"""Fields that a source states or that are inferred from it, by counting or by reading code."""

FACTS: tuple[Fact, ...] = get_args(Fact)


def not_blank(text: str) -> str:
    """Reject blank text.

    Raises:
        ValueError: the text is blank.
    """
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(not_blank)]
Accuracy = Annotated[Real, Field(ge=0, le=1)]


class PublishedResult(Document):
    """A published result. Each of its facts is listed as stated by the authors or as inferred.

    Raises:
        InputError: a field is unknown or invalid, a fact is listed as neither or both, or a listed fact has no value.
    """

    document_kind: ClassVar[str] = "published result"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]+$")]
    """Name of the result and of its file."""
    title: Text
    """Short description of the trained network."""
    claim: Claim
    """Kind of accuracy, according to the authors."""
    rung: Positive | None = None
    """Position in the paper's ladder of increasingly accurate networks, from 1; null if it is not part of it."""
    spec: Text | None = None
    """Name of the network in the zoo; null if the layout is unknown."""
    recipe: Literal["paper", "as-run"] | None = None
    """Named recipe closest to the training; null if unknown."""
    params: Positive | None = None
    """Published number of trainable parameters; may differ from the layout's count within the rounding."""
    params_rounded_to: Positive = 1
    """Rounding of the number of parameters: 100,000 for 2.6M, 1 if exact."""
    accuracy: Accuracy
    """Accuracy, as a share."""
    accuracy_is_approximate: bool = False
    """Whether the accuracy is rounded to whole per cent or published as "around"."""
    images: Positive | None = None
    """Number of images that the accuracy was measured on; null if unknown."""
    loss: Annotated[Real, Field(ge=0)] | None = None
    """Mean cross-entropy on these images, in nats."""
    training_accuracy: Accuracy | None = None
    """Training accuracy in the same epoch, as a share."""
    epoch: Annotated[int, BeforeValidator(whole_number), Field(ge=0)] | None = None
    """Epoch of the evaluated weights, counted from 0."""
    runs: Positive | None = None
    """Number of training runs; null if unknown."""
    data: Text
    """Data set."""
    caveat: Text | None = None
    """Limitation to consider in comparisons."""
    source: Text
    """Publication."""
    stated: dict[Fact, Text]
    """Facts stated by the source, with their location."""
    inferred: dict[Fact, Text] = Field(default_factory=dict)
    """Facts not stated by the source, with how each was inferred."""

    @model_validator(mode="after")
    def _every_fact_is_stated_or_inferred(self) -> Self:
        for fact in FACTS:
            value, listed = getattr(self, fact), (fact in self.stated) + (fact in self.inferred)
            if value is None and listed:
                raise InputError(fact, value, "is listed as stated or inferred, but has no value")
            if value is not None and listed == 0:
                raise InputError(fact, value, "must be listed as stated or as inferred")
            if listed == 2:
                raise InputError(fact, value, "must be listed as stated or as inferred, not as both")
        if "accuracy" not in self.stated:
            raise InputError("accuracy", self.accuracy, "must be stated by the source")
        return self

    @model_validator(mode="after")
    def _params_are_rounded(self) -> Self:
        unit = self.params_rounded_to
        if self.params is None and unit != 1:
            raise InputError("params_rounded_to", unit, "needs params")
        if self.params is not None and self.params % unit:
            raise InputError("params", self.params, f"must be a multiple of params_rounded_to = {unit}")
        return self

    @property
    def unknown(self) -> tuple[Fact, ...]:
        """Facts that are neither stated nor inferred."""
        return tuple(fact for fact in FACTS if getattr(self, fact) is None)

    @property
    def known_spec(self) -> str:
        """Name of the network in the zoo.

        Raises:
            InputError: the layout is unknown.
        """
        if self.spec is None:
            raise InputError("published result", self.name, "has no known layout, so it cannot be ranked")
        return self.spec

    @property
    def known_images(self) -> int:
        """Number of images that the accuracy was measured on.

        Raises:
            InputError: the number is unknown.
        """
        if self.images is None:
            raise InputError("published result", self.name, "has no known number of images, so it cannot be compared")
        return self.images
