"""From factors and a design to what is trained: settings laid over the base, named for people, equal ones merged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from budgetnet.ablation.levels import kept_level, setting_text
from budgetnet.ablation.refit import refit
from budgetnet.ablation.setup import Setup, laid_over
from budgetnet.budget import Budget, Verdict
from budgetnet.errors import InputError
from budgetnet.recipe import Recipe
from budgetnet.spec import ModelSpec

Design = Literal["one-at-a-time", "leave-one-out", "full-factorial"]
"""Which settings are tried. ``one-at-a-time`` and ``leave-one-out``: each level that differs from the base, alone; the
two differ in what the base is, a start or the whole that each variant lacks a part of. ``full-factorial``: each
combination of levels."""

MAX_VARIANTS = 1000
"""Most variants of a study, the base and refitted ones included: far more than anyone trains, and quickly counted."""

BASE = "base"
"""Name of the variant that nothing was changed in."""


class Draft(NamedTuple):
    """A variant as a study describes it, whatever the data."""

    name: str
    also: tuple[str, ...]
    settings: dict[str, Any]
    setup: Setup


class Variant(NamedTuple):
    """A network and a recipe of a study, and how they came about."""

    name: str
    """For people, one in a study: ``kernel_sizes=3x3``, ``without early_stopping``, ``base``. It names the settings
    that make the variant what it is, and no others; a refitted one ends in ``, refitted``."""
    also: tuple[str, ...]
    """Names of other variants that came to the same network and recipe."""
    settings: dict[str, Any]
    """The level of each factor that was set, by path: on and off as booleans, whole documents by their labels. Empty
    for a base that the design did not ask for."""
    spec: ModelSpec
    """The network, with the data's image shape and classes."""
    recipe: Recipe
    """How it is trained."""
    refitted: bool
    """Whether its widths were changed so that it has the base's number of parameters."""
    is_base: bool
    """Whether it is what all others are compared with."""
    verdict: Verdict
    """How the network stands to the budget."""

    @property
    def fits(self) -> bool:
        """Whether every limit of the budget holds; what does not fit is listed and not trained."""
        return self.verdict.fits

    @property
    def key(self) -> tuple[str, str]:
        """Identity: the digests of network and recipe."""
        return self.spec.digest, self.recipe.digest


def count_of(factors: Mapping[str, Sequence[Any]], design: Design) -> int:
    """How many variants a design asks for at most, the base included; equal ones are not merged yet."""
    counts = [len(levels) for levels in factors.values()]
    return math.prod(counts) if design == "full-factorial" else 1 + sum(counts)


def drafts_of(base: Setup, factors: Mapping[str, Sequence[Any]], design: Design) -> list[Draft]:
    """What a design asks for, the base first, then in the order of factors and levels.

    Args:
        base: what settings are laid over.
        factors: levels by path, as `read_level` keeps them.
        design: which settings are tried.

    Raises:
        InputError: a setting leads nowhere or breaks a rule, a factor has no level that differs from the base, or two
            variants would have the same name.
    """
    drafts = {base.key: Draft(BASE, (), {}, base)}
    for settings in _designed(base, factors, design):
        setup = _laid_over(base, settings)
        name = _name(base, settings, setup)
        known = drafts.get(setup.key)
        if known is None:
            drafts[setup.key] = Draft(name, (), settings, setup)
        elif not known.settings:
            drafts[setup.key] = known._replace(settings=settings)
        elif name not in (known.name, *known.also):
            drafts[setup.key] = known._replace(also=(*known.also, name))
    names: set[str] = set()
    for draft in drafts.values():
        if draft.name in names:
            raise InputError("factors", draft.name, "is what two variants would be called: give their levels names")
        names.add(draft.name)
    return list(drafts.values())


def _designed(base: Setup, factors: Mapping[str, Sequence[Any]], design: Design) -> Iterator[dict[str, Any]]:
    if design == "full-factorial":
        for combination in itertools.product(*factors.values()):
            yield dict(zip(factors, combination, strict=True))
        return
    for path, levels in factors.items():
        changing = [{path: level} for level in levels if _laid_over(base, {path: level}).key != base.key]
        if not changing:
            raise InputError(f"factors.{path}", list(levels), "changes nothing: the base is so already")
        yield from changing


def _laid_over(base: Setup, settings: Mapping[str, Any]) -> Setup:
    try:
        return laid_over(base, settings)
    except InputError as error:
        rule = f"{error.rule} (in the variant {_settings_text(settings)})"
        raise InputError(error.field, error.value, rule) from None


def _settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(setting_text(path, level) for path, level in settings.items()) or BASE


def _name(base: Setup, settings: Mapping[str, Any], setup: Setup) -> str:
    """The settings that make a variant what it is: those without which it is the same are left out, one by one."""
    needed = dict(settings)
    for path in settings:
        fewer = {other: level for other, level in needed.items() if other != path}
        try:
            if laid_over(base, fewer).key == setup.key:
                needed = fewer
        except InputError:  # Without it the others make no sense.
            continue
    return _settings_text(needed)


def variants_of(
    drafts: Sequence[Draft],
    *,
    fit: bool | Literal["both"],
    budget: Budget,
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> list[Variant]:
    """Drafts for a data set, with refitted ones where they are asked for.

    Args:
        drafts: the variants, the base first.
        fit: whether variants whose parameters are not as many as the base's are refitted to those; ``both`` keeps them
            as they are, too.
        budget: what a network may cost.
        input_shape: image as (channels, height, width).
        num_classes: number of classes.

    Raises:
        InputError: at this image size a stride would shrink a map below one pixel, or a variant is larger than the
            base even at its narrowest.
    """
    variants: dict[tuple[str, str], Variant] = {}
    base_params = 0

    def add(draft: Draft, spec: ModelSpec, *, refitted: bool) -> None:
        names = [f"{name}, refitted" if refitted else name for name in (draft.name, *draft.also)]
        settings = {path: kept_level(level) for path, level in draft.settings.items()}
        verdict, is_base = budget.check(spec), not variants
        new = Variant(names[0], tuple(names[1:]), settings, spec, draft.setup.recipe, refitted, is_base, verdict)
        known = variants.setdefault(new.key, new)
        if known is not new:
            variants[new.key] = known._replace(also=(*known.also, *names))

    for draft in drafts:
        try:
            spec = _adapted(draft.setup.spec, input_shape, num_classes)
            base_params = base_params or spec.params
            differs = spec.params != base_params
            if fit is not True or not differs:
                add(draft, spec, refitted=False)
            if fit and differs:
                add(draft, refit(spec, params=base_params, budget=budget), refitted=True)
        except InputError as error:
            raise InputError(error.field, error.value, f"{error.rule} (in the variant {draft.name})") from None
    return list(variants.values())


def _adapted(spec: ModelSpec, input_shape: tuple[int, int, int], num_classes: int) -> ModelSpec:
    if (spec.input_shape, spec.num_classes) == (input_shape, num_classes):
        return spec
    return spec.replace(input_shape=input_shape, num_classes=num_classes, name=spec.name)
