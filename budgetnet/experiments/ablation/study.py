"""Ablation study: base, factors, options and design, with the resulting variants."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from budgetnet.common.documents import Document, whole_number
from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping
from budgetnet.experiments.ablation.design import BASE, Design, check_design, count_of
from budgetnet.experiments.ablation.levels import level_key, read_document
from budgetnet.experiments.ablation.overrides import Setup, override, with_epochs
from budgetnet.experiments.ablation.parsing import (
    NO_FACTORS,
    read_changes,
    read_factors,
    read_networks,
    read_options,
    with_files,
)
from budgetnet.experiments.ablation.variants import MAX_VARIANTS, Draft, Variant, drafts_of, variants_of
from budgetnet.model.budget import Budget, Limit
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import REFITTING
from budgetnet.runs.recipe import Recipe

Result = TypeVar("Result")

MAX_SEEDS = 1_000
"""Largest number of seeds of a study."""

Seed = Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)]


def _seeds(value: object) -> object:
    """Return a list of seeds, for a number n the seeds 0 to n - 1."""
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
    """An ablation study: a base, factors and options, seeds and a design.

    `bases` and `variants` are the networks and recipes to train. In a study file, specifications, recipes and whole
    documents among the levels may be paths relative to the file; they are stored and saved as documents.

    Raises:
        InputError: a field is unknown or breaks its rule, a path or a level is invalid, a variant is not a valid
            network or recipe, an option changes nothing, or variants would be compared on different validation images.
    """

    document_kind: ClassVar[str] = "ablation study"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """Label of the study."""
    base_name: Annotated[str, Field(max_length=48, pattern=r"^[\w.+-]+$")] = BASE
    """Name of the base in results."""
    remarks: tuple[str, ...] = ()
    """Lines that are shown with the results."""
    spec: Annotated[
        ModelSpec | None,
        BeforeValidator(
            lambda value: None if value is None else read_document("spec", value),
            json_schema_input_type=str | ModelSpec | None,
        ),
    ] = None
    """Network of the base: a name, a path or a specification. Omitted in a study of several `networks`."""
    networks: Annotated[
        dict[str, ModelSpec],
        BeforeValidator(read_networks, json_schema_input_type=dict[str, str | ModelSpec]),
    ] = Field(default_factory=dict)
    """Several networks in place of `spec`, by short names; every variant is trained for each of them."""
    recipe: Annotated[
        Recipe,
        BeforeValidator(lambda value: read_document("recipe", value), json_schema_input_type=str | Recipe),
    ]
    """Recipe of the base: a name, a path or a recipe."""
    changes: Annotated[dict[str, Any], BeforeValidator(read_changes)] = Field(default_factory=dict)
    """Values by dotted path that override specification and recipe, as part of the base."""
    factors: Annotated[
        dict[str, tuple[Any, ...]],
        BeforeValidator(read_factors, json_schema_input_type=dict[str, tuple[Any, ...]] | tuple[str, ...]),
    ] = Field(default_factory=dict)
    """Factors: levels by dotted path. A list of paths removes each of them."""
    options: Annotated[dict[str, dict[str, Any]], BeforeValidator(read_options)] = Field(default_factory=dict)
    """Options that are added to the base as a whole: values by dotted path, by the option's name."""
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, max_length=MAX_SEEDS),
        BeforeValidator(_seeds, json_schema_input_type=int | tuple[int, ...]),
    ] = (0, 1, 2)
    """Seeds of every variant: a list, or the number n for 0 to n - 1."""
    design: Design = "one-at-a-time"
    """Settings to train: each level and option alone; ``leave-one-out``: each part of the base, or of all options
    together, omitted; both of these in a study of options; or each combination."""
    fit: Annotated[bool | Literal["both"], BeforeValidator(_fit)] = False
    """Whether to refit variants to the base's number of parameters; ``both`` trains the original ones as well."""
    budget: Budget = Budget()
    """Limits on the cost of a network."""
    judged_on: Literal["validation", "test"] = "validation"
    """Images that variants are compared on; the test set is opened once per run, after all of them are complete."""
    data: str | None = None
    """Default data set of the command line."""
    train_size: Limit = None
    """Default number of training images."""
    validation_size: Limit = None
    """Default number of validation images."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a study, and the files that it names, from a YAML or JSON file.

        Raises:
            InputError: a file is missing or malformed, or its content breaks a rule.
        """
        mapping = read_mapping(Path(path), field=cls.document_kind)
        try:
            return cls.from_mapping(with_files(mapping, Path(path).parent))
        except InputError as error:
            raise InputError(f"{path}: {error.field}", error.value, error.rule) from None

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds", list(self.seeds), "must not have a seed twice")
        if not self.factors and not self.options:
            raise InputError("factors", self.factors, f"{NO_FACTORS}; or give options")
        self._check_networks()
        if self.base_name in self.options:
            raise InputError("base_name", self.base_name, "is the name of an option: choose another name")
        check_design(self.factors, self.options, self.design)
        count = count_of(self.factors, self.options, self.design)
        count *= (2 if self.fit == "both" else 1) * max(1, len(self.networks))
        if count > MAX_VARIANTS:
            field = "factors" if self.factors else "options"
            raise InputError(field, count, f"must give at most {MAX_VARIANTS:,} variants")
        for drafts in self._drafts.values():
            for draft in drafts:
                self._check_split(draft)
        return self

    def _check_networks(self) -> None:
        if not self.networks:
            if self.spec is None:
                raise InputError("spec", None, "missing field; several networks go under networks")
            return
        if self.spec is not None:
            raise InputError("networks", list(self.networks), "must be given in place of spec, not beside it")
        for field, settings in (("changes", self.changes), ("factors", self.factors), *self._named_options()):
            if "spec" in settings:
                rule = "would give all networks the same specification: name it under networks"
                raise InputError(f"{field}.spec", "a specification", rule)
        names: dict[tuple[str, str], str] = {}
        for name, base in self.bases.items():
            other = names.setdefault(base.key, name)
            if other != name:
                raise InputError(f"networks.{name}", base.spec.label, f"is the same network as {other}")

    def _named_options(self) -> list[tuple[str, dict[str, Any]]]:
        return [(f"options.{name}", settings) for name, settings in self.options.items()]

    def _check_split(self, draft: Draft) -> None:
        if self.judged_on == "validation" and draft.setup.recipe.leaks:
            rule = f"would evaluate the variant {draft.name} on images that it trains on: set judged_on: test"
            raise InputError("recipe.validation_split", draft.setup.recipe.validation_split, rule)
        for field in ("split_seed", "validation_fraction", "augmented_validation"):
            value = getattr(draft.setup.recipe, field)
            if self.judged_on == "validation" and value != getattr(self.base_recipe, field):
                rule = f"would evaluate the variant {draft.name} on other images than the base: set judged_on: test"
                raise InputError(f"recipe.{field}", value, rule)

    @functools.cached_property
    def bases(self) -> dict[str, Setup]:
        """Base network and recipe, with the study's changes, by the short name of the network.

        The name is empty in a study of one network.
        """
        if self.spec is not None:
            return {"": override(Setup(self.spec, self.recipe), self.changes)}
        return {
            name: _in_network(name, functools.partial(override, Setup(spec, self.recipe), self.changes))
            for name, spec in self.networks.items()
        }

    @property
    def base_recipe(self) -> Recipe:
        """Recipe of the base, with the study's changes."""
        return next(iter(self.bases.values())).recipe

    @property
    def has_options(self) -> bool:
        """Whether there are options or several networks, which need more columns in results."""
        return bool(self.options or self.networks)

    @property
    def has_several_references(self) -> bool:
        """Whether variants are compared with others than one base, which results name for each of them."""
        return bool(self.networks) or (bool(self.options) and self.design not in ("one-at-a-time", "full-factorial"))

    @functools.cached_property
    def _drafts(self) -> dict[str, list[Draft]]:
        return {
            name: _in_network(name, functools.partial(drafts_of, base, self.factors, self.options, self.design))
            for name, base in self.bases.items()
        }

    def with_epochs(self, epochs: int) -> Self:
        """Return the study with another number of epochs, by `Recipe.with_epochs`.

        Options and levels that name a recipe or a first cycle get the adapted one, unless they also name epochs; levels
        that become equal are kept once.

        Raises:
            InputError: fewer than one epoch.
        """
        how, base = self.base_recipe.with_epochs(epochs), next(iter(self.bases.values()))

        def adapted(settings: dict[str, Any]) -> dict[str, Any]:
            return with_epochs(base, settings, epochs)

        mapping = self.to_mapping()
        mapping["options"] = {name: adapted(settings) for name, settings in mapping["options"].items()}
        for path, levels in mapping["factors"].items():
            new = [adapted({path: level})[path] for level in levels]
            mapping["factors"][path] = list({level_key(level): level for level in new}.values())
        # The schedule of the changed base, whole, so that nothing of the study's own changes is left to override it.
        kept = {path: value for path, value in self.changes.items() if not path.startswith("recipe.schedule.")}
        length = {"recipe.epochs": how.epochs, "recipe.schedule": how.schedule.to_mapping()}
        return self.from_mapping({**mapping, "changes": {**kept, **length}})

    def variants(self, *, input_shape: tuple[int, int, int], num_classes: int) -> list[Variant]:
        """Return the variants of the study, also those over budget, the base of each network first.

        Equal variants that are compared with the same one are merged. No network is built.

        Args:
            input_shape: image as (channels, height, width), in pixels.
            num_classes: number of classes.

        Raises:
            InputError: at this image size a stride would shrink a map below one pixel, or a variant to refit is larger
                than the base even at its narrowest.
        """
        image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
        return [
            self._with_base_name(variant)
            for name, drafts in self._drafts.items()
            for variant in variants_of(drafts, network=name, fit=self.fit, budget=self.budget, **image)
        ]

    def _with_base_name(self, variant: Variant) -> Variant:
        """Return a variant with the study's own name of the base."""
        own, compared = (self.base_name if name == BASE else name for name in (variant.name, variant.compared_with))
        return variant._replace(name=own, compared_with=compared)

    @property
    def digest(self) -> str:
        """Identity of the study: a hexadecimal SHA-256 of the variants and their comparisons.

        Labels, the notation of levels and defaults of the command line are not included.
        """
        contents = [self._content(base, self._drafts[name]) for name, base in self.bases.items()]
        content = {
            **(contents[0] if len(contents) == 1 else {"networks": sorted(contents, key=repr)}),
            "seeds": sorted(self.seeds),
            "fit": [self.fit, REFITTING if self.fit else None],
            "budget": self.budget.identity,
            "judged_on": self.judged_on,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _content(self, base: Setup, drafts: list[Draft]) -> dict[str, Any]:
        """Return the digest content of one network."""
        keys = {name: draft.setup.key for draft in drafts for name in (draft.name, *draft.also)}
        content: dict[str, Any] = {"base": base.key, "variants": sorted(draft.setup.key for draft in drafts)}
        pairs = sorted((draft.setup.key, keys[draft.compared_with]) for draft in drafts if draft.compared_with in keys)
        # Omitted where all variants are compared with the base.
        return {**content, "compared": pairs} if any(other != base.key for _, other in pairs) else content


def reference_text(study: AblationStudy) -> str:
    """Return what differences of a study are to, in words."""
    return "the variant compared with" if study.has_several_references else f"the {study.base_name}"


def _in_network(name: str, function: Callable[[], Result]) -> Result:
    """Call a function for one network; add the network to errors."""
    try:
        return function()
    except InputError as error:
        inside = f" (in the network {name})" if name else ""
        raise InputError(error.field, error.value, f"{error.rule}{inside}") from None
