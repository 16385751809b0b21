"""The run store: what a run's identity hangs on, and folders that are whole, foreign, damaged or of the future."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from support import TINY, prepare, tiny_recipe

from budgetnet.common.errors import BusyError, RecordError
from budgetnet.data import DataSet
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import DataRecord, Epoch, RunIdentity, RunRecord, RunResult
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
    folder.note_environment({"python": "3"}, first_epoch=1)
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
def test_whatever_determines_a_run_gives_it_a_folder_of_its_own(other: RunIdentity) -> None:
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
def test_words_for_people_do_not_make_another_run(other: RunIdentity) -> None:
    assert other.digest == IDENTITY.digest


def test_the_folder_is_named_by_label_seed_and_digest() -> None:
    assert IDENTITY.run_id == f"basic-8x1-s3-{IDENTITY.digest[:10]}"
    long_name = changed(spec=ModelSpec.resnet(channels=[8] * 32, strides=1)).run_id
    assert len(long_name) < 100


def test_what_was_written_is_read_back_exactly(tmp_path: Path) -> None:
    record = written(tmp_path).load()
    assert record == RunRecord(tmp_path / IDENTITY.run_id, IDENTITY, RESULT, tuple(EPOCHS))


def test_a_trained_folder_is_complete_and_every_file_is_whole(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    data = prepare(digits, recipe)
    folder = train(TINY, data, recipe, seed=0, out=tmp_path).folder
    names = {path.name for path in folder.iterdir()}
    documents = {"run.json", "environment.json", "result.json", "spec.yaml", "recipe.yaml"}
    assert names == {*documents, "curves.csv", "best.safetensors", ".lock"}
    found = {name: yaml.safe_load((folder / name).read_text()) for name in documents}
    for name in documents:
        if name.endswith(".json"):
            assert json.loads((folder / name).read_text()) == found[name]
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
    network = TINY.build()
    assert found["result.json"]["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_digest_is_that_of_the_parts_in_the_run_file(tmp_path: Path) -> None:
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
    # Fields that came later than the format, left out where they are off.
    assert spec["stem"].pop("whitening") is None and spec["head"].pop("scale") == 1
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


def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
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


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("harm", "rule"),
    [
        (set_field("run.json", schema_version=2), "newer budgetnet"),
        (set_field("result.json", schema_version=99), "newer budgetnet"),
        (set_field("run.json", schema_version="x"), "damaged"),
        (set_field("run.json", surprise=1), "damaged"),
        (set_field("result.json", params="many"), "damaged"),
        (put("run.json", b'{"spec": '), "damaged"),
        (put("run.json", b"[]"), "damaged"),
        (put("run.json", b""), "damaged"),
        (put("run.json", b"\xff\xfe"), "damaged"),
        (put("result.json", b"\x00"), "damaged"),
        (put("curves.csv", b"epoch,cycle\n1,1\n"), "damaged"),
        (put("curves.csv", b"epoch,cycle,learning_rate\nx,y,z\n"), "damaged"),
        (put("curves.csv", b"\xff\xfe\x00"), "damaged"),
        (put("curves.csv", b"epoch,cycle\n" + b"1" * 200_000), "damaged"),
        (lambda path: (path / "curves.csv").unlink(), "curves.csv is missing"),
        (lambda path: (path / "best.safetensors").unlink(), "best.safetensors is missing"),
        (remove("run.json"), "holds no run"),
        (remove("result.json"), "unfinished"),
    ],
)
def test_a_harmed_folder_is_told_in_one_line(tmp_path: Path, harm: Callable[[Path], None], rule: str) -> None:
    folder = written(tmp_path)
    harm(folder.path)
    with pytest.raises(RecordError, match=rule) as caught:
        folder.load()
    assert "\n" not in str(caught.value)


def test_without_weights_a_run_is_read_only_where_none_are_asked_for(tmp_path: Path) -> None:
    folder = written(tmp_path)
    whole = folder.load()
    folder.best.unlink()
    assert folder.load(weights=False) == whole
    with pytest.raises(RecordError, match=r"best\.safetensors is missing"):
        folder.load()


def test_runs_that_differ_in_their_seed_alone_share_a_digest() -> None:
    shared = IDENTITY.shared_digest
    assert changed(seed=9).shared_digest == shared
    assert changed(seed=0).digest == shared
    assert changed(device="cuda").shared_digest != shared
    assert changed(recipe=tiny_recipe(momentum=0.5)).shared_digest != shared


def test_a_run_is_found_whatever_its_network_is_called(tmp_path: Path) -> None:
    folder = written(tmp_path)
    renamed = changed(spec=TINY.replace(name="another-name"))
    assert renamed.run_id != IDENTITY.run_id
    assert RunFolder.of(renamed, tmp_path).path == folder.path


def test_one_process_at_a_time_works_on_a_run_and_clears_up_behind_a_killed_one(tmp_path: Path) -> None:
    folder = written(tmp_path)
    left = folder.path / ".best.safetensors.x.part"
    left.touch()
    with FileLock(folder.path / ".lock"), pytest.raises(BusyError, match="another process"), folder.locked():
        pytest.fail("the run is locked")
    assert left.exists()
    with folder.locked():
        assert not left.exists()


def test_a_start_elsewhere_is_noted_and_one_alike_is_not(tmp_path: Path) -> None:
    folder = written(tmp_path)
    folder.note_environment({"python": "3"}, first_epoch=2)
    folder.note_environment({"python": "4"}, first_epoch=3)
    starts = json.loads((folder.path / "environment.json").read_text())["starts"]
    assert starts == [{"first_epoch": 1, "python": "3"}, {"first_epoch": 3, "python": "4"}]


def test_the_accuracy_is_the_share_of_right_answers() -> None:
    assert RESULT.validation_accuracy == 0.5
    assert RESULT.model_copy(update={"validation_correct": None}).validation_accuracy is None
