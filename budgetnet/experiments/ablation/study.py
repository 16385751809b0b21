"""The file of an ablation study: a base, what is varied and how, and the variants that this comes to."""

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
from budgetnet.experiments.ablation.design import Design, check_design, count_of
from budgetnet.experiments.ablation.levels import read_document
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

Made = TypeVar("Made")

MAX_SEEDS = 1_000
"""Most seeds of a study: far more than anyone trains."""

Seed = Annotated[int, BeforeValidator(whole_number), Field(ge=0, lt=2**32)]


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
    """What each part of a network or of its training is worth: a base, factors and options, seeds and a design.

    `bases` and `variants` say what it comes to. Where a study is read from a file, its specifications, its recipe and
    whole documents among the levels may be paths, relative to that file; what is kept, and saved again, are the
    documents themselves.

    Raises:
        InputError: a field is unknown or breaks its rule, a path or a level means nothing, a variant is no valid
            network or recipe, an option changes nothing, or variants would be compared on different validation images.
    """

    document_kind: ClassVar[str] = "ablation study"

    schema_version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(max_length=100, pattern=r"^[\w.+-]*$")] = ""
    """A label for people."""
    spec: Annotated[
        ModelSpec | None,
        BeforeValidator(
            lambda value: None if value is None else read_document("spec", value),
            json_schema_input_type=str | ModelSpec | None,
        ),
    ] = None
    """The base's network: a name, a path or a specification. Not given in a study of several `networks`."""
    networks: Annotated[
        dict[str, ModelSpec],
        BeforeValidator(read_networks, json_schema_input_type=dict[str, str | ModelSpec]),
    ] = Field(default_factory=dict)
    """Several networks in place of `spec`, by short names: everything is trained for each of them."""
    recipe: Annotated[
        Recipe,
        BeforeValidator(lambda value: read_document("recipe", value), json_schema_input_type=str | Recipe),
    ]
    """How the base is trained: a name, a path or a recipe."""
    changes: Annotated[dict[str, Any], BeforeValidator(read_changes)] = Field(default_factory=dict)
    """Values by dotted path that are laid over specification and recipe, and so are part of the base."""
    factors: Annotated[
        dict[str, tuple[Any, ...]],
        BeforeValidator(read_factors, json_schema_input_type=dict[str, tuple[Any, ...]] | tuple[str, ...]),
    ] = Field(default_factory=dict)
    """What is varied: levels by dotted path. A plain list of paths takes each of them away."""
    options: Annotated[dict[str, dict[str, Any]], BeforeValidator(read_options)] = Field(default_factory=dict)
    """What is added to the base as a whole: values by dotted path, by the option's name."""
    seeds: Annotated[
        tuple[Seed, ...],
        Field(min_length=1, max_length=MAX_SEEDS),
        BeforeValidator(_seeds, json_schema_input_type=int | tuple[int, ...]),
    ] = (0, 1, 2)
    """Seeds that every variant is trained with: so many from 0 on, or a list."""
    design: Design = "one-at-a-time"
    """Which settings are tried: each level and option alone; ``leave-one-out``, where the base is the whole and each
    variant lacks a part of it, and all options together are the whole where there are options; both of these in one
    study of options; or each combination."""
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
            return cls.from_mapping(with_files(mapping, Path(path).parent))
        except InputError as error:
            raise InputError(f"{path}: {error.field}", error.value, error.rule) from None

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError("seeds", list(self.seeds), "must not name a seed twice")
        if not self.factors and not self.options:
            raise InputError("factors", self.factors, f"{NO_FACTORS}; or give options")
        self._check_networks()
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
            rule = f"would judge the variant {draft.name} on images that it trains on: set judged_on: test"
            raise InputError("recipe.validation_split", draft.setup.recipe.validation_split, rule)
        for field in ("split_seed", "validation_fraction", "augmented_validation"):
            value = getattr(draft.setup.recipe, field)
            if self.judged_on == "validation" and value != getattr(self.base_recipe, field):
                rule = f"would judge the variant {draft.name} on other images than the base: set judged_on: test"
                raise InputError(f"recipe.{field}", value, rule)

    @functools.cached_property
    def bases(self) -> dict[str, Setup]:
        """Network and recipe that variants start from, with the study's changes, by the networks' short names.

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
        """The recipe that all variants start from, with the study's changes."""
        return next(iter(self.bases.values())).recipe

    @property
    def has_options(self) -> bool:
        """Whether there are options or several networks, so that results say more than variants beside one base."""
        return bool(self.options or self.networks)

    @functools.cached_property
    def _drafts(self) -> dict[str, list[Draft]]:
        return {
            name: _in_network(name, functools.partial(drafts_of, base, self.factors, self.options, self.design))
            for name, base in self.bases.items()
        }

    def with_epochs(self, epochs: int) -> Self:
        """The study for another length of training: every recipe as `Recipe.with_epochs` makes it.

        Options and levels that name a first cycle get the one that belongs to the length, unless they name the length,
        too, or a whole recipe.

        Raises:
            InputError: fewer than one epoch.
        """
        how, base = self.base_recipe.with_epochs(epochs), next(iter(self.bases.values()))
        length = {"recipe.epochs": how.epochs, "recipe.schedule.first_cycle": how.schedule.first_cycle}

        def adapted(settings: dict[str, Any]) -> dict[str, Any]:
            return with_epochs(base, settings, epochs)

        mapping = self.to_mapping()
        mapping["options"] = {name: adapted(settings) for name, settings in mapping["options"].items()}
        mapping["factors"] = {
            path: [adapted({path: level})[path] for level in levels] for path, levels in mapping["factors"].items()
        }
        return self.from_mapping({**mapping, "changes": {**mapping["changes"], **length}})

    def variants(self, *, input_shape: tuple[int, int, int], num_classes: int) -> list[Variant]:
        """Everything that the study compares, or lists as over budget: of each network the base first.

        Equal ones that are compared with the same variant are merged. Counted in closed form; nothing is built.

        Args:
            input_shape: the data's image as (channels, height, width), in pixels.
            num_classes: the data's number of classes.

        Raises:
            InputError: at this image size a stride would shrink a map below one pixel, or a variant is to be refitted
                and larger than the base even at its narrowest.
        """
        image: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
        return [
            variant
            for name, drafts in self._drafts.items()
            for variant in variants_of(drafts, network=name, fit=self.fit, budget=self.budget, **image)
        ]

    @property
    def digest(self) -> str:
        """Identity of the question: a hexadecimal SHA-256 over what is trained and how it is compared.

        Neither words for people count, nor how levels are written and designed, nor defaults of the command line.
        """
        contents = [self._content(base, self._drafts[name]) for name, base in self.bases.items()]
        content = {
            **(contents[0] if len(contents) == 1 else {"networks": sorted(contents, key=repr)}),
            "seeds": sorted(self.seeds),
            "fit": [self.fit, REFITTING if self.fit else None],
            "budget": self.budget.to_mapping(),
            "judged_on": self.judged_on,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _content(self, base: Setup, drafts: list[Draft]) -> dict[str, Any]:
        """What is trained and compared of one network."""
        keys = {name: draft.setup.key for draft in drafts for name in (draft.name, *draft.also)}
        content: dict[str, Any] = {"base": base.key, "variants": sorted(draft.setup.key for draft in drafts)}
        pairs = sorted((draft.setup.key, keys[draft.compared_with]) for draft in drafts if draft.compared_with in keys)
        # Said only where it is not plain: where all are compared with the base.
        return {**content, "compared": pairs} if any(other != base.key for _, other in pairs) else content


def _in_network(name: str, make: Callable[[], Made]) -> Made:
    """What is made for one of several networks; an error says for which."""
    try:
        return make()
    except InputError as error:
        inside = f" (in the network {name})" if name else ""
        raise InputError(error.field, error.value, f"{error.rule}{inside}") from None
