"""Synthetic studies with invented results, to benchmark whatever reads studies."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from budgetnet.model.budget import Budget
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunResult
from budgetnet.runs.store import RunFolder
from budgetnet.study.config import SearchConfig
from budgetnet.study.finalists import Finalist, Finals, store_finals
from budgetnet.study.lock import StudyLock
from budgetnet.study.settings import StudySettings
from budgetnet.study.space.fitting import fit
from budgetnet.study.space.named import named_space
from budgetnet.study.storage import default_storage, open_storage, open_study
from budgetnet.study.trial_store import candidate_key
from budgetnet.study.writer import TrialWriter

STUDY = "synthetic"
"""Name of the study."""
_IMAGE: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
_SEED = 0
_FINALISTS, _FINAL_SEEDS = 3, 3
_DATA = DataRecord(
    name="invented",
    provenance="no images: results are random",
    fingerprint="0" * 64,
    is_original_cifar10=False,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    split_fingerprint="0" * 64,
    train_images=40_000,
    validation_images=10_000,
)


def write_study(out: Path, *, trials: int, environment: dict[str, Any]) -> None:
    """Write a study of completed trials within the budget, with random accuracies and without training.

    Every trial has a run folder that holds the environment; those of the finalists are complete.

    Args:
        out: folder for the study's SQLite file and its run folders.
        trials: number of trials.
        environment: the environment that run folders record.
    """
    recipe, space, budget = named_recipe("search"), named_space("resnet"), Budget(max_params=5_000_000)
    config = SearchConfig(recipe=recipe, data=_DATA.name, seed=_SEED, **budget.to_mapping())
    ends = recipe.schedule.cycle_ends(recipe.epochs)
    settings = StudySettings(config=config, space=space, recipe=recipe, data=_DATA, device="cpu", precision="float32")
    storage = open_storage(default_storage(out), create=True)
    try:
        study = open_study(storage, STUDY, settings)
        writer = TrialWriter(storage, STUDY, [], lock=StudyLock(storage, STUDY, out))
        generator = np.random.default_rng(_SEED)
        sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_SEED))
        distributions = space.proposed("fit")
        written = []
        for number in range(trials):
            params = sampler.ask(distributions).params
            spec = fit(space, params, budget=budget, sizing="fit", **_IMAGE)
            own = space.recipe_for(params, base=recipe)
            identity = RunIdentity(spec=spec, recipe=own, data=_DATA, seed=_SEED, device="cpu")
            correct = int(generator.integers(5_000, 9_500))
            accuracy = correct / _DATA.validation_images
            trial = create_trial(
                state=TrialState.COMPLETE,
                value=accuracy,
                params=params,
                distributions=distributions,
                intermediate_values={end: accuracy * end / recipe.epochs for end in ends},
                user_attrs=_trial_attributes(identity, budget, correct),
            )
            trial.datetime_start = datetime(2026, 1, 1) + timedelta(minutes=number)
            trial.datetime_complete = trial.datetime_start + timedelta(minutes=1)
            trial.number = number
            writer.insert(trial)
            RunFolder(out / identity.run_id).record_environment(environment, first_epoch=1)
            written.append((correct, number, identity))
        writer.flush(wait=True)
        written.sort(key=lambda each: (-each[0], each[1]))
        finalists = []
        for correct, number, identity in written[:_FINALISTS]:
            runs = [identity.model_copy(update={"seed": seed}) for seed in range(_FINAL_SEEDS)]
            for run in runs:
                _write_run(out, run, correct)
            names = tuple(run.run_id for run in runs)
            finalists.append(
                Finalist(trial=number, name=f"#{number}", spec=identity.spec, recipe=identity.recipe, runs=names)
            )
        store_finals(study, Finals(finalists=tuple(finalists), seeds=tuple(range(_FINAL_SEEDS)), recipe=recipe))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _trial_attributes(identity: RunIdentity, budget: Budget, correct: int) -> dict[str, Any]:
    """Return the user attributes that a search stores with a completed trial."""
    spec, recipe = identity.spec, identity.recipe
    accuracy = correct / _DATA.validation_images
    return {
        "architecture": spec.label,
        "candidate": candidate_key(spec, recipe),
        "spec": spec.digest,
        **spec.cost._asdict(),
        "blocks": sum(stage.blocks for stage in spec.stages),
        "budget_used": round(budget.share_used(spec.cost), 6),
        "run": identity.run_id,
        "seed": identity.seed,
        "trained": True,
        "status": "complete",
        "ended": f"all {recipe.epochs} epochs",
        "epochs": recipe.epochs,
        "cycles": len(recipe.schedule.cycle_ends(recipe.epochs)),
        "seconds": 1.0 * recipe.epochs,
        "validation_accuracy": accuracy,
        "validation_correct": correct,
        "validation_images": _DATA.validation_images,
    }


def _write_run(out: Path, identity: RunIdentity, correct: int) -> None:
    """Write a complete run folder without weights."""
    folder, epochs = RunFolder(out / identity.run_id), identity.recipe.epochs
    accuracy = correct / _DATA.validation_images
    shares = [accuracy * epoch / epochs for epoch in range(1, epochs + 1)]
    folder.begin(identity)
    folder.write_curves(
        [Epoch(number, 1, 0.01, 1 - share, share, 1 - share, share, 1.0) for number, share in enumerate(shares, 1)]
    )
    folder.finish(
        RunResult(
            status="complete",
            reason=f"all {epochs} epochs",
            **identity.spec.cost._asdict(),
            epochs=epochs,
            cycles=len(identity.recipe.schedule.cycle_ends(epochs)),
            best_epoch=epochs,
            validation_loss=1 - accuracy,
            validation_correct=correct,
            validation_images=_DATA.validation_images,
            seconds=1.0 * epochs,
        )
    )
