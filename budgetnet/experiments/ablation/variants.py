"""Variants of a study: named, adapted to the data and merged where equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.design import Design, Entry, Factors, Options, Part, entries_of, text_of
from budgetnet.experiments.ablation.levels import plain_level
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.verdict import Verdict
from budgetnet.model.widths import refit
from budgetnet.runs.recipe import Recipe

MAX_VARIANTS = 1000
"""Largest number of variants of a study, the base and refitted ones included."""


class Draft(NamedTuple):
    """A variant before it is adapted to a data set."""

    name: str
    also: tuple[str, ...]
    settings: dict[str, Any]
    setup: Setup
    compared_with: str
    """Name of the draft that it is compared with; empty for the first one."""
    omitted: str
    """Option that is omitted from all options."""


class Variant(NamedTuple):
    """A network and a recipe of a study, with the settings that made them."""

    name: str
    """Unique name in a study: ``kernel_sizes=3x3``, ``without early_stopping``, ``base``. It has only the settings that
    make a difference; a refitted one ends in ``, refitted``."""
    also: tuple[str, ...]
    """Names of merged variants with the same network and recipe."""
    settings: dict[str, Any]
    """Level of each setting by path: on and off as booleans, whole documents by their labels. Empty for the unchanged
    base."""
    spec: ModelSpec
    """Network with the image shape and classes of the data."""
    recipe: Recipe
    """Recipe that it is trained with."""
    refitted: bool
    """Whether its widths were changed to match the base's number of parameters."""
    is_base: bool
    """Whether it is the first variant of its network, which is compared with no other."""
    verdict: Verdict
    """Cost of the network against the budget."""
    network: str
    """Short name of the network in a study of several; else empty."""
    compared_with: str
    """Name of the variant, of the same network, that it is compared with: the base, or ``all``. Empty for a base."""
    change: str
    """Option, level or combination that the comparison measures."""
    is_omission: bool
    """Whether the option in `change` is omitted here and present in the variant that this is compared with."""

    @property
    def title(self) -> str:
        """Name, after the network's name in a study of several networks."""
        return f"{self.network}: {self.name}" if self.network else self.name

    @property
    def fits(self) -> bool:
        """Whether the network is within the budget; other variants are listed and not trained."""
        return self.verdict.fits

    @property
    def key(self) -> tuple[str, str]:
        """Identity: the digests of network and recipe."""
        return self.spec.digest, self.recipe.digest


def drafts_of(base: Setup, factors: Factors, options: Options, design: Design) -> list[Draft]:
    """Return the variants of a design in its order, the reference of the comparisons first.

    Equal variants that are compared with the same one are merged. Equal variants with different comparisons are kept,
    because their differences are not the same, and trained once.

    Args:
        base: network and recipe that settings override.
        factors: levels by path, from `read_level`.
        options: values by path, from `read_level`, by the names of the options.
        design: the design.

    Raises:
        InputError: a setting has no such path or breaks a rule, a factor or an option changes nothing, or two variants
            would have the same name.
    """
    drafts: list[Draft] = []
    known: dict[tuple[tuple[str, str], str], int] = {}
    """Indexes in the list by identity and by the name of the draft that it is compared with."""
    references: dict[str, int] = {}
    """Indexes in the list by name."""
    for entry, setup in entries_of(base, factors, options, design):
        name = entry.name or _name(base, entry.parts, setup)
        place = known.get((setup.key, entry.compared_with))
        reference = references.get(entry.compared_with)
        if reference is not None and drafts[reference].setup.key == setup.key:
            place = reference
        if place is None:
            place = known[setup.key, entry.compared_with] = len(drafts)
            drafts.append(Draft(name, (), entry.settings, setup, entry.compared_with, entry.omitted))
        elif not drafts[place].settings and not entry.name:
            drafts[place] = drafts[place]._replace(settings=entry.settings)
        elif name not in (drafts[place].name, *drafts[place].also):
            drafts[place] = drafts[place]._replace(also=(*drafts[place].also, name))
        references.setdefault(name, place)
    names: set[str] = set()
    for draft in drafts:
        if draft.name in names:
            field = "options" if options else "factors"
            raise InputError(field, draft.name, "is the name of two variants: give their levels names")
        names.add(draft.name)
    return drafts


