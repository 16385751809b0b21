"""Run identities and run folders: digests, round trips, damaged files and locking."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import BusyError, RecordError
from budgetnet.data import DataSet
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunRecord, RunResult, TestResult
from budgetnet.runs.store import RunFolder
from budgetnet.training.trainer import train

DATA = DataRecord(
    name="digits",
    provenance="bundled",
    fingerprint="a" * 64,
    is_original_cifar10=False,
    split_fingerprint="b" * 64,
    mean=(0.25,),
    std=(0.5,),
    train_images=64,
    validation_images=40,
)
IDENTITY = RunIdentity(spec=TINY, recipe=tiny_recipe(), data=DATA, seed=3, device="cpu")
EPOCHS = [Epoch(number, 1, 0.1 / 3, 2.0 / 3, 1 / 7, 1e-17 * number, 0.5, 0.125) for number in (1, 2)]
RESULT = RunResult(
    status="complete",
    reason="all 2 epochs",
    params=1,
    macs=2,
    activations=3,
    epochs=2,
    cycles=0,
    best_epoch=1,
    validation_loss=1e-17,
    validation_correct=20,
    validation_images=40,
    seconds=0.25,
)


def written(out: Path) -> RunFolder:
    folder = RunFolder.of(IDENTITY, out)
    folder.begin(IDENTITY)
    folder.record_environment({"python": "3"}, first_epoch=1)
    folder.write_curves(EPOCHS)
    folder.best.write_bytes(b"weights")
    folder.finish(RESULT)
    return folder


def changed(**changes: Any) -> RunIdentity:
    return IDENTITY.model_copy(update=changes)


@pytest.mark.parametrize(
    "other",
    [
        changed(spec=TINY.replace(activation="gelu")),
        changed(recipe=tiny_recipe(momentum=0.5)),
        changed(data=DATA.model_copy(update={"fingerprint": "c" * 64})),
        changed(data=DATA.model_copy(update={"split_fingerprint": "c" * 64})),
        changed(data=DATA.model_copy(update={"std": (0.25,)})),
        changed(data=DATA.model_copy(update={"is_original_cifar10": True})),
        changed(seed=4),
        changed(device="cuda"),
        changed(trainer=1),
        changed(precision="bfloat16"),
    ],
)
def test_digest_and_folder_depend_on_everything_that_determines_a_run(other: RunIdentity) -> None:
    assert other.digest != IDENTITY.digest
    assert other.run_id != IDENTITY.run_id


@pytest.mark.parametrize(
    "other",
    [
        changed(spec=TINY.replace(name="mine")),
        changed(recipe=tiny_recipe(name="mine")),
        changed(data=DATA.model_copy(update={"name": "arrays:x.npz", "provenance": "elsewhere"})),
    ],
)
def test_digest_ignores_names_and_provenance(other: RunIdentity) -> None:
    assert other.digest == IDENTITY.digest


def test_folder_name_contains_label_seed_and_digest() -> None:
    assert IDENTITY.run_id == f"basic-8x1-s3-{IDENTITY.digest[:10]}"
    long_name = changed(spec=ModelSpec.resnet(channels=[8] * 32, strides=1)).run_id
    assert len(long_name) < 100


def test_load_returns_what_was_written(tmp_path: Path) -> None:
    record = written(tmp_path).load()
    assert record == RunRecord(tmp_path / IDENTITY.run_id, IDENTITY, RESULT, tuple(EPOCHS))


def test_training_writes_all_files_of_the_run_folder(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    data = prepare(digits, recipe)
    folder = train(TINY, data, recipe, seed=0, out=tmp_path).folder
    names = {path.name for path in folder.iterdir()}
    documents = {"run.json", "environment.json", "result.json", "spec.yaml", "recipe.yaml"}
    assert names == {*documents, "curves.csv", "confusion.csv", "best.safetensors", ".lock"}
    readers = {name: json.loads if name.endswith(".json") else yaml.safe_load for name in documents}
    found = {name: read((folder / name).read_text()) for name, read in readers.items()}
    assert ModelSpec.load(folder / "spec.yaml") == TINY
    assert Recipe.load(folder / "recipe.yaml") == recipe
    assert found["run.json"]["spec"] == found["spec.yaml"]
    assert found["run.json"]["recipe"] == found["recipe.yaml"]
    assert found["run.json"]["data"]["fingerprint"] == digits.fingerprint
    assert (found["run.json"]["seed"], found["run.json"]["device"]) == (0, "cpu")
    assert set(found["environment.json"]["starts"][0]["packages"]) >= {"torch", "numpy", "optuna"}
    with (folder / "curves.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert found["result.json"]["seconds"] == pytest.approx(sum(float(row["seconds"]) for row in rows))
    with (folder / "confusion.csv").open(newline="") as stream:
        confusion = np.array([[int(cell) for cell in row] for row in csv.reader(stream)])
    assert confusion.shape == (10, 10)
    assert confusion.sum(axis=1).tolist() == torch.bincount(data.validation.labels, minlength=10).tolist()
    assert confusion.trace() == found["result.json"]["validation_correct"]
    network = TINY.build()
    assert found["result.json"]["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_confusion_matrix_is_read_as_written_unless_it_contradicts_the_result(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert folder.read_confusion(RESULT) is None, "as in runs of older versions"
    matrix = [[12, 3], [17, 8]]
    folder.finish(RESULT, confusion=matrix)
    assert folder.read_confusion(RESULT) == matrix
    for damaged in ("12,3\n17,9\n", "11,4\n17,8\n", "20\n20,0\n", "12,3\n17,x\n", "40,-20\n20,0\n", "", "\xff"):
        (folder.path / "confusion.csv").write_text(damaged, encoding="latin-1")
        with pytest.raises(RecordError, match="confusion"):
            folder.read_confusion(RESULT)
    in_its_place("confusion.csv")(folder.path)
    with pytest.raises(RecordError, match=r"confusion matrix = .*: cannot be read: Is a directory"):
        folder.read_confusion(RESULT)


def test_digest_can_be_recomputed_from_run_json(tmp_path: Path) -> None:
    stored = json.loads((written(tmp_path).path / "run.json").read_text())

    def digest(content: Any, **style: Any) -> str:
        return hashlib.sha256(json.dumps(content, sort_keys=True, **style).encode()).hexdigest()

    def differing(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        return {
            key: differing(value, defaults[key]) if isinstance(value, dict) else value
            for key, value in fields.items()
            if value != defaults[key] and key != "name"
        }

    spec = {key: value for key, value in stored["spec"].items() if key != "name"}
    # Fields added later are not part of the digest where they are off.
    first_fields = {
        "": "schema_version input_shape num_classes stem block bottleneck_ratio stages groups squeeze_excitation_ratio "
        "shortcut activation head",
        "stem": "channels kernel_size stride",
        "shortcut": "kind kernel_size",
        "head": "pooling dropout",
    }
    off = ModelSpec(stages=({"channels": 1},)).to_mapping()
    for part, names in first_fields.items():
        fields, defaults = (spec[part], off[part]) if part else (spec, off)
        for name in fields.keys() - set(names.split()):
            assert fields.pop(name) == defaults[name]
    recipe = differing(stored["recipe"], Recipe().to_mapping())
    parts = {
        "spec": digest(spec, separators=(",", ":")),
        "recipe": digest(recipe, separators=(",", ":")),
        "data": [
            stored["data"][key] for key in ("fingerprint", "split_fingerprint", "is_original_cifar10", "mean", "std")
        ],
        "trainer": 2,
        "seed": stored["seed"],
        "device": stored["device"],
        "precision": "float32",
    }
    assert digest(parts) == IDENTITY.digest


def test_a_folder_of_another_run_is_rejected_and_unchanged(tmp_path: Path) -> None:
    folder = written(tmp_path)
    before = (folder.path / "run.json").read_bytes()
    with pytest.raises(RecordError, match="another run"):
        folder.begin(changed(seed=9))
    assert (folder.path / "run.json").read_bytes() == before


def set_field(name: str, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def in_its_place(name: str) -> Callable[[Path], None]:
    """Put a folder in the place of a file."""

    def edit(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return edit


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (set_field("run.json", schema_version=2), "newer version of budgetnet"),
        (set_field("result.json", schema_version=99), "newer version of budgetnet"),
        (set_field("run.json", schema_version="x"), "damaged"),
        (set_field("run.json", surprise=1), "damaged"),
        (set_field("result.json", params="many"), "damaged"),
        (overwrite("run.json", b'{"spec": '), "damaged"),
        (overwrite("run.json", b"[]"), "damaged"),
        (overwrite("run.json", b""), "damaged"),
        (overwrite("run.json", b"\xff\xfe"), "damaged"),
        (overwrite("result.json", b"\x00"), "damaged"),
        (overwrite("curves.csv", b"epoch,cycle\n1,1\n"), "damaged"),
        (overwrite("curves.csv", b"epoch,cycle,learning_rate\nx,y,z\n"), "damaged"),
        (overwrite("curves.csv", b"\xff\xfe\x00"), "damaged"),
        (overwrite("curves.csv", b"epoch,cycle\n" + b"1" * 200_000), "damaged"),
        (
            set_field("run.json", data={**DATA.to_mapping(), "train_images": 10**30}),
            "data.train_images must be at most",
        ),
        (set_field("result.json", validation_images=0), "validation_images must be at least 1"),
        (set_field("result.json", validation_correct=41), "validation_correct must be at most validation_images"),
        (set_field("result.json", validation_correct=10**400), "validation_correct must be at most"),
        (set_field("result.json", best_epoch=99), "best_epoch must be at most epochs"),
        (
            set_field("result.json", validation_correct=None),
            "validation_correct must be null if and only if best_epoch is",
        ),
        (set_field("result.json", best_epoch=None), "validation_loss must be null if and only if best_epoch is"),
        (set_field("result.json", macs=10**400), "macs must be at most"),
        (set_field("result.json", train_flops=10**400), "train_flops must be at most"),
        (set_field("test.json", images=0), "images must be at least 1; delete it"),
        (set_field("test.json", correct=31), "correct must be at most images; delete it"),
        (in_its_place("curves.csv"), r"curves = .*curves\.csv': cannot be read: Is a directory"),
        (lambda path: (path / "curves.csv").unlink(), "curves.csv is missing"),
        (lambda path: (path / "best.safetensors").unlink(), "best.safetensors is missing"),
        (remove("run.json"), "contains no run"),
        (remove("result.json"), "unfinished"),
    ],
)
def test_loading_a_damaged_folder_raises_a_one_line_error(
    tmp_path: Path, damage: Callable[[Path], None], rule: str
) -> None:
    folder = written(tmp_path)
    folder.write_test(TestResult(loss=0.5, correct=20, images=30, reason="a test"))
    damage(folder.path)
    with pytest.raises(RecordError, match=rule) as caught:
        folder.load()
    assert "\n" not in str(caught.value)


def test_load_requires_weights_unless_disabled(tmp_path: Path) -> None:
    folder = written(tmp_path)
    whole = folder.load()
    folder.best.unlink()
    assert folder.load(weights=False) == whole
    with pytest.raises(RecordError, match=r"best\.safetensors is missing"):
        folder.load()


def test_shared_digest_ignores_only_the_seed() -> None:
    shared = IDENTITY.digest_without_seed
    assert changed(seed=9).digest_without_seed == shared
    assert changed(seed=0).digest == shared
    assert changed(device="cuda").digest_without_seed != shared
    assert changed(recipe=tiny_recipe(momentum=0.5)).digest_without_seed != shared


def test_a_run_is_found_if_its_network_was_renamed(tmp_path: Path) -> None:
    folder = written(tmp_path)
    renamed = changed(spec=TINY.replace(name="another-name"))
    assert renamed.run_id != IDENTITY.run_id
    assert RunFolder.of(renamed, tmp_path).path == folder.path


def test_lock_is_exclusive_and_deletes_partial_files_of_killed_processes(tmp_path: Path) -> None:
    folder = written(tmp_path)
    partial = folder.path / ".best.safetensors.x.part"
    partial.touch()
    with folder.locked():
        assert partial.exists(), "another process may be evaluating a finished run"
    (folder.path / "result.json").unlink()
    with FileLock(folder.path / ".lock"), pytest.raises(BusyError, match="another process"), folder.locked():
        pytest.fail("the run is locked")
    assert partial.exists()
    with folder.locked():
        assert not partial.exists()


def test_only_changes_of_environment_are_recorded(tmp_path: Path) -> None:
    folder = written(tmp_path)
    folder.record_environment({"python": "3"}, first_epoch=2)
    folder.record_environment({"python": "4"}, first_epoch=3)
    starts = json.loads((folder.path / "environment.json").read_text())["starts"]
    assert starts == [{"first_epoch": 1, "python": "3"}, {"first_epoch": 3, "python": "4"}]


def test_accuracy_is_the_fraction_of_correct_images() -> None:
    assert RESULT.validation_accuracy == 0.5
    assert RESULT.model_copy(update={"validation_correct": None}).validation_accuracy is None
