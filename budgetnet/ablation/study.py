"""The file of an ablation study: a base, what is varied and how, and the variants that this comes to."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.ablation.levels import level_key, read_document, read_level
from budgetnet.ablation.paths import DOCUMENTS
from budgetnet.ablation.refit import REFITTING
from budgetnet.ablation.setup import Setup, laid_over
from budgetnet.ablation.variants import MAX_VARIANTS, Design, Draft, Variant, count_of, drafts_of, variants_of
from budgetnet.budget import Budget, Limit
from budgetnet.errors import InputError
from budgetnet.fields import Document, whole_number
from budgetnet.files import names_a_file, read_mapping
from budgetnet.recipe import NAMED, Recipe
from budgetnet.spec import ModelSpec
from budgetnet.zoo import ENTRIES

MAX_SEEDS = 1_000
"""Most seeds of a study: far more than anyone trains."""

Seed = Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)]


def _changes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of paths to values")
    return {str(path): read_level(str(path), level) for path, level in value.items()}


def _factors(value: object) -> dict[str, tuple[Any, ...]]:
    """Levels by path; of a plain list of paths each is taken away."""
    if isinstance(value, list) and all(isinstance(path, str) for path in value):
        if len(set(value)) < len(value):
            raise ValueError("must not name a path twice")
        value = {path: [False] for path in value}
    if not isinstance(value, dict) or not value:
        raise ValueError("must be a mapping of paths to lists of levels, or a list of paths")
    return {str(path): _levels(str(path), levels) for path, levels in value.items()}


def _levels(path: str, levels: object) -> tuple[Any, ...]:
    if not isinstance(levels, (list, tuple)) or not levels:
        raise InputError(path, levels, "must be a list of levels")
    read = tuple(read_level(path, level) for level in levels)
    if len({level_key(level) for level in read}) < len(read):
        raise InputError(path, list(levels), "must not name a level twice")
    return read


def _seeds(value: object) -> object:
    """So many from 0 on, where a number is given."""
    if isinstance(value, (list, tuple)):
        return value
    count = whole_number(value)
    if not 1 <= count <= MAX_SEEDS:
        raise ValueError(f"must be from 1 to {MAX_SEEDS:,} seeds, or a list of them")
    return tuple(range(count))


def _fit(value: object) -> object:
    if not isinstance(value, bool) and value != "both":
        raise ValueError("must be true, false or both")
    return value


class AblationStudy(Document):
    """What each part of a network or of its training is worth: a base, factors with levels, seeds and a design.

    `base` and `variants` say what it comes to. Where a study is read from a file, its specification, its recipe and
    whole documents among the levels may be paths, relative to that file; what is kept, and saved again, are the
    documents themselves.

    Raises:
        InputError: a field is unknown or breaks its rule, a path or a level means nothing, a variant is no valid
            network or recipe, or variants would be judged on different validation images.
    """

    document_kind: ClassVar[str] = "ablation study"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """A label for people."""
    spec: Annotated[
        ModelSpec,
        BeforeValidator(lambda value: read_document("spec", value), json_schema_input_type=str | ModelSpec),
    ]
    """The base's network: a name, a path or a specification."""
    recipe: Annotated[
        Recipe,
        BeforeValidator(lambda value: read_document("recipe", value), json_schema_input_type=str | Recipe),
    ]
    """How the base is trained: a name, a path or a recipe."""
    changes: Annotated[dict[str, Any], BeforeValidator(_changes)] = Field(default_factory=dict)
    """Values by dotted path that are laid over specification and recipe, and so are part of the base."""
    factors: Annotated[
        dict[str, tuple[Any, ...]],
        BeforeValidator(_factors, json_schema_input_type=dict[str, tuple[Any, ...]] | tuple[str, ...]),
    ]
    """What is varied: levels by dotted path. A plain list of paths takes each of them away."""
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, max_length=MAX_SEEDS),
        BeforeValidator(_seeds, json_schema_input_type=int | tuple[int, ...]),
    ] = (0, 1, 2)
    """Seeds that every variant is trained with: so many from 0 on, or a list."""
    design: Design = "one-at-a-time"
    """Which settings are tried: each level by itself (``leave-one-out`` where the base is the whole, and each variant
    lacks a part of it), or each combination."""
    fit: Annotated[bool | Literal["both"], BeforeValidator(_fit)] = False
    """Whether variants are refitted to the base's number of parameters; ``both`` also keeps them as they are."""
    budget: Budget = Budget()
    """What a network may cost."""
    judged_on: Literal["validation", "test"] = "validation"
    """What variants are compared by; the test set is opened once for each run, when all of them stand."""
    data: str | None = None
    """Data set where the command line names none."""
    train_size: Limit = None
    """Images to learn from where the command line gives no number."""
    validation_size: Limit = None
    """Images to be judged on where the command line gives no number."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads the study, and the files that it names, from a YAML or JSON file.

        Raises:
            InputError: a file is missing or malformed, or what it holds breaks a rule.
        """
        mapping = read_mapping(Path(path), field=cls.document_kind)
        try:
            return cls.from_mapping(_with_files(mapping, Path(path).parent))
        except InputError as error:
            raise InputError(f"{path}: {error.field}", error.value, error.rule) from None

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds", list(self.seeds), "must not name a seed twice")
        for path, levels in self.factors.items():
            if self.design == "full-factorial" and len(levels) < 2:
                rule = "must have two levels or more in a full factorial; what is the same for all belongs in changes"
                raise InputError(f"factors.{path}", list(levels), rule)
        count = count_of(self.factors, self.design) * (2 if self.fit == "both" else 1)
        if count > MAX_VARIANTS:
            raise InputError("factors", count, f"make so many variants; must be at most {MAX_VARIANTS:,}")
        for draft in self._drafts:
            self._check_split(draft)
        return self

    def _check_split(self, draft: Draft) -> None:
        if self.judged_on == "validation" and draft.setup.recipe.leaks:
            rule = f"would judge the variant {draft.name} on images that it trains on: set judged_on: test"
            raise InputError("recipe.validation_split", draft.setup.recipe.validation_split, rule)
        for field in ("split_seed", "validation_fraction", "augmented_validation"):
            value = getattr(draft.setup.recipe, field)
            if self.judged_on == "validation" and value != getattr(self.base.recipe, field):
                rule = f"would judge the variant {draft.name} on other images than the base: set judged_on: test"
                raise InputError(f"recipe.{field}", value, rule)

    @functools.cached_property
    def base(self) -> Setup:
        """Network and recipe that all variants start from, with the study's changes."""
        return laid_over(Setup(self.spec, self.recipe), self.changes)

    @functools.cached_property
    def _drafts(self) -> list[Draft]:
        return drafts_of(self.base, self.factors, self.design)

    def variants(self, *, input_shape: tuple[int, int, int], num_classes: int) -> list[Variant]:
        """Everything that the study trains, or lists as over budget: the base first, equal ones merged.

        Counted in closed form; nothing is built.

        Args:
            input_shape: the data's image as (channels, height, width), in pixels.
            num_classes: the data's number of classes.

        Raises:
            InputError: at this image size a stride would shrink a map below one pixel, or a variant is to be refitted
                and larger than the base even at its narrowest.
        """
        image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
        return variants_of(self._drafts, fit=self.fit, budget=self.budget, **image)

    @property
    def digest(self) -> str:
        """Identity of the question: a hexadecimal SHA-256 over what is trained and how it is compared.

        Neither words for people count, nor how levels are written and designed, nor defaults of the command line.
        """
        content = {
            "base": self.base.key,
            "variants": sorted(draft.setup.key for draft in self._drafts),
            "seeds": sorted(self.seeds),
            "fit": [self.fit, REFITTING if self.fit else None],
            "budget": self.budget.to_mapping(),
            "judged_on": self.judged_on,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _with_files(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The mapping of a study, with the documents in place of the files that it names.

    Raises:
        InputError: a file is missing or malformed, or what it holds breaks a rule.
    """

    def read(kind: str, value: Any) -> Any:
        known = ENTRIES if kind == "spec" else NAMED
        if isinstance(value, str) and value not in known and names_a_file(value, folder=folder):
            return DOCUMENTS[kind].load(folder / value)
        return value

    result = dict(mapping)
    for kind in DOCUMENTS:
        if kind in result:
            result[kind] = read(kind, result[kind])
        for field in ("changes", "factors"):
            given = result.get(field)
            if isinstance(given, dict) and kind in given:
                levels = given[kind]
                inside = [read(kind, level) for level in levels] if isinstance(levels, list) else read(kind, levels)
                result[field] = {**given, kind: inside}
    return result