def _name(base: Setup, parts: Sequence[Part], setup: Setup) -> str:
    """Return the label of the parts that make a difference; the others are dropped one by one."""
    needed = list(parts)
    for part in parts:
        fewer = [other for other in needed if other is not part]
        try:
            if override(base, Entry("", tuple(fewer), "").settings).key == setup.key:
                needed = fewer
        except InputError:  # The others are invalid without it.
            continue
    return text_of(needed)


def variants_of(
    drafts: Sequence[Draft],
    *,
    network: str,
    fit: bool | Literal["both"],
    budget: Budget,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> list[Variant]:
    """Return the variants for a data set, refitted if requested.

    Args:
        drafts: variants of one network, the reference of the comparisons first.
        network: the network's short name; empty in a study of one network.
        fit: whether to refit variants to the base's number of parameters; ``both`` keeps the original ones as well.
        budget: limits on the cost of a network.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.

    Raises:
        InputError: at this image size a stride would shrink a map below one pixel, or a variant is larger than the
            base even at its narrowest.
    """
    variants: list[Variant] = []
    known: dict[tuple[tuple[str, str], str], int] = {}
    references: dict[tuple[str, bool], int] = {}
    """Indexes in the list by the name of the draft and whether it is refitted."""
    base_params = 0

    def add(draft: Draft, spec: ModelSpec, *, refitted: bool) -> None:
        names = [_refitted(name) if refitted else name for name in (draft.name, *draft.also)]
        compared = draft.compared_with
        reference = references.get((compared, refitted), references.get((compared, not refitted)))
        key = spec.digest, draft.setup.recipe.digest
        place = known.get((key, compared))
        if reference is not None and variants[reference].key == key:
            place = reference
        if place is None:
            place = known[key, compared] = len(variants)
            change = draft.omitted or draft.name
            variants.append(
                Variant(
                    name=names[0],
                    also=tuple(names[1:]),
                    settings={path: plain_level(level) for path, level in draft.settings.items()},
                    spec=spec,
                    recipe=draft.setup.recipe,
                    refitted=refitted,
                    is_base=not variants,
                    verdict=budget.check(spec),
                    network=network,
                    compared_with="" if reference is None else variants[reference].name,
                    change=_refitted(change) if refitted else change,
                    is_omission=bool(draft.omitted),
                )
            )
        else:
            variants[place] = variants[place]._replace(also=(*variants[place].also, *names))
        for name in (draft.name, *draft.also):
            references.setdefault((name, refitted), place)

    for draft in drafts:
        try:
            draft.setup.recipe.check_image_size(*input_shape[1:])
            spec = draft.setup.spec.adapted(input_shape=input_shape, num_classes=num_classes)
            base_params = base_params or spec.params
            differs = spec.params != base_params
            if fit is not True or not differs:
                add(draft, spec, refitted=False)
            if fit and differs:
                add(draft, refit(spec, params=base_params, budget=budget), refitted=True)
        except InputError as error:
            inside = f"{draft.name} of {network}" if network else draft.name
            raise InputError(error.field, error.value, f"{error.rule} (in the variant {inside})") from None
    return variants


def shared_runs(variants: Sequence[Variant]) -> list[tuple[Variant, Variant]]:
    """Return pairs of a variant and an earlier one with the same network and recipe, whose runs it shares."""
    first: dict[tuple[str, str], Variant] = {}
    found = [(variant, first.setdefault(variant.key, variant)) for variant in variants]
    return [(variant, other) for variant, other in found if variant is not other]


def _refitted(name: str) -> str:
    return f"{name}, refitted"
