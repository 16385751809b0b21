"""A network and how it is trained, and settings laid over the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import STAGE, is_removal, meaning
from budgetnet.experiments.ablation.paths import parts_of, pattern_of, value_at
from budgetnet.model.spec import PER_STAGE, ModelSpec, spread_over_stages
from budgetnet.runs.recipe import Recipe


class Setup(NamedTuple):
    """What is trained and how."""

    spec: ModelSpec
    recipe: Recipe

    @property
    def key(self) -> tuple[str, str]:
        """Identity: the digests of both."""
        return self.spec.digest, self.recipe.digest

    @property
    def documents(self) -> dict[str, Any]:
        """Both as plain data, by the first part of a path."""
        return {"spec": self.spec.to_mapping(), "recipe": self.recipe.to_mapping()}


class _Companion(NamedTuple):
    """A value that the base hands down, and that goes where another one leaves it without sense."""

    path: str
    value: Any
    of: str
    when: Callable[[Any], bool]


_COMPANIONS = (
    _Companion("recipe.nesterov", False, "recipe.momentum", lambda momentum: not momentum),
    _Companion("recipe.augmentation.alternating_flip", False, "recipe.augmentation.flip", lambda flip: not flip),
    _Companion("recipe.test_time_shifts", False, "recipe.test_time_flip", lambda flip: not flip),
    _Companion("spec.bottleneck_ratio", None, "spec.block", lambda block: block != "bottleneck"),
    _Companion("spec.shortcut.kernel_size", 1, "spec.shortcut.kind", lambda kind: kind in ("padding", "none")),
)


def override(base: Setup, settings: Mapping[str, Any]) -> Setup:
    """A setup with some of its values replaced; what becomes another network or recipe loses its name.

    Whole documents come first, then lists over all stages, then the others, so that the narrower path wins; stages are
    taken away at last, so that an index means the same stage throughout.

    What the base hands down and no setting names goes along where it would have no sense any more: Nesterov's variant
    without momentum, flips that alternate without flips, a bottleneck's ratio in other blocks, a kernel of shortcuts
    that have none. And where the length or the kind of schedule changes, the first cycle is that of
    `Recipe.with_epochs`: no longer than the training, and as long where it is the only one.

    Args:
        base: what to start from.
        settings: levels by dotted path.

    Raises:
        InputError: a path leads nowhere, a level means nothing there, or the result breaks a rule.
    """
    own, documents = base.documents, base.documents
    for path, level in sorted(settings.items(), key=_turn):
        _write(documents, path, level, own)
    before = Setup(settings.get("spec", base.spec), settings.get("recipe", base.recipe))
    inherited = before.documents
    for companion in _COMPANIONS:
        if companion.path not in settings and _companion_goes(companion, documents, inherited):
            _assign(documents, companion.path, companion.value)
    spec = _checked("spec", lambda: ModelSpec.from_mapping(documents["spec"]), before.spec)
    recipe = _checked("recipe", lambda: _recipe(documents["recipe"], settings, before.recipe), before.recipe)
    return Setup(spec, recipe)


def _turn(setting: tuple[str, Any]) -> tuple[bool, float, int]:
    path, level = setting
    parts = parts_of(path)
    removes_stage = pattern_of(path) == STAGE and is_removal(path, level)
    breadth = len(parts) + 0.5 * _is_for_all_stages(parts)
    return removes_stage, breadth, -int(parts[-1]) if removes_stage else 0


def _is_for_all_stages(parts: list[str | int]) -> bool:
    return len(parts) == 2 and parts[0] == "spec" and parts[1] in PER_STAGE


def _write(documents: dict[str, Any], path: str, level: Any, own: dict[str, Any]) -> None:
    parts = parts_of(path)
    if _is_for_all_stages(parts):
        value = meaning(path, level, present=None, own=None)
        stages = documents["spec"]["stages"]
        if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
            raise InputError("spec.stages", stages, "must be a list of mappings")
        _prefixed("spec", lambda: spread_over_stages(stages, {str(parts[1]): value}))
    elif is_removal(path, level) and pattern_of(path) == STAGE:
        value_at(documents, path, level="off")
        del documents["spec"]["stages"][parts[-1]]
    else:
        present = value_at(documents, path, level=level)
        # On means the base's own value, which nothing else needs: another document may have no such place.
        value = meaning(path, level, present=present, own=value_at(own, path, level="on") if level is True else None)
        _assign(documents, path, value)


def _assign(documents: dict[str, Any], path: str, value: Any) -> None:
    place: Any = documents
    *others, last = parts_of(path)
    for part in others:
        place = place[part]
    place[last] = value


def _companion_goes(companion: _Companion, documents: dict[str, Any], inherited: dict[str, Any]) -> bool:
    """Whether the value is the one handed down, and what it belongs to has changed so that it must go."""
    try:
        value, of = value_at(documents, companion.path), value_at(documents, companion.of)
    except InputError:  # No document where one must be: its own rule will tell.
        return False
    return value == value_at(inherited, companion.path) and companion.when(of) and value != companion.value


def _recipe(mapping: dict[str, Any], settings: Mapping[str, Any], before: Recipe) -> Recipe:
    """The recipe, with the first cycle that its length and its kind of schedule ask for, unless a setting names it."""
    schedule = mapping["schedule"]
    if _named_cycle(settings) or not isinstance(schedule, dict):
        return Recipe.from_mapping(mapping)
    if (mapping["epochs"], schedule.get("kind")) == (before.epochs, before.schedule.kind):
        return Recipe.from_mapping(mapping)
    if schedule.get("kind") in ("one-cycle", "linear"):
        mapping = {**mapping, "schedule": {**schedule, "first_cycle": mapping["epochs"]}}
    recipe = Recipe.from_mapping(mapping)
    return recipe.with_epochs(recipe.epochs)


def _named_cycle(settings: Mapping[str, Any]) -> bool:
    """Whether settings say how long the first cycle is."""
    schedule = settings.get("recipe.schedule")
    return "recipe.schedule.first_cycle" in settings or (isinstance(schedule, Mapping) and "first_cycle" in schedule)


def with_epochs(base: Setup, settings: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Settings for another length of training: a first cycle that they name as `Recipe.with_epochs` makes it.

    Args:
        base: what the settings are laid over, of its own length.
        settings: levels by dotted path; those that name a length or a whole recipe stay as they are.
        epochs: the other length.

    Raises:
        InputError: a setting means nothing for this base.
    """
    if "recipe" in settings or "recipe.epochs" in settings or not _named_cycle(settings):
        return dict(settings)
    cycle = override(base, settings).recipe.with_epochs(epochs).schedule.first_cycle
    if "recipe.schedule.first_cycle" in settings:
        return {**settings, "recipe.schedule.first_cycle": cycle}
    return {**settings, "recipe.schedule": {**settings["recipe.schedule"], "first_cycle": cycle}}


def _prefixed(kind: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{kind}.{error.field}", error.value, error.rule) from None


def _checked(kind: str, make: Callable[[], Any], before: Any) -> Any:
    """The document that is made: the one before, with its name, where nothing changed, else one without a name."""
    made = _prefixed(kind, make)
    return before if made.digest == before.digest else made.model_copy(update={"name": ""})
