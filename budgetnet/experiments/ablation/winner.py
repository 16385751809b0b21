"""Ablation of a search's winner: each factor in which it differs from a base is set back alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from budgetnet.common.documents import Document
from budgetnet.common.errors import InputError
from budgetnet.common.formatting import count_of
from budgetnet.experiments.ablation.factors import Factor, factors_of
from budgetnet.experiments.ablation.overrides import Setup, override
from budgetnet.experiments.ablation.parsing import OPTION_NAME
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.model.budget import Budget
from budgetnet.model.spec import ModelSpec
from budgetnet.model.widths import refit
from budgetnet.runs.recipe import Recipe
from budgetnet.statistics.intervals import points

if TYPE_CHECKING:
    from budgetnet.experiments.ablation.results import AblationResult

WINNER = "winner"
"""Name of the unchanged network in the results."""


class SearchWinner(Document):
    """The network that a search recommends, or that of one of its trials, with what it was trained on."""

    document_kind: ClassVar[str] = "winner of a search"

    study: str
    """Name of the search's study."""
    name: str
    """Name on the command line: ``STUDY``, or ``STUDY#3`` for the network of a trial."""
    trial: str
    """Name of its trial: ``#3``."""
    spec: ModelSpec
    """The network, for the images of the search."""
    recipe: Recipe
    """Recipe that it was trained with."""
    search_recipe: Recipe
    """Recipe of the search, without the values that were sampled for this network."""
    seed: int
    """Seed of the run for which it was chosen."""
    budget: Budget
    """Budget of the search."""
    data: str
    """Name of the data set."""
    fingerprint: str
    """Fingerprint of the data set."""
    train_size: int | None = None
    """Number of training images; None for all."""
    validation_size: int | None = None
    """Number of validation images; None for all."""


def winner_study(of: SearchWinner, base: ModelSpec) -> AblationStudy:
    """Return the ablation of a winner: a variant for each factor, and the whole base last, all refitted.

    Widths are refitted, so that each variant has the winner's number of parameters, as nearly as possible without
    exceeding it. A factor that cannot be set back, or that makes no difference after refitting, is named in the
    remarks and not trained.

    Args:
        of: the winner.
        base: network to set factors back to, of any image size.

    Raises:
        InputError: the base cannot be built for the images, it is the winner itself, or no factor is left.
    """
    try:
        base = base.adapted(input_shape=of.spec.input_shape, num_classes=of.spec.num_classes)
    except InputError as error:
        raise InputError("base", base.label, f"is not for images of {of.data}: {error}") from None
    own, other = Setup(of.spec, of.recipe), Setup(base, of.search_recipe)
    if own.key == other.key:
        raise InputError("base", base.label, f"is the winner {of.trial} of {of.study} itself: no factor is left to set")
    factors = [*factors_of(own, other), _whole(own, other)]
    obstacles = {factor.name: _obstacle(own, factor, of.budget) for factor in factors}
    options = {factor.name: factor.settings for factor in factors if not obstacles[factor.name]}
    left_out = [f"{name}: {obstacle}" for name, obstacle in obstacles.items() if obstacle]
    if not options:
        raise InputError("base", base.label, f"leaves no factor to set back; {'; '.join(left_out)}")
    return AblationStudy(
        name=re.sub(r"[^\w.+-]", "-", f"winner-of-{of.name}")[:100],
        base_name=WINNER,
        spec=of.spec,
        recipe=of.recipe,
        options=options,
        fit=True,
        budget=of.budget,
        data=of.data,
        train_size=of.train_size,
        validation_size=of.validation_size,
        remarks=(*_introduction(of, base), *left_out),
    )


def _introduction(of: SearchWinner, base: ModelSpec) -> Iterator[str]:
    yield (
        f"winner: {of.trial} of {of.study}; each variant takes one factor from {base.label} or from the search's "
        f"recipe, refitted to at most {of.spec.params:,} parameters"
    )
    yield f"the search chose the winner by its accuracy with seed {of.seed}: differences with this seed favour it"


def _whole(own: Setup, base: Setup) -> Factor:
    """Return all factors together: the base's network, and the values of its recipe that differ."""
    name = f"whole {base.spec.label}"
    settings: dict[str, Any] = {"spec": base.spec}
    for factor in factors_of(own, base):
        settings |= {path: value for path, value in factor.settings.items() if path.startswith("recipe.")}
    return Factor(name if OPTION_NAME.fullmatch(name) else "whole base", settings)


def _obstacle(own: Setup, factor: Factor, budget: Budget) -> str:
    """Return why a factor is not trained; empty if it is."""
    try:
        setup = override(own, factor.settings)
        spec = setup.spec
        if spec.params != own.spec.params:
            spec = refit(spec, params=own.spec.params, budget=budget)
    except InputError as error:
        return f"skipped, as it cannot be set back: {error}"
    same = (spec.digest, setup.recipe.digest) == own.key
    return "no difference: the winner's own network and recipe, not trained again" if same else ""


def conclusion(result: AblationResult) -> str:
    """Return in words which factors change the accuracy of the winner beyond noise when they are set back."""
    pairs = max((row.difference.n for row in result.rows if row.difference), default=0)
    if not pairs:
        return "no factor has a result to compare with the winner's yet"
    moved = [row for row in result.rows if row.significant and row.difference]
    if not moved:
        return f"no factor that is set back changes the accuracy beyond noise, over {count_of(pairs, 'seed')}"
    parts = []
    for verb, sign in (("falls", -1), ("rises", 1)):
        named = [
            f"{row.variant.name} ({points(row.difference.mean)})"
            for row in moved
            if row.difference and row.difference.mean * sign > 0
        ]
        parts += [f"{verb} with {', '.join(named)}"] if named else []
    return f"beyond noise, accuracy {' and '.join(parts)}"
