"""Settings that override values of a network and a recipe."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.experiments.ablation.levels import STAGE, is_removal, meaning
from budgetnet.experiments.ablation.paths import parts_of, pattern_of, value_at
from budgetnet.model.parts import STAGE_OVERRIDES
from budgetnet.model.spec import ModelSpec
from budgetnet.model.stage_lists import PER_STAGE, is_list, spread_over_stages
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.schedule import Schedule


class Setup(NamedTuple):
    """A network and its recipe."""

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


def _is_not_sgd(kind: str) -> bool:
    return kind != "sgd"


class _DependentField(NamedTuple):
    """A field that is reset when another field makes its inherited value invalid, or would have no effect beside it."""

    path: str
    value: Any
    of: str
    when: Callable[[Any], bool]
    only: Any = None
    """The one value that is invalid then; None: every value but the one that it is reset to."""


def _has_no_bottleneck(kinds: frozenset[Any]) -> bool:
    return not any(str(kind).endswith("bottleneck") for kind in kinds)


def _is_all_preact(kinds: frozenset[Any]) -> bool:
    return all(str(kind).startswith("preact") for kind in kinds)


def _has_no_conv(kind: object) -> bool:
    return kind in ("padding", "identity", "none")


_DEPENDENT_FIELDS = (
    _DependentField("recipe.nesterov", False, "recipe.momentum", lambda momentum: not momentum),
    _DependentField("recipe.nesterov", False, "recipe.optimizer.kind", _is_not_sgd),
    _DependentField("recipe.momentum", 0.9, "recipe.optimizer.kind", _is_not_sgd),
    _DependentField("recipe.optimizer.betas", [0.9, 0.999], "recipe.optimizer.kind", lambda kind: kind == "sgd"),
    _DependentField("recipe.optimizer.epsilon", 1e-8, "recipe.optimizer.kind", lambda kind: kind == "sgd"),
    _DependentField("recipe.augmentation.alternating_flip", False, "recipe.augmentation.flip", lambda flip: not flip),
    _DependentField("recipe.test_time_shifts", False, "recipe.test_time_flip", lambda flip: not flip),
    _DependentField("recipe.schedule.cycles", None, "recipe.schedule.kind", lambda kind: kind != "cosine-restarts"),
    _DependentField("recipe.schedule.cycles", None, "recipe.schedule.first_cycle", lambda _: True),
    _DependentField("recipe.schedule.cycles", None, "recipe.schedule.cycle_factor", lambda _: True),
    _DependentField("recipe.schedule.milestones", None, "recipe.schedule.kind", lambda kind: kind != "steps"),
    _DependentField("spec.bottleneck_ratio", None, "spec.block", _has_no_bottleneck),
    _DependentField("spec.bottleneck_ratio_of", "output", "spec.block", _has_no_bottleneck),
    _DependentField("spec.equal_expansion", True, "spec.block", _has_no_bottleneck),
    _DependentField("spec.group_width", None, "spec.block", _has_no_bottleneck),
    _DependentField("spec.squeeze_excitation.place", "output", "spec.block", _has_no_bottleneck, only="inner"),
    _DependentField("spec.squeeze_excitation.ratio_of", "output", "spec.block", _has_no_bottleneck, only="inner"),
    _DependentField("spec.block_activation", True, "spec.block", _is_all_preact),
    _DependentField("spec.stem.pool_stride", 2, "spec.stem.pool_size", lambda size: size is None),
    _DependentField("spec.shortcut.kernel_size", 1, "spec.shortcut.kind", _has_no_conv),
    _DependentField("spec.shortcut.norm", None, "spec.shortcut.kind", _has_no_conv),
    _DependentField("spec.shortcut.bias", None, "spec.shortcut.kind", _has_no_conv),
)


def _dependent_fields(documents: dict[str, Any]) -> Iterator[_DependentField]:
    """Yield the fields of the documents, then those of each stage."""
    yield from _DEPENDENT_FIELDS
    stages = documents["spec"]["stages"]
    for index in range(len(stages) if isinstance(stages, list) else 0):
        for field in _DEPENDENT_FIELDS:
            if _is_of_blocks(parts_of(field.path)):
                path, of = (each.replace("spec", f"spec.stages[{index}]", 1) for each in (field.path, field.of))
                yield field._replace(path=path, of=of)


def _determinant(documents: dict[str, Any], path: str) -> Any:
    """Return what a dependent field depends on; for blocks, the set of the kinds of all stages, or of one."""
    if not path.endswith(".block"):
        return value_at(documents, path)
    network, stages = value_at(documents, "spec.block"), value_at(documents, path.removesuffix(".block"))
    stages = stages["stages"] if path == "spec.block" else [stages]
    each = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return frozenset(stage.get("block") or network for stage in each)


def override(base: Setup, settings: Mapping[str, Any]) -> Setup:
    """Return a setup with some values replaced; a network or recipe that changes loses its name.

    Whole documents are set first, then what is set in all stages, then the others, so that the narrower path overrides.
    Stages are removed last, so that indexes do not shift.

    Fields of the blocks are set in all stages, also in those that have values of their own.

    Dependent fields that no setting names are reset where the base's value becomes invalid: Nesterov momentum without
    momentum, values of SGD or of Adam for another optimiser, alternating flips without flips, what only bottlenecks
    have in other blocks, the kernel of shortcuts without convolution, cycles and milestones of another kind of
    schedule; and cycles that would override a first cycle or cycle factor. If the epochs or the kind of schedule
    change, cycles and milestones are those of `Schedule.stretched`, unless a setting names them.

    Args:
        base: network and recipe to start from.
        settings: levels by dotted path.

    Raises:
        InputError: a path does not exist, a level is invalid there, or the result breaks a rule.
    """
    own, documents = base.documents, base.documents
    for path, level in sorted(settings.items(), key=_turn):
        _write(documents, path, level, own)
    before = Setup(settings.get("spec", base.spec), settings.get("recipe", base.recipe))
    inherited = before.documents
    for field in _dependent_fields(documents):
        named = _is_named(field.of, settings)
        if not _is_named(field.path, settings) and _must_reset(field, documents, inherited, named=named):
            _assign(documents, field.path, field.value)
    spec = _checked("spec", lambda: ModelSpec.from_mapping(documents["spec"]), before.spec)
    recipe = _checked("recipe", lambda: _recipe(documents["recipe"], settings, before.recipe), before.recipe)
    return Setup(spec, recipe)


def _turn(setting: tuple[str, Any]) -> tuple[bool, float, int]:
    path, level = setting
    parts = parts_of(path)
    removes_stage = pattern_of(path) == STAGE and is_removal(path, level)
    is_set_in_stages = _is_for_all_stages(parts) or (len(parts) == 2 and _is_of_blocks(parts))
    breadth = len(parts) + 0.5 * is_set_in_stages
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
        # Only on needs the value of the base: a replaced document may not have this path.
        value = meaning(path, level, present=present, own=_of_base(own, path) if level is True else None)
        if _is_of_blocks(parts):
            _write_in_blocks(documents["spec"], parts[1:], value)
        else:
            _assign(documents, path, value)


def _is_of_blocks(parts: list[str | int]) -> bool:
    return len(parts) > 1 and parts[0] == "spec" and parts[1] in STAGE_OVERRIDES


def _of_base(own: dict[str, Any], path: str) -> Any:
    """Return the value of the base; a list for a field of the blocks that stages have values of their own for."""
    value, parts = value_at(own, path, level="on"), parts_of(path)
    if not _is_of_blocks(parts) or not any(parts[1] in stage for stage in own["spec"]["stages"]):
        return value
    return [stage.get(parts[1], value) for stage in own["spec"]["stages"]] if len(parts) == 2 else value


def _write_in_blocks(spec: dict[str, Any], parts: list[str | int], value: Any) -> None:
    """Set a field of the blocks in all stages, also in those that have a value of their own."""
    name, *inside = parts
    stages = [stage for stage in spec["stages"] if isinstance(stage, dict)] if isinstance(spec["stages"], list) else []
    if inside:
        for document in (spec, *stages):
            if isinstance(document.get(name), dict):
                document[name][inside[0]] = copy.deepcopy(value)
        return
    for stage in stages:
        stage.pop(name, None)
    if is_list(value):
        _prefixed("spec", lambda: spread_over_stages(stages, {str(name): value}))
    else:
        spec[str(name)] = value


def _assign(documents: dict[str, Any], path: str, value: Any) -> None:
    place: Any = documents
    *others, last = parts_of(path)
    for part in others:
        place = place[part]
    place[last] = value


def _must_reset(field: _DependentField, documents: dict[str, Any], inherited: dict[str, Any], *, named: bool) -> bool:
    """Return whether a field still has its inherited value, which the other field, changed or named, rules out."""
    try:
        value, of = value_at(documents, field.path), _determinant(documents, field.of)
        # What the base combines is valid: its stages may have values of their own.
        changed = named or of != _determinant(inherited, field.of)
        invalid = value != field.value if field.only is None else value == field.only
        return changed and value == value_at(inherited, field.path) and field.when(of) and invalid
    except InputError:  # An invalid document, which is reported on validation, or a stage that is new.
        return False


def _recipe(mapping: dict[str, Any], settings: Mapping[str, Any], before: Recipe) -> Recipe:
    """Return the recipe, with cycles and milestones adapted to its epochs and schedule unless a setting names them."""
    schedule = mapping["schedule"]
    if _names_cycles(settings) or not isinstance(schedule, dict):
        return Recipe.from_mapping(mapping)
    if (mapping["epochs"], schedule.get("kind")) == (before.epochs, before.schedule.kind):
        return Recipe.from_mapping(mapping)
    # Without its schedule first, as that depends on valid epochs.
    recipe = Recipe.from_mapping({**mapping, "schedule": {"kind": "constant"}})
    adapted = _prefixed("schedule", lambda: Schedule.from_mapping(schedule)).stretched(recipe.epochs, own=before.epochs)
    return Recipe.from_mapping({**mapping, "schedule": adapted.to_mapping()})


def _names_cycles(settings: Mapping[str, Any]) -> bool:
    """Return whether the settings name the length of the first cycle, of all, or milestones."""
    return any(_is_named(f"recipe.schedule.{name}", settings) for name in ("first_cycle", "cycles", "milestones"))


def _is_named(path: str, settings: Mapping[str, Any]) -> bool:
    """Return whether the settings name a field, by its path or in a mapping of all that stands beside it."""
    whole, _, name = path.rpartition(".")
    level = settings.get(whole)
    return path in settings or (isinstance(level, Mapping) and name in level)


def with_epochs(base: Setup, settings: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return settings for another number of epochs, with a named first cycle no longer than the training.

    A single cycle spans the training; named cycles and milestones are those of `Schedule.stretched`.

    Args:
        base: network and recipe that the settings override.
        settings: levels by dotted path; not changed if they name epochs themselves.
        epochs: number of epochs.

    Raises:
        InputError: a setting is invalid for this base.
    """
    changed = dict(settings)
    if "recipe.epochs" in settings:
        return changed
    if "recipe" in settings:
        changed["recipe"] = Recipe.from_mapping(settings["recipe"]).with_epochs(epochs).to_mapping()
    if not _names_cycles(settings):
        return changed
    recipe = override(base, settings).recipe
    schedule = recipe.schedule
    cycle = epochs if schedule.is_single_cycle else min(schedule.first_cycle, epochs)
    adapted = schedule.stretched(epochs, own=recipe.epochs)
    milestones = None if adapted.milestones is None else list(adapted.milestones)
    cycles = None
    if schedule.cycles:
        cycles = [end - start for start, end in itertools.pairwise([0, *adapted.cycle_ends(epochs)])]
    whole = settings.get("recipe.schedule")
    for name, value in (("first_cycle", cycle), ("cycles", cycles), ("milestones", milestones)):
        if f"recipe.schedule.{name}" in settings:
            changed[f"recipe.schedule.{name}"] = value
        elif isinstance(whole, Mapping) and name in whole:
            changed["recipe.schedule"] = {**changed["recipe.schedule"], name: value}
    return changed


def _prefixed(kind: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{kind}.{error.field}", error.value, error.rule) from None


def _checked(kind: str, make: Callable[[], Any], before: Any) -> Any:
    """Return the new document without a name, or the old one if nothing changed."""
    made = _prefixed(kind, make)
    return before if made.digest == before.digest else made.model_copy(update={"name": ""})
