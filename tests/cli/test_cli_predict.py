"""`budgetnet predict` compared with the network's own output."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_support import RECIPE, Runs, reference_probabilities
from export_support import create_run
from PIL import Image
from support import TINY, RunCommand, snapshot

import budgetnet as bn
from budgetnet.data import DataSet
from budgetnet.data.dataset import make_dataset
from budgetnet.runs.recipe import Views

CPU = ["--device", "cpu"]


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def pictures(digits: DataSet, folder: Path) -> list[str]:
    """The first three training images as files."""
    names = ["first.png", "second.bmp", "third.tif"]
    for name, image in zip(names, digits.train_images, strict=False):
        Image.fromarray(image[0]).save(folder / name)
    return names


def answered(tell: RunCommand, *arguments: str, code: int = 0) -> Any:
    answer = tell("predict", *arguments, *CPU, "--json")
    assert answer.code == code
    return json.loads(answer.out)


@pytest.mark.parametrize("views", ["flip", "none", "flip-and-shifts"])
def test_probabilities_match_the_network(
    digits: DataSet, tell: RunCommand, folder: Path, pictures: list[str], views: Views
) -> None:
    options = {"test_time_flip": views != "none", "test_time_shifts": views == "flip-and-shifts"}
    recipe = RECIPE.model_copy(update={**options, "precision": "bfloat16"})
    record = create_run(TINY, digits, folder / "runs", recipe=recipe)
    before = snapshot(folder)
    answer = answered(tell, str(record.folder), *pictures, "--top", "10")
    assert (answer["run"], answer["views"]) == (str(record.folder), views)
    expected = reference_probabilities(record, digits.train_images[:3], views=views)
    for row, picture, each in zip(expected, pictures, answer["images"], strict=True):
        assert (each["image"], each["error"]) == (picture, None)
        said = {entry["number"]: entry["probability"] for entry in each["predictions"]}
        assert [said[number] for number in range(10)] == pytest.approx(list(row), abs=1e-6)
        assert [entry["number"] for entry in each["predictions"]] == np.argsort(-row).tolist()
        assert sum(said.values()) == pytest.approx(1)
    assert snapshot(folder) == before


def test_most_probable_classes_are_shown_by_name(
    runs: Runs, digits: DataSet, tell: RunCommand, pictures: list[str]
) -> None:
    (record,) = runs("good0")
    answer = tell("predict", "good0", *pictures, "--top", "2", *CPU)
    assert (answer.code, answer.err) == (0, "")
    lines = [line.replace("│", " ").split() for line in answer.out.splitlines() if "│" in line]
    expected = reference_probabilities(record, digits.train_images[:3], views="flip")
    shown = []
    for picture, row in zip(pictures, expected, strict=True):
        first, second = np.argsort(-row)[:2]
        shown += [[picture, digits.class_names[first], f"{100 * row[first]:.2f}"]]
        shown += [[digits.class_names[second], f"{100 * row[second]:.2f}"]]
    assert lines == shown


def test_unreadable_images_are_reported_and_others_predicted(runs: Runs, tell: RunCommand, pictures: list[str]) -> None:
    runs("good0")
    Path("bad.png").write_bytes(b"no picture")
    whole = answered(tell, "good0", *pictures)
    mixed = tell("predict", "good0", "bad.png", pictures[0], "none.png", *pictures[1:], *CPU, "--json")
    assert mixed.code == 2
    assert mixed.err.splitlines() == [
        "error: IMAGE = 'bad.png': is not a valid image: its content is of no known kind",
        "error: IMAGE = 'none.png': no such file",
    ]
    images = json.loads(mixed.out)["images"]
    assert [images[place] for place in (1, 3, 4)] == whole["images"]
    assert images[0] == {
        "image": "bad.png",
        "error": "is not a valid image: its content is of no known kind",
        "predictions": [],
    }
    table = tell("predict", "good0", "bad.png", pictures[0], *CPU)
    assert (table.code, "first.png" in table.out, "bad.png" in table.out) == (2, True, False)
    alone = tell("predict", "good0", "bad.png", *CPU)
    assert (alone.code, alone.out, len(alone.err.splitlines())) == (2, "", 1)


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_folder_is_predicted_into_a_table(runs: Runs, digits: DataSet, tell: RunCommand, pictures: list[str]) -> None:
    (record,) = runs("good0")
    inner = Path("photos", "inner")
    inner.mkdir(parents=True)
    Path(pictures[1]).rename(inner / "a.BMP")
    Path(pictures[0]).rename("photos/z.png")
    Path("photos/bad.png").write_bytes(b"no picture")
    Path("photos/notes.txt").write_text("no picture either")
    Path("photos/.hidden.png").write_bytes(b"no picture either")
    answer = tell("predict", "good0", "photos", pictures[2], *CPU, "--csv", "out.csv")
    assert (answer.code, answer.out) == (2, "wrote 3 predictions to out.csv\n")
    assert answer.err == "error: IMAGE = 'photos/bad.png': is not a valid image: its content is of no known kind\n"
    bad, second, first, third = rows_of("out.csv")
    expected = reference_probabilities(record, digits.train_images[:3], views="flip")
    names = ["photos/z.png", "photos/inner/a.BMP", pictures[2]]
    for row, image, scores in zip([first, second, third], names, expected, strict=True):
        assert (row["image"], row["class"], row["error"]) == (image, digits.class_names[scores.argmax()], "")
        told = [float(row[f"probability {name}"]) for name in digits.class_names]
        assert told == pytest.approx(list(scores), rel=1e-4, abs=1e-7)
        assert float(row["probability"]) == max(told)
    assert (bad["image"], bad["class"], bad["probability 0"]) == ("photos/bad.png", "", "")
    assert "no known kind" in bad["error"]
    assert answered(tell, "good0", "photos", code=2)["images"][1]["image"] == "photos/inner/a.BMP"


def test_a_pattern_is_predicted_into_labels(runs: Runs, digits: DataSet, tell: RunCommand, pictures: list[str]) -> None:
    (record,) = runs("good0")
    Path("photos").mkdir()
    for number, picture in enumerate(pictures):
        Path(picture).rename(f"photos/{number}{Path(picture).suffix}")
    answer = tell("predict", "good0", "photos/[0-9].*", *CPU, "--labels", "out.csv")
    assert (answer.code, answer.out, answer.err) == (0, f"wrote {len(pictures)} labels to out.csv\n", "")
    expected = reference_probabilities(record, digits.train_images[: len(pictures)], views="flip").argmax(1)
    rows = [f"{number},{label}" for number, label in enumerate(expected)]
    assert Path("out.csv").read_text().splitlines() == ["ID,Labels", *rows]
    before = Path("out.csv").read_bytes()
    Path("photos/9.png").write_bytes(b"no picture")
    for images, complaint in (("photos/*", "'photos/9.png': is not a valid image"), ("x*", "no file matches")):
        refused = tell("predict", "good0", images, *CPU, "--labels", "out.csv")
        assert refused.code == 2
        assert complaint in refused.err
        assert Path("out.csv").read_bytes() == before


@pytest.mark.parametrize("keys", [["images"], ["anything"], ["images", "more"]])
def test_images_of_an_array_are_predicted(
    runs: Runs, digits: DataSet, tell: RunCommand, folder: Path, keys: list[str]
) -> None:
    (record,) = runs("good0")
    images = digits.train_images[:1200, 0]
    arrays: dict[str, Any] = dict.fromkeys(keys, images)
    np.savez("some.npz", **arrays)
    assert tell("predict", "good0", "some.npz", *CPU, "--csv", "out.csv").code == 0
    rows = rows_of("out.csv")
    assert [row["image"] for row in rows] == [f"some.npz[{index}]" for index in range(1200)]
    expected = reference_probabilities(record, digits.train_images[:1200], views="flip")
    assert [row["class"] for row in rows] == [digits.class_names[each] for each in expected.argmax(axis=1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(list(expected.max(axis=1)), rel=1e-4)


def test_an_array_is_predicted_as_the_same_pictures_are(runs: Runs, digits: DataSet, folder: Path) -> None:
    (record,) = runs("good0")
    digit = Image.fromarray(digits.train_images[0, 0])
    digit.save("small.png")
    # Colour of another size: converted and scaled.
    digit.convert("RGB").resize((24, 24)).save("large.png")
    for name in ("small.png", "large.png"):
        array = np.asarray(Image.open(name))[np.newaxis]
        of_array, of_file = (bn.predict(record.folder, each, device="cpu") for each in (array, name))
        assert of_array[0].top_classes(10) == of_file[0].top_classes(10) != []
        assert [each.to_csv().splitlines()[1].split(",")[0] for each in (of_array, of_file)] == ["0", name]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"train_images": [1], "train_labels": [1]},
            "must contain an array images, or a single array",
        ),
        ({"images": np.zeros((2, 8, 8))}, "images must be uint8, values 0 to 255, not float64"),
        ({"images": np.zeros((2, 8, 8, 4), dtype=np.uint8)}, "(n, height, width, 1 or 3), not (2, 8, 8, 4)"),
        ({"images": np.array([{}])}, "not pickled objects"),
    ],
    ids=["data set", "dtype", "channels", "pickle"],
)
def test_unusable_arrays_are_refused(runs: Runs, tell: RunCommand, arrays: dict[str, Any], message: str) -> None:
    runs("good0")
    np.savez("odd.npz", **arrays)
    answer = tell("predict", "good0", "odd.npz", *CPU)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert "IMAGE = 'odd.npz': " in answer.err
    assert message in answer.err


def test_a_folder_without_images_and_a_table_that_cannot_be_written_are_refused(
    runs: Runs, tell: RunCommand, pictures: list[str]
) -> None:
    runs("good0")
    Path("empty").mkdir()
    for arguments, message in (
        (["empty"], "IMAGE = 'empty': the folder holds no image file (.png"),
        ([pictures[0], "--csv", f"{pictures[0]}/out.csv"], "--csv = 'first.png': must be a writable folder"),
        ([pictures[0], "--csv", "empty"], "--csv = 'empty': must be a file, not a folder"),
        ([pictures[0], "--csv", f"./{pictures[0]}"], "--csv = 'first.png': must be another file than the images"),
        ([pictures[0], "--csv", "a", "--labels", "a"], "--labels = 'a': must be another file than that of --csv"),
        ([pictures[0], "--labels", "good0/curves.csv"], "--labels = 'good0/curves.csv': must not be a file of a run"),
    ):
        answer = tell("predict", "good0", *arguments, *CPU)
        assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
        assert message in answer.err


def animals() -> DataSet:
    generator = np.random.default_rng(0)
    return make_dataset(
        name="folder:animals",
        train_images=generator.integers(0, 256, (250, 8, 8, 3), dtype=np.uint8),
        train_labels=np.arange(250) % 2,
        test_images=generator.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8),
        test_labels=np.arange(4) % 2,
        class_names=["cat [of prey]", "dog"],
        provenance="made for a test",
    )


def test_class_names_come_from_the_run_or_are_numbers(tell: RunCommand, folder: Path, pictures: list[str]) -> None:
    kept = create_run(TINY, animals(), folder / "kept")
    assert "cat [of prey]" in tell("predict", str(kept.folder), *pictures, *CPU).out
    # A version that kept no names, and its data set is gone.
    bare = create_run(TINY, animals(), folder / "bare", class_names=None)
    answer = answered(tell, str(bare.folder), pictures[0])
    assert {each["class"] for each in answer["images"][0]["predictions"]} == {"0", "1"}


def test_class_names_come_from_data_set_if_not_stored(
    digits: DataSet, tell: RunCommand, folder: Path, pictures: list[str]
) -> None:
    names = [f"sign {number}" for number in range(10)]
    np.savez(
        "signs.npz",
        train_images=digits.train_images[:, 0],
        train_labels=digits.train_labels,
        test_images=digits.train_images[:20, 0],
        test_labels=digits.train_labels[:20],
        class_names=np.array(names),
    )
    from budgetnet.data import load_dataset

    record = create_run(TINY, load_dataset("arrays:signs.npz"), folder / "runs", class_names=None)
    answer = answered(tell, str(record.folder), pictures[0], "--top", "10")
    assert {each["class"] for each in answer["images"][0]["predictions"]} == set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "first.png"], "no such folder"),
        (["diverged", "first.png"], "has no result"),
        (["good0", "first.png", "--top", "0"], "--top"),
        (["good0", "first.png", "--device", "tpu"], "--device"),
        (["good0"], "Missing argument 'IMAGE"),
    ],
)
def test_bad_input_gives_one_line(
    runs: Runs, tell: RunCommand, pictures: list[str], arguments: list[str], message: str
) -> None:
    runs("diverged", "good0")
    answer = tell("predict", *arguments)
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (2, "", 1)
    assert message in answer.err
