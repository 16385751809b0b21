"""A published result as a document: what its authors claim, and on what each of its facts rests."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, Positive, Real, whole_number
from budgetnet.common.errors import InputError

Claim = Literal["test-accuracy", "validation-accuracy", "ensemble-accuracy"]
"""``test-accuracy``: of one network on the test images. ``validation-accuracy``: of one network on images that were
held out to judge by. ``ensemble-accuracy``: of several networks whose predictions are averaged."""

Fact = Literal["spec", "recipe", "params", "accuracy", "images", "loss", "training_accuracy", "epoch", "runs", "data"]
"""What a source can state, and what can be found by counting or by reading code."""

FACTS: tuple[Fact, ...] = get_args(Fact)


def not_blank(text: str) -> str:
    """Refuses text that says nothing."""
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(not_blank)]
Accuracy = Annotated[Real, Field(ge=0, le=1)]


class PublishedResult(Document):
    """A result as its authors publish it. Each of its facts is either stated by them or inferred from what they left.

    Raises:
        InputError: a field is unknown or breaks its rule; also when a fact is neither stated nor inferred, or both, or
            when a fact that is listed as one of them is missing.
    """

    document_kind: ClassVar[str] = "published result"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]+$")]
    """Its name, which its file has as well."""
    title: Text
    """What was trained, in a few words."""
    claim: Claim
    """What the accuracy is an accuracy of, as its authors say."""
    rung: Positive | None = None
    """Place in the paper's ladder of ever better networks, from 1; none where it is no part of it."""
    spec: Text | None = None
    """Name in the zoo of its network; none where no layout is known."""
    recipe: Literal["paper", "as-run"] | None = None
    """Named recipe that comes closest to how it was trained; none where that is not known."""
    params: Positive | None = None
    """Trainable parameters, as its authors give them; the layout's own count may differ within the rounding."""
    params_rounded_to: Positive = 1
    """What the parameters are rounded to: 100,000 for 2.6M, 1 where they are exact."""
    accuracy: Accuracy
    """Share of images classified rightly."""
    accuracy_is_approximate: bool = False
    """Whether it is rounded to whole per cent, or its authors only say "around"."""
    images: Positive | None = None
    """Images behind the accuracy; none where that is not known."""
    loss: Annotated[Real, Field(ge=0)] | None = None
    """Mean cross-entropy on those images, in nats."""
    training_accuracy: Accuracy | None = None
    """Share of training images classified rightly in the epoch that the accuracy belongs to."""
    epoch: Annotated[int, BeforeValidator(whole_number), Field(ge=0)] | None = None
    """Epoch behind which the judged weights were kept, counted from 0."""
    runs: Positive | None = None
    """Trainings behind the accuracy; none where that is not known."""
    data: Text
    """The data set."""
    caveat: Text | None = None
    """What a reader has to know before comparing anything with it."""
    source: Text
    """The publication."""
    stated: dict[Fact, Text]
    """The facts that the source states, and where it does."""
    inferred: dict[Fact, Text] = Field(default_factory=dict)
    """The facts that it does not state, and how each was found."""

    @model_validator(mode="after")
    def _every_fact_rests_on_something(self) -> Self:
        for fact in FACTS:
            value, listed = getattr(self, fact), (fact in self.stated) + (fact in self.inferred)
            if value is None and listed:
                raise InputError(fact, value, "is listed as stated or inferred, but has no value")
            if value is not None and listed == 0:
                raise InputError(fact, value, "must be listed as stated or as inferred")
            if listed == 2:
                raise InputError(fact, value, "must be listed as stated or as inferred, not as both")
        if "accuracy" not in self.stated:
            raise InputError("accuracy", self.accuracy, "must be stated: it is what is published")
        return self

    @model_validator(mode="after")
    def _parameters_are_rounded(self) -> Self:
        unit = self.params_rounded_to
        if self.params is None and unit != 1:
            raise InputError("params_rounded_to", unit, "needs params")
        if self.params is not None and self.params % unit:
            raise InputError("params", self.params, f"must be a multiple of params_rounded_to = {unit}")
        return self

    @property
    def unknown(self) -> tuple[Fact, ...]:
        """The facts that are neither stated nor to be inferred."""
        return tuple(fact for fact in FACTS if getattr(self, fact) is None)

    @property
    def known_spec(self) -> str:
        """Name in the zoo of its network, where something hangs on it.

        Raises:
            InputError: no layout is known.
        """
        if self.spec is None:
            raise InputError("published result", self.name, "has no known layout, so it cannot be ranked")
        return self.spec

    @property
    def known_images(self) -> int:
        """Images behind the accuracy, where something hangs on them.

        Raises:
            InputError: their number is not known.
        """
        if self.images is None:
            raise InputError("published result", self.name, "has no known number of images, so nothing can be compared")
        return self.images
